//! A decrypted model in sealed memory.

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use super::arguments::{Opening, Place};
use super::call::{misuse, watched};
use super::policy::Policy;
use crate::error::Error;
use crate::model;

/// A lone file in memory, until it is closed.
#[pyclass(module = "weightmark._native", frozen)]
pub(super) struct Sealed(Mutex<Option<model::Sealed>>);

/// Decrypts and verifies a lone file into sealed memory.
#[pyfunction]
pub(super) fn seal(
    py: Python<'_>,
    path: Place,
    opening: Opening,
    policy: Option<Bound<'_, Policy>>,
    accept_unsigned: bool,
    allow_code: Vec<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Sealed> {
    let policy = policy.map(|policy| policy.get().0.clone());
    let sealed = watched(py, progress, move |progress| {
        if path.0.is_dir() {
            return Err(Error::ApiMisuse("only a lone file can be sealed in this process: use `weightmark exec`"));
        }
        let mut options = opening.options()?;
        if let Some(policy) = policy {
            options = options.policy(policy);
        }
        if accept_unsigned {
            options = options.danger_accept_unsigned();
        }
        options = allow_code.into_iter().fold(options, model::OpenOptions::danger_allow_code);
        options.seal(&path.0, progress)
    })?;
    Ok(Sealed(Mutex::new(Some(sealed))))
}

impl Sealed {
    fn with<T>(&self, py: Python<'_>, get: impl FnOnce(&model::Sealed) -> T) -> PyResult<T> {
        let sealed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.as_ref().map(get).ok_or_else(|| misuse(py, "the sealed model is closed"))
    }
}

#[pymethods]
impl Sealed {
    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn path(&self, py: Python<'_>) -> PyResult<OsString> {
        self.with(py, |sealed| sealed.path().as_os_str().to_owned())
    }

    fn code(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |sealed| sealed.code().to_vec())
    }

    fn verified(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.with(py, |sealed| sealed.verified().map(|verified| verified.to_json().to_string()))
    }
}
