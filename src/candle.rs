//! Weights for programs built with `candle`: a backend of its `VarBuilder`, and single tensors.
//!
//! ```no_run
//! use candle_core::{DType, Device};
//! use weightmark::Model;
//! use weightmark::candle::var_builder;
//! use weightmark::keys::XWingIdentity;
//!
//! let model = Model::options().identity(XWingIdentity::load("serving.key")?).open("out/")?;
//! let weights = var_builder(&model, DType::F32, &Device::Cpu);
//! let layer = candle_nn::linear(384, 384, weights.pp("pooler.dense"))?; // decrypts only what this layer asks for
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Borrow;

use bytemuck::{Pod, Zeroable};
use candle_core::{DType, Device, Shape, WithDType};
use candle_nn::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use half::{bf16, f16};

use crate::error::{Cause, Error, FormatError};
use crate::model::{Model, Tensor};
use crate::tensor::{Dtype, TensorInfo};

/// The weights of a model, read when a layer asks for them and converted to `dtype`. Takes the model, or a reference to it,
/// or an `Arc` of it.
///
/// Names that the model does not have and shapes that differ are `candle`'s own errors; of what else fails [`cause`] tells.
pub fn var_builder<'a>(model: impl Borrow<Model> + Send + Sync + 'a, dtype: DType, device: &Device) -> VarBuilder<'a> {
    VarBuilder::from_backend(Box::new(Weights(model)), dtype, device.clone())
}

/// A tensor that was read, as one of `candle`'s of the same type; `BOOL` becomes `U8`, and `F8_E4M3` and `F8_E5M2` become
/// `F32`: on small numbers of such types `candle`'s own conversions never end. Quantised tensors, and others of types that
/// `candle` does not compute with, are refused.
pub fn tensor(tensor: &Tensor, device: &Device) -> candle_core::Result<candle_core::Tensor> {
    let info = tensor.info();
    if matches!(info.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2) {
        return candle_core::Tensor::from_vec(tensor.to_f32().map_err(carried)?, shape(info), device);
    }
    candle_core::Tensor::from_raw_buffer(tensor.bytes(), dtype(info)?, &shape(info), device)
}

/// The error of this crate that `error` carries, if that is where it began: which chunk was tampered with, which file could
/// not be read.
pub fn cause(error: &candle_core::Error) -> Option<&Error> {
    let mut error = error;
    loop {
        error = match error {
            candle_core::Error::Context { inner, .. }
            | candle_core::Error::WithBacktrace { inner, .. }
            | candle_core::Error::WithPath { inner, .. } => inner,
            candle_core::Error::Io(carrier) => return carrier.get_ref()?.downcast_ref(),
            _ => return None,
        }
    }
}

/// A model as `candle` sees it.
struct Weights<M>(M);

impl<M: Borrow<Model> + Send + Sync> SimpleBackend for Weights<M> {
    fn get(
        &self,
        expected: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<candle_core::Tensor> {
        let got = Shape::from(shape(find(self.0.borrow(), name)?));
        if got != expected {
            let msg = format!("shape mismatch for {name}");
            return Err(candle_core::Error::UnexpectedShape { msg, expected, got }.bt());
        }
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<candle_core::Tensor> {
        let model = self.0.borrow();
        load(model, find(model, name)?, device)?.to_dtype(dtype)
    }

    /// Two tensors of one name are there too: whoever asks for them hears of it.
    fn contains_tensor(&self, name: &str) -> bool {
        !matches!(self.0.borrow().find(name), Err(Error::Format { cause: FormatError::UnknownTensor(_), .. }))
    }
}

fn find<'a>(model: &'a Model, name: &str) -> candle_core::Result<&'a TensorInfo> {
    match model.find(name) {
        Ok((_, info)) => Ok(info),
        Err(Error::Format { cause: FormatError::UnknownTensor(path), .. }) => {
            Err(candle_core::Error::CannotFindTensor { path }.bt())
        }
        Err(error) => Err(carried(error)),
    }
}

fn load(model: &Model, info: &TensorInfo, device: &Device) -> candle_core::Result<candle_core::Tensor> {
    match dtype(info)? {
        _ if matches!(info.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2) => {
            tensor(&model.tensor(&info.name).map_err(carried)?, device)
        }
        DType::BF16 => read::<bf16>(model, info, device),
        DType::F16 => read::<f16>(model, info, device),
        DType::F32 => read::<f32>(model, info, device),
        DType::F64 => read::<f64>(model, info, device),
        DType::I16 => read::<i16>(model, info, device),
        DType::I32 => read::<i32>(model, info, device),
        DType::I64 => read::<i64>(model, info, device),
        DType::U32 => read::<u32>(model, info, device),
        DType::U8 => read::<u8>(model, info, device),
        _ => tensor(&model.tensor(&info.name).map_err(carried)?, device),
    }
}

/// Reads a tensor straight into the elements that `candle` then owns.
fn read<T: Pod + WithDType>(
    model: &Model,
    info: &TensorInfo,
    device: &Device,
) -> candle_core::Result<candle_core::Tensor> {
    let beyond = || carried(Error::io("allocate", &info.name, std::io::ErrorKind::OutOfMemory));
    let len = usize::try_from(info.elements()).map_err(|_| beyond())?;
    Vec::<T>::new().try_reserve_exact(len).map_err(|_| beyond())?; // what follows would end the process
    let mut elements = vec![<T as Zeroable>::zeroed(); len];
    model.tensor_into(&info.name, bytemuck::cast_slice_mut(&mut elements)).map_err(carried)?;
    candle_core::Tensor::from_vec(elements, shape(info), device)
}

/// The type in which `candle` computes with the elements as they are.
fn dtype(info: &TensorInfo) -> candle_core::Result<DType> {
    Ok(match info.dtype {
        Dtype::BF16 => DType::BF16,
        Dtype::BOOL | Dtype::U8 => DType::U8,
        Dtype::F16 => DType::F16,
        Dtype::F32 | Dtype::F8_E4M3 | Dtype::F8_E5M2 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::U32 => DType::U32,
        other => {
            let problem =
                format!("candle does not compute with type {other}: convert the tensor, as Tensor::to_f32 does");
            return Err(carried(FormatError::Unsupported(problem).on(&info.name)));
        }
    })
}

fn shape(info: &TensorInfo) -> Vec<usize> {
    info.shape.iter().map(|dim| *dim as usize).collect()
}

/// An error of ours, for [`cause`] to find.
fn carried(error: Error) -> candle_core::Error {
    candle_core::Error::Io(std::io::Error::other(error)).bt()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::format::safetensors::{TensorData, to_bytes};

    /// Types that `candle` computes with, and a last one that it does not.
    const TYPES: [Dtype; 13] = [
        Dtype::BF16,
        Dtype::BOOL,
        Dtype::F16,
        Dtype::F32,
        Dtype::F64,
        Dtype::F8_E4M3,
        Dtype::F8_E5M2,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U32,
        Dtype::U8,
        Dtype::I8,
    ];

    /// A directory with a model of one tensor `[2, 3]` a type, called as the type is.
    fn home() -> TempDir {
        let bytes: Vec<Vec<u8>> =
            TYPES.iter().map(|dtype| (0..dtype.size(6).unwrap()).map(|i| (i % 2) as u8).collect()).collect();
        let tensors: Vec<_> = TYPES
            .iter()
            .zip(&bytes)
            .map(|(dtype, bytes)| TensorData { name: dtype.name(), dtype: *dtype, shape: &[2, 3], bytes })
            .collect();
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("a.safetensors"), to_bytes(&tensors, &Default::default()).unwrap()).unwrap();
        home
    }

    fn model(home: &TempDir) -> Model {
        Model::options().open(home.path().join("a.safetensors")).unwrap()
    }

    #[test]
    fn elements_are_those_that_were_stored() {
        let home = home();
        let (model, device) = (model(&home), Device::Cpu);
        for name in TYPES[..TYPES.len() - 1].iter().map(|dtype| dtype.name()) {
            let read = model.tensor(name).unwrap();
            let type_of_candle = dtype(read.info()).unwrap();
            let numbers: Vec<u8> = read.to_f32().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect();
            let bytes = if name.starts_with("F8") { &numbers } else { read.bytes() };
            let expected = candle_core::Tensor::from_raw_buffer(bytes, type_of_candle, &[2, 3], &device).unwrap();
            let weights = var_builder(&model, type_of_candle, &device);
            for got in [weights.get((2, 3), name).unwrap(), tensor(&read, &device).unwrap()] {
                assert_eq!((got.dtype(), got.dims()), (type_of_candle, &[2, 3][..]), "{name}");
                assert!(is_equal(&got, &expected), "{name}");
            }
            let wide = weights.to_dtype(DType::F64).get((2, 3), name).unwrap();
            assert!(is_equal(&wide, &expected.to_dtype(DType::F64).unwrap()), "{name}");
        }
    }

    fn is_equal(a: &candle_core::Tensor, b: &candle_core::Tensor) -> bool {
        let values = |t: &candle_core::Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
        values(a).unwrap() == values(b).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let home = home();
        let weights = var_builder(model(&home), DType::F32, &Device::Cpu);
        assert!(
            weights.contains_tensor("F32")
                && !weights.contains_tensor("F31")
                && !weights.pp("a").contains_tensor("F32")
        );
        let unknown = weights.pp("a").get((2, 3), "b").unwrap_err();
        assert!(unknown.to_string().contains("cannot find tensor a.b"), "{unknown}");
        let turned = weights.get((3, 2), "F32").unwrap_err();
        assert!(turned.to_string().contains("shape mismatch for F32, expected: [3, 2], got: [2, 3]"), "{turned}");
        let foreign = weights.get_unchecked("I8").unwrap_err();
        assert!(matches!(cause(&foreign), Some(Error::Format { cause: FormatError::Unsupported(_), .. })), "{foreign}");
        assert!(cause(&unknown).is_none() && cause(&turned).is_none());
    }

    #[test]
    fn two_tensors_of_one_name_are_not_passed_over() {
        let home = home();
        std::fs::copy(home.path().join("a.safetensors"), home.path().join("b.safetensors")).unwrap();
        let weights = var_builder(Model::options().open(home.path()).unwrap(), DType::F32, &Device::Cpu);
        assert!(weights.contains_tensor("F32"));
        let error = weights.get((2, 3), "F32").unwrap_err().context("in a layer");
        assert!(matches!(cause(&error), Some(Error::Format { cause: FormatError::Duplicate(_), .. })), "{error}");
    }

    #[cfg(feature = "encryption")]
    #[test]
    fn a_tampered_chunk_is_an_error_of_the_layer_that_asks() {
        use crate::encryption::Encryptor;
        use crate::keys::XWingIdentity;

        let (home, key) = (home(), XWingIdentity::generate().unwrap());
        let place = home.path().join("encrypted");
        let bytes: Vec<u8> = (0..65_536u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let data = |name, bytes| TensorData { name, dtype: Dtype::F32, shape: &[256, 128], bytes };
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let file = to_bytes(&[data("a", first), data("b", second)], &Default::default()).unwrap();
        let mut sealed = Encryptor::to([key.recipient()]).encrypt_bytes("model.safetensors", &file).unwrap();
        let within_b = sealed.len() * 3 / 4;
        sealed[within_b] ^= 1;
        std::fs::write(&place, sealed).unwrap();

        let model = Model::options().identity(key).open(&place).unwrap();
        let weights = var_builder(&model, DType::F32, &Device::Cpu);
        assert_eq!(weights.get((256, 128), "a").unwrap().to_vec2::<f32>().unwrap()[255][127], 32_767.0);
        let error = weights.get((256, 128), "b").unwrap_err();
        let is_told = error.to_string().contains("tampered");
        let cause = cause(&error).map(Error::word);
        assert!(is_told && cause == Some("chunk-tampered"), "{error}");
    }
}
