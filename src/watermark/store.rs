//! Marked weights rounded to the type of their tensor, without bias: the expected value of what is stored is what the mark
//! asks for, whatever the type.
//!
//! A type of codes is one more such type: a code moves by one, up or down, with a probability that makes the expected
//! change right (change over step), and everything beside codes stays as it is. So a model that is quantised already
//! keeps its own grid, and a thief who puts it back on that grid takes nothing away.

use super::lanes::vectorised;
use crate::tensor::blocks::{Codes, Scale};
use crate::tensor::{Dtype, lanes};

/// Units in which random words count.
const WORDS: f32 = 65_536.0;
/// Weights that are stored and then compared with what they were, while they are in cache.
const PIECE: usize = 4096;

/// What storing changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Distortion {
    /// Sum of the squares of the changes.
    pub(super) change: f64,
    /// Sum of the squares of the weights before.
    pub(super) energy: f64,
    /// Weights that are others than before.
    pub(super) changed: u64,
}

impl Distortion {
    pub(super) fn add(&mut self, other: Self) {
        self.change += other.change;
        self.energy += other.energy;
        self.changed += other.changed;
    }
}

/// Whether a mark can be stored in this type.
pub(super) fn is_storable(dtype: Dtype) -> bool {
    lanes::is_float(dtype) || is_coded(dtype)
}

/// Whether elements of this type are codes on a grid of their own.
pub(super) fn is_coded(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::I8 | Dtype::U8) || Codes::of(dtype).is_some()
}

/// Whether storing in this type needs a random word for each weight.
pub(super) fn is_rounded(dtype: Dtype) -> bool {
    lanes::is_rounded(dtype) || is_coded(dtype)
}

/// Changes `bytes`, which hold `weights`, so that they hold `targets`, rounded with `words`.
pub(super) fn store(dtype: Dtype, weights: &[f32], targets: &[f32], words: &[u16], bytes: &mut [u8]) -> Distortion {
    match (dtype, Codes::of(dtype)) {
        (_, Some(codes)) => store_blocks(dtype, codes, weights, targets, words, bytes),
        (Dtype::I8, _) => store_codes(weights, targets, words, &Scale::UNIT, |i, up| {
            let code = i16::from(bytes[i] as i8) + up;
            let fits = (-127..=127).contains(&code); // -128 is none of symmetric quantisation
            bytes[i] = if fits { code as u8 } else { bytes[i] };
            fits
        }),
        (Dtype::U8, _) => store_codes(weights, targets, words, &Scale::UNIT, |i, up| {
            let code = u8::try_from(i16::from(bytes[i]) + up).ok();
            bytes[i] = code.unwrap_or(bytes[i]);
            code.is_some()
        }),
        (Dtype::F64, _) => store_f64(weights, targets, bytes),
        _ => store_floats(dtype, weights, targets, words, bytes),
    }
}

vectorised! {
    fn store_floats(
        dtype: Dtype,
        weights: &'a [f32],
        targets: &'a [f32],
        words: &'a [u16],
        bytes: &'a mut [u8]
    ) -> Distortion {
    let mut distortion = Distortion::default();
    let size = dtype.block().1 as usize;
    let mut stored = [0.0; PIECE];
    for (i, (weights, targets)) in weights.chunks(PIECE).zip(targets.chunks(PIECE)).enumerate() {
        let words = words.get(i * PIECE..).unwrap_or_default();
        let bytes = &mut bytes[i * PIECE * size..][..weights.len() * size];
        let stored = &mut stored[..weights.len()];
        lanes::store(dtype, targets, words, bytes);
        lanes::reload(dtype, bytes, stored);
        distortion.add(between(weights, stored));
    }
    distortion
}
}

/// In eight lanes, as fast as the numbers come.
#[inline(always)]
fn between(before: &[f32], after: &[f32]) -> Distortion {
    let (mut change, mut energy, mut changed) = ([0.0f64; 8], [0.0f64; 8], [0u32; 8]);
    let ((before, rest), (after, after_rest)) = (before.as_chunks::<8>(), after.as_chunks::<8>());
    for (before, after) in before.iter().zip(after) {
        for lane in 0..8 {
            let (before, after) = (before[lane], after[lane]);
            let (w, d) = (f64::from(before), f64::from(after) - f64::from(before));
            change[lane] += d * d;
            energy[lane] += w * w;
            changed[lane] += u32::from(before != after);
        }
    }
    for (before, after) in rest.iter().zip(after_rest) {
        let (w, d) = (f64::from(*before), f64::from(*after) - f64::from(*before));
        change[0] += d * d;
        energy[0] += w * w;
        changed[0] += u32::from(before != after);
    }
    let changed = changed.iter().map(|count| u64::from(*count)).sum();
    Distortion { change: change.iter().sum(), energy: energy.iter().sum(), changed }
}

/// The change, which `f32` holds, is added to the number, which it may not.
fn store_f64(weights: &[f32], targets: &[f32], bytes: &mut [u8]) -> Distortion {
    let mut distortion = Distortion::default();
    for ((weight, target), raw) in weights.iter().zip(targets).zip(bytes.as_chunks_mut().0) {
        let before = f64::from_le_bytes(*raw);
        let after = before + (f64::from(*target) - f64::from(*weight));
        *raw = after.to_le_bytes();
        let changed = u64::from(after != before);
        distortion.add(Distortion { change: (after - before).powi(2), energy: before * before, changed });
    }
    distortion
}

fn store_blocks(
    dtype: Dtype,
    codes: Codes,
    weights: &[f32],
    targets: &[f32],
    words: &[u16],
    bytes: &mut [u8],
) -> Distortion {
    let (elements, size) = (dtype.block().0 as usize, dtype.block().1 as usize);
    let group = codes.group();
    // kernels of ggml take -128 for a code that does not occur
    let range = if dtype == Dtype::Q8_0 { -127..=127 } else { codes.range() };
    let mut distortion = Distortion::default();
    for (b, block) in bytes.chunks_exact_mut(size).enumerate() {
        let scales: [Scale; 16] = {
            let mut scales = [Scale::UNIT; 16];
            scales.iter_mut().zip(codes.scales(block)).for_each(|(out, scale)| *out = scale);
            scales
        };
        for (g, scale) in scales.iter().take(elements / group).enumerate() {
            let start = b * elements + g * group;
            let Some(place) = weights.get(start..start + group).map(|_| start..start + group) else { break };
            let (weights, targets, words) = (&weights[place.clone()], &targets[place.clone()], &words[place]);
            distortion.add(store_codes(weights, targets, words, scale, |i, up| {
                let i = g * group + i;
                let code = codes.get(block, i).map(|code| code + up).filter(|code| range.contains(code));
                code.is_some_and(|code| codes.set(block, i, code))
            }));
        }
    }
    distortion
}

/// Moves codes of one scale: `step` changes the code of a weight by 1 or -1, unless that is out of range, and says whether
/// it did.
fn store_codes(
    weights: &[f32],
    targets: &[f32],
    words: &[u16],
    scale: &Scale,
    mut step: impl FnMut(usize, i16) -> bool,
) -> Distortion {
    let mut distortion = Distortion::default();
    let size = scale.step.abs();
    let factor = if size > 0.0 && size.is_finite() { WORDS / size } else { 0.0 };
    for (i, ((weight, target), word)) in weights.iter().zip(targets).zip(words).enumerate() {
        distortion.energy += f64::from(*weight) * f64::from(*weight);
        let change = target - weight;
        if f32::from(*word) + 0.5 < change.abs() * factor {
            let up = if (change > 0.0) == (scale.step > 0.0) { 1 } else { -1 };
            if step(i, up) {
                distortion.change += f64::from(size) * f64::from(size);
                distortion.changed += 1;
            }
        }
    }
    distortion
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    /// Numbers in [-1, 1), and words, reproducible.
    fn noise(n: usize) -> (Vec<f32>, Vec<u16>) {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as u32
        };
        (0..n).map(|_| (next() as f32 / 8_388_608.0 - 1.0, next() as u16)).unzip()
    }

    fn read(dtype: Dtype, bytes: &[u8], n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        assert!(lanes::load(dtype, bytes, &mut values));
        values.into_iter().map(|value| value as f32).collect()
    }

    /// Types of codes.
    fn coded_types() -> impl Iterator<Item = Dtype> {
        [Dtype::I8, Dtype::U8].into_iter().chain(Codes::TYPES)
    }

    /// Blocks of this type whose values are finite.
    fn coded(dtype: Dtype, n: usize) -> Vec<u8> {
        let (elements, size) = (dtype.block().0 as usize, dtype.block().1 as usize);
        let (_, words) = noise(n * 2);
        let bytes: Vec<u8> = words.into_iter().map(|word| (word >> 8) as u8).collect();
        let blocks =
            bytes.chunks_exact(size).filter(|block| read(dtype, block, elements).iter().all(|w| w.is_finite()));
        let blocks: Vec<_> = blocks.flatten().copied().collect();
        blocks[..n / elements * size].to_vec()
    }

    #[test]
    fn what_is_asked_for_is_what_is_stored_on_average() {
        const N: usize = 1 << 16;
        let (changes, words) = noise(N);
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F64] {
            let size = dtype.block().1 as usize;
            let mut bytes = vec![0; N * size];
            let values: Vec<f32> = changes.iter().rev().map(|w| f16::from_f32(*w).to_f32()).collect();
            match dtype {
                Dtype::F64 => bytes = values.iter().flat_map(|w| f64::from(*w).to_le_bytes()).collect(),
                _ => assert!(lanes::store(dtype, &values, &vec![lanes::NEAREST; N], &mut bytes)),
            }
            let weights = read(dtype, &bytes, N);
            let targets: Vec<f32> = weights.iter().zip(&changes).map(|(w, c)| w + 0.002 * c.signum()).collect();
            let distortion = store(dtype, &weights, &targets, &words, &mut bytes);
            let after = read(dtype, &bytes, N);
            let moved = weights.iter().zip(&after).zip(&changes);
            let mean = moved.map(|((w, x), c)| f64::from(x - w) * f64::from(c.signum())).sum::<f64>() / N as f64;
            assert!((mean - 0.002).abs() < 0.0004, "{dtype}: {mean}");
            let change: f64 = weights.iter().zip(&after).map(|(w, x)| (f64::from(*x) - f64::from(*w)).powi(2)).sum();
            assert!((distortion.change / change - 1.0).abs() < 1e-6, "{dtype}");
            let changed = weights.iter().zip(&after).filter(|(w, x)| w != x).count() as u64;
            assert_eq!(distortion.changed, changed, "{dtype}");
        }
    }

    #[test]
    fn codes_move_by_one_and_the_rest_stays() {
        const N: usize = 1 << 15;
        for dtype in coded_types() {
            let before = coded(dtype, N);
            let n = before.len() / dtype.block().1 as usize * dtype.block().0 as usize;
            let weights = read(dtype, &before, n);
            let (changes, words) = noise(n);
            let code = |bytes: &[u8], i: usize| match Codes::of(dtype) {
                Some(codes) => codes.get(bytes, i).unwrap(),
                None if dtype == Dtype::I8 => i16::from(bytes[i] as i8),
                None => i16::from(bytes[i]),
            };
            let rms = (weights.iter().map(|w| w * w).sum::<f32>() / n as f32).sqrt();
            for strength in [0.0, 0.01, 10.0] {
                let targets: Vec<f32> = weights.iter().zip(&changes).map(|(w, c)| w + strength * rms * c).collect();
                let mut after = before.clone();
                let distortion = store(dtype, &weights, &targets, &words, &mut after);
                let (mut restored, mut changed) = (after.clone(), 0);
                let values = read(dtype, &after, n);
                for i in 0..n {
                    let (old, new) = (code(&before, i), code(&after, i));
                    assert!((old - new).abs() <= 1, "{dtype} {i}");
                    if old != new {
                        changed += 1;
                        // towards the target, unless an offset hides the step
                        assert!((values[i] - weights[i]) * (targets[i] - weights[i]) >= 0.0, "{dtype} {i}");
                        match Codes::of(dtype) {
                            Some(codes) => assert!(codes.set(&mut restored, i, old)),
                            None => restored[i] = before[i],
                        }
                    }
                }
                assert_eq!(restored, before, "{dtype}");
                assert_eq!(distortion.changed, changed, "{dtype}");
                assert_eq!(strength > 0.0, changed > 0, "{dtype}");
            }
        }
    }

    #[test]
    fn codes_at_their_limits_stay() {
        let weights = [-128.0, -127.0, 127.0, 0.0];
        let mut bytes = [0x80, 0x81, 0x7f, 0];
        store(Dtype::I8, &weights, &[-200.0, -200.0, 200.0, 200.0], &[0; 4], &mut bytes);
        assert_eq!(bytes, [0x80, 0x81, 0x7f, 1]);
        let mut bytes = [0, 255, 7, 7];
        store(Dtype::U8, &[0.0, 255.0, 7.0, 7.0], &[-9.0, 300.0, f32::NAN, 7.0], &[0; 4], &mut bytes);
        assert_eq!(bytes, [0, 255, 7, 7]);
        // blocks whose step is 0, infinite or not a number
        for step in [0, 0x7c00u16, 0x7e00] {
            let mut block = [&step.to_le_bytes()[..], &[0x31; 16]].concat();
            let same = block.clone();
            store(Dtype::Q4_0, &[1.0; 32], &[2.0; 32], &[0; 32], &mut block);
            assert_eq!(block, same);
        }
    }
}
