//! What verbs come back with.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::ptr;

use serde_json::{Value, json};

use super::call::{self, Borrowed, c_string};
use super::failure::wm_code;
use super::table::Object;
use crate::watermark::Evidence;

/// What a verb did or found.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_report {
    _opaque: [u8; 0],
}

/// What was found of a mark.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_evidence {
    _opaque: [u8; 0],
}

/// A JSON object that C holds.
pub(super) struct Report(CString);

impl Object for Report {
    const KIND: &'static str = "wm_report";
}

impl Report {
    /// The object that the command line prints for `verb`.
    pub(super) fn new(verb: &str, object: Value) -> Self {
        Self(c_string(schema(verb, object).to_string()))
    }
}

/// Evidence that C holds.
pub(super) struct Found {
    evidence: Evidence,
    copy: Option<CString>,
    json: CString,
}

impl Object for Found {
    const KIND: &'static str = "wm_evidence";
}

impl Found {
    pub(super) fn new(evidence: Evidence) -> Self {
        let json = c_string(schema("detect", evidence.to_json()).to_string());
        Self { copy: evidence.copy().map(|copy| c_string(&*copy.label)), evidence, json }
    }
}

fn schema(verb: &str, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("schema".into(), json!(format!("weightmark/{verb}/1")));
    }
    object
}

/// The report as JSON: what the command line prints with `--json`. It lives as long as the handle.
#[unsafe(no_mangle)]
pub extern "C" fn wm_report_json(report: *const wm_report) -> *const c_char {
    call::ask(report, |report: &Report| report.0.borrowed()).unwrap_or(ptr::null())
}

/// Frees a report. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_report_free(report: *mut wm_report) -> wm_code {
    call::free::<Report, _>(report)
}

/// Whether the owner's mark was found.
#[unsafe(no_mangle)]
pub extern "C" fn wm_evidence_detected(evidence: *const wm_evidence) -> bool {
    call::ask(evidence, |found: &Found| found.evidence.is_detected()).unwrap_or(false)
}

/// The base-10 logarithm of the p-value of the owner's mark: a proved bound.
#[unsafe(no_mangle)]
pub extern "C" fn wm_evidence_log10_p(evidence: *const wm_evidence) -> f64 {
    call::ask(evidence, |found: &Found| found.evidence.log10_p()).unwrap_or(f64::NAN)
}

/// The score of the owner's mark, in standard deviations.
#[unsafe(no_mangle)]
pub extern "C" fn wm_evidence_z(evidence: *const wm_evidence) -> f64 {
    call::ask(evidence, |found: &Found| found.evidence.z()).unwrap_or(f64::NAN)
}

/// The label of the copy that stands out, of those asked for, or NULL. It lives as long as the handle.
#[unsafe(no_mangle)]
pub extern "C" fn wm_evidence_copy(evidence: *const wm_evidence) -> *const c_char {
    call::ask(evidence, |found: &Found| found.copy.borrowed()).unwrap_or(ptr::null())
}

/// All of it as JSON: what the command line prints with `--json`. It lives as long as the handle.
#[unsafe(no_mangle)]
pub extern "C" fn wm_evidence_json(evidence: *const wm_evidence) -> *const c_char {
    call::ask(evidence, |found: &Found| found.json.borrowed()).unwrap_or(ptr::null())
}

/// Frees evidence. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_evidence_free(evidence: *mut wm_evidence) -> wm_code {
    call::free::<Found, _>(evidence)
}
