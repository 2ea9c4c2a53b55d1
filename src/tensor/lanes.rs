//! Elements to and from `f64`, one tensor row or block at a time.
//!
//! Storing is *unbiased*: types narrower than `f32` are rounded up or down at random, with probabilities that
//! make the expected value exact. The random word comes from the caller, so results are reproducible.

mod narrow;
mod round;

use half::f16;

pub use round::{NEAREST, is_rounded, reload, store};

use super::{Dtype, blocks};

/// Elements of the largest block.
const BLOCK: usize = 256;

/// Whether weights of this type can be read and written as floating-point numbers.
pub fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F64) || is_rounded(dtype)
}

/// Whether [`load`] reads this type: all but complex numbers, six-bit ones, and a few intermediate block types of ggml.
pub fn is_number(dtype: Dtype) -> bool {
    load(dtype, &[], &mut [])
}

/// Reads little-endian elements into `out`. Both lengths must agree; what is beyond the shorter one is left alone.
///
/// The first of several elements in one byte lies in its lowest bits. Integers beyond 53 bits are rounded to nearest.
/// Returns `false`, and leaves `out` unchanged, for a type that [`is_number`] refuses.
pub fn load(dtype: Dtype, bytes: &[u8], out: &mut [f64]) -> bool {
    match dtype {
        Dtype::BF16 => each(bytes, out, |b: [u8; 2]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))),
        Dtype::F16 => each(bytes, out, |b: [u8; 2]| f16::from_le_bytes(b).to_f64()),
        Dtype::F32 => each(bytes, out, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => each(bytes, out, f64::from_le_bytes),
        Dtype::F8_E4M3 => each(bytes, out, narrow::f8_e4m3),
        Dtype::F8_E5M2 => each(bytes, out, narrow::f8_e5m2),
        Dtype::F8_E4M3FNUZ => each(bytes, out, narrow::f8_e4m3fnuz),
        Dtype::F8_E5M2FNUZ => each(bytes, out, narrow::f8_e5m2fnuz),
        Dtype::F8_E8M0 => each(bytes, out, narrow::f8_e8m0),
        Dtype::BOOL => each(bytes, out, |[b]: [u8; 1]| f64::from(b != 0)),
        Dtype::I8 => each(bytes, out, |b: [u8; 1]| f64::from(i8::from_le_bytes(b))),
        Dtype::I16 => each(bytes, out, |b: [u8; 2]| f64::from(i16::from_le_bytes(b))),
        Dtype::I32 => each(bytes, out, |b: [u8; 4]| f64::from(i32::from_le_bytes(b))),
        Dtype::I64 => each(bytes, out, |b: [u8; 8]| i64::from_le_bytes(b) as f64),
        Dtype::U8 => each(bytes, out, |[b]: [u8; 1]| f64::from(b)),
        Dtype::U16 => each(bytes, out, |b: [u8; 2]| f64::from(u16::from_le_bytes(b))),
        Dtype::U32 => each(bytes, out, |b: [u8; 4]| f64::from(u32::from_le_bytes(b))),
        Dtype::U64 => each(bytes, out, |b: [u8; 8]| u64::from_le_bytes(b) as f64),
        Dtype::F4 => packed(bytes, out, narrow::f4),
        Dtype::I4 => packed(bytes, out, narrow::i4),
        Dtype::U4 => packed(bytes, out, narrow::u4),
        Dtype::I2 => packed(bytes, out, narrow::i2),
        Dtype::U2 => packed(bytes, out, narrow::u2),
        _ => return each_block(dtype, bytes, out),
    }
    true
}

/// As [`load`], rounded to the nearest `f32`.
pub fn load_f32(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> bool {
    match dtype {
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::BF16 => each(bytes, out, |b: [u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F16 => each(bytes, out, |b: [u8; 2]| f16::from_le_bytes(b).to_f32()),
        _ => {
            let (block, size) = dtype.block();
            let (mut numbers, step) = ([0.0f64; 1024], 1024 / block.max(1) as usize);
            for (bytes, out) in bytes.chunks(step * size as usize).zip(out.chunks_mut(step * block as usize)) {
                let numbers = &mut numbers[..out.len()];
                if !load(dtype, bytes, numbers) {
                    return false;
                }
                out.iter_mut().zip(numbers).for_each(|(out, number)| *out = *number as f32);
            }
            return is_number(dtype);
        }
    }
    true
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], element: impl Fn([u8; N]) -> T) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = element(*raw);
    }
}

fn packed<const N: usize>(bytes: &[u8], out: &mut [f64], elements: impl Fn(u8) -> [f64; N]) {
    for (out, byte) in out.chunks_mut(N).zip(bytes) {
        for (out, value) in out.iter_mut().zip(elements(*byte)) {
            *out = value;
        }
    }
}

/// As many whole blocks as both hold.
fn each_block(dtype: Dtype, bytes: &[u8], out: &mut [f64]) -> bool {
    let mut values = [0.0; BLOCK];
    let (elements, size) = dtype.block();
    let (elements, size) = (elements as usize, size as usize);
    for (bytes, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(elements)) {
        let Some(values) = values.get_mut(..elements) else { return false };
        if !blocks::dequantise(dtype, bytes, values) {
            return false;
        }
        for (out, value) in out.iter_mut().zip(values) {
            *out = f64::from(*value);
        }
    }
    blocks::is_readable(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_real_numbers_is_read_and_few_carry_a_mark() {
        let unread = ["C64", "C128", "F6_E2M3", "F6_E3M2", "Q1_0", "Q8_1", "Q8_K"];
        for dtype in Dtype::ALL.iter().copied() {
            let (elements, size) = (dtype.block().0 as usize, dtype.block().1 as usize);
            let mut out = vec![7.0; 2 * elements + 1];
            let read = load(dtype, &vec![0; 3 * size], &mut out);
            assert_eq!((is_number(dtype), read), (!unread.contains(&dtype.name()), read), "{dtype}");
            assert!(read || out.iter().all(|value| *value == 7.0), "{dtype}");
            assert!(!read || out[..2 * elements].iter().all(|value| *value != 7.0), "{dtype}");
            assert_eq!(is_float(dtype), ["BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2"].contains(&dtype.name()));
        }
    }

    #[test]
    fn integers_and_blocks_are_read() {
        let read = |dtype, bytes: &[u8]| {
            let mut out = [0.0; 32];
            assert!(load(dtype, bytes, &mut out));
            out
        };
        assert_eq!(read(Dtype::I8, &[0x80, 0x7f])[..3], [-128.0, 127.0, 0.0]);
        assert_eq!(read(Dtype::U8, &[0x80])[0], 128.0);
        assert_eq!(read(Dtype::I16, &[0, 0x80])[0], -32768.0);
        assert_eq!(read(Dtype::U16, &[0, 0x80])[0], 32768.0);
        assert_eq!(read(Dtype::I32, &[0, 0, 0, 0x80])[0], -2_147_483_648.0);
        assert_eq!(read(Dtype::U32, &[0, 0, 0, 0x80])[0], 2_147_483_648.0);
        assert_eq!(read(Dtype::I64, &i64::MIN.to_le_bytes())[0], -(2f64.powi(63)));
        assert_eq!(read(Dtype::U64, &u64::MAX.to_le_bytes())[0], 2f64.powi(64));
        assert_eq!(read(Dtype::BOOL, &[0, 1, 2])[..3], [0.0, 1.0, 1.0]);
        assert_eq!(read(Dtype::I4, &[0x1f, 0x08])[..4], [-1.0, 1.0, -8.0, 0.0]);
        assert_eq!(read(Dtype::Q8_0, &[[0, 0x3c, 0xff, 5].as_slice(), &[0; 30]].concat())[..3], [-1.0, 5.0, 0.0]);
    }
}
