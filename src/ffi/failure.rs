//! Result codes, and errors as C sees them.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::ptr;

use super::call::{self, Borrowed};
use super::table::{self, Object};
use crate::error::{Code, Error};

/// What a call came to. Numbers never change; later versions may add some.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_enums, non_camel_case_types)]
pub enum wm_code {
    /// Done. Since 0.1.
    WM_OK = 0,
    /// The answer is no: tampered, badly signed, bound to something else. Since 0.1.
    WM_REFUSED = 1,
    /// The caller made a mistake: a null pointer, a freed handle, an option that the verb has no use for. Since 0.1.
    WM_MISUSE = 2,
    /// The operating system, a read callback or the format of a file says no. Since 0.1.
    WM_INPUT = 3,
    /// A key is missing, malformed or does not fit. Since 0.1.
    WM_KEY = 4,
    /// A callback asked to stop; nothing was left behind. Since 0.1.
    WM_CANCELLED = 5,
    /// The library, or a callback in Rust, panicked: please report it with the message. Since 0.1.
    WM_PANIC = 6,
}

/// Why a call failed.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_error {
    _opaque: [u8; 0],
}

/// A failure on its way to C.
#[derive(Debug)]
pub(super) struct Failure {
    code: wm_code,
    cause: &'static str,
    artifact: Option<String>,
    message: String,
}

impl Failure {
    pub(super) fn misuse(message: impl Into<String>) -> Self {
        Self { code: wm_code::WM_MISUSE, cause: "misuse", artifact: None, message: message.into() }
    }

    pub(super) fn panic(message: impl Into<String>) -> Self {
        Self { code: wm_code::WM_PANIC, cause: "panic", artifact: None, message: message.into() }
    }

    pub(super) fn code(&self) -> wm_code {
        self.code
    }

    #[cfg(test)]
    pub(super) fn cause(&self) -> &str {
        self.cause
    }

    /// A handle of it for C, or NULL if there is no place for one.
    pub(super) fn into_handle(self) -> *mut wm_error {
        let object = Explained {
            code: self.code,
            message: call::c_string(self.message),
            cause: call::c_string(self.cause),
            artifact: self.artifact.map(call::c_string),
        };
        table::insert(object).map_or(ptr::null_mut(), ptr::without_provenance_mut)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.code() {
            Code::Refused => wm_code::WM_REFUSED,
            Code::Misuse => wm_code::WM_MISUSE,
            Code::Input => wm_code::WM_INPUT,
            Code::Key => wm_code::WM_KEY,
            Code::Cancelled => wm_code::WM_CANCELLED,
        };
        let artifact = error.artifact().map(str::to_owned);
        Self { code, cause: error.word(), artifact, message: error.to_string() }
    }
}

/// An error that C holds.
struct Explained {
    code: wm_code,
    message: CString,
    cause: CString,
    artifact: Option<CString>,
}

impl Object for Explained {
    const KIND: &'static str = "wm_error";
}

/// The code that the call returned; `WM_MISUSE` if this is no error.
#[unsafe(no_mangle)]
pub extern "C" fn wm_error_code(error: *const wm_error) -> wm_code {
    call::ask(error, |error: &Explained| error.code).unwrap_or(wm_code::WM_MISUSE)
}

/// One line for people: the file, then what is wrong with it.
#[unsafe(no_mangle)]
pub extern "C" fn wm_error_message(error: *const wm_error) -> *const c_char {
    call::ask(error, |error: &Explained| error.message.borrowed()).unwrap_or(ptr::null())
}

/// The cause as a stable word for programs: `chunk-tampered`, `missing-file`, `no-match`, `misuse`, ..
#[unsafe(no_mangle)]
pub extern "C" fn wm_error_cause(error: *const wm_error) -> *const c_char {
    call::ask(error, |error: &Explained| error.cause.borrowed()).unwrap_or(ptr::null())
}

/// The file or the model that this is about, as it was named, or NULL.
#[unsafe(no_mangle)]
pub extern "C" fn wm_error_artifact(error: *const wm_error) -> *const c_char {
    call::ask(error, |error: &Explained| error.artifact.borrowed()).unwrap_or(ptr::null())
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_error_free(error: *mut wm_error) -> wm_code {
    call::free::<Explained, _>(error)
}
