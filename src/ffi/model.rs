//! Open models: their tensors and files, read into the caller's memory.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;

use super::call::{self, Borrowed, Caller, Result, c_string, call, work};
use super::failure::{Failure, wm_code, wm_error};
use super::options::{OPENING, Options, wm_options};
use super::sources::{Files, wm_sources};
use super::table::{self, Object};
use crate::error::Printable;
use crate::io::{Entry, ReadAt};
use crate::model::Model;

/// An open model. Any number of threads may use one handle.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_model {
    _opaque: [u8; 0],
}

/// What a tensor is. All pointers live as long as the model's handle.
#[repr(C)]
#[derive(Debug)]
#[allow(clippy::exhaustive_structs, non_camel_case_types)]
pub struct wm_tensor {
    /// Its name.
    pub name: *const c_char,
    /// The file of the model that holds it.
    pub file: *const c_char,
    /// Its element type: `F32`, `BF16`, `Q4_K`, ..
    pub dtype: *const c_char,
    /// Its dimensions, outermost first.
    pub shape: *const u64,
    /// How many dimensions; 0 for a scalar.
    pub rank: usize,
    /// Number of elements.
    pub elements: u64,
    /// Size of the elements in bytes, row-major, little-endian.
    pub nbytes: u64,
}

impl Default for wm_tensor {
    fn default() -> Self {
        let (text, shape) = (ptr::null(), ptr::null());
        Self { name: text, file: text, dtype: text, shape, rank: 0, elements: 0, nbytes: 0 }
    }
}

/// A model that C holds, with what C is told of it.
pub(super) struct Opened {
    pub(super) model: Model,
    tensors: Vec<Described>,
    by_name: HashMap<String, Vec<usize>>,
    files: Vec<(CString, u64)>,
    verified: Option<CString>,
}

struct Described {
    name: CString,
    file: CString,
    dtype: CString,
    shape: Vec<u64>,
    elements: u64,
    nbytes: u64,
}

impl Object for Opened {
    const KIND: &'static str = "wm_model";
}

impl Opened {
    fn new(model: Model) -> Result<Self> {
        let tensors = model.tensors().map(|(file, info)| {
            let name = CString::new(&*info.name);
            Ok(Described {
                name: name
                    .map_err(|_| Failure::misuse("a tensor has a name that C cannot hold: it has a NUL in it"))?,
                file: c_string(file),
                dtype: c_string(info.dtype.name()),
                shape: info.shape.clone(),
                elements: info.elements(),
                nbytes: info.size(),
            })
        });
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, (_, info)) in model.tensors().enumerate() {
            by_name.entry(info.name.clone()).or_default().push(at);
        }
        Ok(Self {
            by_name,
            tensors: tensors.collect::<Result<_>>()?,
            files: model.files().entries().iter().map(|Entry { path, size }| (c_string(&**path), *size)).collect(),
            verified: model.verified().map(|verified| c_string(verified.to_json().to_string())),
            model,
        })
    }
}

impl Opened {
    /// The file at `path`, which must be one of the model.
    pub(super) fn file(&self, path: &str) -> Result<Arc<dyn ReadAt>> {
        let entries = self.model.files().entries();
        let known = entries.binary_search_by(|entry| entry.path.as_str().cmp(path));
        known.map_err(|_| Failure::misuse(format!("no file of the model: {}", Printable(path))))?;
        Ok(self.model.files().open(path)?)
    }
}

impl Described {
    fn told(&self) -> wm_tensor {
        wm_tensor {
            name: self.name.borrowed(),
            file: self.file.borrowed(),
            dtype: self.dtype.borrowed(),
            shape: self.shape.as_ptr(),
            rank: self.shape.len(),
            elements: self.elements,
            nbytes: self.nbytes,
        }
    }
}

fn options(handle: *const wm_options) -> Result<Options> {
    const MODEL: &[&str] =
        &["policy", "expect_encrypted", "danger_accept_plaintext", "danger_accept_unsigned", "danger_allow_code"];
    Options::of(handle, "wm_model_open", &[OPENING, MODEL])
}

/// Opens the model at `path`: a directory or a file, plain or encrypted. `options` may be NULL.
///
/// Options: identity, passphrase, context, expect_encrypted, accept_closed, policy, danger_accept_plaintext,
/// danger_accept_unsigned, danger_allow_code, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_open(
    options: *const wm_options,
    path: *const c_char,
    model: *mut *mut wm_model,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(model)?;
        let (path, options) = (c.path(path)?, self::options(options)?);
        out.open(work(|| {
            let watch = options.watch();
            let model = options.opening().open_with(path, &watch)?;
            watch.settle();
            Opened::new(model)
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Opens the model that `sources` hold, likewise. Under a policy a lone file must be given as a directory, with its
/// signature in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_open_sources(
    options: *const wm_options,
    sources: *const wm_sources,
    model: *mut *mut wm_model,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(model)?;
        let (tree, options) = (Files::tree(sources)?, self::options(options)?);
        out.open(work(|| {
            let watch = options.watch();
            let model = options.opening().open_tree(tree, &watch)?;
            watch.settle();
            Opened::new(model)
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Number of tensors.
#[unsafe(no_mangle)]
pub extern "C" fn wm_model_tensors(model: *const wm_model) -> usize {
    call::ask(model, |opened: &Opened| opened.tensors.len()).unwrap_or(0)
}

/// Describes the tensor of this number, below `wm_model_tensors`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_tensor(
    model: *const wm_model,
    index: usize,
    tensor: *mut wm_tensor,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out(tensor)?;
        let opened = table::get::<Opened>(model.addr())?;
        out.set(opened.tensors.get(index).ok_or_else(|| Failure::misuse("no tensor of this number"))?.told());
        Ok(())
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Describes the tensor of this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_find(
    model: *const wm_model,
    name: *const c_char,
    tensor: *mut wm_tensor,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out(tensor)?;
        let (opened, name) = (table::get::<Opened>(model.addr())?, c.text(name)?);
        let (file, _) = opened.model.find(name)?;
        let mut known = opened.by_name.get(name).into_iter().flatten().map(|at| &opened.tensors[*at]);
        let found = known.find(|known| known.file.to_bytes() == file.as_bytes());
        out.set(found.ok_or_else(|| Failure::misuse("no tensor of this name"))?.told());
        Ok(())
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Reads the tensor called `name` into `buffer`, which must be exactly `nbytes` of it long. An encrypted model decrypts
/// just the chunks that the tensor lies in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_read_tensor(
    model: *const wm_model,
    name: *const c_char,
    buffer: *mut c_void,
    len: usize,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let (opened, name) = (table::get::<Opened>(model.addr())?, c.text(name)?);
        let buffer = c.buffer(buffer.cast::<u8>(), len)?;
        expect(len as u64, opened.model.find(name)?.1.size(), "bytes")?;
        work(|| Ok(opened.model.tensor_into(name, buffer)?))
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Reads rows of the tensor called `name`: the part of its first dimension from `start` to `end`, without it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_read_rows(
    model: *const wm_model,
    name: *const c_char,
    start: u64,
    end: u64,
    buffer: *mut c_void,
    len: usize,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let (opened, name) = (table::get::<Opened>(model.addr())?, c.text(name)?);
        let buffer = c.buffer(buffer.cast::<u8>(), len)?;
        work(|| {
            let rows = opened.model.rows(name, start..end)?;
            expect(len as u64, rows.bytes().len() as u64, "bytes")?;
            buffer.copy_from_slice(rows.bytes());
            Ok(())
        })
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Reads the tensor called `name` as `count` numbers, exactly its `elements`: converted, and rounded to nearest;
/// quantised blocks too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_read_f32(
    model: *const wm_model,
    name: *const c_char,
    buffer: *mut f32,
    count: usize,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let (opened, name) = (table::get::<Opened>(model.addr())?, c.text(name)?);
        let buffer = c.buffer(buffer, count)?;
        expect(count as u64, opened.model.find(name)?.1.elements(), "elements")?;
        work(|| {
            buffer.copy_from_slice(&opened.model.tensor(name)?.to_f32()?);
            Ok(())
        })
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Number of files, with tensors or without.
#[unsafe(no_mangle)]
pub extern "C" fn wm_model_files(model: *const wm_model) -> usize {
    call::ask(model, |opened: &Opened| opened.files.len()).unwrap_or(0)
}

/// Path of the file of this number, below `wm_model_files`, or NULL.
#[unsafe(no_mangle)]
pub extern "C" fn wm_model_file_path(model: *const wm_model, index: usize) -> *const c_char {
    let path = call::ask(model, |opened: &Opened| Some(opened.files.get(index)?.0.borrowed()));
    path.flatten().unwrap_or(ptr::null())
}

/// Size in bytes of the file of this number, or 0.
#[unsafe(no_mangle)]
pub extern "C" fn wm_model_file_size(model: *const wm_model, index: usize) -> u64 {
    call::ask(model, |opened: &Opened| opened.files.get(index).map_or(0, |file| file.1)).unwrap_or(0)
}

/// Fills `buffer` with the bytes of the file at `path` from `offset` on, decrypted and verified. `wm_file_open` does it faster
/// for many reads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_model_read_file_at(
    model: *const wm_model,
    path: *const c_char,
    offset: u64,
    buffer: *mut c_void,
    len: usize,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let file = table::get::<Opened>(model.addr())?.file(c.text(path)?)?;
        let buffer = c.buffer(buffer.cast::<u8>(), len)?;
        work(|| Ok(file.read_at(offset, buffer)?))
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// What was verified, as JSON, or NULL if there was no policy. It lives as long as the handle.
#[unsafe(no_mangle)]
pub extern "C" fn wm_model_verified(model: *const wm_model) -> *const c_char {
    call::ask(model, |opened: &Opened| opened.verified.borrowed()).unwrap_or(ptr::null())
}

/// Frees a model. Its files that are open stay so. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_model_free(model: *mut wm_model) -> wm_code {
    call::free::<Opened, _>(model)
}

fn expect(given: u64, wanted: u64, unit: &str) -> Result<()> {
    let problem = || Failure::misuse(format!("the buffer is of {given} {unit}, and {wanted} are to be read"));
    if given == wanted { Ok(()) } else { Err(problem()) }
}
