//! Open files of a model, for many reads: what a runtime that takes a read callback wants.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::call::{self, Caller, call, work};
use super::failure::{wm_code, wm_error};
use super::model::{Opened, wm_model};
use super::table::{self, Object};
use crate::io::ReadAt;

/// One file of a model, decrypted and verified where it is read. Any number of threads may use one handle.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_file {
    _opaque: [u8; 0],
}

/// A file that C holds.
struct Open(Arc<dyn ReadAt>);

impl Object for Open {
    const KIND: &'static str = "wm_file";
}

/// Opens the file at `path` of a model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_file_open(
    model: *const wm_model,
    path: *const c_char,
    file: *mut *mut wm_file,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(file)?;
        let (opened, path) = (table::get::<Opened>(model.addr())?, c.text(path)?);
        out.open(Open(work(|| opened.file(path))?))
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Size in bytes, or 0 if this is no file.
#[unsafe(no_mangle)]
pub extern "C" fn wm_file_size(file: *const wm_file) -> u64 {
    call::ask(file, |file: &Open| file.0.size()).unwrap_or(0)
}

/// Fills `buffer` with the bytes from `offset` on, or fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_file_read_at(
    file: *const wm_file,
    offset: u64,
    buffer: *mut c_void,
    len: usize,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let file = table::get::<Open>(file.addr())?;
        let buffer = c.buffer(buffer.cast::<u8>(), len)?;
        work(|| Ok(file.0.read_at(offset, buffer)?))
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// The same as a `wm_read_at`, with a `wm_file` for its context: 0, or the code of the failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_file_callback(file: *mut c_void, offset: u64, buffer: *mut c_void, len: usize) -> c_int {
    // SAFETY: pointers are what the header says
    unsafe { wm_file_read_at(file.cast_const().cast(), offset, buffer, len, ptr::null_mut()) as c_int }
}

/// Frees a file. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_file_free(file: *mut wm_file) -> wm_code {
    call::free::<Open, _>(file)
}
