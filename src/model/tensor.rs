//! A tensor in memory.

use crate::error::{Error, Result};
use crate::io::Memory;
use crate::tensor::{TensorInfo, lanes};

/// A tensor that was read: its description and its bytes, row-major, little-endian.
#[derive(Debug, PartialEq)]
pub struct Tensor {
    info: TensorInfo,
    bytes: Memory,
}

impl Tensor {
    pub(super) fn new(info: TensorInfo, bytes: Memory) -> Self {
        Self { info, bytes }
    }

    /// Name, type, shape, and where it lay in its file.
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// The elements as they are stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the bytes out.
    pub fn into_bytes(self) -> Memory {
        self.bytes
    }

    /// The elements as `f32`, rounded to nearest, of every type that [`is_number`](lanes::is_number) names.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.info.elements() as usize];
        if !lanes::load(self.info.dtype, &self.bytes, &mut values) {
            return Err(Error::ApiMisuse("not a tensor of numbers that this version converts"));
        }
        Ok(values.into_iter().map(|value| value as f32).collect())
    }

    /// The elements as an array of `f32` of the tensor's shape.
    #[cfg(feature = "ndarray")]
    pub fn to_array(&self) -> Result<ndarray::ArrayD<f32>> {
        let shape: Vec<usize> = self.info.shape.iter().map(|dim| *dim as usize).collect();
        ndarray::ArrayD::from_shape_vec(shape, self.to_f32()?)
            .map_err(|_| Error::ApiMisuse("a tensor of more elements than its shape"))
    }
}
