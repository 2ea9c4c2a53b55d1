//! Bytes that no unpickler can be made to run, although their file is named like a pickle.

use crate::error::Result;
use crate::io::{ReadAt, ReadAtExt};

/// So much of a file is looked at: what goes on for longer is not told.
const MAX_SIZE: u64 = 1 << 20;

/// What follows an opcode.
enum Argument {
    Bytes(usize),
    /// A text up to the end of the line.
    Line,
    /// So many bytes of a length, and so many bytes.
    Counted(usize),
}

/// Whether an unpickler fails in these bytes before it has imported or called anything: it goes from opcode to opcode, and
/// ends with an error at the first byte that is none.
pub(in crate::format) fn is_inert(source: &dyn ReadAt) -> Result<bool> {
    let bytes = source.read_span(0..source.size().min(MAX_SIZE))?;
    let is_whole = bytes.len() as u64 == source.size();
    let mut rest = bytes.as_slice();
    loop {
        let Some((opcode, after)) = rest.split_first() else { return Ok(is_whole) };
        let Some(argument) = harmless(*opcode) else { return Ok(!runs(*opcode)) };
        let end = match argument {
            Argument::Bytes(len) => Some(len),
            Argument::Line => after.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
            Argument::Counted(width) => after.get(..width).and_then(|bytes| {
                let len = bytes.iter().rev().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
                usize::try_from(len).ok()?.checked_add(width)
            }),
        };
        match end.and_then(|end| after.get(end..)) {
            Some(next) => rest = next,
            None => return Ok(is_whole), // cut off within an argument
        }
    }
}

/// Opcodes that only build values, and what follows them (PEP 307, PEP 3154, PEP 574).
fn harmless(opcode: u8) -> Option<Argument> {
    Some(match opcode {
        b'('
        | b'0'
        | b'1'
        | b'2'
        | b'N'
        | b'a'
        | b'd'
        | b'}'
        | b'e'
        | b'l'
        | b']'
        | b's'
        | b't'
        | b')'
        | b'u'
        | 0x85..=0x89
        | 0x8f..=0x91
        | 0x94
        | 0x97
        | 0x98 => Argument::Bytes(0),
        b'K' | b'h' | b'q' | 0x80 => Argument::Bytes(1),
        b'M' => Argument::Bytes(2),
        b'J' | b'j' | b'r' => Argument::Bytes(4),
        b'G' | 0x95 => Argument::Bytes(8),
        b'F' | b'I' | b'L' | b'S' | b'V' | b'g' | b'p' => Argument::Line,
        b'U' | b'C' | 0x8a | 0x8c => Argument::Counted(1),
        b'T' | b'X' | b'B' | 0x8b => Argument::Counted(4),
        0x8d | 0x8e | 0x96 => Argument::Counted(8),
        _ => return None,
    })
}

/// Opcodes that import, call, or ask the program; and the end, behind which another pickle may be.
fn runs(opcode: u8) -> bool {
    matches!(opcode, b'.' | b'R' | b'b' | b'c' | b'i' | b'o' | b'P' | b'Q' | 0x81..=0x84 | 0x92 | 0x93)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SliceAt;

    fn inert(bytes: &[u8]) -> bool {
        is_inert(&SliceAt::new(bytes)).unwrap()
    }

    #[test]
    fn every_byte_is_an_opcode_that_builds_one_that_runs_or_none() {
        let known = |opcode: &u8| harmless(*opcode).is_some() || runs(*opcode);
        assert_eq!((0..=u8::MAX).filter(known).count(), 68, "as many as Python's pickletools lists");
        assert!((0..=u8::MAX).all(|opcode| harmless(opcode).is_none() || !runs(opcode)));
    }

    #[test]
    fn what_fails_before_it_runs_is_inert() {
        for bytes in [
            &b""[..],
            b"\xff",
            b"\0\0\x80\x3f",
            b"K\x01\xff.",
            b"X\x02\0\0\0ab\xfe",
            b"I12",
            b"X\xff\xff\xff\xff",
            b"{\"a\": 1}",
        ] {
            assert!(inert(bytes), "{bytes:?}");
        }
        for bytes in [
            &b"N."[..],
            b"cos\nsystem\n",
            b"K\x01cos\n",
            b"U\x01x\x93",
            b"I1\n(R",
            b"\x80\x04\x95\0\0\0\0\0\0\0\0\x93",
            b".",
        ] {
            assert!(!inert(bytes), "{bytes:?}");
        }
        let long = b"K\x01".repeat(1 << 19);
        assert!(inert(&long[..long.len() - 1]) && inert(&long));
        assert!(!inert(&[&long[..], b"0"].concat()), "what is behind it nobody has seen");
    }
}
