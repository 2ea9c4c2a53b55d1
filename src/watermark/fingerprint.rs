//! Which copy: words of a symmetric Tardos code (Škorić, Katzenbeisser, Celik 2008), one for each label.

use rayon::prelude::*;

use super::keystream::Key;
use super::statistics::{ScoreBound, ScoreTerm};

/// Positions of the code: enough to name sixteen colluders among a million copies.
pub(super) const CODE_LEN: usize = 65_536;
/// Biases stay this far from 0 and 1.
const CUTOFF: f64 = 1.0 / (300.0 * 20.0);
/// Soft values beyond this many times their root mean square are clipped.
const CLIP: f64 = 4.0;

/// The biases of the code: at position `i` a copy's bit is 1 with probability `p[i]`.
pub(super) struct Code<'a> {
    mark: &'a Key,
    p: Vec<f64>,
}

impl<'a> Code<'a> {
    pub(super) fn new(mark: &'a Key) -> Self {
        let edge = libm::asin(libm::sqrt(CUTOFF));
        let width = std::f64::consts::FRAC_PI_2 - 2.0 * edge;
        let uniforms = mark.derive(&[b"tardos-p"]).uniforms("", CODE_LEN);
        let bias = |u: f64| {
            let s = libm::sin(edge + u * width);
            s * s
        };
        Self { mark, p: uniforms.into_iter().map(bias).collect() }
    }

    /// The word of the copy called `label`.
    pub(super) fn word(&self, label: &str) -> Vec<bool> {
        let words = self.mark.derive(&[b"cust", label.as_bytes()]).words("", CODE_LEN);
        words.into_iter().zip(&self.p).map(|(word, p)| f64::from(word) < p * 4_294_967_296.0).collect()
    }

    /// How well soft values `y`, one a position, fit each label: a bound on the probability that any of them would
    /// fit as well if its copy had not leaked.
    pub(super) fn trace(&self, mut y: Vec<f64>, labels: &[String]) -> Vec<f64> {
        if labels.is_empty() {
            return Vec::new();
        }
        let filled = y.iter().filter(|v| **v != 0.0).count().max(1);
        let rms = (y.iter().map(|v| v * v).sum::<f64>() / filled as f64).sqrt();
        y.iter_mut().for_each(|v| *v = v.clamp(-CLIP * rms, CLIP * rms));
        let terms: Vec<_> = y
            .iter()
            .zip(&self.p)
            .map(|(y, p)| ScoreTerm { p: *p, high: y * ((1.0 - p) / p).sqrt(), low: -y * (p / (1.0 - p)).sqrt() })
            .collect();
        let bound = ScoreBound::new(&terms);
        let correction = (labels.len() as f64).log10();
        let score = |label: &String| {
            let word = self.word(label);
            let sum = word.iter().zip(&terms).map(|(bit, term)| if *bit { term.high } else { term.low }).sum();
            (bound.log10_p(sum) + correction).min(0.0)
        };
        labels.par_iter().map(score).collect()
    }
}
