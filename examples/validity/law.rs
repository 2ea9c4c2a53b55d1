//! Laws of statistics, and how well samples keep to them.

use std::f64::consts::{SQRT_2, TAU};

/// The distribution function of the standard normal law.
pub(crate) fn normal(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// Simulated means of the cosines of so many independent uniform phases, in ascending order.
pub(crate) fn mean_cosines(phases: usize, count: usize) -> Vec<f64> {
    let mut random = Random(3);
    let mut mean = || (0..phases).map(|_| (TAU * random.uniform()).cos()).sum::<f64>() / phases.max(1) as f64;
    let mut means: Vec<f64> = (0..count).map(|_| mean()).collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The p-value of the hypothesis that a sample follows a law, given its distribution function (Kolmogorov's asymptotic law).
pub(crate) fn kolmogorov_smirnov(mut sample: Vec<f64>, law: impl Fn(f64) -> f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let off = sample.iter().enumerate().map(|(i, x)| {
        let expected = law(*x);
        (expected - i as f64 / n).max((i + 1) as f64 / n - expected)
    });
    let t = off.fold(0.0, f64::max) * n.sqrt();
    if t < 0.2 {
        return 1.0;
    }
    let series =
        (1..=100).map(|k| f64::from(if k % 2 == 1 { 2 } else { -2 }) * (-2.0 * (f64::from(k) * t).powi(2)).exp());
    series.sum::<f64>().clamp(0.0, 1.0)
}

/// Whether events of probability `level` at most occurred more often than chance allows: three standard errors.
pub(crate) fn excess(share: f64, level: f64, n: usize) -> bool {
    share > level + 3.0 * (level * (1.0 - level) / n as f64).sqrt()
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}
