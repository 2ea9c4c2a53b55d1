//! Quantised blocks of ggml: to numbers and back, and their integer codes in place.
//!
//! Values and blocks are those of ggml's own Python package `gguf` (0.19), bit for bit but for the payloads of NaN.

mod codes;
mod grids;
mod iq;
mod lookup;
mod quantise;

use half::{bf16, f16};

pub use codes::{Codes, Scale};
pub use quantise::quantise;

use super::Dtype;

/// Reads whole blocks, or plain elements of `F32`, `F16` and `BF16`, into `out`.
///
/// Returns `false`, and leaves `out` unchanged, if the lengths do not agree or the type is not one of these or a block
/// type that the package reads: `Q8_1` and `Q8_K` are only ever intermediate results, and it leaves out `Q1_0`.
pub fn dequantise(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> bool {
    if dtype.size(out.len() as u64) != Some(bytes.len() as u64) {
        return false;
    }
    match dtype {
        Dtype::F32 => each(bytes, out, |raw, out: &mut [f32; 1]| *out = [f32::from_le_bytes(*raw)]),
        Dtype::F16 => each(bytes, out, |raw, out: &mut [f32; 1]| *out = [f16::from_le_bytes(*raw).to_f32()]),
        Dtype::BF16 => each(bytes, out, |raw, out: &mut [f32; 1]| *out = [bf16::from_le_bytes(*raw).to_f32()]),
        Dtype::Q4_0 => each::<18, 32>(bytes, out, |block, out| codes::Q4_0.dequantise(block, out)),
        Dtype::Q4_1 => each::<20, 32>(bytes, out, |block, out| codes::Q4_1.dequantise(block, out)),
        Dtype::Q5_0 => each::<22, 32>(bytes, out, |block, out| codes::Q5_0.dequantise(block, out)),
        Dtype::Q5_1 => each::<24, 32>(bytes, out, |block, out| codes::Q5_1.dequantise(block, out)),
        Dtype::Q8_0 => each::<34, 32>(bytes, out, |block, out| codes::Q8_0.dequantise(block, out)),
        Dtype::Q2_K => each::<84, 256>(bytes, out, |block, out| codes::Q2_K.dequantise(block, out)),
        Dtype::Q3_K => each::<110, 256>(bytes, out, |block, out| codes::Q3_K.dequantise(block, out)),
        Dtype::Q4_K => each::<144, 256>(bytes, out, |block, out| codes::Q4_K.dequantise(block, out)),
        Dtype::Q5_K => each::<176, 256>(bytes, out, |block, out| codes::Q5_K.dequantise(block, out)),
        Dtype::Q6_K => each::<210, 256>(bytes, out, |block, out| codes::Q6_K.dequantise(block, out)),
        Dtype::TQ1_0 => each(bytes, out, lookup::tq1_0),
        Dtype::TQ2_0 => each(bytes, out, lookup::tq2_0),
        Dtype::MXFP4 => each(bytes, out, lookup::mxfp4),
        Dtype::NVFP4 => each(bytes, out, lookup::nvfp4),
        Dtype::IQ4_NL => each(bytes, out, lookup::iq4_nl),
        Dtype::IQ4_XS => each(bytes, out, lookup::iq4_xs),
        Dtype::IQ1_S => each(bytes, out, iq::iq1_s),
        Dtype::IQ1_M => each(bytes, out, iq::iq1_m),
        Dtype::IQ2_XXS => each(bytes, out, iq::iq2_xxs),
        Dtype::IQ2_XS => each(bytes, out, iq::iq2_xs),
        Dtype::IQ2_S => each(bytes, out, iq::iq2_s),
        Dtype::IQ3_XXS => each(bytes, out, iq::iq3_xxs),
        Dtype::IQ3_S => each(bytes, out, iq::iq3_s),
        _ => return false,
    }
    true
}

/// Whether [`dequantise`] reads this type.
pub fn is_readable(dtype: Dtype) -> bool {
    dequantise(dtype, &[], &mut [])
}

fn each<const B: usize, const N: usize>(bytes: &[u8], out: &mut [f32], block: impl Fn(&[u8; B], &mut [f32; N])) {
    for (raw, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(raw, out);
    }
}

/// The half-precision number at a place in a block.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reproducible noise.
    pub(super) fn bytes(mut seed: u64, len: usize) -> Vec<u8> {
        let next = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn wrong_lengths_and_other_types_are_refused() {
        let unread = [Dtype::Q1_0, Dtype::Q8_1, Dtype::Q8_K];
        for dtype in Dtype::ALL.iter().copied() {
            let (elements, size) = (dtype.block().0 as usize, dtype.block().1 as usize);
            let read = dtype.block().0 > 4 && !unread.contains(&dtype);
            let read = read || matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
            assert_eq!(is_readable(dtype), read, "{dtype}");
            let mut out = vec![7.0; 2 * elements];
            assert_eq!(dequantise(dtype, &bytes(1, 2 * size), &mut out), read, "{dtype}");
            let mut out = vec![7.0; 2 * elements + 1];
            for (len, size) in
                [(2 * elements, size), (elements, 2 * size), (elements, size - 1), (2 * elements + 1, size)]
            {
                assert!(!dequantise(dtype, &bytes(1, size), &mut out[..len]), "{dtype}");
            }
            assert!(out.iter().all(|value| *value == 7.0));
        }
    }

    #[test]
    fn blocks_worked_out_by_hand() {
        let one_and_a_half = [0x00, 0x3e];
        let q8_0 = [&one_and_a_half[..], &[2, 0x80], &[0xff; 30]].concat();
        let mut out = [0.0; 32];
        assert!(dequantise(Dtype::Q8_0, &q8_0, &mut out));
        assert_eq!(out[..3], [3.0, -192.0, -1.5]);

        let q4_1 = [&one_and_a_half[..], &[0x00, 0xbc], &[0x3f; 16]].concat();
        assert!(dequantise(Dtype::Q4_1, &q4_1, &mut out));
        assert_eq!((out[0], out[15], out[16], out[31]), (21.5, 21.5, 3.5, 3.5));

        // the eighth group has step 2 * 16 + 15 and offset 16 + 1, the fourth step 5 and offset 3
        let mut q4_k = [0; 144];
        q4_k[..4].copy_from_slice(&[0x00, 0x3e, 0x00, 0x3c]);
        (q4_k[7], q4_k[11], q4_k[15]) = (0x80 | 5, 0x40 | 3, 0x1f);
        q4_k[16 + 96..].fill(0x21);
        let mut out = [0.0; 256];
        assert!(dequantise(Dtype::Q4_K, &q4_k, &mut out));
        assert_eq!((out[100], out[224], out[255]), (-3.0, 2.0 * 1.5 * 47.0 - 17.0, 124.0));
        assert_eq!(out[192], 0.0);

        let mxfp4 = [&[128][..], &[0x7e; 16]].concat();
        let mut out = [0.0; 32];
        assert!(dequantise(Dtype::MXFP4, &mxfp4, &mut out));
        assert_eq!((out[0], out[16]), (-8.0, 12.0));
    }
}
