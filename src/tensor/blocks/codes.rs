//! The affine types, whose values are steps times small integers: these codes can be read and changed in place.

use std::ops::RangeInclusive;

use super::half;
use crate::tensor::Dtype;

/// How the codes of an affine type lie in its blocks.
///
/// Each value is `step * code + offset`, where [`Scale`] holds for a group of elements. The product is exact in
/// `f32` and the sum is rounded to it once, so types without offset are exact multiples of their step.
#[derive(Clone, Copy, Debug)]
pub struct Codes {
    elements: usize,
    bytes: usize,
    groups: usize,
    low: Plane,
    high: Option<Plane>,
    bias: u8,
    scales: fn(&[u8]) -> [Scale; 16],
}

/// What the codes of a group of elements stand for: `step * code + offset`.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scale {
    pub step: f32,
    pub offset: f32,
}

impl Codes {
    /// The affine types.
    pub const TYPES: [Dtype; 10] = [
        Dtype::Q4_0,
        Dtype::Q4_1,
        Dtype::Q5_0,
        Dtype::Q5_1,
        Dtype::Q8_0,
        Dtype::Q2_K,
        Dtype::Q3_K,
        Dtype::Q4_K,
        Dtype::Q5_K,
        Dtype::Q6_K,
    ];

    /// Of this type, if it is affine.
    pub fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::Q4_0 => Q4_0,
            Dtype::Q4_1 => Q4_1,
            Dtype::Q5_0 => Q5_0,
            Dtype::Q5_1 => Q5_1,
            Dtype::Q8_0 => Q8_0,
            Dtype::Q2_K => Q2_K,
            Dtype::Q3_K => Q3_K,
            Dtype::Q4_K => Q4_K,
            Dtype::Q5_K => Q5_K,
            Dtype::Q6_K => Q6_K,
            _ => return None,
        })
    }

    /// The codes that can be stored.
    pub fn range(&self) -> RangeInclusive<i16> {
        match self.bits() {
            8 => -128..=127,
            bits => -i16::from(self.bias)..=(1 << bits) - 1 - i16::from(self.bias),
        }
    }

    /// Successive elements that share a scale.
    pub fn group(&self) -> usize {
        self.elements / self.groups
    }

    /// The code of element `i` of `blocks`, or `None` if they end before it.
    pub fn get(&self, blocks: &[u8], i: usize) -> Option<i16> {
        let (start, i) = self.place(i)?;
        let block = blocks.get(start..)?.get(..self.bytes)?;
        let high = self.high.map_or(0, |high| high.get(block, i) << self.low.bits);
        Some(self.signed(self.low.get(block, i) | high))
    }

    /// Changes the code of element `i` of `blocks` and nothing else.
    ///
    /// Returns `false`, and changes nothing, if the code is out of range or the blocks end before the element.
    pub fn set(&self, blocks: &mut [u8], i: usize, code: i16) -> bool {
        let Some((start, i)) = self.place(i).filter(|_| self.range().contains(&code)) else { return false };
        let Some(block) = blocks.get_mut(start..).and_then(|rest| rest.get_mut(..self.bytes)) else { return false };
        let raw = (code + i16::from(self.bias)) as u8;
        self.low.set(block, i, raw);
        if let Some(high) = self.high {
            high.set(block, i, raw >> self.low.bits);
        }
        true
    }

    /// The scale of each [`group`](Self::group) of one block; nothing for bytes that are not one block.
    pub fn scales(&self, block: &[u8]) -> impl Iterator<Item = Scale> + use<> {
        let whole = block.len() == self.bytes;
        let scales = if whole { (self.scales)(block) } else { [Scale::NONE; 16] };
        scales.into_iter().take(if whole { self.groups } else { 0 })
    }

    /// The values of one block.
    #[inline(always)]
    pub(super) fn dequantise<const B: usize, const N: usize>(self, block: &[u8; B], out: &mut [f32; N]) {
        let mut raw = [0; N];
        self.low.unpack(block, 0, &mut raw);
        if let Some(high) = self.high {
            high.unpack(block, self.low.bits, &mut raw);
        }
        let groups = out.chunks_exact_mut(N / self.groups).zip(raw.chunks_exact(N / self.groups));
        for ((out, raw), scale) in groups.zip((self.scales)(block)) {
            for (value, raw) in out.iter_mut().zip(raw) {
                *value = scale.step * f32::from(self.signed(*raw)) + scale.offset;
            }
        }
    }

    /// What is stored as `raw`.
    #[inline(always)]
    fn signed(&self, raw: u8) -> i16 {
        i16::from(raw.wrapping_sub(self.bias) as i8)
    }

    fn bits(&self) -> usize {
        self.low.bits + self.high.map_or(0, |high| high.bits)
    }

    /// Where the block of element `i` starts, and the number of the element in it.
    fn place(&self, i: usize) -> Option<(usize, usize)> {
        Some(((i / self.elements).checked_mul(self.bytes)?, i % self.elements))
    }
}

impl Scale {
    /// Adding -0.0 changes nothing, not even a zero's sign.
    const NONE: Self = Self { step: 0.0, offset: -0.0 };

    /// Codes that are the numbers.
    pub const UNIT: Self = Self { step: 1.0, offset: -0.0 };

    fn step(step: f32) -> Self {
        Self { step, ..Self::NONE }
    }
}

/// A few bits of each element: successive elements lie in the same bits of `stripe` successive bytes, the elements
/// after them in the next higher bits of the same bytes, until these are full and the next stripe starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) at: usize,
    pub(super) stripe: usize,
    pub(super) bits: usize,
}

impl Plane {
    const fn new(at: usize, stripe: usize, bits: usize) -> Self {
        Self { at, stripe, bits }
    }

    /// Sets the bits of all elements, from bit `shift` on.
    #[inline(always)]
    pub(super) fn unpack(self, block: &[u8], shift: usize, raw: &mut [u8]) {
        let stripes = block[self.at..].chunks_exact(self.stripe);
        for (bytes, raw) in stripes.zip(raw.chunks_exact_mut(8 / self.bits * self.stripe)) {
            for (k, raw) in raw.chunks_exact_mut(self.stripe).enumerate() {
                for (raw, byte) in raw.iter_mut().zip(bytes) {
                    *raw |= ((byte >> (k * self.bits)) & self.mask()) << shift;
                }
            }
        }
    }

    fn get(self, block: &[u8], i: usize) -> u8 {
        let (byte, shift) = self.place(i);
        (block[byte] >> shift) & self.mask()
    }

    fn set(self, block: &mut [u8], i: usize, raw: u8) {
        let (byte, shift) = self.place(i);
        block[byte] = (block[byte] & !(self.mask() << shift)) | ((raw & self.mask()) << shift);
    }

    fn place(self, i: usize) -> (usize, usize) {
        let turn = 8 / self.bits * self.stripe;
        (self.at + i / turn * self.stripe + i % self.stripe, i % turn / self.stripe * self.bits)
    }

    fn mask(self) -> u8 {
        u8::MAX >> (8 - self.bits)
    }
}

const fn codes(of: Dtype, groups: usize, low: Plane, scales: fn(&[u8]) -> [Scale; 16]) -> Codes {
    let (elements, bytes) = of.block();
    Codes { elements: elements as usize, bytes: bytes as usize, groups, low, high: None, bias: 0, scales }
}

impl Codes {
    const fn high(self, plane: Plane) -> Self {
        Self { high: Some(plane), ..self }
    }

    const fn bias(self, bias: u8) -> Self {
        Self { bias, ..self }
    }
}

pub(super) const Q4_0: Codes = codes(Dtype::Q4_0, 1, Plane::new(2, 16, 4), one_step).bias(8);
pub(super) const Q4_1: Codes = codes(Dtype::Q4_1, 1, Plane::new(4, 16, 4), step_and_offset);
pub(super) const Q5_0: Codes = codes(Dtype::Q5_0, 1, Plane::new(6, 16, 4), one_step).high(Plane::new(2, 1, 1)).bias(16);
pub(super) const Q5_1: Codes = codes(Dtype::Q5_1, 1, Plane::new(8, 16, 4), step_and_offset).high(Plane::new(4, 1, 1));
pub(super) const Q8_0: Codes = codes(Dtype::Q8_0, 1, Plane::new(2, 32, 8), one_step);
pub(super) const Q2_K: Codes = codes(Dtype::Q2_K, 16, Plane::new(16, 32, 2), q2_k);
pub(super) const Q3_K: Codes = codes(Dtype::Q3_K, 16, Plane::new(32, 32, 2), q3_k).high(Plane::new(0, 32, 1)).bias(4);
pub(super) const Q4_K: Codes = codes(Dtype::Q4_K, 8, Plane::new(16, 32, 4), q4_k);
pub(super) const Q5_K: Codes = codes(Dtype::Q5_K, 8, Plane::new(48, 32, 4), q4_k).high(Plane::new(16, 32, 1));
pub(super) const Q6_K: Codes = codes(Dtype::Q6_K, 16, Plane::new(0, 64, 4), q6_k).high(Plane::new(128, 32, 2)).bias(32);

#[inline(always)]
fn one_step(block: &[u8]) -> [Scale; 16] {
    [Scale::step(half(block, 0)); 16]
}

#[inline(always)]
fn step_and_offset(block: &[u8]) -> [Scale; 16] {
    [Scale { step: half(block, 0), offset: half(block, 2) }; 16]
}

/// Four bits each, step and negated offset in one byte.
#[inline(always)]
fn q2_k(block: &[u8]) -> [Scale; 16] {
    let (d, min) = (half(block, 80), half(block, 82));
    std::array::from_fn(|i| Scale { step: d * f32::from(block[i] & 15), offset: -(min * f32::from(block[i] >> 4)) })
}

/// Six bits each: the low four as a plane of nibbles in 8 bytes, the high two as a plane in the 4 that follow.
#[inline(always)]
fn q3_k(block: &[u8]) -> [Scale; 16] {
    let mut raw = [0; 16];
    Plane::new(96, 8, 4).unpack(block, 0, &mut raw);
    Plane::new(104, 4, 2).unpack(block, 4, &mut raw);
    let d = half(block, 108);
    raw.map(|raw| Scale::step(d * (f32::from(raw) - 32.0)))
}

/// Six bits each, of Q5_K too. Of the first four steps and offsets a byte each, whose spare top bits are those of the
/// last four; the low nibbles of these share a byte.
#[inline(always)]
fn q4_k(block: &[u8]) -> [Scale; 16] {
    let (d, min) = (half(block, 0), half(block, 2));
    let mut scales = [Scale::NONE; 16];
    for i in 0..4 {
        let (step, offset, low) = (block[4 + i], block[8 + i], block[12 + i]);
        let scale = |step, offset| Scale { step: d * f32::from(step), offset: -(min * f32::from(offset)) };
        scales[i] = scale(step & 63, offset & 63);
        scales[4 + i] = scale(low & 15 | step >> 2 & 48, low >> 4 | offset >> 2 & 48);
    }
    scales
}

/// A signed byte each.
#[inline(always)]
fn q6_k(block: &[u8]) -> [Scale; 16] {
    let d = half(block, 208);
    std::array::from_fn(|i| Scale::step(d * f32::from(block[192 + i] as i8)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::blocks::{dequantise, tests::bytes};

    /// Three blocks of this type, finite, and their values.
    fn blocks(dtype: Dtype) -> (Vec<u8>, Vec<f32>) {
        let (elements, size) = dtype.block();
        let mut values = vec![f32::NAN; 3 * elements as usize];
        let mut seed = dtype as u64;
        loop {
            seed += 1000;
            let blocks = bytes(seed, 3 * size as usize);
            assert!(dequantise(dtype, &blocks, &mut values));
            if values.iter().all(|value| value.is_finite()) {
                return (blocks, values);
            }
        }
    }

    #[test]
    fn values_are_steps_times_codes_rounded_once() {
        for dtype in Codes::TYPES {
            let codes = Codes::of(dtype).unwrap();
            let (blocks, values) = blocks(dtype);
            let scales: Vec<_> = blocks.chunks(codes.bytes).flat_map(|block| codes.scales(block)).collect();
            assert_eq!(scales.len() * codes.group(), values.len());
            for (i, value) in values.iter().enumerate() {
                let (scale, code) = (scales[i / codes.group()], codes.get(&blocks, i).unwrap());
                assert!(codes.range().contains(&code));
                let product = scale.step * f32::from(code);
                assert_eq!(f64::from(product), f64::from(scale.step) * f64::from(code));
                assert_eq!((product + scale.offset).to_bits(), value.to_bits(), "{dtype} {i}");
            }
        }
    }

    #[test]
    fn a_code_is_set_and_nothing_else() {
        for dtype in Codes::TYPES {
            let codes = Codes::of(dtype).unwrap();
            let (blocks, values) = blocks(dtype);
            let read = |blocks: &[u8]| (0..values.len()).map(|i| codes.get(blocks, i).unwrap()).collect::<Vec<_>>();
            let before = read(&blocks);
            for i in 0..values.len() {
                for code in [*codes.range().start(), 0, 1, *codes.range().end()] {
                    let mut changed = blocks.clone();
                    assert!(codes.set(&mut changed, i, code));
                    let mut expected = before.clone();
                    expected[i] = code;
                    assert_eq!(read(&changed), expected, "{dtype} {i}");
                    assert!(codes.set(&mut changed, i, before[i]));
                    assert_eq!(changed, blocks);
                }
            }
        }
    }

    #[test]
    fn one_code_up_is_one_step_up() {
        for dtype in Codes::TYPES {
            let codes = Codes::of(dtype).unwrap();
            let (mut blocks, values) = blocks(dtype);
            for i in 0..values.len() {
                let code = codes.get(&blocks, i).unwrap();
                let scale = codes.scales(&blocks[..codes.bytes]).nth(i / codes.group());
                let (Some(scale), true) = (scale, codes.set(&mut blocks, i, code + 1)) else { continue };
                let mut after = values.clone();
                dequantise(dtype, &blocks, &mut after);
                let (moved, step) = (f64::from(after[i]) - f64::from(values[i]), f64::from(scale.step));
                let rounding = if scale.offset == 0.0 { 0.0 } else { f64::from(after[i].abs().max(values[i].abs())) };
                assert!((moved - step).abs() <= rounding * f64::from(f32::EPSILON), "{dtype} {i}: {moved} {step}");
                after[i] = values[i];
                assert_eq!(after, values, "{dtype} {i}");
                assert!(codes.set(&mut blocks, i, code));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Codes::of(Dtype::IQ4_NL).is_none() && Codes::of(Dtype::F32).is_none());
        for dtype in Codes::TYPES {
            let codes = Codes::of(dtype).unwrap();
            let (mut blocks, _) = blocks(dtype);
            let whole = blocks.clone();
            assert_eq!(codes.get(&blocks, 3 * codes.elements), None);
            assert_eq!(codes.get(&blocks[..blocks.len() - 1], 3 * codes.elements - 1), None);
            assert_eq!(codes.get(&blocks, usize::MAX), None);
            assert!(!codes.set(&mut blocks, 3 * codes.elements, 0));
            for code in [codes.range().start() - 1, codes.range().end() + 1, i16::MIN, i16::MAX] {
                assert!(!codes.set(&mut blocks, 0, code));
            }
            assert_eq!(blocks, whole);
            assert_eq!(codes.scales(&blocks).count() + codes.scales(&[]).count(), 0);
        }
    }
}
