//! A DEFLATE stream in a source, decompressed front to back in constant memory.

use crc32fast::Hasher;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

use crate::error::{Cause, Error, FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::Span;

/// Most bytes that one byte of a stream can stand for.
pub(super) const MAX_RATIO: u64 = 1032;
/// Bytes read at once.
const PIECE: u64 = 64 << 10;

/// A raw DEFLATE stream that fills its span exactly, and the checksum of what has come out of it.
pub(super) struct Inflate<'a> {
    source: &'a dyn ReadAt,
    rest: Span,
    piece: Vec<u8>,
    used: usize,
    state: Box<InflateState>,
    crc: Hasher,
    ended: bool,
}

impl<'a> Inflate<'a> {
    /// The stream in `span`, which must lie within the source.
    pub(super) fn new(source: &'a dyn ReadAt, span: Span) -> Self {
        let state = InflateState::new_boxed(DataFormat::Raw);
        Self { source, rest: span, piece: Vec::new(), used: 0, state, crc: Hasher::new(), ended: false }
    }

    /// The next bytes, as many as `out` takes.
    pub(super) fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            if self.ended {
                return Err(self.fail("a compressed member holds less than it says"));
            }
            filled += self.step(&mut out[filled..])?;
        }
        self.crc.update(out);
        Ok(())
    }

    /// Leaves out `len` bytes.
    pub(super) fn skip(&mut self, mut len: u64) -> Result<()> {
        let mut piece = [0; 4096];
        while len > 0 {
            let now = len.min(piece.len() as u64) as usize;
            self.fill(&mut piece[..now])?;
            len -= now as u64;
        }
        Ok(())
    }

    /// Checks that the stream ends here, its span with it, and that all of it had this checksum.
    pub(super) fn finish(mut self, crc32: u32) -> Result<()> {
        while !self.ended {
            if self.step(&mut [0])? > 0 {
                return Err(self.fail("a compressed member holds more than it says"));
            }
        }
        if self.used < self.piece.len() || !self.rest.is_empty() {
            return Err(self.fail("bytes follow a compressed stream in its member"));
        }
        if std::mem::take(&mut self.crc).finalize() != crc32 {
            return Err(self.fail("the checksum of a compressed member does not match"));
        }
        Ok(())
    }

    /// Decompresses something, and says how much.
    fn step(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.used == self.piece.len() {
            let len = (self.rest.end - self.rest.start).min(PIECE);
            self.piece.resize(len as usize, 0);
            self.source.read_at(self.rest.start, &mut self.piece)?;
            self.rest.start += len;
            self.used = 0;
        }
        let done = inflate(&mut self.state, &self.piece[self.used..], out, MZFlush::None);
        self.used += done.bytes_consumed;
        self.ended = done.status == Ok(MZStatus::StreamEnd);
        if self.ended || done.bytes_written > 0 || done.bytes_consumed > 0 {
            return Ok(done.bytes_written);
        }
        Err(self.fail("a compressed member is no DEFLATE stream"))
    }

    fn fail(&self, problem: &str) -> Error {
        FormatError::Archive(problem.to_owned()).on(self.source.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SliceAt;

    fn inflated(stream: &[u8], len: usize, crc32: u32) -> Result<Vec<u8>> {
        let source = SliceAt::new(stream);
        let mut inflate = Inflate::new(&source, 0..stream.len() as u64);
        let mut out = vec![0; len];
        inflate.fill(&mut out)?;
        inflate.finish(crc32).map(|()| out)
    }

    #[test]
    fn a_stream_ends_where_its_member_does() {
        let noise = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        for data in [vec![], vec![7], vec![0; 1 << 20], noise.collect()] {
            let (stream, crc) = (miniz_oxide::deflate::compress_to_vec(&data, 6), crc32fast::hash(&data));
            assert!(inflated(&stream, data.len(), crc).unwrap() == data);
            let problem = |stream: &[u8], len, crc| inflated(stream, len, crc).unwrap_err().to_string();
            assert!(problem(&stream, data.len(), !crc).ends_with("does not match"));
            assert!(problem(&stream, data.len() + 1, crc).ends_with("holds less than it says"));
            assert!(problem(&[&stream[..], &[0]].concat(), data.len(), crc).ends_with("in its member"));
            assert!(problem(&stream[..stream.len() - 1], data.len(), crc).ends_with("no DEFLATE stream"));
            if let Some(less) = data.len().checked_sub(1) {
                assert!(problem(&stream, less, crc).ends_with("holds more than it says"));
            }
        }
    }
}
