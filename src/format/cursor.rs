//! A position in a source of bytes: small reads through a window, skips without reading.

use crate::error::{Cause, Error, FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::Span;

/// Bytes read ahead.
const WINDOW: u64 = 64 << 10;

/// Reads a span of a source front to back. Whatever reaches beyond the span is [`FormatError::Truncated`].
pub(super) struct Cursor<'a> {
    source: &'a dyn ReadAt,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_start: u64,
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// At the start of `span`, which must lie within the source. `what` says what ends too early, if it does.
    pub(super) fn new(source: &'a dyn ReadAt, span: Span, what: &'static str) -> Self {
        Self { source, at: span.start, end: span.end, window: Vec::new(), window_start: span.start, what }
    }

    /// A failure of this source.
    pub(super) fn fail(&self, cause: FormatError) -> Error {
        cause.on(self.source.name())
    }

    /// The offset in the source.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    pub(super) fn remaining(&self) -> u64 {
        self.end - self.at
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `len` bytes; allocates no more than the span has.
    pub(super) fn take(&mut self, len: usize) -> Result<&[u8]> {
        let end = self.after(len as u64)?;
        let window_end = self.window_start + self.window.len() as u64;
        if self.at < self.window_start || end > window_end {
            self.window_start = self.at;
            self.window.resize((end - self.at).max(WINDOW).min(self.remaining()) as usize, 0);
            self.source.read_at(self.at, &mut self.window)?;
        }
        let from = (self.at - self.window_start) as usize;
        self.at = end;
        Ok(&self.window[from..from + len])
    }

    /// The next `len` bytes as text.
    pub(super) fn text(&mut self, len: u64, limit: u64) -> Result<String> {
        if len > limit {
            return Err(self.fail(FormatError::HeaderTooLarge { size: len, limit }));
        }
        let bytes = self.take(len as usize)?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.fail(FormatError::MalformedHeader("text is not UTF-8".into())))
    }

    /// Leaves out `len` bytes, and says where they are.
    pub(super) fn skip(&mut self, len: u64) -> Result<Span> {
        let end = self.after(len)?;
        let span = self.at..end;
        self.at = end;
        Ok(span)
    }

    fn after(&self, len: u64) -> Result<u64> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.end);
        end.ok_or_else(|| self.fail(FormatError::Truncated(self.what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SliceAt;

    #[test]
    fn reads_and_skips_stay_within_the_span() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        let source = SliceAt::new(&bytes);
        let mut cursor = Cursor::new(&source, 10..190_000, "test");
        assert_eq!(cursor.u8().unwrap(), 10);
        assert_eq!(cursor.skip(100_000).unwrap(), 11..100_011);
        assert_eq!(cursor.take(70_000).unwrap(), &bytes[100_011..170_011]);
        assert_eq!(cursor.u32().unwrap().to_le_bytes(), bytes[170_011..170_015]);
        let left = cursor.remaining();
        for len in [left + 1, u64::MAX] {
            let refused = cursor.skip(len);
            assert!(matches!(refused, Err(Error::Format { cause: FormatError::Truncated("test"), .. })), "{len}");
        }
        assert!(cursor.take(left as usize + 1).is_err());
        cursor.skip(left).unwrap();
        assert!(cursor.is_at_end() && cursor.u8().is_err());
    }
}
