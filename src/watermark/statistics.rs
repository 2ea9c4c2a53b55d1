//! Proved bounds on tail probabilities. Everything is a base-10 logarithm, so that nothing underflows.

use std::f64::consts::{LN_10, PI, SQRT_2};

use rayon::prelude::*;

/// `1 / (4 P(N >= sqrt 2))`, the best constant in the bound of Bentkus and Dzindzalieta (Bernoulli 21(2), 2015).
const C: f64 = 3.178_655_565_886_997;

/// Bound on the probability that a keyed sum reaches `z` by chance.
///
/// For independent random signs `s` and any fixed numbers `u`, `P(sum s u >= z sqrt(sum u^2)) <= 3.1787 Q(z)`,
/// where `Q` is the upper tail of the normal distribution. It holds for every `u`: heavy tails, outliers, zeros.
pub fn log10_p(z: f64) -> f64 {
    if z <= 0.0 || z.is_nan() { 0.0 } else { ((C.ln() + ln_q(z)) / LN_10).min(0.0) }
}

/// Natural logarithm of the upper tail of the standard normal distribution, `z > 0`.
fn ln_q(z: f64) -> f64 {
    if z < 30.0 {
        return (0.5 * libm::erfc(z / SQRT_2)).ln();
    }
    // asymptotic series (Abramowitz and Stegun 26.2.12); the error is below the last term, 15 / z^6
    let s = 1.0 / (z * z);
    -0.5 * z * z - z.ln() - 0.5 * (2.0 * PI).ln() + (1.0 - s * (1.0 - s * (3.0 - s * 15.0))).ln()
}

/// Bounds on the probability that an innocent's score is as high as a given one.
///
/// The score is a sum of independent terms, term `i` being `high[i]` with probability `p[i]` and `low[i]` otherwise
/// (Chernoff): `P(S >= t) <= min over l of exp(-l t + K(l))`, `K(l) = sum ln(p e^(l high) + (1 - p) e^(l low))`.
/// Every `l` gives a valid bound. `K` does not depend on the score, so it is tabulated once.
pub(super) struct ScoreBound {
    /// Pairs of `l` and `K(l)`.
    table: Vec<(f64, f64)>,
}

impl ScoreBound {
    pub(super) fn new(terms: &[ScoreTerm]) -> Self {
        let variance: f64 = terms.iter().map(|t| t.p * t.high * t.high + (1.0 - t.p) * t.low * t.low).sum();
        let unit = 1.0 / variance.max(f64::MIN_POSITIVE).sqrt();
        // from 0.05 to 550 standard deviations, in steps of 6 %: within 0.1 % of the best exponent in between
        let table = (0..160).into_par_iter().map(|step| {
            let l = 0.05 * unit * 1.06f64.powi(step);
            (l, terms.iter().map(|term| term.ln_mean_exp(l)).sum())
        });
        Self { table: table.collect() }
    }

    pub(super) fn log10_p(&self, score: f64) -> f64 {
        self.table.iter().map(|(l, k)| (k - l * score) / LN_10).fold(0.0, f64::min)
    }
}

/// One position of a score: what it adds if the innocent's bit is 1 (with probability `p`), and if it is 0.
pub(super) struct ScoreTerm {
    pub(super) p: f64,
    pub(super) high: f64,
    pub(super) low: f64,
}

impl ScoreTerm {
    fn ln_mean_exp(&self, l: f64) -> f64 {
        let (a, b) = (self.p.ln() + l * self.high, (-self.p).ln_1p() + l * self.low);
        let top = a.max(b);
        top + ((a - top).exp() + (b - top).exp()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_matches_known_tails() {
        // thresholds of spec/watermark.md
        for (bits, z) in [(40.0, 7.207), (64.0, 9.205), (80.0, 10.329), (128.0, 13.144)] {
            assert!((log10_p(z) + bits * 2f64.log10()).abs() < 0.005, "{z}");
        }
        assert_eq!(log10_p(-3.0), 0.0);
        assert_eq!(log10_p(0.1), 0.0);
        assert_eq!(log10_p(f64::NAN), 0.0);
        // the two branches meet, and the tail goes on for ever
        assert!((ln_q(30.0 - 1e-9) - ln_q(30.0)).abs() < 1e-6);
        assert!((log10_p(2651.0) + 1_526_070.917_36).abs() < 1e-4, "{}", log10_p(2651.0));
        assert!((1.0 / (2.0 * libm::erfc(1.0)) - C).abs() < 1e-12);
    }

    #[test]
    fn the_score_bound_holds_for_fair_signs() {
        let terms: Vec<_> = (0..100).map(|_| ScoreTerm { p: 0.5, high: 1.0, low: -1.0 }).collect();
        // P(S >= 40) for 100 fair signs is P(Binomial(100, 1/2) >= 70) = 3.925e-5
        let bound = ScoreBound::new(&terms);
        let p = 10f64.powf(bound.log10_p(40.0));
        assert!((3.925e-5..3e-4).contains(&p), "{p}");
        assert_eq!(bound.log10_p(-1.0), 0.0);
    }
}
