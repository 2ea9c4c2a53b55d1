//! What every format checks alike: names, shapes and places of tensors.

use crate::error::{Cause, FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::{Dtype, Span, Storage};

/// Most dimensions accepted.
pub(super) const MAX_RANK: usize = 64;

/// Bytes of a text read at a time.
const PIECE: u64 = 1 << 20;

/// The bytes of `span`, a text. What no text holds ends it before the rest is read, so a hole in a file costs nothing.
pub(super) fn text(source: &dyn ReadAt, span: Span) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for start in span.clone().step_by(PIECE as usize) {
        let from = text.len();
        text.resize(from + PIECE.min(span.end - start) as usize, 0);
        source.read_at(start, &mut text[from..])?;
        if text[from..].iter().any(|byte| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')) {
            let problem = "control characters in what must be text".to_owned();
            return Err(FormatError::MalformedHeader(problem).on(source.name()));
        }
    }
    Ok(text)
}

/// Refuses a name that no tensor may have.
///
/// Names are compared byte by byte: two that differ in case, or in the composition of an accent, are two names.
pub(super) fn name(name: &str) -> Result<(), FormatError> {
    let is_fine = !name.is_empty() && !name.chars().any(char::is_control);
    let problem = "its name is empty or holds control characters";
    if is_fine { Ok(()) } else { Err(FormatError::Span { tensor: name.to_owned(), problem }) }
}

/// The size in bytes of a tensor, if its name and shape are possible.
pub(super) fn size(name: &str, dtype: Dtype, shape: &[u64]) -> Result<u64, FormatError> {
    self::name(name)?;
    let fail = |problem| Err(FormatError::Span { tensor: name.to_owned(), problem });
    if shape.len() > MAX_RANK {
        return fail("it has too many dimensions");
    }
    let overflow = "its size overflows";
    let Some(most) = shape.iter().try_fold(1u64, |product, dim| product.checked_mul((*dim).max(1))) else {
        return fail(overflow); // wherever there is a 0 among them
    };
    let elements = if shape.contains(&0) { 0 } else { most };
    let (block, _) = dtype.block();
    match dtype.size(elements) {
        Some(size) => Ok(size),
        None if elements.is_multiple_of(block) => fail(overflow),
        None => fail("its size is not a whole number of bytes"),
    }
}

/// The place of `size` bytes from `start` in what ends at `end`.
pub(super) fn span(name: &str, start: Option<u64>, size: u64, end: u64) -> Result<Span, FormatError> {
    let place = start.and_then(|start| Some(start..start.checked_add(size)?)).filter(|place| place.end <= end);
    place.ok_or_else(|| FormatError::Span { tensor: name.to_owned(), problem: "lies beyond the end of the file" })
}

/// How a tensor of this shape and these strides, both in elements, lies in how many elements.
///
/// Elements must not lie upon each other: each stride must step over all that the smaller ones reach.
pub(super) fn strided(name: &str, shape: &[u64], strides: &[u64]) -> Result<(Storage, u64), FormatError> {
    let fail = |problem| FormatError::Span { tensor: name.to_owned(), problem };
    if shape.len() != strides.len() {
        return Err(fail("it has not as many strides as dimensions"));
    }
    if shape.contains(&0) {
        return Ok((Storage::Plain, 0));
    }
    let steps = shape.iter().zip(strides).map(|(dim, stride)| if *dim == 1 { 0 } else { *stride });
    let steps: Vec<u64> = steps.collect(); // what is never stepped over may be any number
    let mut order: Vec<_> = steps.iter().zip(shape).filter(|(_, dim)| **dim > 1).collect();
    let is_plain = order
        .iter()
        .rev()
        .try_fold(1u64, |next, (step, dim)| (**step == next).then(|| next.checked_mul(**dim)).flatten());
    order.sort_unstable();
    let mut reach = 0u64; // of the last element, from the first
    for (step, dim) in order {
        if *step <= reach {
            return Err(fail("its elements lie upon each other"));
        }
        let next = (dim - 1).checked_mul(*step).and_then(|far| far.checked_add(reach));
        reach = next.ok_or_else(|| fail("its size overflows"))?;
    }
    let covered = reach.checked_add(1).ok_or_else(|| fail("its size overflows"))?;
    Ok((if is_plain.is_some() { Storage::Plain } else { Storage::Strided(steps) }, covered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_told_apart() {
        let plain = |shape: &[u64], strides: &[u64]| strided("a", shape, strides).unwrap();
        assert_eq!(plain(&[], &[]), (Storage::Plain, 1));
        assert_eq!(plain(&[2, 3], &[3, 1]), (Storage::Plain, 6));
        assert_eq!(plain(&[1, 2, 1, 3], &[u64::MAX, 3, 0, 1]), (Storage::Plain, 6));
        assert_eq!(plain(&[2, 0], &[u64::MAX, u64::MAX]), (Storage::Plain, 0));
        assert_eq!(plain(&[3, 2], &[1, 3]), (Storage::Strided(vec![1, 3]), 6));
        assert_eq!(plain(&[3, 1], &[2, 9]), (Storage::Strided(vec![2, 0]), 5));
        let refused = |shape: &[u64], strides: &[u64]| match strided("a", shape, strides) {
            Err(FormatError::Span { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&[2], &[0]), "its elements lie upon each other");
        assert_eq!(refused(&[3, 3], &[1, 1]), "its elements lie upon each other");
        assert_eq!(refused(&[2, 2], &[5, 5]), "its elements lie upon each other");
        assert_eq!(refused(&[4, 2], &[1, 2]), "its elements lie upon each other");
        assert_eq!(refused(&[3], &[u64::MAX]), "its size overflows");
        assert_eq!(refused(&[2], &[u64::MAX]), "its size overflows");
        assert_eq!(refused(&[2], &[]), "it has not as many strides as dimensions");
    }
}
