//! What thieves do to weights, in words: `q4_0`, `prune50`, `prune50+int4`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::WatermarkError;
use crate::tensor::{Dtype, blocks, lanes};

/// Types that weights are cast to, and block types they are quantised to.
const TYPES: [(&str, Dtype); 9] = [
    ("f16", Dtype::F16),
    ("bf16", Dtype::BF16),
    ("f8_e4m3", Dtype::F8_E4M3),
    ("f8_e5m2", Dtype::F8_E5M2),
    ("q4_0", Dtype::Q4_0),
    ("q4_1", Dtype::Q4_1),
    ("q5_0", Dtype::Q5_0),
    ("q5_1", Dtype::Q5_1),
    ("q8_0", Dtype::Q8_0),
];
/// Weights that share a step of `int4` and the like, where nothing else is said.
const GROUP: usize = 128;
/// Steps of one attack.
const MAX_STEPS: usize = 16;

/// An attack on weights: steps, one after the other. In words, `prune50+int4`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attack(Vec<Step>);

/// One step of an [`Attack`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Rounded to nearest in a floating-point type, or quantised to blocks of ggml: `bf16`, `q4_0`.
    Cast(Dtype),
    /// Rounded to symmetric integers of so many bits, 2 to 8, with a step for each group of weights of a row (0: the
    /// whole row): `int4`, `int4_g32`.
    #[allow(missing_docs)]
    Integers { bits: u32, group: usize },
    /// The least weights of each tensor, this percentage of them, set to zero: `prune50`.
    Prune(f64),
    /// Gaussian noise added, of this percentage of the row's root mean square: `noise10`.
    Noise(f64),
}

impl Attack {
    /// How attacks are written.
    pub const GRAMMAR: &str = "f16, bf16, f8_e4m3, f8_e5m2, q4_0, q4_1, q5_0, q5_1, q8_0, int2 to int8, int4_g32, prune50, \
                               noise10, and several joined by +";

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What it leaves of weights, as a fraction, and the noise it adds to those, relative to their root mean square: for weights
    /// that are distributed normally, about.
    pub(super) fn effect(&self) -> (f64, f64) {
        self.0.iter().fold((1.0, 0.0), |(kept, noise), step| match *step {
            Step::Prune(percent) => (kept * (1.0 - percent / 100.0), noise),
            _ => (kept, f64::hypot(noise, step.noise())),
        })
    }
}

impl Step {
    fn noise(self) -> f64 {
        match self {
            Self::Cast(dtype) => match dtype {
                Dtype::F16 => 0.0002,
                Dtype::BF16 => 0.0017,
                Dtype::F8_E4M3 => 0.026,
                Dtype::F8_E5M2 => 0.053,
                Dtype::Q8_0 => 0.006,
                Dtype::Q5_0 | Dtype::Q5_1 => 0.044,
                _ => 0.09,
            },
            Self::Integers { bits, group } => {
                let group = if group == 0 { 512 } else { group };
                let most = (2.0 * (group as f64).ln()).sqrt(); // the greatest of so many, about
                most / (levels(bits) * 12f64.sqrt())
            }
            Self::Prune(_) => 0.0,
            Self::Noise(percent) => percent / 100.0,
        }
    }

    /// Changes successive weights of one row, the first of which is the weight `start` of a tensor whose weights below
    /// `threshold` are pruned.
    pub(super) fn apply(self, values: &mut [f32], start: u64, threshold: f32) {
        match self {
            Self::Cast(dtype) => cast(dtype, values),
            Self::Integers { bits, group } => {
                let group = if group == 0 { values.len().max(1) } else { group };
                values.chunks_mut(group).for_each(|group| integers(group, levels(bits) as f32));
            }
            Self::Prune(_) => values.iter_mut().filter(|w| w.abs() < threshold).for_each(|w| *w = 0.0),
            Self::Noise(percent) => {
                let energy: f64 = values.iter().map(|w| f64::from(*w) * f64::from(*w)).sum();
                let size = percent / 100.0 * (energy / values.len().max(1) as f64).sqrt();
                for (value, i) in values.iter_mut().zip(start..) {
                    *value += (size * normal(i)) as f32;
                }
            }
        }
    }
}

/// The greatest integer of so many bits, sign included.
fn levels(bits: u32) -> f64 {
    f64::from((1u32 << (bits - 1)) - 1)
}

fn cast(dtype: Dtype, values: &mut [f32]) {
    let (elements, size) = (dtype.block().0 as usize, dtype.block().1 as usize);
    let len = values.len().next_multiple_of(elements);
    let mut padded = vec![0.0; len];
    padded[..values.len()].copy_from_slice(values);
    let mut bytes = vec![0; len / elements * size];
    if elements == 1 {
        lanes::store(dtype, &padded, &vec![lanes::NEAREST; len], &mut bytes);
        lanes::reload(dtype, &bytes, &mut padded);
    } else {
        blocks::quantise(dtype, &padded, &mut bytes);
        blocks::dequantise(dtype, &bytes, &mut padded);
    }
    values.copy_from_slice(&padded[..values.len()]);
}

fn integers(values: &mut [f32], levels: f32) {
    let step = values.iter().fold(0f32, |most, w| most.max(w.abs())) / levels;
    if step > 0.0 {
        values.iter_mut().for_each(|w| *w = (*w / step).round_ties_even() * step);
    }
}

/// Noise that is the same every time: SplitMix64 of the place, and the transform of Box and Muller.
fn normal(place: u64) -> f64 {
    let bits = |salt: u64| {
        let mut z = place.wrapping_mul(2).wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let uniform = |salt| (bits(salt) >> 11) as f64 / 9_007_199_254_740_992.0;
    (-2.0 * libm::log(1.0 - uniform(1))).sqrt() * libm::cos(std::f64::consts::TAU * uniform(2))
}

impl FromStr for Attack {
    type Err = WatermarkError;

    fn from_str(text: &str) -> Result<Self, WatermarkError> {
        let steps: Option<Vec<_>> = text.split('+').take(MAX_STEPS + 1).map(step).collect();
        let steps = steps.filter(|steps| steps.len() <= MAX_STEPS);
        steps.map(Self).ok_or_else(|| WatermarkError::Attack { text: text.to_owned(), known: Self::GRAMMAR })
    }
}

fn step(word: &str) -> Option<Step> {
    let percent = |text: &str, most: f64| text.parse().ok().filter(|percent| (0.0..=most).contains(percent));
    if let Some((_, dtype)) = TYPES.iter().find(|(name, _)| *name == word) {
        return Some(Step::Cast(*dtype));
    }
    if let Some(text) = word.strip_prefix("prune") {
        return percent(text, 100.0).map(Step::Prune);
    }
    if let Some(text) = word.strip_prefix("noise") {
        return percent(text, 1000.0).map(Step::Noise);
    }
    let text = word.strip_prefix("int")?;
    let (bits, group) = match text.split_once("_g") {
        Some((bits, group)) => (bits, Some(group.parse().ok().filter(|group| (1..=65_536).contains(group))?)),
        None => (text, None),
    };
    let bits = bits.parse().ok().filter(|bits| (2..=8).contains(bits))?;
    let group = group.unwrap_or(if bits == 8 { 0 } else { GROUP });
    Some(Step::Integers { bits, group })
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "+" })?;
            match step {
                Step::Cast(dtype) => f.write_str(&dtype.name().to_lowercase())?,
                Step::Integers { bits: 8, group: 0 } => f.write_str("int8")?,
                Step::Integers { bits, group: GROUP } if *bits < 8 => write!(f, "int{bits}")?,
                Step::Integers { bits, group } => write!(f, "int{bits}_g{group}")?,
                Step::Prune(percent) => write!(f, "prune{percent}")?,
                Step::Noise(percent) => write!(f, "noise{percent}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Attack {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_written() {
        for text in ["q4_0", "prune50", "prune12.5+int4", "int8", "int8_g32", "int3_g64+bf16+noise0.1", "f8_e4m3"] {
            assert_eq!(text.parse::<Attack>().unwrap().to_string(), text);
        }
        for text in [
            "", "+", "q4_0+", "q9", "int", "int1", "int9", "int4_g0", "int4_g", "prune", "prune101", "prune-1",
            "pruneNaN", "noiseinf", "Q4_0", " q4_0", "q4_k",
        ] {
            assert_eq!(
                text.parse::<Attack>(),
                Err(WatermarkError::Attack { text: text.to_owned(), known: Attack::GRAMMAR })
            );
        }
        let endless = vec!["bf16"; MAX_STEPS + 1].join("+");
        assert!(endless.parse::<Attack>().is_err() && endless[5..].parse::<Attack>().is_ok());
    }

    #[test]
    fn noise_is_about_what_is_said() {
        let weights: Vec<f32> = (1 << 40..(1 << 40) + 65_536).map(|i| 0.05 * normal(i) as f32).collect();
        for text in [
            "f16",
            "bf16",
            "f8_e4m3",
            "f8_e5m2",
            "q4_0",
            "q5_0",
            "q8_0",
            "int8_g512",
            "int4",
            "int4_g32",
            "int3",
            "noise10",
            "noise10+int4",
        ] {
            let attack: Attack = text.parse().unwrap();
            let mut values = weights.clone();
            for row in values.chunks_mut(512) {
                attack.steps().iter().for_each(|step| step.apply(row, 0, 0.0));
            }
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|d| f64::from(d * d)).sum::<f64>();
            let change = square(&mut weights.iter().zip(&values).map(|(w, x)| x - w));
            let noise = (change / square(&mut weights.iter().copied())).sqrt();
            assert!((0.75..1.33).contains(&(attack.effect().1 / noise)), "{text}: {noise} {:?}", attack.effect());
        }
    }

    #[test]
    fn odd_weights_do_no_harm() {
        for text in ["f16", "q4_0", "q5_1", "int4", "int8", "prune50", "noise10"] {
            let attack: Attack = text.parse().unwrap();
            for values in [vec![], vec![0.0; 7], vec![1e18; 33], vec![-1e-40; 40], vec![f32::NAN, f32::INFINITY]] {
                let mut values = values;
                attack.steps().iter().for_each(|step| step.apply(&mut values, 0, 0.5));
            }
        }
    }
}
