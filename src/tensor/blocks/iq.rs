//! The IQ types: a scale times vectors from a lattice, with signs or a shift.

use super::{grids, half};

/// What the digits of IQ2 stand for. There is no fourth.
const IQ2: [f32; 4] = [8.0, 25.0, 43.0, 0.0];
const IQ3_XXS: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
const IQ3_S: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];

/// Per 32 elements: four bytes of lattice, then 28 bits of signs and 4 of scale.
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (part, out) in block[2..].as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let (vectors, word) = (&part[..4], u32::from_le_bytes([part[4], part[5], part[6], part[7]]));
        let d = d * (0.5 + (word >> 28) as f32) * 0.25;
        for (k, (vector, out)) in vectors.iter().zip(out.as_chunks_mut().0).enumerate() {
            eight(grids::IQ2_XXS[usize::from(*vector)], even(word >> (7 * k)), d, out);
        }
    }
}

/// Per 8 elements: 9 bits of lattice and 7 of signs; per 16 elements 4 bits of scale.
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (k, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let word = u16::from_le_bytes([block[2 + 2 * k], block[3 + 2 * k]]);
        let d = d * (0.5 + nibble(block, 66, k / 2)) * 0.25;
        eight(grids::IQ2_XS[usize::from(word & 511)], even(u32::from(word >> 9)), d, out);
    }
}

/// Per 8 elements: 8 bits of lattice, 8 of signs, 2 more of lattice; per 16 elements 4 bits of scale.
pub(super) fn iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (k, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let high = block[66 + k / 4] >> (k % 4 * 2) & 3;
        let d = d * (0.5 + nibble(block, 74, k / 2)) * 0.25;
        eight(grids::IQ2_S[index(block[2 + k], high)], block[34 + k], d, out);
    }
}

/// Per 4 elements: 8 bits of lattice; per 32 elements 28 bits of signs and 4 of scale.
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let word: [u8; 4] = std::array::from_fn(|i| block[66 + 4 * g + i]);
        let word = u32::from_le_bytes(word);
        let d = d * (0.5 + (word >> 28) as f32) * 0.5;
        for (k, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let vector = block[2 + 8 * g + k];
            four(grids::IQ3_XXS[usize::from(vector)], &IQ3_XXS, even(word >> (k / 2 * 7)) >> (k % 2 * 4), d, out);
        }
    }
}

/// Per 4 elements: 8 bits of lattice, 1 more, 4 of signs; per 32 elements 4 bits of scale.
pub(super) fn iq3_s(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (k, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let high = block[66 + k / 8] >> (k % 8) & 1;
        let d = d * (1.0 + 2.0 * nibble(block, 106, k / 8));
        four(grids::IQ3_S[index(block[2 + k], high)], &IQ3_S, block[74 + k / 2] >> (k % 2 * 4), d, out);
    }
}

/// Per 8 elements: 8 bits of lattice; per 32 elements 4 times 3 more, 3 of scale, and the sign of the shift.
pub(super) fn iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = half(block, 0);
    for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let word = u16::from_le_bytes([block[34 + 2 * g], block[35 + 2 * g]]);
        let d = d * f32::from(2 * (word >> 12 & 7) + 1);
        for (k, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let vector = index(block[2 + 4 * g + k], (word >> (3 * k) & 7) as u8);
            ternary(grids::IQ1[vector], word & 0x8000 != 0, d, out);
        }
    }
}

/// Per 8 elements: 8 bits of lattice, 3 more, and the sign of the shift; per 16 elements 3 bits of scale, in four words
/// whose top nibbles are the common scale.
pub(super) fn iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    let words: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([block[48 + 2 * i], block[49 + 2 * i]]));
    let common = words.iter().rev().fold(0, |common, word| common << 4 | word >> 12);
    let d = half(&common.to_le_bytes(), 0);
    for (k, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let d = d * f32::from(2 * (words[k / 8] >> (k / 2 % 4 * 3) & 7) + 1);
        let high = block[32 + k / 2] >> (k % 2 * 4);
        ternary(grids::IQ1[index(block[k], high & 7)], high & 8 != 0, d, out);
    }
}

#[inline(always)]
fn eight(vector: u16, signs: u8, d: f32, out: &mut [f32; 8]) {
    for (k, value) in out.iter_mut().enumerate() {
        *value = signed(d * IQ2[usize::from(vector >> (2 * k) & 3)], signs >> k);
    }
}

#[inline(always)]
fn four(vector: u16, levels: &[f32; 8], signs: u8, d: f32, out: &mut [f32; 4]) {
    for (k, value) in out.iter_mut().enumerate() {
        *value = signed(d * levels[usize::from(vector >> (4 * k) & 7)], signs >> k);
    }
}

#[inline(always)]
fn ternary(vector: u16, down: bool, d: f32, out: &mut [f32; 8]) {
    let shift = if down { -1.125 } else { -0.875 };
    for (k, value) in out.iter_mut().enumerate() {
        *value = d * (f32::from(vector >> (2 * k) & 3) + shift);
    }
}

/// The value, negated if the lowest of `bits` is set.
#[inline(always)]
fn signed(value: f32, bits: u8) -> f32 {
    f32::from_bits(value.to_bits() ^ u32::from(bits & 1) << 31)
}

/// Eight signs of even parity from seven.
#[inline(always)]
fn even(signs: u32) -> u8 {
    let signs = (signs & 127) as u8;
    signs | ((signs.count_ones() as u8 & 1) << 7)
}

#[inline(always)]
fn index(low: u8, high: u8) -> usize {
    usize::from(u16::from_le_bytes([low, high]))
}

#[inline(always)]
fn nibble(block: &[u8], at: usize, i: usize) -> f32 {
    f32::from(block[at + i / 2] >> (i % 2 * 4) & 15)
}
