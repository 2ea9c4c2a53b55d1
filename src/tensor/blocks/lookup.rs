//! Types whose codes index a small table: ternary, four-bit floating point, and IQ4.

use super::{codes::Plane, half};

/// E2M1, doubled.
const E2M1: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// The levels of IQ4, which ggml fitted to weights.
const IQ4: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Five base-3 digits a byte, as a fraction of 256: the digit is what a multiplication by 3 carries out of the byte.
pub(super) fn tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = half(block, 52);
    let (five, four) = out.split_at_mut(240);
    let (wide, narrow) = five.split_at_mut(160);
    for (bytes, out) in [(&block[..32], wide), (&block[32..48], narrow), (&block[48..52], four)] {
        for (out, power) in out.chunks_exact_mut(bytes.len()).zip([1, 3, 9, 27, 81]) {
            for (value, byte) in out.iter_mut().zip(bytes) {
                let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                *value = d * (f32::from(digit) - 1.0);
            }
        }
    }
}

pub(super) fn tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    const LEVELS: [f32; 4] = [-1.0, 0.0, 1.0, 2.0];
    let d = half(block, 64);
    let mut raw = [0; 256];
    Plane { at: 0, stripe: 32, bits: 2 }.unpack(block, 0, &mut raw);
    for (value, raw) in out.iter_mut().zip(raw) {
        *value = d * LEVELS[usize::from(raw & 3)];
    }
}

pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    // half of 2^(e - 127), whose two smallest are subnormal
    let d = match block[0] {
        e @ 0..2 => f32::from_bits(0x0020_0000 << e),
        e => f32::from_bits(u32::from(e - 1) << 23),
    };
    nibbles(&block[1..], 16, [d; 1], &E2M1, out);
}

pub(super) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    nibbles(&block[4..], 8, [block[0], block[1], block[2], block[3]].map(half_e4m3), &E2M1, out);
}

pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    nibbles(&block[2..], 16, [half(block, 0)], &IQ4, out);
}

pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = half(block, 0);
    let mut raw = [0; 8];
    Plane { at: 4, stripe: 1, bits: 4 }.unpack(block, 0, &mut raw);
    Plane { at: 2, stripe: 1, bits: 2 }.unpack(block, 4, &mut raw);
    nibbles(&block[8..], 16, raw.map(|raw| d * (f32::from(raw) - 32.0)), &IQ4, out);
}

/// A stripe of nibbles for each scale.
#[inline(always)]
fn nibbles<const G: usize>(bytes: &[u8], stripe: usize, scales: [f32; G], levels: &[f32; 16], out: &mut [f32]) {
    for ((bytes, out), d) in bytes.chunks_exact(stripe).zip(out.chunks_exact_mut(2 * stripe)).zip(scales) {
        let (low, high) = out.split_at_mut(stripe);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            *low = d * levels[usize::from(byte & 15)];
            *high = d * levels[usize::from(byte >> 4)];
        }
    }
}

/// Half of an unsigned E4M3, whose sign bit means nothing. Zero in the place of its NaN, but only without that bit.
fn half_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa * 2f32.powi(-10),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 11),
    }
}
