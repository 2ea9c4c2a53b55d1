//! Linear layers of four-bit integers, packed as GPTQ and AWQ pack them in safetensors.
//!
//! Eight codes share each `I32`. A weight is `(code - zero) * scale`, where groups of inputs share zero and scale:
//!
//! | | GPTQ | AWQ (gemm) |
//! |---|---|---|
//! | `qweight` | `[inputs / 8, outputs]`, eight inputs a word | `[inputs, outputs / 8]`, eight outputs a word |
//! | `qzeros` | `[groups, outputs / 8]` | the same, in AWQ's order |
//! | `scales` | `[groups, outputs]` | the same |
//! | order in a word | as they come | 0, 2, 4, 6, 1, 3, 5, 7 |
//! | group of an input | `g_idx`, or successive inputs | successive inputs |

use half::{bf16, f16};

use super::Dtype;

/// The codes that a nibble holds.
const MOST: u8 = 15;

/// The nibble of each of eight columns in AWQ, whose nibbles hold columns 0, 2, 4, 6, 1, 3, 5, 7.
const AWQ_NIBBLE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// One tensor of a layer, as its file holds it.
#[allow(missing_docs, clippy::exhaustive_structs)]
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub dtype: Dtype,
    pub shape: &'a [u64],
    pub bytes: &'a [u8],
}

/// What GPTQ checkpoints store in place of a zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum Zeros {
    /// One less, as in `checkpoint_format: gptq`.
    LessOne,
    /// The zero itself, as in `gptq_v2`.
    Plain,
}

/// A layer of packed integers: its weights as numbers, and its codes.
#[derive(Clone, Copy, Debug)]
pub struct Int4<'a> {
    packing: Packing,
    inputs: usize,
    outputs: usize,
    groups: usize,
    qzeros: &'a [u8],
    scales: Part<'a>,
    g_idx: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Packing {
    Gptq(Zeros),
    Awq,
}

impl<'a> Int4<'a> {
    /// A layer of GPTQ whose `qweight` has this shape, or `None` if the parts do not fit together.
    ///
    /// Without `g_idx` the groups must divide the inputs evenly.
    pub fn gptq(
        qweight: &[u64],
        qzeros: Part<'a>,
        scales: Part<'a>,
        g_idx: Option<Part<'a>>,
        zeros: Zeros,
    ) -> Option<Self> {
        let &[words, outputs] = qweight else { return None };
        Self::new(Packing::Gptq(zeros), words.checked_mul(8)?, outputs, qzeros, scales, g_idx)
    }

    /// A layer of AWQ whose `qweight` has this shape, or `None` if the parts do not fit together.
    pub fn awq(qweight: &[u64], qzeros: Part<'a>, scales: Part<'a>) -> Option<Self> {
        let &[inputs, words] = qweight else { return None };
        Self::new(Packing::Awq, inputs, words.checked_mul(8)?, qzeros, scales, None)
    }

    fn new(
        packing: Packing,
        inputs: u64,
        outputs: u64,
        qzeros: Part<'a>,
        scales: Part<'a>,
        g_idx: Option<Part<'a>>,
    ) -> Option<Self> {
        let groups = *scales.shape.first()?;
        let float = matches!(scales.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32);
        let fits = float
            && outputs.is_multiple_of(8)
            && scales.is(scales.dtype, &[groups, outputs])
            && qzeros.is(Dtype::I32, &[groups, outputs / 8])
            && inputs.checked_mul(outputs).is_some_and(|weights| usize::try_from(weights).is_ok())
            && g_idx.map_or(groups > 0 && inputs.is_multiple_of(groups), |g_idx| {
                g_idx.is(Dtype::I32, &[inputs]) && are_groups(g_idx.bytes, groups)
            });
        let (inputs, outputs) = (usize::try_from(inputs).ok()?, usize::try_from(outputs).ok()?);
        let (groups, g_idx) = (usize::try_from(groups).ok()?, g_idx.map(|g_idx| g_idx.bytes));
        fits.then_some(Self { packing, inputs, outputs, groups, qzeros: qzeros.bytes, scales, g_idx })
    }

    /// Inputs of the layer: the columns of its weights.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of the layer: the rows of its weights.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights `[outputs, inputs]`, each `(code - zero) * scale` rounded once.
    ///
    /// Returns `false`, and leaves `out` unchanged, if either length is not that of the layer.
    pub fn weights(&self, qweight: &[u8], out: &mut [f32]) -> bool {
        if qweight.len() != self.size() || out.len() != self.inputs * self.outputs {
            return false;
        }
        if out.is_empty() {
            return true;
        }
        let mut scales = vec![[(0.0, 0.0); 8]; self.groups];
        let run = if self.g_idx.is_some() { 1 } else { self.inputs / self.groups };
        for (first, rows) in (0..self.outputs).step_by(8).zip(out.chunks_exact_mut(8 * self.inputs)) {
            for (group, scales) in scales.iter_mut().enumerate() {
                for (output, scale) in (first..).zip(scales) {
                    *scale = (f32::from(self.zero(group, output)), self.scale(group, output));
                }
            }
            for start in (0..self.inputs).step_by(run) {
                let scales = &scales[self.group(start)];
                for input in start..start + run {
                    for (k, (zero, scale)) in scales.iter().enumerate() {
                        let (byte, shift) = self.place(first + k, input);
                        rows[k * self.inputs + input] = (f32::from(qweight[byte] >> shift & MOST) - zero) * scale;
                    }
                }
            }
        }
        true
    }

    /// The code of a weight, or `None` if `qweight` or the layer ends before it.
    pub fn code(&self, qweight: &[u8], output: usize, input: usize) -> Option<u8> {
        let (byte, shift) = self.has(output, input).then(|| self.place(output, input))?;
        Some(qweight.get(byte)? >> shift & MOST)
    }

    /// Changes the code of a weight and nothing else.
    ///
    /// Returns `false`, and changes nothing, for a code over 15 or if `qweight` or the layer ends before the weight.
    pub fn set_code(&self, qweight: &mut [u8], output: usize, input: usize, code: u8) -> bool {
        if code > MOST || !self.has(output, input) {
            return false;
        }
        let (byte, shift) = self.place(output, input);
        let Some(byte) = qweight.get_mut(byte) else { return false };
        *byte = *byte & !(MOST << shift) | code << shift;
        true
    }

    /// By how much a weight changes when its code goes up by one, or `None` if the layer ends before it.
    pub fn step(&self, output: usize, input: usize) -> Option<f32> {
        self.has(output, input).then(|| self.scale(self.group(input), output))
    }

    fn has(&self, output: usize, input: usize) -> bool {
        output < self.outputs && input < self.inputs
    }

    /// Bytes of `qweight`.
    fn size(&self) -> usize {
        self.inputs * self.outputs / 2
    }

    /// Byte and shift of a code in `qweight`.
    fn place(&self, output: usize, input: usize) -> (usize, usize) {
        let (word, nibble) = match self.packing {
            Packing::Gptq(_) => (input / 8 * self.outputs + output, input % 8),
            Packing::Awq => (input * (self.outputs / 8) + output / 8, AWQ_NIBBLE[output % 8]),
        };
        (4 * word + nibble / 2, nibble % 2 * 4)
    }

    fn group(&self, input: usize) -> usize {
        match self.g_idx {
            Some(g_idx) => word(g_idx, input) as usize,
            None => input / (self.inputs / self.groups),
        }
    }

    /// From 0 to 16.
    fn zero(&self, group: usize, output: usize) -> u8 {
        let word = word(self.qzeros, group * (self.outputs / 8) + output / 8);
        let (nibble, shift) = match self.packing {
            Packing::Gptq(Zeros::LessOne) => (output % 8, 1),
            Packing::Gptq(Zeros::Plain) => (output % 8, 0),
            Packing::Awq => (AWQ_NIBBLE[output % 8], 0),
        };
        (word >> (4 * nibble)) as u8 % 16 + shift
    }

    fn scale(&self, group: usize, output: usize) -> f32 {
        let (bytes, i) = (self.scales.bytes, group * self.outputs + output);
        match self.scales.dtype {
            Dtype::F32 => f32::from_bits(word(bytes, i)),
            Dtype::F16 => f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32(),
            _ => bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32(),
        }
    }
}

impl Part<'_> {
    /// Whether it has this type and shape, and all the bytes of it.
    fn is(&self, dtype: Dtype, shape: &[u64]) -> bool {
        let elements = shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
        let size = elements.and_then(|elements| dtype.size(elements));
        self.dtype == dtype && self.shape == shape && size == Some(self.bytes.len() as u64)
    }
}

/// Whether all groups are among so many.
fn are_groups(g_idx: &[u8], groups: u64) -> bool {
    let group = |bytes| u64::try_from(i32::from_le_bytes(bytes));
    g_idx.as_chunks().0.iter().all(|bytes| group(*bytes).is_ok_and(|group| group < groups))
}

fn word(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const QWEIGHT: [u64; 2] = [2, 8];

    fn part<'a>(dtype: Dtype, shape: &'a [u64], bytes: &'a [u8]) -> Part<'a> {
        Part { dtype, shape, bytes }
    }

    fn halves(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
    }

    #[test]
    fn a_layer_worked_out_by_hand() {
        let scales = halves(&[[0.5; 8], [2.0; 8]].concat());
        let scales = part(Dtype::F16, &[2, 8], &scales);
        let zeros = [0x77, 0x77, 0x77, 0x77, 0x10, 0x32, 0x54, 0x76];
        let zeros = part(Dtype::I32, &[2, 1], &zeros);
        let mut words = vec![0; 64];
        words[4 * 3 + 1] = 0xa9; // inputs 2 and 3 of output 3
        let mut out = [0.0; 128];

        let layer = Int4::gptq(&QWEIGHT, zeros, scales, None, Zeros::LessOne).unwrap();
        assert!(layer.weights(&words, &mut out));
        assert_eq!((layer.inputs(), layer.outputs()), (16, 8));
        assert_eq!(out[3 * 16..3 * 16 + 9], [-4.0, -4.0, 0.5, 1.0, -4.0, -4.0, -4.0, -4.0, -8.0]);

        let layer = Int4::gptq(&QWEIGHT, zeros, scales, None, Zeros::Plain).unwrap();
        assert!(layer.weights(&words, &mut out));
        assert_eq!((out[0], out[3 * 16 + 2], out[8], out[7 * 16 + 8]), (-3.5, 1.0, 0.0, -14.0));

        let group = [[1, 0, 0, 0], [0; 4]].concat().repeat(8);
        let group = part(Dtype::I32, &[16], &group);
        let layer = Int4::gptq(&QWEIGHT, zeros, scales, Some(group), Zeros::Plain).unwrap();
        assert!(layer.weights(&words, &mut out));
        assert_eq!(out[3 * 16..3 * 16 + 4], [-6.0, -3.5, 12.0, 1.5]);

        let layer = Int4::awq(&[16, 1], zeros, scales).unwrap();
        let mut words = vec![0; 64];
        words[4 * 8 + 2] = 0x05; // nibble 4 of input 8 is output 1, whose zero there is nibble 4 too
        assert!(layer.weights(&words, &mut out));
        assert_eq!((out[16], out[16 + 8], out[8], out[2 * 16 + 8]), (-3.5, 2.0, 0.0, -2.0));
        assert_eq!((layer.step(1, 7), layer.step(1, 8), layer.step(8, 0)), (Some(0.5), Some(2.0), None));
    }

    #[test]
    fn a_code_is_set_and_nothing_else() {
        let (scales, zeros) = (halves(&[1.0; 16]), [0x77; 8]);
        let (scales, zeros) = (part(Dtype::F16, &[2, 8], &scales), part(Dtype::I32, &[2, 1], &zeros));
        let words: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(37)).collect();
        for layer in [Int4::gptq(&QWEIGHT, zeros, scales, None, Zeros::Plain), Int4::awq(&[16, 1], zeros, scales)] {
            let layer = layer.unwrap();
            let places = || (0..8).flat_map(|output| (0..16).map(move |input| (output, input)));
            let read = |words: &[u8]| places().map(|(o, i)| layer.code(words, o, i).unwrap()).collect::<Vec<_>>();
            let before = read(&words);
            for (at, (output, input)) in places().enumerate() {
                let (mut changed, mut expected) = (words.clone(), before.clone());
                expected[at] ^= 9;
                assert!(layer.set_code(&mut changed, output, input, expected[at]));
                assert_eq!(read(&changed), expected);
            }
            let mut same = words.clone();
            assert!(!layer.set_code(&mut same, 0, 0, 16));
            assert!(!layer.set_code(&mut same, 8, 0, 1) && !layer.set_code(&mut same, 0, 16, 1));
            assert!(!layer.set_code(&mut same[..63], 7, 15, 1) && layer.code(&words[..63], 7, 15).is_none());
            assert!(!layer.weights(&words[..63], &mut [0.0; 128]) && !layer.weights(&words, &mut [0.0; 127]));
            assert_eq!(same, words);
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let (scales, zeros, index) = (halves(&[1.0; 16]), [0x77; 8], [0; 64]);
        let good_scales = part(Dtype::F16, &[2, 8], &scales);
        let good_zeros = part(Dtype::I32, &[2, 1], &zeros);
        fn gptq<'a>(q: &[u64], zeros: Part<'a>, scales: Part<'a>, index: Option<Part<'a>>) -> Option<Int4<'a>> {
            Int4::gptq(q, zeros, scales, index, Zeros::LessOne)
        }
        let good_index = Some(part(Dtype::I32, &[16], &index));
        assert!(gptq(&QWEIGHT, good_zeros, good_scales, good_index).is_some());
        for shape in [&[2, 7][..], &[2], &[2, 8, 1], &[1 << 62, 8], &[3, 8], &[u64::MAX, u64::MAX]] {
            assert!(gptq(shape, good_zeros, good_scales, good_index).is_none(), "{shape:?}");
            assert!(Int4::awq(shape, good_zeros, good_scales).is_none(), "{shape:?}");
        }
        for scales in [
            part(Dtype::BF16, &[1, 16], &scales),
            part(Dtype::F32, &[2, 8], &scales),
            part(Dtype::I16, &[2, 8], &scales),
            part(Dtype::F16, &[2, 8], &scales[1..]),
            part(Dtype::F16, &[], &scales),
            part(Dtype::F16, &[0, 8], &[]),
            part(Dtype::F16, &[1 << 61, 8], &scales),
        ] {
            assert!(gptq(&QWEIGHT, good_zeros, scales, None).is_none(), "{scales:?}");
        }
        for zeros in [part(Dtype::I32, &[1, 2], &zeros), part(Dtype::U32, &[2, 1], &zeros)] {
            assert!(gptq(&QWEIGHT, zeros, good_scales, None).is_none(), "{zeros:?}");
        }
        for group in [2i32, -1, i32::MIN, i32::MAX] {
            let index = group.to_le_bytes().repeat(16);
            let index = Some(part(Dtype::I32, &[16], &index));
            assert!(gptq(&QWEIGHT, good_zeros, good_scales, index).is_none(), "{group}");
        }
        let three = (halves(&[1.0; 24]), [0; 12]);
        let (scales, zeros) = (part(Dtype::F16, &[3, 8], &three.0), part(Dtype::I32, &[3, 1], &three.1));
        assert!(gptq(&QWEIGHT, zeros, scales, None).is_none());
        assert!(gptq(&QWEIGHT, zeros, scales, good_index).is_some());
    }
}
