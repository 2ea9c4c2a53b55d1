//! Memory shared with Python, both ways: what was read, handed out as a buffer, and the buffers of others, read into.
#![allow(unsafe_code)]

use std::os::raw::c_int;
use std::ptr::NonNull;
use std::slice;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::call::misuse;
use crate::io::Memory;

/// Bytes that were read, as a writable buffer of Python's. Nothing in Rust looks at them any more.
#[pyclass(module = "weightmark._native", frozen)]
pub(super) struct Buffer {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the bytes alive; they do not move with it.
    _memory: Memory,
}

// SAFETY: Rust only frees the bytes. Whoever reads or writes them does so in Python, by its rules for buffers.
unsafe impl Send for Buffer {}
// SAFETY: as above
unsafe impl Sync for Buffer {}

impl From<Memory> for Buffer {
    fn from(mut memory: Memory) -> Self {
        Self { start: NonNull::from(&mut *memory).cast(), len: memory.len(), _memory: memory }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.len
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let this = slf.get();
        // SAFETY: the view is Python's to fill, and keeps the exporter, and with it the bytes, until it is released
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), this.start.as_ptr().cast(), this.len.cast_signed(), 0, flags)
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// A writable buffer of somebody else's, in one piece.
pub(super) struct Target(PyUntypedBuffer);

impl Target {
    /// Takes `object`'s buffer, which must be writable and C-contiguous.
    pub(super) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if buffer.readonly() {
            return Err(misuse(object.py(), "the buffer is read-only"));
        }
        if !buffer.is_c_contiguous() {
            return Err(misuse(object.py(), "the buffer is not contiguous"));
        }
        Ok(Self(buffer))
    }

    /// Its bytes.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        if self.0.len_bytes() == 0 {
            return &mut []; // whose pointer may be null
        }
        // SAFETY: writable and in one piece, as checked, and exported, so that it stays where it is as long as `self`; that
        // no other thread uses it meanwhile is up to the caller, as with every function of Python that fills a buffer
        unsafe { slice::from_raw_parts_mut(self.0.buf_ptr().cast(), self.0.len_bytes()) }
    }
}
