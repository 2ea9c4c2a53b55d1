//! The protobuf wire format, as far as ONNX needs it.
//!
//! No protobuf library: those decode into memory, so that a model of 2 GiB would cost 2 GiB, and lose where the bytes
//! lie, which is just what an index of tensors has to know. A message here is walked field by field, front to back;
//! what is not asked for is skipped without being read.
//!
//! Fields that a [`Schema`] does not know are skipped, as protobuf wants it. Refused are: a known field of another wire
//! type; a field occurring twice that may occur once (protobuf would take the last, or merge them); groups; field
//! number 0; varints of more than 64 bits, and tags and lengths of more than five bytes; lengths beyond the message.

use std::fmt::Display;

use crate::error::{Error, FormatError, Result};
use crate::format::cursor::Cursor;
use crate::tensor::Span;

/// Longest text read: a name, or a value of the metadata.
pub(super) const MAX_TEXT: u64 = 16 << 20;

/// The name of a message and its fields: number, name and kind of each, 64 at most.
pub(super) struct Schema(pub(super) &'static str, pub(super) &'static [(u64, &'static str, Kind)]);

/// What a field holds, and whether it may occur more than once.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// One varint.
    Int,
    /// One 32-bit number.
    Float,
    /// One text, string of bytes, or message.
    Bytes,
    /// Any number of those.
    Many,
    /// Any number of varints, packed or not.
    Ints,
    /// Any number of 32-bit numbers, packed or not.
    Floats,
    /// Any number of 64-bit numbers, packed or not.
    Doubles,
}

impl Kind {
    fn is_single(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Bytes)
    }

    fn takes(self, wire: u64) -> bool {
        match wire {
            VARINT => matches!(self, Self::Int | Self::Ints),
            FIXED64 => self == Self::Doubles,
            LENGTH => !matches!(self, Self::Int | Self::Float),
            _ => matches!(self, Self::Float | Self::Floats),
        }
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// One field of a message. Good until the next is asked for.
pub(super) struct Field {
    /// Its name in the schema; empty if it is not there.
    pub(super) name: &'static str,
    /// The value of a varint.
    pub(super) int: u64,
    /// Where the value lies: without its tag, and without its length if it has one.
    pub(super) span: Span,
    is_varint: bool,
}

/// A message, read field by field.
pub(super) struct Message<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    schema: &'static Schema,
    next: u64, // where the next field starts; the cursor is never beyond it
    end: u64,
    seen: u64, // which fields of the schema, a bit each
}

impl<'c, 'a> Message<'c, 'a> {
    /// All that is left for the cursor to read.
    pub(super) fn new(cursor: &'c mut Cursor<'a>, schema: &'static Schema) -> Self {
        let next = cursor.position();
        let end = next + cursor.remaining();
        Self { cursor, schema, next, end, seen: 0 }
    }

    /// Where the message ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// A failure of the source.
    pub(super) fn fail(&self, cause: FormatError) -> Error {
        self.cursor.fail(cause)
    }

    /// This message is not what it must be.
    pub(super) fn malformed(&self, problem: impl Display) -> Error {
        self.fail(FormatError::MalformedHeader(format!("{}: {problem}", self.schema.0)))
    }

    /// The next field. What was not read of the one before is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Field>> {
        self.cursor.skip(self.next - self.cursor.position())?;
        if self.next == self.end {
            return Ok(None);
        }
        let tag = self.varint(5)?;
        let width = self.cursor.position() - self.next;
        if width > 1 && tag >> (7 * (width - 1)) == 0 {
            return Err(self.malformed("a tag in more bytes than it needs"));
        }
        let (number, wire) = (tag >> 3, tag & 7);
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(self.malformed(format_args!("no field can have number {number}")));
        }
        let name = self.known(number, wire)?;
        let start = self.cursor.position();
        let (int, span) = match wire {
            VARINT => (self.varint(10)?, start..self.cursor.position()),
            FIXED64 => (0, self.place(8)?),
            FIXED32 => (0, self.place(4)?),
            LENGTH => {
                let length = self.varint(5)?;
                (0, self.place(length)?)
            }
            3 | 4 => return Err(self.malformed(format_args!("field {number} is a group"))),
            _ => return Err(self.malformed(format_args!("field {number} has no known wire type"))),
        };
        self.next = span.end;
        Ok(Some(Field { name, int, span, is_varint: wire == VARINT }))
    }

    /// The message that a field holds.
    pub(super) fn enter(&mut self, field: Field, schema: &'static Schema) -> Message<'_, 'a> {
        let Span { start, end } = field.span;
        Message { cursor: self.cursor, schema, next: start, end, seen: 0 }
    }

    /// The text that a field holds.
    pub(super) fn text(&mut self, field: Field) -> Result<String> {
        self.cursor.text(field.span.end - field.span.start, MAX_TEXT)
    }

    /// Adds the varints of a field to `out`, but no more once there are more than `limit`.
    pub(super) fn ints(&mut self, field: Field, out: &mut Vec<u64>, limit: usize) -> Result<()> {
        if field.is_varint {
            out.extend((out.len() <= limit).then_some(field.int));
        }
        while self.cursor.position() < self.next && out.len() <= limit {
            out.push(self.varint(10)?);
        }
        if self.cursor.position() > self.next {
            return Err(self.malformed(format_args!("{} ends within a varint", field.name)));
        }
        Ok(())
    }

    /// Counts the varints of a field.
    pub(super) fn count(&mut self, field: &Field) -> Result<u64> {
        let (mut count, mut bytes) = (u64::from(field.is_varint), 0);
        while self.cursor.position() < self.next {
            let left = self.next - self.cursor.position();
            for byte in self.cursor.take(left.min(4096) as usize)? {
                bytes += 1;
                if *byte < 0x80 {
                    (count, bytes) = (count + 1, 0);
                } else if bytes == 10 {
                    return Err(self.malformed("a varint of more than 64 bits"));
                }
            }
        }
        if bytes > 0 {
            return Err(self.malformed(format_args!("{} ends within a varint", field.name)));
        }
        Ok(count)
    }

    /// The name of a field, which must be of the right wire type and not be there too often.
    fn known(&mut self, number: u64, wire: u64) -> Result<&'static str> {
        let Some(row) = self.schema.1.iter().position(|(known, ..)| *known == number) else { return Ok("") };
        let (_, name, kind) = self.schema.1[row];
        if !kind.takes(wire) {
            return Err(self.malformed(format_args!("{name} is of the wrong wire type")));
        }
        if kind.is_single() && self.seen & 1 << row != 0 {
            return Err(self.malformed(format_args!("{name} occurs twice")));
        }
        self.seen |= 1 << row;
        Ok(name)
    }

    fn varint(&mut self, most: u32) -> Result<u64> {
        let value = varint(self.cursor, most)?;
        self.place(0)?; // it ends within the message
        Ok(value)
    }

    /// The next `length` bytes, if the message has them.
    fn place(&mut self, length: u64) -> Result<Span> {
        let start = self.cursor.position();
        if self.end.checked_sub(start).is_some_and(|left| length <= left) {
            return Ok(start..start + length);
        }
        self.cursor.skip(length)?; // says so if it is the file that ends
        Err(self.malformed("a field reaches beyond the message"))
    }
}

/// The next varint, of at most 64 bits and `most` bytes.
pub(in crate::format) fn varint(cursor: &mut Cursor<'_>, most: u32) -> Result<u64> {
    let mut value = 0;
    for shift in (0..most * 7).step_by(7) {
        let byte = cursor.u8()?;
        let bits = u64::from(byte & 0x7f);
        value |= bits << shift;
        if value >> shift != bits {
            break;
        }
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(cursor.fail(FormatError::MalformedHeader("a varint is too long".into())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::io::SliceAt;

    /// The bytes of a varint.
    pub(in crate::format) fn number(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// A field that is a varint.
    pub(in crate::format) fn int(field: u64, value: u64) -> Vec<u8> {
        [number(field << 3), number(value)].concat()
    }

    /// A field with a length.
    pub(in crate::format) fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        [&number(field << 3 | 2), &number(value.len() as u64), value].concat()
    }

    const TEST: Schema = Schema(
        "Test",
        &[
            (1, "int", Kind::Int),
            (2, "bytes", Kind::Bytes),
            (3, "many", Kind::Many),
            (4, "ints", Kind::Ints),
            (5, "floats", Kind::Floats),
            (6, "doubles", Kind::Doubles),
            (7, "float", Kind::Float),
        ],
    );

    /// All fields of `message`, and of those inside of field 3.
    fn walk(message: &[u8]) -> Result<Vec<(&'static str, u64, usize)>, FormatError> {
        fn fields(mut message: Message<'_, '_>, out: &mut Vec<(&'static str, u64, usize)>) -> Result<()> {
            while let Some(field) = message.next()? {
                let len = (field.span.end - field.span.start) as usize;
                match field.name {
                    "many" => fields(message.enter(field, &TEST), out)?,
                    "ints" => out.push(("ints", message.count(&field)?, len)),
                    name => out.push((name, field.int, len)),
                }
            }
            Ok(())
        }
        let source = SliceAt::new(message);
        let mut cursor = Cursor::new(&source, 0..message.len() as u64, "test");
        let mut out = Vec::new();
        match fields(Message::new(&mut cursor, &TEST), &mut out) {
            Ok(()) => Ok(out),
            Err(Error::Format { cause, .. }) => Err(cause),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_are_told_by_number_and_unknown_ones_skipped() {
        let inner = [int(1, 5), int(99, 1), bytes(1000, [7; 300])].concat();
        let message = [
            int(1, u64::MAX),
            bytes(2, "text"),
            bytes(3, &inner),
            bytes(3, ""),
            bytes(4, [1, 0x80, 1, 0]),
            int(4, 300),
            bytes(5, [0; 8]),
            vec![5 << 3 | 5, 1, 2, 3, 4],
            vec![6 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8],
        ]
        .concat();
        let expected = [
            ("int", u64::MAX, 10),
            ("bytes", 0, 4),
            ("int", 5, 1),
            ("", 1, 1),
            ("", 0, 300),
            ("ints", 3, 4),
            ("ints", 1, 2),
            ("floats", 0, 8),
            ("floats", 0, 4),
            ("doubles", 0, 8),
        ];
        assert_eq!(walk(&message).unwrap(), expected);
    }

    #[test]
    fn what_parsers_could_read_otherwise_is_refused() {
        let malformed = |problem: &str| Err(FormatError::MalformedHeader(problem.into()));
        let twice = |field: &[u8]| walk(&[field, field].concat());
        assert_eq!(twice(&int(1, 1)), malformed("Test: int occurs twice"));
        assert_eq!(twice(&bytes(2, "")), malformed("Test: bytes occurs twice"));
        assert_eq!(twice(&[7 << 3 | 5, 0, 0, 0, 0]), malformed("Test: float occurs twice"));
        for (field, name) in [(1, "int"), (2, "bytes"), (3, "many"), (4, "ints"), (5, "floats"), (6, "doubles")] {
            let wrong = [vec![field << 3 | u8::from(field != 6), 0, 0, 0, 0, 0, 0, 0, 0]].concat();
            assert_eq!(walk(&wrong), malformed(&format!("Test: {name} is of the wrong wire type")));
        }
        assert_eq!(walk(&bytes(1, "")), malformed("Test: int is of the wrong wire type"));
        assert_eq!(walk(&bytes(7, [0; 4])), malformed("Test: float is of the wrong wire type"));
        for wire in [3, 4] {
            assert_eq!(walk(&[9 << 3 | wire]), malformed("Test: field 9 is a group"));
        }
        for wire in [6, 7] {
            assert_eq!(walk(&[9 << 3 | wire]), malformed("Test: field 9 has no known wire type"));
        }
        assert_eq!(walk(&[0, 0]), malformed("Test: no field can have number 0"));
        let beyond = number((1 << 29) << 3);
        assert_eq!(walk(&[&beyond[..], &[0]].concat()), malformed("Test: no field can have number 536870912"));

        let long = malformed("a varint is too long");
        assert_eq!(walk(&[0x88, 0x80, 0x80, 0x80, 0x80, 0]), long); // a tag of six bytes
        assert_eq!(walk(&[0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0]), long); // a length of six bytes
        assert_eq!(walk(&[&[8][..], &[0xff; 9], &[2]].concat()), long);
        assert_eq!(walk(&[&[8][..], &[0x80; 10], &[0]].concat()), long);
        assert_eq!(walk(&bytes(4, [0x80; 11])), malformed("Test: a varint of more than 64 bits"));
        assert_eq!(walk(&bytes(4, [0, 0x80])), malformed("Test: ints ends within a varint"));
    }

    #[test]
    fn no_field_reaches_beyond_its_message() {
        let beyond = Err(FormatError::MalformedHeader("Test: a field reaches beyond the message".into()));
        for inner in [vec![8], vec![8, 0x80], vec![0x12], vec![0x12, 1], vec![0x3d, 0, 0, 0], vec![0x12, 9, 0, 0]] {
            assert_eq!(walk(&[bytes(3, &inner), vec![0; 16]].concat()), beyond, "{inner:?}");
            assert_eq!(walk(&inner), Err(FormatError::Truncated("test")), "{inner:?}");
        }
        assert_eq!(walk(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x7f]), Err(FormatError::Truncated("test")));
    }
}
