//! Which copy: words of a Tardos code (Tardos 2003; biases and cutoff as Škorić, Katzenbeisser and Celik 2008), one for
//! each label, and who of a list took part in making a suspect.
//!
//! Tracing goes in rounds. In each, what is found at a position gets a weight for a 1 and one for a 0 of a word there:
//! the logarithm of how much likelier it is with such a colluder (Meerwald and Furon, "Toward practical joint decoding of
//! binary Tardos fingerprinting codes", 2012), under a fit of what the colluders did ([`super::collusion`]). A label's
//! score is the sum of its weights. Whoever is accused is known to the next round, where others stand out more.
//!
//! An innocent's word is independent of the suspect, of the fit and of all other words, so whatever the weights, his
//! score is a sum of independent terms of known distribution. Being accused in some round is being accused in one of
//! the rounds that the other labels alone would have led to, of which there are at most [`ROUNDS`]: p-values are
//! multiplied by that number, and by that of the labels.

use std::collections::HashSet;

use rayon::prelude::*;

use super::collusion::{Colluders, Observation, shares};
use super::keystream::Key;
use super::statistics::{ScoreBound, ScoreTerm};
use crate::error::Result;
use crate::io::progress::{Progress, step};

/// Positions of the code: enough to name sixteen colluders among a million copies.
pub(super) const CODE_LEN: usize = 65_536;
/// Biases stay this far from 0 and 1.
const CUTOFF: f64 = 1.0 / (300.0 * 20.0);
/// Rounds of tracing.
const ROUNDS: usize = 10;
/// A label is taken for guilty in the rounds that follow below this p-value.
const LOG10_GUILTY: f64 = -9.0;
/// A label is looked at again below this p-value, not corrected for the number of labels.
const LOG10_SUSPICIOUS: f64 = -2.0;
/// The share of positions where anything may be found, whatever the words: bounds the weight of a single position.
const UNRELIABLE: f64 = 0.01;
/// Units of a weight's natural logarithm in which scores are summed, as integers: the same in every order.
const UNITS: f64 = 65_536.0;
/// Positions summed in 32 bits. A term is at most `ln(99 * 6000 + 1) * UNITS < 2^20`.
const LANE: usize = 1024;

/// The biases of the code, under a key of their own: at position `i` a copy's bit is 1 with probability
/// `thresholds[i] / 2^32`.
pub(super) struct Code {
    key: Key,
    thresholds: Vec<u32>,
}

impl Code {
    pub(super) fn new(key: Key) -> Self {
        let edge = libm::asin(libm::sqrt(CUTOFF));
        let width = std::f64::consts::FRAC_PI_2 - 2.0 * edge;
        let uniforms = key.derive(&[b"tardos-p"]).uniforms("", CODE_LEN);
        let threshold = |u: f64| {
            let s = libm::sin(edge + u * width);
            (s * s * 4_294_967_296.0).ceil() as u32
        };
        Self { key, thresholds: uniforms.into_iter().map(threshold).collect() }
    }

    /// The word of the copy called `label`.
    pub(super) fn word(&self, label: &str) -> Vec<bool> {
        let words = self.word_key(label).words("", CODE_LEN);
        words.into_iter().zip(&self.thresholds).map(|(word, threshold)| word < *threshold).collect()
    }

    fn word_key(&self, label: &str) -> Key {
        self.key.derive(&[b"cust", label.as_bytes()])
    }

    /// How well signal and variance at each position fit each label: a bound on the probability that any of those on
    /// the list would fit as well if their copies had not leaked.
    pub(super) fn trace(&self, copy: &[(f64, f64)], labels: &[String], progress: &dyn Progress) -> Result<Vec<f64>> {
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        let mut log10_p = vec![0.0f64; labels.len()];
        let mut found = self.observations(copy);
        let mut open: Vec<usize> = (0..labels.len()).collect();
        let mut guilty: HashSet<&str> = HashSet::new();
        let mut colluders = Colluders::default();
        let correction = ((labels.len() * ROUNDS) as f64).log10();
        for _ in 0..ROUNDS {
            if open.is_empty() || found.iter().all(|at| at.is_none()) {
                break;
            }
            progress.begin("trace", (open.len() * CODE_LEN * 4) as u64);
            let decoder = Decoder::new(&self.thresholds, &found, &mut colluders);
            let bounds = open.par_iter().map(|label| {
                step(progress, (CODE_LEN * 4) as u64)?;
                Ok(decoder.bound.log10_p(decoder.score(&self.word_key(&labels[*label]))))
            });
            let bounds: Vec<f64> = bounds.collect::<Result<_>>()?;
            let mut next = Vec::new();
            for (label, bound) in open.into_iter().zip(bounds) {
                let p = (bound + correction).min(0.0);
                log10_p[label] = log10_p[label].min(p);
                if p > LOG10_GUILTY {
                    if bound <= LOG10_SUSPICIOUS {
                        next.push(label);
                    }
                } else if guilty.insert(&labels[label]) {
                    let word = self.word(&labels[label]);
                    found.iter_mut().zip(word).filter(|(_, bit)| *bit).for_each(|(at, _)| {
                        at.iter_mut().for_each(|at| at.ones += 1);
                    });
                }
            }
            if guilty.len() == colluders.accused {
                break;
            }
            colluders.accused = guilty.len();
            open = next;
        }
        Ok(log10_p)
    }

    /// What is found at each position, where there is anything.
    fn observations(&self, copy: &[(f64, f64)]) -> Vec<Option<Observation>> {
        let is_there = |(signal, variance): &(f64, f64)| signal.is_finite() && variance.is_finite() && *variance > 0.0;
        let filled = copy.iter().filter(|at| is_there(at)).count().max(1);
        let mean = copy.iter().filter(|at| is_there(at)).map(|(_, variance)| variance).sum::<f64>() / filled as f64;
        let observation = |(at, threshold): (&(f64, f64), &u32)| {
            let (signal, variance) = *at;
            let (value, reach) = (signal / variance.sqrt(), (variance / mean).sqrt());
            is_there(at).then(|| Observation::new(value, reach, probability(*threshold)))
        };
        copy.iter().zip(&self.thresholds).map(observation).collect()
    }
}

fn probability(threshold: u32) -> f64 {
    f64::from(threshold) / 4_294_967_296.0
}

/// The weights of one round.
struct Decoder<'a> {
    thresholds: &'a [u32],
    /// What a 1 adds at each position beyond what a 0 does.
    gains: Vec<i32>,
    /// What zeros alone add up to.
    base: i64,
    bound: ScoreBound,
}

impl<'a> Decoder<'a> {
    fn new(thresholds: &'a [u32], found: &[Option<Observation>], colluders: &mut Colluders) -> Self {
        let seen: Vec<Observation> = found.iter().flatten().copied().collect();
        let mut shares = shares(&seen, colluders).into_iter();
        let weight = |likelihood: f64| (libm::log((1.0 - UNRELIABLE) * likelihood + UNRELIABLE) * UNITS).round() as i32;
        let weights = thresholds.iter().zip(found).map(|(threshold, at)| {
            let share = at.and_then(|_| shares.next()).filter(|share| share.is_finite());
            let p = probability(*threshold);
            share.map_or((0, 0), |share| (weight(share / p), weight((1.0 - share) / (1.0 - p))))
        });
        let weights: Vec<(i32, i32)> = weights.collect();
        let term = |((high, low), threshold): (&(i32, i32), &u32)| ScoreTerm {
            p: probability(*threshold),
            high: f64::from(*high) / UNITS,
            low: f64::from(*low) / UNITS,
        };
        let terms: Vec<_> = weights.iter().zip(thresholds).map(term).collect();
        Self {
            thresholds,
            gains: weights.iter().map(|(high, low)| high - low).collect(),
            base: weights.iter().map(|(_, low)| i64::from(*low)).sum(),
            bound: ScoreBound::new(&terms),
        }
    }

    /// The score of a word.
    fn score(&self, word: &Key) -> f64 {
        let mut keystream = word.keystream("");
        let mut bytes = [0; LANE * 4];
        let mut sum = self.base;
        for (thresholds, gains) in self.thresholds.chunks(LANE).zip(self.gains.chunks(LANE)) {
            keystream(&mut bytes);
            sum += i64::from(gain(&bytes, thresholds, gains));
        }
        sum as f64 / UNITS
    }
}

/// The sum of the gains where the bit is 1, without branches.
fn gain(words: &[u8; LANE * 4], thresholds: &[u32], gains: &[i32]) -> i32 {
    let terms = words.as_chunks().0.iter().zip(thresholds).zip(gains);
    let terms = terms.map(|((word, threshold), gain)| if u32::from_le_bytes(*word) < *threshold { *gain } else { 0 });
    terms.fold(0, i32::wrapping_add) // never wraps: see `LANE`
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found at each position when colluders' bits are turned into a level by `attack`, given how many have a 1,
    /// and noise of this deviation is added.
    fn found(code: &Code, colluders: &[String], noise: f64, attack: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        let words: Vec<_> = colluders.iter().map(|label| code.word(label)).collect();
        let uniforms = Key::new([5; 32]).uniforms("noise", 2 * CODE_LEN);
        let normal = |u: &[f64]| (-2.0 * (1.0 - u[0]).ln()).sqrt() * (std::f64::consts::TAU * u[1]).cos();
        let position = |(i, u)| {
            let ones = words.iter().filter(|word| word[i]).count();
            // at every seventh position nothing is found, the others differ in how much of the copy mark they carry
            let variance = f64::from((i % 7) as u8) / 3.0;
            (variance * attack(ones) + variance.sqrt() * noise * normal(u), variance)
        };
        uniforms.chunks(2).enumerate().map(position).collect()
    }

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("copy-{i}")).collect()
    }

    #[test]
    fn a_single_copy_is_found_and_nobody_else() {
        let (code, labels) = (Code::new(Key::new([1; 32])), labels(300));
        for noise in [0.0, 1.0, 8.0] {
            let found = found(&code, &labels[7..8], noise, |ones| 2.0 * ones as f64 - 1.0);
            let log10_p = code.trace(&found, &labels, &()).unwrap();
            assert!(log10_p[7] < -30.0, "{noise}: {}", log10_p[7]);
            assert!(log10_p.iter().enumerate().all(|(i, p)| i == 7 || *p > -3.0));
        }
    }

    #[test]
    fn colluders_are_found_whatever_they_agree_on() {
        let (code, labels) = (Code::new(Key::new([1; 32])), labels(100));
        let k = 8;
        let unanimous = |ones: usize, else_: f64| [-1.0, else_, 1.0][usize::from(ones > 0) + usize::from(ones == k)];
        let vote = |ones: usize| (ones as f64 - 4.0).clamp(-1.0, 1.0);
        let mean = |ones: usize| ones as f64 / 4.0 - 1.0;
        let minority = |ones: usize| if ones == 0 || ones == k { mean(ones) } else { -vote(ones) };
        let nothing = |ones: usize| unanimous(ones, 0.0);
        let attacks: [(&str, &dyn Fn(usize) -> f64); 4] =
            [("mean", &mean), ("majority", &vote), ("minority", &minority), ("midpoint", &nothing)];
        for (name, attack) in attacks {
            let log10_p = code.trace(&found(&code, &labels[..k], 1.0, attack), &labels, &()).unwrap();
            assert!(log10_p[..k].iter().all(|p| *p < -9.0), "{name}: {:?}", &log10_p[..k]);
            assert!(log10_p[k..].iter().all(|p| *p > -3.0), "{name}");
        }
    }

    #[test]
    fn where_nothing_is_found_nobody_is_accused() {
        let (code, labels) = (Code::new(Key::new([1; 32])), labels(3));
        let cases = [vec![], vec![(0.0, 0.0); CODE_LEN], vec![(0.0, 1.0); CODE_LEN], vec![(f64::NAN, 1.0); CODE_LEN]];
        for found in cases.into_iter().chain([vec![(f64::INFINITY, f64::INFINITY); CODE_LEN], vec![(1.0, 1.0); 3]]) {
            assert!(code.trace(&found, &labels, &()).unwrap().iter().all(|p| *p > -3.0));
        }
        assert!(code.trace(&[(1.0, 1.0)], &[], &()).unwrap().is_empty());
    }

    #[test]
    fn words_agree_with_scores() {
        let code = Code::new(Key::new([1; 32]));
        let found = found(&code, &labels(2), 1.0, |ones| ones as f64 - 1.0);
        let decoder = Decoder::new(&code.thresholds, &code.observations(&found), &mut Colluders::default());
        let gains = code.word("a").into_iter().zip(&decoder.gains).filter(|(bit, _)| *bit);
        let expected = decoder.base + gains.map(|(_, gain)| i64::from(*gain)).sum::<i64>();
        assert_eq!(decoder.score(&code.word_key("a")), expected as f64 / UNITS);
        assert!(decoder.gains.iter().all(|gain| gain.unsigned_abs() < 1 << 20));
    }
}
