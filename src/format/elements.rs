//! The elements of one tensor as numbers, read in runs, whatever type they have and however they are stored.

use std::ops::Range;
use std::sync::Arc;

use super::load;
use crate::error::{Error, Result};
use crate::io::{Memory, ReadAt};
use crate::tensor::blocks::Codes;
use crate::tensor::{Dtype, TensorInfo, lanes};

/// Elements read at a time, so that their bytes stay in cache.
const PIECE: u64 = 32_768;

/// Reads runs of elements of a tensor.
pub struct Elements {
    source: Arc<dyn ReadAt>,
    info: TensorInfo,
    /// All of the tensor, if it is not stored plainly.
    whole: Option<Memory>,
    /// All values of the type, ascending, if they are few.
    levels: Vec<f32>,
}

/// An end of the cell of an element: the interval of numbers that are stored as this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum Bound {
    /// The lower end.
    Low,
    /// The upper end.
    High,
}

impl Elements {
    /// Opens a tensor of the file `source`; one that is not stored [plainly](crate::tensor::Storage::Plain) is loaded at once.
    pub fn open(source: Arc<dyn ReadAt>, info: &TensorInfo) -> Result<Self> {
        if !lanes::is_number(info.dtype) {
            return Err(Error::ApiMisuse("the elements of this tensor are not numbers"));
        }
        let whole = if info.is_plain() { None } else { Some(load(&*source, info)?) };
        Ok(Self { source, info: info.clone(), whole, levels: levels(info.dtype) })
    }

    /// Whether the type says in which cells its elements lie: of integers and floats of 8 bits and fewer, and of quantised
    /// blocks of steps times codes.
    pub fn has_cells(&self) -> bool {
        !self.levels.is_empty() || Codes::of(self.info.dtype).is_some()
    }

    /// Reads one end of the cells of elements; without limit for the outermost ones, and where nothing is known.
    pub fn read_bound(&self, range: Range<u64>, bound: Bound, out: &mut [f32]) -> Result<()> {
        let Some(codes) = Codes::of(self.info.dtype) else {
            self.read_f32(range, out)?;
            out.iter_mut().for_each(|value| *value = end_of_cell(&self.levels, *value, bound));
            return Ok(());
        };
        self.check(&range, out.len())?;
        let (block, width) = self.info.dtype.block();
        let (least, most) = (*codes.range().start(), *codes.range().end());
        let mut start = range.start / block * block;
        while start < range.end {
            let end = (start + PIECE.next_multiple_of(block)).min(range.end.next_multiple_of(block));
            let mut bytes = Vec::new();
            let bytes = self.bytes(start / block * width..end / block * width, &mut bytes)?;
            let scales: Vec<_> = bytes.chunks(width as usize).flat_map(|block| codes.scales(block)).collect();
            for at in start.max(range.start)..end.min(range.end) {
                let i = (at - start) as usize;
                let (code, scale) = (codes.get(bytes, i).unwrap_or_default(), scales[i / codes.group()]);
                // of a negative step the low end is towards higher codes
                let up = (bound == Bound::High) == (scale.step >= 0.0);
                let is_last = code == if up { most } else { least };
                let end = scale.step * (f32::from(code) + if up { 0.5 } else { -0.5 }) + scale.offset;
                let is_known = !is_last && scale.step != 0.0 && end.is_finite();
                out[(at - range.start) as usize] = if is_known { end } else { bound.infinite() };
            }
            start = end;
        }
        Ok(())
    }

    /// The tensor.
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// Reads the elements of `range`, counted row-major from 0, into `out`, which must be as long.
    pub fn read(&self, range: Range<u64>, out: &mut [f64]) -> Result<()> {
        self.read_by(lanes::load, range, out)
    }

    /// As [`read`](Self::read), rounded to the nearest `f32`.
    pub fn read_f32(&self, range: Range<u64>, out: &mut [f32]) -> Result<()> {
        self.read_by(lanes::load_f32, range, out)
    }

    fn read_by<T: Copy + Default>(
        &self,
        load: impl Fn(Dtype, &[u8], &mut [T]) -> bool,
        range: Range<u64>,
        out: &mut [T],
    ) -> Result<()> {
        self.check(&range, out.len())?;
        let (block, width) = self.info.dtype.block();
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        let mut start = range.start / block * block;
        while start < range.end {
            let end = (start + PIECE.next_multiple_of(block)).min(range.end.next_multiple_of(block));
            let (from, to) = (start / block * width, end / block * width);
            let bytes = self.bytes(from..to, &mut bytes)?;
            let wanted = start.max(range.start)..end.min(range.end);
            let place = (wanted.start - range.start) as usize..(wanted.end - range.start) as usize;
            if wanted == (start..end) {
                load(self.info.dtype, bytes, &mut out[place]);
            } else {
                numbers.resize((end - start) as usize, T::default());
                load(self.info.dtype, bytes, &mut numbers);
                out[place].copy_from_slice(&numbers[(wanted.start - start) as usize..(wanted.end - start) as usize]);
            }
            start = end;
        }
        Ok(())
    }

    fn check(&self, range: &Range<u64>, len: usize) -> Result<()> {
        let fits = range.end.checked_sub(range.start) == Some(len as u64) && range.end <= self.info.elements();
        if fits { Ok(()) } else { Err(Error::ApiMisuse("no such elements, or a buffer of another length")) }
    }

    /// Bytes of the tensor, read into `buffer` if they are not in memory.
    fn bytes<'a>(&'a self, range: Range<u64>, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        if let Some(whole) = &self.whole {
            return Ok(&whole[range.start as usize..range.end as usize]);
        }
        buffer.resize((range.end - range.start) as usize, 0);
        self.source.read_at(self.info.span.start + range.start, buffer)?;
        Ok(buffer)
    }
}

impl Bound {
    fn infinite(self) -> f32 {
        match self {
            Self::Low => f32::NEG_INFINITY,
            Self::High => f32::INFINITY,
        }
    }
}

/// The finite values of a type of at most 8 bits, ascending.
fn levels(dtype: Dtype) -> Vec<f32> {
    use Dtype::*;
    if !matches!(dtype, I8 | U8 | I4 | U4 | I2 | U2 | F8_E4M3 | F8_E4M3FNUZ | F8_E5M2 | F8_E5M2FNUZ | F4) {
        return Vec::new();
    }
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    let mut values = vec![0.0f64; bytes.len() * dtype.block().0 as usize];
    lanes::load(dtype, &bytes, &mut values);
    let mut levels: Vec<f32> = values.iter().map(|value| *value as f32).filter(|value| value.is_finite()).collect();
    levels.sort_by(f32::total_cmp);
    levels.dedup();
    levels
}

/// The end of the cell of a level: half way to the next.
fn end_of_cell(levels: &[f32], value: f32, bound: Bound) -> f32 {
    let at = levels.partition_point(|level| *level < value);
    let next = match bound {
        Bound::Low => at.checked_sub(1),
        Bound::High => at.checked_add(1),
    };
    match next.and_then(|next| levels.get(next)) {
        Some(next) if value.is_finite() => (value + next) / 2.0,
        _ => bound.infinite(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SliceAt;
    use crate::tensor::Storage;

    #[test]
    fn runs_begin_and_end_anywhere() {
        let values: Vec<f64> = (0..20_000).map(f64::from).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
        let plain = TensorInfo::new("a", Dtype::F32, vec![20, 1000], 0..80_000);
        let turned = plain.clone().stored(Storage::Strided(vec![1, 20]));
        let source: Arc<dyn ReadAt> = Arc::new(SliceAt::new(bytes));
        for (range, info) in [(0..20_000, &plain), (17..16_401, &plain), (9_999..10_000, &plain), (5..5, &plain)] {
            let mut out = vec![0.0; (range.end - range.start) as usize];
            Elements::open(Arc::clone(&source), info).unwrap().read(range.clone(), &mut out).unwrap();
            assert_eq!(out, values[range.start as usize..range.end as usize]);
        }
        let mut out = [0.0; 3];
        let turned = Elements::open(source, &turned).unwrap();
        turned.read(999..1002, &mut out).unwrap();
        assert_eq!(out, [19_980.0, 1.0, 21.0]);
        assert!(turned.read(19_998..20_001, &mut out).is_err() && turned.read(0..2, &mut out).is_err());
    }
    #[test]
    fn cells_end_half_way_to_the_next_value() {
        let open = |dtype, shape: Vec<u64>, bytes: Vec<u8>| {
            let info = TensorInfo::new("a", dtype, shape, 0..bytes.len() as u64);
            Elements::open(Arc::new(SliceAt::new(bytes)), &info).unwrap()
        };
        let cells = |elements: &Elements, range: Range<u64>| {
            let mut low = vec![0.0; (range.end - range.start) as usize];
            let mut high = low.clone();
            elements.read_bound(range.clone(), Bound::Low, &mut low).unwrap();
            elements.read_bound(range, Bound::High, &mut high).unwrap();
            low.into_iter().zip(high).collect::<Vec<_>>()
        };
        let infinity = f32::INFINITY;
        let int8 = open(Dtype::I8, vec![3], vec![0x80, 0xff, 127]);
        assert_eq!(cells(&int8, 0..3), [(-infinity, -127.5), (-1.5, -0.5), (126.5, infinity)]);
        // 0, 448, 1 and 1.125 apart from 0.9375
        let float8 = open(Dtype::F8_E4M3, vec![3], vec![0, 0x7e, 0x38]);
        let least = 0.5f32.powi(10);
        assert_eq!(cells(&float8, 0..3), [(-least, least), (432.0, infinity), (0.96875, 1.0625)]);
        // step 1.5: nibbles 7, 15 and 0 stand for -1, 7 and -8; step -1.5 in the second block
        let block = |step: u8| [&[0x00, step][..], &[0x7f], &[0x08; 15]].concat();
        let q4_0 = open(Dtype::Q4_0, vec![2, 32], [block(0x3e), block(0xbe)].concat());
        assert_eq!(cells(&q4_0, 0..2), [(9.75, infinity), (-0.75, 0.75)]);
        assert_eq!(cells(&q4_0, 15..18), [(-0.75, 0.75), (-2.25, -0.75), (-infinity, -11.25)]);
        assert_eq!(cells(&q4_0, 31..33), [(-infinity, -11.25), (-infinity, -9.75)]);
        assert_eq!(cells(&q4_0, 48..50), [(0.75, 2.25), (11.25, infinity)]);
        assert!(!open(Dtype::F16, vec![1], vec![0; 2]).has_cells());
        assert!(q4_0.read_bound(60..65, Bound::Low, &mut [0.0; 5]).is_err());
    }
}
