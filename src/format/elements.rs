//! The elements of one tensor as numbers, read in runs, whatever type they have and however they are stored.

use std::ops::Range;
use std::sync::Arc;

use super::load;
use crate::error::{Error, Result};
use crate::io::{Memory, ReadAt};
use crate::tensor::{TensorInfo, lanes};

/// Elements read at a time, so that their bytes stay in cache.
const PIECE: u64 = 8192;

/// Reads runs of elements of a tensor.
pub struct Elements {
    source: Arc<dyn ReadAt>,
    info: TensorInfo,
    /// All of the tensor, if it is not stored plainly.
    whole: Option<Memory>,
}

impl Elements {
    /// Opens a tensor of the file `source`; one that is not stored [plainly](crate::tensor::Storage::Plain) is loaded at once.
    pub fn open(source: Arc<dyn ReadAt>, info: &TensorInfo) -> Result<Self> {
        if !lanes::is_number(info.dtype) {
            return Err(Error::ApiMisuse("the elements of this tensor are not numbers"));
        }
        let whole = if info.is_plain() { None } else { Some(load(&*source, info)?) };
        Ok(Self { source, info: info.clone(), whole })
    }

    /// The tensor.
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// Reads the elements of `range`, counted row-major from 0, into `out`, which must be as long.
    pub fn read(&self, range: Range<u64>, out: &mut [f64]) -> Result<()> {
        let len = range.end.checked_sub(range.start);
        if len != Some(out.len() as u64) || range.end > self.info.elements() {
            return Err(Error::ApiMisuse("no such elements, or a buffer of another length"));
        }
        let (block, width) = self.info.dtype.block();
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        let mut start = range.start / block * block;
        while start < range.end {
            let end = (start + PIECE.next_multiple_of(block)).min(range.end.next_multiple_of(block));
            let (from, to) = (start / block * width, end / block * width);
            let bytes = match &self.whole {
                Some(whole) => &whole[from as usize..to as usize],
                None => {
                    bytes.resize((to - from) as usize, 0);
                    self.source.read_at(self.info.span.start + from, &mut bytes)?;
                    &bytes[..]
                }
            };
            let wanted = start.max(range.start)..end.min(range.end);
            let place = (wanted.start - range.start) as usize..(wanted.end - range.start) as usize;
            if wanted == (start..end) {
                lanes::load(self.info.dtype, bytes, &mut out[place]);
            } else {
                numbers.resize((end - start) as usize, 0.0);
                lanes::load(self.info.dtype, bytes, &mut numbers);
                out[place].copy_from_slice(&numbers[(wanted.start - start) as usize..(wanted.end - start) as usize]);
            }
            start = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SliceAt;
    use crate::tensor::{Dtype, Storage};

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
}
