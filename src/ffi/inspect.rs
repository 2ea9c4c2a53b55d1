//! What a model is, told without a key.
#![allow(unsafe_code)]

use std::ffi::c_char;

use super::call::{Caller, call, work};
use super::failure::{wm_code, wm_error};
use super::report::{Report, wm_report};
use crate::io::tree;
use crate::model;

/// Tells what the file or directory at `path` is: tensors, recipients, signatures. No key is needed, and nothing is verified.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_inspect(
    path: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(report)?;
        let path = c.path(path)?;
        out.open(work(|| Ok(Report::new("inspect", model::inspect(&*tree::open(path)?)?.to_json())))?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}
