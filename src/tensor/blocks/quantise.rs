//! Numbers to blocks, with the roundings of ggml's Python package.

use half::{bf16, f16};

use crate::tensor::Dtype;

/// Writes `values` as whole blocks of `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1` or `Q8_0`, or as `F32`, `F16` or `BF16`.
///
/// Bytes are those of ggml's Python package, except that the sign of a least value 0.0 among -0.0, which numpy leaves
/// to chance, is that of the first, and that NaN stays NaN but may not keep its payload.
/// Returns `false`, and leaves `out` unchanged, if the lengths do not agree or the type is none of these.
pub fn quantise(dtype: Dtype, values: &[f32], out: &mut [u8]) -> bool {
    if dtype.size(values.len() as u64) != Some(out.len() as u64) {
        return false;
    }
    match dtype {
        Dtype::F32 => each(values, out, |[value]: &[f32; 1], out| *out = value.to_le_bytes()),
        Dtype::F16 => each(values, out, |[value]: &[f32; 1], out| *out = f16::from_f32(*value).to_le_bytes()),
        Dtype::BF16 => each(values, out, |[value]: &[f32; 1], out| *out = bf16::from_f32(*value).to_le_bytes()),
        Dtype::Q4_0 => each(values, out, q4_0),
        Dtype::Q4_1 => each(values, out, q4_1),
        Dtype::Q5_0 => each(values, out, q5_0),
        Dtype::Q5_1 => each(values, out, q5_1),
        Dtype::Q8_0 => each(values, out, q8_0),
        _ => return false,
    }
    true
}

fn each<const B: usize, const N: usize>(values: &[f32], out: &mut [u8], block: impl Fn(&[f32; N], &mut [u8; B])) {
    for (values, out) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(values, out);
    }
}

fn q8_0(values: &[f32; 32], out: &mut [u8; 34]) {
    let step = extreme(values).abs() / 127.0;
    let inverse = inverse(step);
    put(out, 0, step);
    for (code, value) in out[2..].iter_mut().zip(values) {
        *code = truncate((value * inverse).round());
    }
}

fn q4_0(values: &[f32; 32], out: &mut [u8; 18]) {
    let step = extreme(values) / -8.0;
    put(out, 0, step);
    nibbles(&centred(values, step, 8.5, 15), &mut out[2..]);
}

fn q4_1(values: &[f32; 32], out: &mut [u8; 20]) {
    let (step, min) = spread(values, 15.0);
    put(out, 0, step);
    put(out, 2, min);
    nibbles(&raised(values, step, min, 15), &mut out[4..]);
}

fn q5_0(values: &[f32; 32], out: &mut [u8; 22]) {
    let step = extreme(values) / -16.0;
    let codes = centred(values, step, 16.5, 31);
    put(out, 0, step);
    out[2..6].copy_from_slice(&fifth_bits(&codes));
    nibbles(&codes, &mut out[6..]);
}

fn q5_1(values: &[f32; 32], out: &mut [u8; 24]) {
    let (step, min) = spread(values, 31.0);
    let codes = raised(values, step, min, 31);
    put(out, 0, step);
    put(out, 2, min);
    out[4..8].copy_from_slice(&fifth_bits(&codes));
    nibbles(&codes, &mut out[8..]);
}

/// The first value of largest magnitude; NaN is larger than any.
fn extreme(values: &[f32; 32]) -> f32 {
    let larger = |a: f32, b: f32| !a.is_nan() && (b.is_nan() || b.abs() > a.abs());
    values.iter().fold(values[0], |most, value| if larger(most, *value) { *value } else { most })
}

/// The step that divides the range of the values, and the smallest of them.
fn spread(values: &[f32; 32], steps: f32) -> (f32, f32) {
    let pick = |better: fn(f32, f32) -> bool| {
        let better = |a: f32, b: f32| !a.is_nan() && (b.is_nan() || better(b, a));
        values.iter().fold(values[0], |best, value| if better(best, *value) { *value } else { best })
    };
    let (max, min) = (pick(|a, b| a > b), pick(|a, b| a < b));
    ((max - min) / steps, min)
}

fn inverse(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

fn centred(values: &[f32; 32], step: f32, centre: f32, most: u8) -> [u8; 32] {
    let inverse = inverse(step);
    values.map(|value| truncate(value * inverse + centre).min(most))
}

fn raised(values: &[f32; 32], step: f32, min: f32, most: u8) -> [u8; 32] {
    let inverse = inverse(step);
    values.map(|value| truncate((value - min) * inverse + 0.5).min(most))
}

/// The low byte of the integer part; 0 if that is no 32-bit integer, as x86 has it.
fn truncate(value: f32) -> u8 {
    if value.abs() < 2_147_483_648.0 { value as i32 as u8 } else { 0 }
}

fn put(out: &mut [u8], at: usize, value: f32) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

fn nibbles(codes: &[u8; 32], out: &mut [u8]) {
    let (low, high) = codes.split_at(16);
    for ((byte, low), high) in out.iter_mut().zip(low).zip(high) {
        *byte = low & 15 | high << 4;
    }
}

fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    codes.iter().rev().fold(0, |bits, code| bits << 1 | u32::from(code >> 4)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::blocks::{Codes, dequantise};

    #[test]
    fn wrong_lengths_and_other_types_are_refused() {
        let mut out = [7; 36];
        for (values, len) in [(31, 34), (32, 33), (32, 35), (0, 1), (64, 34)] {
            assert!(!quantise(Dtype::Q8_0, &[1.0; 64][..values], &mut out[..len]));
        }
        assert!(!quantise(Dtype::IQ4_NL, &[1.0; 32], &mut out[..18]));
        assert!(!quantise(Dtype::U8, &[1.0; 32], &mut out[..32]));
        assert_eq!(out, [7; 36]);
        assert!(quantise(Dtype::Q8_0, &[], &mut []));
    }

    #[test]
    fn a_block_worked_out_by_hand() {
        let mut values = [0.0; 32];
        values[..4].copy_from_slice(&[127.0, -2.5, 2.5, 0.49]);
        let mut out = [0; 34];
        assert!(quantise(Dtype::Q8_0, &values, &mut out));
        assert_eq!(out[..6], [0x00, 0x3c, 127, 0xfd, 3, 0]);
    }

    #[test]
    fn what_is_on_the_grid_comes_back() {
        for dtype in [Dtype::Q4_0, Dtype::Q4_1, Dtype::Q5_0, Dtype::Q5_1, Dtype::Q8_0] {
            let codes = Codes::of(dtype).unwrap();
            let (least, most) = codes.range().into_inner();
            let values: [f32; 32] = std::array::from_fn(|i| {
                let code = if i == 0 { least.max(-127) } else { least.max(-127) + (i as i16 * 7) % (most - least) };
                0.25 * f32::from(if i == 1 { most } else { code })
            });
            let mut block = vec![0; dtype.block().1 as usize];
            let mut again = [0.0; 32];
            assert!(quantise(dtype, &values, &mut block) && dequantise(dtype, &block, &mut again));
            assert_eq!(again, values, "{dtype}");
        }
    }
}
