//! Unbiased rounding of rows of `f32` to a narrower type: up or down at random, with probabilities that make the expected
//! value exact.
//!
//! In all these types a number's bits, read as an integer, grow with it, subnormals included. So a number moved to
//! the exponents of its type is rounded by adding a random integer below the last bit kept, and cutting.

use crate::tensor::Dtype;

/// A floating-point type of so many bits of mantissa, exponents counted from `-bias`, and the bits of its largest number.
struct Narrow<const MANTISSA: u32, const BIAS: u32, const MOST: u32>;

type Bf16 = Narrow<7, 127, 0x7f7f>;
type F16 = Narrow<10, 15, 0x7bff>;
type E4m3 = Narrow<3, 7, 0x7e>;
type E5m2 = Narrow<2, 15, 0x7b>;

/// The random word that rounds to nearest.
pub const NEAREST: u16 = 0x8000;

impl<const MANTISSA: u32, const BIAS: u32, const MOST: u32> Narrow<MANTISSA, BIAS, MOST> {
    const DROPPED: u32 = 23 - MANTISSA;

    /// The bits of the magnitude.
    #[inline(always)]
    fn round(value: f32, word: u16) -> u32 {
        let magnitude = (value.abs() * f32::from_bits(BIAS << 23)).to_bits();
        let random = u32::from(word) << 16 >> (32 - Self::DROPPED);
        ((magnitude + random) >> Self::DROPPED).min(MOST)
    }

    /// The number of this magnitude, if it is finite.
    #[inline(always)]
    fn magnitude(bits: u32) -> f32 {
        f32::from_bits(bits << Self::DROPPED) * f32::from_bits((254 - BIAS) << 23)
    }

    #[inline(always)]
    fn store16(values: &[f32], words: &[u16], bytes: &mut [u8]) {
        for ((value, word), out) in values.iter().zip(words).zip(bytes.as_chunks_mut().0) {
            let sign = value.to_bits() >> 16 & 0x8000;
            *out = ((Self::round(*value, *word) | sign) as u16).to_le_bytes();
        }
    }

    #[inline(always)]
    fn store8(values: &[f32], words: &[u16], bytes: &mut [u8]) {
        for ((value, word), out) in values.iter().zip(words).zip(bytes) {
            *out = (Self::round(*value, *word) | value.to_bits() >> 24 & 0x80) as u8;
        }
    }

    #[inline(always)]
    fn load16(bytes: &[u8], out: &mut [f32]) {
        for (out, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
            let raw = u32::from(u16::from_le_bytes(*raw));
            *out = f32::from_bits(Self::magnitude(raw & 0x7fff).to_bits() | (raw & 0x8000) << 16);
        }
    }

    #[inline(always)]
    fn load8(bytes: &[u8], out: &mut [f32]) {
        for (out, raw) in out.iter_mut().zip(bytes) {
            let raw = u32::from(*raw);
            *out = f32::from_bits(Self::magnitude(raw & 0x7f).to_bits() | (raw & 0x80) << 24);
        }
    }
}

/// Whether [`store`] writes this type with random words: floating point narrower than `F32`.
pub fn is_rounded(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Writes `F32` and, rounded with one random word each, the [narrower types](is_rounded), as far as all reach.
///
/// Values beyond the largest finite number become that one. `F32` takes no word. Returns `false`, and writes nothing, for
/// other types.
pub fn store(dtype: Dtype, values: &[f32], words: &[u16], bytes: &mut [u8]) -> bool {
    match dtype {
        Dtype::F32 => {
            for (value, out) in values.iter().zip(bytes.as_chunks_mut().0) {
                *out = value.clamp(f32::MIN, f32::MAX).to_le_bytes();
            }
        }
        Dtype::BF16 => Bf16::store16(values, words, bytes),
        Dtype::F16 => F16::store16(values, words, bytes),
        Dtype::F8_E4M3 => E4m3::store8(values, words, bytes),
        Dtype::F8_E5M2 => E5m2::store8(values, words, bytes),
        _ => return false,
    }
    true
}

/// Reads back what [`store`] writes: as [`load`](super::load), but for infinities and NaN.
pub fn reload(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> bool {
    match dtype {
        Dtype::F32 => {
            for (out, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(*raw);
            }
        }
        Dtype::BF16 => Bf16::load16(bytes, out),
        Dtype::F16 => F16::load16(bytes, out),
        Dtype::F8_E4M3 => E4m3::load8(bytes, out),
        Dtype::F8_E5M2 => E5m2::load8(bytes, out),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;

    const ROUNDED: [Dtype; 4] = [Dtype::BF16, Dtype::F16, Dtype::F8_E4M3, Dtype::F8_E5M2];

    /// All numbers of a type, as bytes and as `f64`.
    fn all(dtype: Dtype) -> (Vec<u8>, Vec<f64>) {
        let size = dtype.block().1;
        let bytes: Vec<u8> = match size {
            1 => (0..=255).collect(),
            _ => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
        };
        let mut values = vec![0.0; bytes.len() / size as usize];
        assert!(load(dtype, &bytes, &mut values));
        (bytes, values)
    }

    fn rounded(dtype: Dtype, value: f32, word: u16) -> f64 {
        let (mut bytes, mut out) = ([0; 4], [0.0]);
        assert!(store(dtype, &[value], &[word], &mut bytes));
        load(dtype, &bytes[..dtype.block().1 as usize], &mut out);
        out[0]
    }

    #[test]
    fn values_on_the_grid_stay_and_are_read_back() {
        for dtype in ROUNDED {
            let (bytes, values) = all(dtype);
            let size = dtype.block().1 as usize;
            let mut back = vec![0.0; values.len()];
            assert!(reload(dtype, &bytes, &mut back) && is_rounded(dtype));
            for (i, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
                assert_eq!(f64::from(back[i]).to_bits(), value.to_bits(), "{dtype} {value}");
                for word in [0, 1, u16::MAX] {
                    let mut out = [0; 2];
                    store(dtype, &[*value as f32], &[word], &mut out);
                    assert_eq!(out[..size], bytes[i * size..][..size], "{dtype} {value}");
                }
            }
        }
    }

    #[test]
    fn rounding_is_unbiased() {
        for dtype in ROUNDED {
            for value in [1.000_3f32, -0.37, 3.1e-3, -2.2e-4, 311.3, 1.0 / 3.0, 0.0] {
                let mean = (0..=u16::MAX).map(|word| rounded(dtype, value, word)).sum::<f64>() / 65536.0;
                let error = (mean - f64::from(value)).abs();
                assert!(error <= f64::from(value.abs()) * 4e-6 + 1e-7, "{dtype} {value}: {mean}");
            }
        }
    }

    #[test]
    fn values_between_two_numbers_become_one_of_them() {
        for dtype in ROUNDED {
            let mut grid: Vec<f64> = all(dtype).1.into_iter().filter(|v| v.is_finite() && *v >= 0.0).collect();
            grid.sort_by(f64::total_cmp);
            for pair in grid.windows(2).filter(|pair| pair[0] < pair[1]).step_by(7) {
                let middle = ((pair[0] + pair[1]) / 2.0) as f32;
                for (word, expected) in [(0, pair[0]), (NEAREST - 1, pair[0]), (NEAREST, pair[1]), (u16::MAX, pair[1])]
                {
                    // among the numbers below the least normal ones of binary32 the middle is none
                    let is_exact = f64::from(middle) == (pair[0] + pair[1]) / 2.0 && pair[0] > 1e-36;
                    assert!(!is_exact || rounded(dtype, middle, word) == expected, "{dtype} {pair:?}");
                    assert!(!is_exact || rounded(dtype, -middle, word) == -expected, "{dtype} {pair:?}");
                }
            }
        }
    }

    #[test]
    fn the_largest_values_stay_finite() {
        for (dtype, most) in [
            (Dtype::F32, f64::from(f32::MAX)),
            (Dtype::BF16, half::bf16::MAX.to_f64()),
            (Dtype::F16, 65504.0),
            (Dtype::F8_E4M3, 448.0),
            (Dtype::F8_E5M2, 57344.0),
        ] {
            for word in [0, u16::MAX] {
                for value in [f32::MAX, f32::INFINITY] {
                    assert_eq!(rounded(dtype, value, word).abs(), most, "{dtype}");
                    assert_eq!(rounded(dtype, -value, word), -rounded(dtype, value, word), "{dtype}");
                }
            }
            assert!(dtype == Dtype::F32 || rounded(dtype, f32::NAN, 0).abs() == most);
        }
        assert!(!store(Dtype::F64, &[1.0], &[0], &mut [0; 8]) && !reload(Dtype::I8, &[1], &mut [0.0]));
    }
}
