//! Elements to and from `f64`, one tensor row or block at a time.
//!
//! Storing is *unbiased*: types narrower than `f32` are rounded up or down at random, with probabilities that
//! make the expected value exact. The random word comes from the caller, so results are reproducible.

use half::{bf16, f16};

use super::Dtype;

/// Whether weights of this type can be read and written as floating-point numbers.
pub fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64)
}

/// Reads little-endian elements into `out`. Both lengths must agree; what is beyond the shorter one is left alone.
///
/// Returns `false`, and leaves `out` unchanged, for a type that [`is_float`] refuses.
pub fn load(dtype: Dtype, bytes: &[u8], out: &mut [f64]) -> bool {
    match dtype {
        Dtype::BF16 => each(bytes, out, |b: [u8; 2]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))),
        Dtype::F16 => each(bytes, out, |b: [u8; 2]| f16::from_le_bytes(b).to_f64()),
        Dtype::F32 => each(bytes, out, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => each(bytes, out, f64::from_le_bytes),
        _ => return false,
    }
    true
}

/// Writes `value` as one element at the start of `bytes`, rounding with the 32 random bits of `word`.
///
/// `f32` and `f64` are rounded to nearest and ignore `word`. Values beyond the largest finite one become that one.
pub fn store(dtype: Dtype, value: f64, word: u32, bytes: &mut [u8]) {
    match dtype {
        Dtype::BF16 => bytes[..2].copy_from_slice(&to_bf16(value, word).to_le_bytes()),
        Dtype::F16 => bytes[..2].copy_from_slice(&to_f16(value, word).to_le_bytes()),
        Dtype::F32 => {
            bytes[..4].copy_from_slice(&(value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32).to_le_bytes())
        }
        Dtype::F64 => bytes[..8].copy_from_slice(&value.clamp(f64::MIN, f64::MAX).to_le_bytes()),
        _ => {}
    }
}

/// Unbiased rounding of `value`, taken as `f32`, to bfloat16: adds 16 random bits below the mantissa and truncates.
pub fn to_bf16(value: f64, word: u32) -> bf16 {
    let bits = (value as f32).to_bits();
    let (sign, magnitude) = (bits & 0x8000_0000, bits & 0x7fff_ffff);
    let rounded = (magnitude + (word >> 16)).min(0x7f7f_ffff);
    bf16::from_bits(((sign | rounded) >> 16) as u16)
}

/// Unbiased rounding of `value` to half precision, subnormals included.
pub fn to_f16(value: f64, word: u32) -> f16 {
    let magnitude = value.abs().min(65504.0);
    let nearest = f16::from_f64(magnitude);
    let below = if nearest.to_f64() > magnitude { nearest.to_bits() - 1 } else { nearest.to_bits() };
    let (low, high) = (f16::from_bits(below).to_f64(), f16::from_bits(below + 1).to_f64());
    let fraction = (magnitude - low) / (high - low);
    let up = f64::from(word) / 4_294_967_296.0 < fraction;
    let bits = below + u16::from(up);
    f16::from_bits(if value.is_sign_negative() { bits | 0x8000 } else { bits })
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f64], element: impl Fn([u8; N]) -> f64) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = element(*raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean of the rounded value over evenly spaced words.
    fn mean(round: impl Fn(u32) -> f64) -> f64 {
        let words = 1u32 << 16;
        (0..words).map(|i| round((i << 16) | 0x8000)).sum::<f64>() / f64::from(words)
    }

    #[test]
    fn rounding_is_unbiased() {
        for value in [1.000_3, -0.37, 3.1e-7, -2.2e-8, 511.3] {
            let error = (mean(|w| to_f16(value, w).to_f64()) - value).abs();
            assert!(error <= value.abs() * 1e-6 + 1e-12, "f16 {value}: {error}");
            let value = f64::from(value as f32);
            let error = (mean(|w| to_bf16(value, w).to_f64()) - value).abs();
            assert!(error <= value.abs() * 1e-6, "bf16 {value}: {error}");
        }
    }

    #[test]
    fn values_on_the_grid_stay() {
        for bits in (0..0x7c00u16).chain(0x8000..0xfc00) {
            let value = f16::from_bits(bits);
            assert_eq!(to_f16(value.to_f64(), u32::MAX).to_bits(), bits);
            assert_eq!(to_f16(value.to_f64(), 0).to_bits(), bits);
        }
        for bits in (0..0x7f80u16).chain(0x8000..0xff80) {
            let value = bf16::from_bits(bits);
            assert_eq!(to_bf16(value.to_f64(), u32::MAX).to_bits(), bits);
        }
    }

    #[test]
    fn the_largest_values_stay_finite() {
        assert_eq!(to_f16(1e9, u32::MAX), f16::MAX);
        assert_eq!(to_bf16(f64::from(f32::MAX), u32::MAX), bf16::MAX);
    }
}
