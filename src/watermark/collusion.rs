//! What colluders did to the copy mark, as far as the suspect shows it. Never sees the word of a label that is not
//! accused already.
//!
//! If `m` of `k` colluders have a 1 at a position, what is found there is taken for normal, with a mean and a variance
//! for each `m`: all that averaging, voting, picking and later quantisation do to a position can be said in these.
//! `m` is binomial, as the biases of the code are known, so means and variances come out by expectation maximisation
//! (Dempster, Laird, Rubin 1977), and `k` by the Bayesian information criterion. The result is only used to weight what
//! is found: a poor fit costs power, never validity.

use std::ops::Range;

use rayon::prelude::*;

/// The numbers of colluders that are tried.
const COLLUDERS: [usize; 22] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 24, 28, 32];
/// Positions on which they are tried, about.
const SAMPLE: usize = 8192;
/// Rounds of expectation maximisation, on the sample and on all positions.
const ROUNDS: [usize; 2] = [24, 24];
/// Rounds end when the logarithm of the likelihood grows by less.
const SETTLED: f64 = 0.01;
/// Once fitted, the number of colluders is looked for so near only.
const NEAR: usize = 3;
/// Positions summed between two merges.
const CHUNK: usize = 2048;
/// Numbers of ones so many natural logarithms less probable than the most probable one are left out.
const NEGLIGIBLE: f64 = 40.0;
/// Variances stay above this part of that of all that was found.
const LEAST_VARIANCE: f64 = 0.002;

/// What is found at one position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    /// Signal, in standard deviations.
    pub(super) value: f64,
    /// How far a whole mark would move it, in units of the same for all.
    pub(super) reach: f64,
    /// Logarithms of the probability of a 1 and of a 0 in any word.
    ln_p: f64,
    ln_q: f64,
    /// How many of those accused already have a 1.
    pub(super) ones: usize,
}

impl Observation {
    /// Where the probability of a 1 is `p`, and nobody is accused yet.
    pub(super) fn new(value: f64, reach: f64, p: f64) -> Self {
        Self { value, reach, ln_p: libm::log(p), ln_q: libm::log(1.0 - p), ones: 0 }
    }
}

/// What is known of the colluders.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Colluders {
    /// How many are accused.
    pub(super) accused: usize,
    /// How many there are, as fitted last.
    pub(super) fitted: Option<usize>,
}

/// For each position the expected share of ones among the colluders who are not accused yet, of whom there is at
/// least one.
pub(super) fn shares(found: &[Observation], colluders: &mut Colluders) -> Vec<f64> {
    let accused = colluders.accused;
    let is_near = |k: &usize| colluders.fitted.is_none_or(|fitted| k.abs_diff(fitted.max(accused + 1)) <= NEAR);
    let stride = found.len().div_ceil(SAMPLE).max(1);
    let sample: Vec<Observation> = found.iter().step_by(stride).copied().collect();
    let tried = COLLUDERS.into_par_iter().filter(|k| *k > accused && is_near(k)).map(|k| {
        let mut channel = Channel::flat(&sample, accused, k - accused);
        let likelihood = channel.fit(&sample, ROUNDS[0]);
        let penalty = (k + 1) as f64 * (sample.len().max(1) as f64).ln();
        (likelihood - penalty, channel)
    });
    let tried: Vec<_> = tried.collect();
    let best = tried.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    let mut channel = best.map_or_else(|| Channel::flat(found, accused, 1), |(_, channel)| channel);
    channel.fit(found, ROUNDS[1]);
    colluders.fitted = Some(accused + channel.unknown);
    let unknown = channel.unknown as f64;
    found.par_iter().map(|at| channel.posterior(at, &mut Vec::new()).expected / unknown).collect()
}

/// What is found where so many colluders have a 1.
#[derive(Clone, Debug)]
struct Channel {
    accused: usize,
    unknown: usize,
    /// Mean, at reach 1, and variance for each number of ones.
    levels: Vec<Level>,
    /// Logarithms of the binomial coefficients of the unknown.
    ln_choose: Vec<f64>,
    /// Variance of all that was found.
    spread: f64,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    mean: f64,
    /// Half of the inverse of the variance.
    sharpness: f64,
    /// Logarithm of the density at the mean, but for a constant.
    ln_scale: f64,
}

impl Level {
    fn new(mean: f64, variance: f64) -> Self {
        Self { mean, sharpness: 0.5 / variance, ln_scale: -0.5 * libm::log(variance) }
    }
}

/// Sums over positions for one level, each weighted with the probability of the level.
#[derive(Clone, Copy, Default)]
struct Moments {
    weight: f64,
    yy: f64,
    yh: f64,
    hh: f64,
}

struct Posterior {
    /// Expected ones among the unknown.
    expected: f64,
    ln_likelihood: f64,
}

impl Channel {
    /// Where every number of ones looks alike.
    fn flat(found: &[Observation], accused: usize, unknown: usize) -> Self {
        let spread = found.iter().map(|at| at.value * at.value).sum::<f64>() / found.len().max(1) as f64;
        let spread = spread.max(f64::MIN_POSITIVE);
        let levels = vec![Level::new(0.0, spread); accused + unknown + 1];
        let mut ln_choose = vec![0.0; unknown + 1];
        for i in 1..=unknown {
            ln_choose[i] = ln_choose[i - 1] + libm::log((unknown + 1 - i) as f64 / i as f64);
        }
        Self { accused, unknown, levels, ln_choose, spread }
    }

    /// Some rounds of expectation maximisation. Returns the logarithm of the likelihood before the last.
    fn fit(&mut self, found: &[Observation], rounds: usize) -> f64 {
        let mut likelihood = f64::NEG_INFINITY;
        for _ in 0..rounds {
            let (moments, ln_likelihood) = self.expect(found);
            for (level, sums) in self.levels.iter_mut().zip(moments) {
                let mean = sums.yh / sums.hh.max(f64::MIN_POSITIVE);
                let left = sums.yy - mean * (2.0 * sums.yh - mean * sums.hh);
                // one position more, of the spread of all: levels that hardly occur stay wide
                let variance = (left + self.spread) / (sums.weight + 1.0);
                *level = Level::new(mean, variance.max(LEAST_VARIANCE * self.spread));
            }
            if ln_likelihood - likelihood < SETTLED {
                return ln_likelihood;
            }
            likelihood = ln_likelihood;
        }
        likelihood
    }

    /// Moments of each level, and the logarithm of the likelihood, summed in order.
    fn expect(&self, found: &[Observation]) -> (Vec<Moments>, f64) {
        let sums = found.par_chunks(CHUNK).map(|chunk| {
            let (mut moments, mut likelihood) = (vec![Moments::default(); self.levels.len()], 0.0);
            let mut weights = Vec::new();
            for at in chunk {
                let posterior = self.posterior(at, &mut weights);
                likelihood += posterior.ln_likelihood;
                let (y, h) = (at.value, at.reach);
                for (sums, weight) in moments[self.possible(at)].iter_mut().zip(&weights) {
                    sums.weight += weight;
                    sums.yy += weight * y * y;
                    sums.yh += weight * y * h;
                    sums.hh += weight * h * h;
                }
            }
            (moments, likelihood)
        });
        let mut total = (vec![Moments::default(); self.levels.len()], 0.0);
        for (moments, likelihood) in sums.collect::<Vec<_>>() {
            total.1 += likelihood;
            for (total, sums) in total.0.iter_mut().zip(moments) {
                total.weight += sums.weight;
                total.yy += sums.yy;
                total.yh += sums.yh;
                total.hh += sums.hh;
            }
        }
        total
    }

    /// The numbers of ones that are possible at a position.
    fn possible(&self, at: &Observation) -> Range<usize> {
        let ones = at.ones.min(self.accused);
        ones..ones + self.unknown + 1
    }

    /// How probable each possible number of ones is, given what is found.
    fn posterior(&self, at: &Observation, weights: &mut Vec<f64>) -> Posterior {
        weights.clear();
        let priors = self.ln_choose.iter().enumerate();
        let priors = priors.map(|(i, choose)| choose + i as f64 * at.ln_p + (self.unknown - i) as f64 * at.ln_q);
        let levels = &self.levels[self.possible(at)];
        weights.extend(levels.iter().zip(priors).map(|(level, prior)| {
            let off = at.value - level.mean * at.reach;
            prior + level.ln_scale - level.sharpness * off * off
        }));
        let top = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        weights.iter_mut().for_each(|w| *w = if *w > top - NEGLIGIBLE { libm::exp(*w - top) } else { 0.0 });
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
        let expected = weights.iter().enumerate().map(|(i, weight)| i as f64 * weight).sum();
        Posterior { expected, ln_likelihood: top + libm::log(sum) }
    }
}
