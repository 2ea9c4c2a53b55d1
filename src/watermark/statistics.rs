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

/// The upper tail of the standard normal distribution.
pub(super) fn normal_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z / SQRT_2)
}

/// Bound on the probability that cosines of independent phases, uniform over the turn, reach their weighted sum.
///
/// Since `e^(l cos)` has mean `I0(l)`, the modified Bessel function (Chernoff): `P(sum w cos >= t) <= min over l of
/// exp(sum ln I0(l w) - l t)`. Only the ratios of the weights matter.
pub(super) fn log10_p_cosines(terms: &[CosineTerm]) -> f64 {
    let total: f64 = terms.iter().map(|term| term.weight).sum();
    let unit = terms.len() as f64 / total.max(f64::MIN_POSITIVE);
    let sum: f64 = terms.iter().map(|term| unit * term.weight * term.cosine).sum();
    let exponent = |step: i32| {
        let l = 0.01 * 1.1f64.powi(step); // up to 2 million: phases known to a thousandth of a turn and better
        terms.iter().map(|term| ln_bessel_i0(l * unit * term.weight)).sum::<f64>() - l * sum
    };
    if sum > 0.0 { (0..200).map(exponent).fold(0.0, f64::min) / LN_10 } else { 0.0 }
}

/// The cosine of the phase of one group, and what weight it has beside others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CosineTerm {
    pub(super) cosine: f64,
    pub(super) weight: f64,
}

/// Natural logarithm of the modified Bessel function of the first kind of order 0, `x >= 0`, to a relative 1e-14.
///
/// The power series (Abramowitz and Stegun 9.6.12), all of whose terms are positive, up to 30; beyond, the asymptotic
/// one (9.7.1), whose terms fall to `e^(-2x)` there.
fn ln_bessel_i0(x: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 0.0);
    if x <= 30.0 {
        for k in 1..100 {
            term *= (0.5 * x / f64::from(k)).powi(2);
            sum += term;
            if term < 1e-17 * sum {
                break;
            }
        }
        return sum.ln_1p();
    }
    for k in 1..30 {
        term *= f64::from(2 * k - 1).powi(2) / (8.0 * x * f64::from(k));
        sum += term;
    }
    x - 0.5 * (2.0 * PI * x).ln() + sum.ln_1p()
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
        // terms are logarithms of likelihood ratios, for which 1 is best; other fits are a few times too steep or too flat
        let table = (0..40).into_par_iter().map(|step| {
            let l = 0.05 * 1.15f64.powi(step); // to 11.6; within 0.3 % of the best exponent in between
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
        let (high, low) = (l * self.high, l * self.low);
        let top = high.max(low);
        top + libm::log(self.p * libm::exp(high - top) + (1.0 - self.p) * libm::exp(low - top))
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

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
    fn bessel_matches_known_values() {
        // Abramowitz and Stegun, table 9.8, and mpmath
        for (x, i0) in [(0.0, 1.0), (1.0, 1.266_065_877_752_008_4), (10.0, 2_815.716_628_466_254)] {
            assert!((ln_bessel_i0(x) - f64::ln(i0)).abs() <= 1e-14 * f64::ln(i0).max(1.0), "{x}");
        }
        assert!((ln_bessel_i0(1e-6) - 2.5e-13).abs() < 1e-25);
        assert!((ln_bessel_i0(30.0) - ln_bessel_i0(30.0 + 1e-12)).abs() < 1e-11);
        // by quadrature: the trapezoidal rule is exact to machine precision on a whole turn
        for x in [0.5, 5.0, 29.0, 31.0, 100.0, 700.0] {
            let n = 4096;
            let mean: f64 = (0..n).map(|i| (x * ((TAU * f64::from(i) / f64::from(n)).cos() - 1.0)).exp()).sum();
            let expected = x + (mean / f64::from(n)).ln();
            assert!((ln_bessel_i0(x) - expected).abs() < 1e-12 * x.max(1.0), "{x}");
        }
    }

    #[test]
    fn the_bound_on_cosines_holds_and_is_not_far_off() {
        // one phase: P(cos >= c) = acos(c) / pi
        for c in [0.1, 0.5, 0.9, 0.999, 0.999_999] {
            let (bound, exact) = (log10_p_cosines(&[CosineTerm { cosine: c, weight: 7.0 }]), (c.acos() / PI).log10());
            assert!(bound >= exact && bound < exact + 0.7, "{c}: {bound} {exact}");
        }
        // two: P(cos a + cos b >= t) by quadrature over a
        for t in [0.3, 1.0, 1.9, 1.99] {
            let n = 100_000;
            let given = |i: i32| {
                let rest: f64 = t - (TAU * (f64::from(i) + 0.5) / f64::from(n)).cos();
                rest.clamp(-1.0, 1.0).acos() / PI
            };
            let exact = ((0..n).map(given).sum::<f64>() / f64::from(n)).log10();
            let bound = log10_p_cosines(&[CosineTerm { cosine: t / 2.0, weight: 1.0 }; 2]);
            assert!(bound >= exact && bound < exact + 1.0, "{t}: {bound} {exact}");
        }
        assert_eq!(log10_p_cosines(&[]), 0.0);
        assert_eq!(log10_p_cosines(&[CosineTerm { cosine: -0.5, weight: 1.0 }]), 0.0);
        assert_eq!(log10_p_cosines(&[CosineTerm { cosine: f64::NAN, weight: 1.0 }]), 0.0);
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
