//! The elements of a tensor, whatever way they are stored.

use super::cursor::Cursor;
use super::inflate::Inflate;
use super::onnx::wire::varint;
use crate::error::{Cause, Error, FormatError, Result};
use crate::io::{Memory, ReadAt, ReadAtExt};
use crate::tensor::{Dtype, Storage, TensorInfo};

/// Reads a tensor of the file `source`: its elements, row-major, little-endian, in new memory.
pub fn load(source: &dyn ReadAt, tensor: &TensorInfo) -> Result<Memory> {
    if tensor.is_plain() {
        return source.read_memory(tensor.span.clone());
    }
    let mut memory = Memory::zeroed(tensor.size())?;
    load_into(source, tensor, &mut memory)?;
    Ok(memory)
}

/// Reads a tensor likewise, into memory of exactly [`TensorInfo::size`] bytes.
pub fn load_into(source: &dyn ReadAt, tensor: &TensorInfo, out: &mut [u8]) -> Result<()> {
    if out.len() as u64 != tensor.size() {
        return Err(Error::ApiMisuse("the buffer is not of the size of the tensor"));
    }
    match &tensor.storage {
        Storage::Plain => source.read_at(tensor.span.start, out),
        Storage::Strided(strides) => gather(source, tensor, strides, out),
        Storage::External(path) => {
            let (tensor, path) = (tensor.name.clone(), path.clone());
            Err(FormatError::External { tensor, path, problem: "is not here: open the directory" }.on(source.name()))
        }
        Storage::Deflated { header, crc32 } => {
            let mut stream = Inflate::new(source, tensor.span.clone());
            stream.skip(*header)?;
            stream.fill(out)?;
            stream.finish(*crc32)
        }
        Storage::Varints => decode(source, tensor, out),
    }
}

/// Copies elements from where their strides say.
fn gather(source: &dyn ReadAt, tensor: &TensorInfo, strides: &[u64], out: &mut [u8]) -> Result<()> {
    let stored = source.read_memory(tensor.span.clone())?;
    let width = tensor.dtype.block().1 as usize;
    let mut index = vec![0u64; tensor.shape.len()];
    let mut at = 0u64; // of the element, in elements: within the span, as the reader has checked
    for element in out.chunks_exact_mut(width) {
        let from = at as usize * width;
        element.copy_from_slice(&stored[from..from + width]);
        for ((i, dim), stride) in index.iter_mut().zip(&tensor.shape).zip(strides).rev() {
            *i += 1;
            at += stride;
            if *i < *dim {
                break;
            }
            at -= stride * dim;
            *i = 0;
        }
    }
    Ok(())
}

/// Decodes varints, one an element. Negative numbers are extended to 64 bits before, as protobuf does.
fn decode(source: &dyn ReadAt, tensor: &TensorInfo, out: &mut [u8]) -> Result<()> {
    let fail = |problem| Err(FormatError::Span { tensor: tensor.name.clone(), problem }.on(source.name()));
    let mut varints = Cursor::new(source, tensor.span.clone(), "a tensor ends before its last element");
    let width = tensor.dtype.block().1 as usize;
    for element in out.chunks_exact_mut(width) {
        let value = varint(&mut varints, 10)?;
        if !is_in_range(tensor.dtype, value) {
            return fail("an element is out of the range of its type");
        }
        element.copy_from_slice(&value.to_le_bytes()[..width]);
    }
    if varints.is_at_end() { Ok(()) } else { fail("it has too many elements") }
}

/// Whether a varint is an element of the type, which then has 8 bytes at most.
fn is_in_range(dtype: Dtype, value: u64) -> bool {
    use Dtype::*;
    match dtype {
        BOOL => value <= 1,
        U8 | F8_E4M3 | F8_E4M3FNUZ | F8_E5M2 | F8_E5M2FNUZ | F8_E8M0 => u8::try_from(value).is_ok(),
        U16 | F16 | BF16 => u16::try_from(value).is_ok(),
        U32 => u32::try_from(value).is_ok(),
        I8 => i8::try_from(value as i64).is_ok(),
        I16 => i16::try_from(value as i64).is_ok(),
        I32 => i32::try_from(value as i64).is_ok(),
        I64 | U64 => true,
        _ => false,
    }
}
