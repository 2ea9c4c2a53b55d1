//! The boundary: what every call from C goes through.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{ptr, slice};

use super::failure::{Failure, wm_code, wm_error};
use super::report::{Report, wm_report};
use super::table::{self, Object};
use crate::io::fork;

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// A caller who vouches for the pointers that it passed: each is NULL or what the header says it is.
pub(super) struct Caller(());

/// Does the body of a call: what it fails with, a panic too, becomes a code, and an error if the caller wants one.
///
/// # Safety
/// `error` is NULL or a place for a pointer, and the caller vouches for whatever `body` asks of it.
pub(super) unsafe fn call(error: *mut *mut wm_error, body: impl FnOnce(&Caller) -> Result<()>) -> wm_code {
    let done = catch_unwind(AssertUnwindSafe(|| body(&Caller(()))));
    let failure = match done {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(Failure::panic(format!("panicked: {}", said(&*panic)))),
    };
    let code = failure.as_ref().map_or(wm_code::WM_OK, Failure::code);
    if !error.is_null() {
        let handle = failure.map_or(ptr::null_mut(), Failure::into_handle);
        // SAFETY: not NULL, so a place for a pointer
        unsafe { error.write(handle) };
    }
    code
}

/// Does work that may take long, or run in parallel, in a process that may have been forked off.
pub(super) fn work<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    fork::within(|| Ok(work()))?
}

/// What `read` makes of the object of a handle, if it is one of that kind. For questions that cannot fail otherwise.
pub(super) fn ask<T: Object, H, R>(handle: *const H, read: impl FnOnce(&T) -> R) -> Option<R> {
    let answer = || Some(read(&*table::get::<T>(handle.addr()).ok()?));
    catch_unwind(AssertUnwindSafe(answer)).ok().flatten()
}

/// Frees a handle; NULL is none.
pub(super) fn free<T: Object, H>(handle: *mut H) -> wm_code {
    if handle.is_null() {
        return wm_code::WM_OK;
    }
    let freed = catch_unwind(AssertUnwindSafe(|| table::remove::<T>(handle.addr())));
    freed.map_or(wm_code::WM_PANIC, |freed| freed.map_or_else(|failure| failure.code(), |()| wm_code::WM_OK))
}

/// A place of the caller's for one result.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(super) fn set(self, value: T) {
        // SAFETY: the caller vouched for it, and it is not NULL
        unsafe { self.0.write(value) };
    }
}

impl<H> Out<*mut H> {
    /// Hands out a new handle.
    pub(super) fn open<T: Object>(self, object: T) -> Result<()> {
        self.set(ptr::without_provenance_mut(table::insert(object)?));
        Ok(())
    }
}

/// A place for a report, which the caller may do without.
pub(super) struct Reported(*mut *mut wm_report);

impl Reported {
    /// Hands out the report, if it is wanted.
    pub(super) fn open(self, report: Report) -> Result<()> {
        if self.0.is_null() { Ok(()) } else { Out(self.0).open(report) }
    }
}

impl Caller {
    /// A place for a report, NULL until there is one.
    pub(super) fn report(&self, place: *mut *mut wm_report) -> Reported {
        if !place.is_null() {
            // SAFETY: the caller vouches for it, and it is not NULL
            unsafe { place.write(ptr::null_mut()) };
        }
        Reported(place)
    }

    /// A text, which must be UTF-8.
    pub(super) fn text(&self, text: *const c_char) -> Result<&str> {
        let problem = |_| Failure::misuse("a text is not UTF-8");
        self.c_str(text)?.to_str().map_err(problem)
    }

    /// A text that may be left out.
    pub(super) fn optional_text(&self, text: *const c_char) -> Result<Option<&str>> {
        if text.is_null() { Ok(None) } else { self.text(text).map(Some) }
    }

    /// A path, of whatever bytes.
    pub(super) fn path(&self, path: *const c_char) -> Result<&Path> {
        Ok(Path::new(OsStr::from_bytes(self.c_str(path)?.to_bytes())))
    }

    /// A place for a result. A handle in it is NULL until there is one.
    pub(super) fn out<T: Default>(&self, place: *mut T) -> Result<Out<T>> {
        if place.is_null() {
            return Err(Failure::misuse("no place for the result: the pointer is NULL"));
        }
        // SAFETY: the caller vouches for it, and it is not NULL
        unsafe { place.write(T::default()) };
        Ok(Out(place))
    }

    /// A place for a new handle, NULL until there is one.
    pub(super) fn out_handle<H>(&self, place: *mut *mut H) -> Result<Out<*mut H>> {
        if place.is_null() {
            return Err(Failure::misuse("no place for the result: the pointer is NULL"));
        }
        // SAFETY: the caller vouches for it, and it is not NULL
        unsafe { place.write(ptr::null_mut()) };
        Ok(Out(place))
    }

    /// Memory of the caller's to write to.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn buffer<T>(&self, start: *mut T, len: usize) -> Result<&mut [T]> {
        if len == 0 {
            return Ok(&mut []);
        }
        if start.is_null() || !start.is_aligned() || len > isize::MAX as usize / size_of::<T>().max(1) {
            return Err(Failure::misuse("not a buffer: NULL, not aligned, or longer than any memory"));
        }
        // SAFETY: the caller vouches for memory of this length that nobody else uses meanwhile, and it is not NULL
        Ok(unsafe { slice::from_raw_parts_mut(start, len) })
    }

    fn c_str(&self, text: *const c_char) -> Result<&CStr> {
        if text.is_null() {
            return Err(Failure::misuse("a text or a path is missing: the pointer is NULL"));
        }
        // SAFETY: the caller vouches for a text that ends in NUL, and it is not NULL
        Ok(unsafe { CStr::from_ptr(text) })
    }
}

/// A text for C, up to its first NUL if it has one.
pub(super) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    CString::new(bytes).unwrap_or_default()
}

/// What C gets of a string that lives as long as its handle: NULL if there is none.
pub(super) trait Borrowed {
    fn borrowed(&self) -> *const c_char;
}

impl Borrowed for CString {
    fn borrowed(&self) -> *const c_char {
        self.as_ptr()
    }
}

impl Borrowed for Option<CString> {
    fn borrowed(&self) -> *const c_char {
        self.as_ref().map_or(ptr::null(), |text| text.as_ptr())
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
