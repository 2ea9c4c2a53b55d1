//! Models that lie in the caller's own storage, read by the caller's functions.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::call::{self, Caller, Result, call};
use super::failure::{Failure, wm_code, wm_error};
use super::table::{self, Object};
use crate::error::Error;
use crate::io::tree::{SingleFile, Sources, Tree};
use crate::io::{ReadAt, check_bounds};

/// Fills `buffer` with the `len` bytes from `offset` on, and returns 0, or anything else if it cannot.
#[allow(non_camel_case_types)]
pub type wm_read_at =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, offset: u64, buffer: *mut c_void, len: usize) -> c_int>;

/// Lets go of a context.
#[allow(non_camel_case_types)]
pub type wm_release = Option<unsafe extern "C-unwind" fn(context: *mut c_void)>;

/// The files of a model in the caller's own storage.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_sources {
    _opaque: [u8; 0],
}

/// Files that C has added.
pub(super) struct Files {
    name: String,
    files: Mutex<Vec<(String, Arc<dyn ReadAt>)>>,
    is_lone: bool,
}

impl Object for Files {
    const KIND: &'static str = "wm_sources";
}

impl Files {
    /// The files of a handle as a model.
    pub(super) fn tree(handle: *const wm_sources) -> Result<Box<dyn Tree>> {
        let this = table::get::<Self>(handle.addr())?;
        let files = this.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let ([(path, source)], true) = (files.as_slice(), this.is_lone) {
            return Ok(Box::new(SingleFile::new(path, Arc::clone(source))));
        }
        let start = Sources::new(&this.name);
        let sources = files.iter().try_fold(start, |sources, (path, source)| sources.and(path, Arc::clone(source)))?;
        Ok(Box::new(sources))
    }
}

/// One file, read by a function of the caller's.
struct Source {
    path: String,
    size: u64,
    read_at: unsafe extern "C-unwind" fn(*mut c_void, u64, *mut c_void, usize) -> c_int,
    context: Context,
}

/// What a function is called with, released when nobody needs it any more.
struct Context {
    pointer: *mut c_void,
    release: wm_release,
}

// SAFETY: the caller vouches for functions that any thread may call with it
unsafe impl Send for Context {}
// SAFETY: likewise, and several at once
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the caller vouches for it, and nobody calls with this context any more
            let _ = catch_unwind(AssertUnwindSafe(|| unsafe { release(self.pointer) })); // there is nobody to tell
        }
    }
}

impl ReadAt for Source {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        check_bounds(self, offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        // SAFETY: the caller vouches for the function, and it is given memory of the length that it is told
        match unsafe { (self.read_at)(self.context.pointer, offset, buf.as_mut_ptr().cast(), buf.len()) } {
            0 => Ok(()),
            status => Err(Error::io("read", &self.path, io::Error::other(format!("the callback returned {status}")))),
        }
    }

    fn name(&self) -> &str {
        &self.path
    }
}

/// The source that the arguments of a call describe. Its context is released whatever comes of it.
fn source(c: &Caller, path: *const c_char, size: u64, read_at: wm_read_at, context: Context) -> Result<Arc<Source>> {
    let read_at = read_at.ok_or_else(|| Failure::misuse("no function to read with: the pointer is NULL"))?;
    Ok(Arc::new(Source { path: c.text(path)?.to_owned(), size, read_at, context }))
}

/// A directory of no files yet; messages will call it `name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_sources_new(
    name: *const c_char,
    sources: *mut *mut wm_sources,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(sources)?;
        out.open(Files { name: c.text(name)?.to_owned(), files: Mutex::default(), is_lone: false })
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Adds the file at `path` (relative, separated by `/`) of `size` bytes.
///
/// `read_at` is called with `context` from several threads at once, and never for bytes beyond `size`. What it returns for
/// an offset must stay the same. `release` (NULL: nothing to do) is called once nobody needs the context any more: as soon
/// as the sources and all models opened from them are freed, or at once if this fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_sources_add(
    sources: *mut wm_sources,
    path: *const c_char,
    size: u64,
    read_at: wm_read_at,
    context: *mut c_void,
    release: wm_release,
    error: *mut *mut wm_error,
) -> wm_code {
    let context = Context { pointer: context, release };
    let body = |c: &Caller| {
        let source = source(c, path, size, read_at, context)?;
        let this = table::get::<Files>(sources.addr())?;
        if this.is_lone {
            return Err(Failure::misuse("a lone file is the only one"));
        }
        Sources::new(&this.name).and(&source.path, Arc::clone(&source) as Arc<dyn ReadAt>)?; // a path as it must be
        let mut files = this.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.push((source.path.clone(), source));
        Ok(())
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// A lone file, as `wm_sources_add` takes it: a model that is no directory. Its format may go by its name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_sources_lone(
    path: *const c_char,
    size: u64,
    read_at: wm_read_at,
    context: *mut c_void,
    release: wm_release,
    sources: *mut *mut wm_sources,
    error: *mut *mut wm_error,
) -> wm_code {
    let context = Context { pointer: context, release };
    let body = |c: &Caller| {
        let source = source(c, path, size, read_at, context)?;
        let out = c.out_handle(sources)?;
        Sources::new("").and(&source.path, Arc::clone(&source) as Arc<dyn ReadAt>)?; // a path as it must be
        let (name, files) = (source.path.clone(), Mutex::new(vec![(source.path.clone(), source as Arc<dyn ReadAt>)]));
        out.open(Files { name, files, is_lone: true })
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Frees sources. Models opened from them stay open. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_sources_free(sources: *mut wm_sources) -> wm_code {
    call::free::<Files, _>(sources)
}
