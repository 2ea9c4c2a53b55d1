//! An open model.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rayon::prelude::*;

use super::arguments::{Opening, Place};
use super::buffer::{Buffer, Target};
use super::call::{misuse, released, watched};
use super::policy::Policy;
use crate::error::{Error, Result};
use crate::format::ModelIndex;
use crate::io::Memory;
use crate::model;
use crate::tensor::{TensorInfo, lanes};

/// Elements converted at a time: whole blocks of every type.
const PIECE: usize = 32_768;

/// A tensor: name, type, shape, bytes, file.
type Described = (String, &'static str, Vec<u64>, u64, String);

/// A model until it is closed. Whoever reads meanwhile still gets what he asked for. The lock is only taken while the
/// interpreter is held, so no fork finds it taken.
#[pyclass(module = "weightmark._native", frozen)]
pub(super) struct Model(Mutex<Option<Arc<model::Model>>>);

/// Opens a model; `allows` is what the caller lets through: encrypted only, plaintext, unsigned.
#[pyfunction]
pub(super) fn open(
    py: Python<'_>,
    path: Place,
    opening: Opening,
    policy: Option<Bound<'_, Policy>>,
    allows: (bool, bool, bool),
    allow_code: Vec<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Model> {
    let policy = policy.map(|policy| policy.get().0.clone());
    let model = watched(py, progress, move |progress| {
        let (expect_encrypted, accept_plaintext, accept_unsigned) = allows;
        let mut options = opening.options()?;
        if let Some(policy) = policy {
            options = options.policy(policy);
        }
        if expect_encrypted {
            options = options.expect_encrypted();
        }
        if accept_plaintext {
            options = options.danger_accept_plaintext();
        }
        if accept_unsigned {
            options = options.danger_accept_unsigned();
        }
        options = allow_code.into_iter().fold(options, model::OpenOptions::danger_allow_code);
        options.open_with(&path.0, progress)
    })?;
    Ok(Model(Mutex::new(Some(Arc::new(model)))))
}

impl Model {
    fn get(&self, py: Python<'_>) -> PyResult<Arc<model::Model>> {
        let model = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        model.ok_or_else(|| misuse(py, "the model is closed"))
    }
}

#[pymethods]
impl Model {
    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn is_closed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.files().name().to_owned())
    }

    fn tensors(&self, py: Python<'_>) -> PyResult<Vec<Described>> {
        let model = self.get(py)?;
        released(py, || tensors(&model))
    }

    fn read(&self, py: Python<'_>, name: &str) -> PyResult<Buffer> {
        let model = self.get(py)?;
        Ok(released(py, || model.tensor(name))?.into_bytes().into())
    }

    fn rows(&self, py: Python<'_>, name: &str, start: u64, end: u64) -> PyResult<Buffer> {
        let model = self.get(py)?;
        Ok(released(py, || model.rows(name, start..end))?.into_bytes().into())
    }

    fn float32(&self, py: Python<'_>, name: &str) -> PyResult<Buffer> {
        let model = self.get(py)?;
        released(py, || float32(&model, name)).map(Buffer::from)
    }

    fn read_into(&self, py: Python<'_>, name: &str, buffer: &Bound<'_, PyAny>) -> PyResult<()> {
        let model = self.get(py)?;
        let mut target = Target::of(buffer)?;
        let bytes = target.bytes();
        released(py, || model.tensor_into(name, bytes))
    }

    fn load(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Vec<Buffer>> {
        let model = self.get(py)?;
        let read = || names.par_iter().map(|name| model.tensor(name).map(model::Tensor::into_bytes)).collect();
        let memories: Vec<Memory> = released(py, read)?;
        Ok(memories.into_iter().map(Buffer::from).collect())
    }

    fn files(&self, py: Python<'_>) -> PyResult<Vec<(String, u64)>> {
        let model = self.get(py)?;
        Ok(model.files().entries().iter().map(|entry| (entry.path.clone(), entry.size)).collect())
    }

    fn closed_files(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let model = self.get(py)?;
        Ok(model.files().closed().iter().map(|entry| entry.path.clone()).collect())
    }

    fn read_file<'py>(&self, py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyBytes>> {
        let model = self.get(py)?;
        let source = released(py, || file(&model, path))?;
        let len = usize::try_from(source.size()).map_err(|_| misuse(py, "larger than memory"))?;
        PyBytes::new_with(py, len, |bytes| released(py, || source.read_at(0, bytes)))
    }

    fn read_file_at(&self, py: Python<'_>, path: &str, offset: u64, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let model = self.get(py)?;
        let mut target = Target::of(buffer)?;
        let bytes = target.bytes();
        released(py, || {
            let source = file(&model, path)?;
            let len = source.size().saturating_sub(offset).min(bytes.len() as u64) as usize;
            let bytes = &mut bytes[..len];
            if !bytes.is_empty() {
                source.read_at(offset, bytes)?;
            }
            Ok(len)
        })
    }

    fn verified(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.get(py)?.verified().map(|verified| verified.to_json().to_string()))
    }

    fn code(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.get(py)?.code().to_vec())
    }

    fn metadata(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        let model = self.get(py)?;
        let index = released(py, || ModelIndex::read(model.files()))?;
        let mut all = BTreeMap::new();
        for file in index.files() {
            for (key, value) in file.index.metadata() {
                all.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        Ok(all)
    }
}

/// Every tensor that can be read by its name. One that several files hold is that of the preferred format.
fn tensors(model: &model::Model) -> Result<Vec<Described>> {
    let all: Vec<_> = model.tensors().collect();
    let names: HashSet<&str> = all.iter().map(|(_, info)| info.name.as_str()).collect();
    if names.len() == all.len() {
        return Ok(all.into_iter().map(describe).collect());
    }
    let index = ModelIndex::read(model.files())?;
    let is_the_one = |file: &str, info: &TensorInfo| index.tensor(&info.name).is_some_and(|(found, _)| found == file);
    Ok(all.into_iter().filter(|(file, info)| is_the_one(file, info)).map(describe).collect())
}

fn describe((file, info): (&str, &TensorInfo)) -> Described {
    (info.name.clone(), info.dtype.name(), info.shape.clone(), info.size(), file.to_owned())
}

/// A file of the model, by a path that it lists.
fn file(model: &model::Model, path: &str) -> Result<Arc<dyn crate::io::ReadAt>> {
    let files = model.files();
    if files.entries().binary_search_by(|entry| entry.path.as_str().cmp(path)).is_err() {
        let problem = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file in the model");
        return Err(Error::io("open", path, problem));
    }
    files.open(path)
}

/// The elements of a tensor as `f32`, little-endian.
fn float32(model: &model::Model, name: &str) -> Result<Memory> {
    let tensor = model.tensor(name)?;
    let (info, bytes) = (tensor.info(), tensor.bytes());
    if !lanes::is_number(info.dtype) {
        return Err(Error::ApiMisuse("not a tensor of numbers that this version converts"));
    }
    let mut out = Memory::zeroed(info.elements().saturating_mul(4))?;
    let (block, width) = info.dtype.block();
    let pieces = out.par_chunks_mut(4 * PIECE).zip(bytes.par_chunks(PIECE / block as usize * width as usize));
    pieces.for_each_init(
        || vec![0.0; PIECE],
        |numbers, (out, bytes)| {
            let numbers = &mut numbers[..out.len() / 4];
            lanes::load_f32(info.dtype, bytes, numbers);
            out.chunks_exact_mut(4).zip(numbers).for_each(|(out, x)| out.copy_from_slice(&x.to_le_bytes()));
        },
    );
    Ok(out)
}
