//! Marking models, finding marks, and all of it at once; the options for it.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::Arc;

use serde_json::json;

use super::call::{Caller, Result, call, work};
use super::failure::{Failure, wm_code, wm_error};
use super::options::{OPENING, Options, give, wm_options};
use super::report::{Found, Report, wm_evidence, wm_report};
use crate::keys::OwnerKey;
use crate::lineage;
use crate::model::Protector;
use crate::watermark::{Detector, Watermark};

/// The owner key at `path`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_owner_key(
    options: *mut wm_options,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let loaded = |c: &Caller| Ok(Arc::new(OwnerKey::load(c.path(path)?)?));
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "owner_key", loaded, |o, key| o.owner_key = Some(key)) }
}

/// The label of the copy that is marked; to `wm_detect`, one more that may have been.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_copy(
    options: *mut wm_options,
    label: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "copy", |c| Ok(c.text(label)?.to_owned()), |o, label| o.copies.push(label)) }
}

/// Marks with a number of 64 bits instead of a label.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_payload(
    options: *mut wm_options,
    payload: u64,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "payload", |_| Ok(payload), |o, payload| o.payload = Some(payload)) }
}

/// Overrides the strength of the mark.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_strength(
    options: *mut wm_options,
    strength: f64,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "strength", |_| Ok(strength), |o, strength| o.strength = Some(strength)) }
}

/// The public random value that the mark is bound to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_beacon(
    options: *mut wm_options,
    beacon: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "beacon", |c| Ok(c.text(beacon)?.to_owned()), |o, beacon| o.beacon = beacon) }
}

/// A model that the suspect may have been merged with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_partner(
    options: *mut wm_options,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let path = |c: &Caller| Ok(c.path(path)?.to_owned());
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "partner", path, |o, path| o.partner = Some(path)) }
}

/// Tries every method, even where a quick one has settled the case.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_exhaustive(options: *mut wm_options, error: *mut *mut wm_error) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "exhaustive", |_| Ok(()), |_, ()| ()) }
}

/// Marks the model at `original` as the new one at `output`. `report` may be NULL.
///
/// Options: owner_key, copy, payload, strength, beacon, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_embed(
    options: *const wm_options,
    original: *const c_char,
    output: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    const TAKES: &[&str] = &["owner_key", "copy", "payload", "strength", "beacon"];
    let body = |c: &Caller| {
        let out = c.report(report);
        let options = Options::of(options, "wm_embed", &[TAKES])?;
        let (original, output) = (c.path(original)?, c.path(output)?);
        out.open(work(|| {
            let watch = options.watch();
            let owner = options.need(&options.owner_key, "owner_key")?;
            let mut watermark = Watermark::new(owner).beacon(&options.beacon);
            if let Some(label) = options.only_copy()? {
                watermark = watermark.copy(label);
            }
            if let Some(payload) = options.payload {
                watermark = watermark.payload(payload);
            }
            if let Some(strength) = options.strength {
                watermark = watermark.strength(strength);
            }
            let done = watermark.embed_with(original, output, &watch)?;
            watch.settle();
            Ok(Report::new("embed", json!(done)))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Looks for the owner's mark on the model `original` in the model at `suspect`. That there is none is evidence, and no failure.
///
/// Options: owner_key, copy (those who may have leaked it), strength, beacon, partner, exhaustive; of an encrypted suspect identity,
/// passphrase, context, accept_closed; progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_detect(
    options: *const wm_options,
    original: *const c_char,
    suspect: *const c_char,
    evidence: *mut *mut wm_evidence,
    error: *mut *mut wm_error,
) -> wm_code {
    const TAKES: &[&str] = &["owner_key", "copy", "strength", "beacon", "partner", "exhaustive"];
    let body = |c: &Caller| {
        let out = c.out_handle(evidence)?;
        let options = Options::of(options, "wm_detect", &[TAKES, OPENING])?;
        let (original, suspect) = (c.path(original)?, c.path(suspect)?);
        out.open(work(|| {
            let watch = options.watch();
            let owner = options.need(&options.owner_key, "owner_key")?;
            let mut detector = Detector::new(owner, original).beacon(&options.beacon).copies(options.copies.clone());
            if let Some(strength) = options.strength {
                detector = detector.strength(strength);
            }
            if let Some(partner) = &options.partner {
                detector = detector.partner(partner);
            }
            if options.has("exhaustive") {
                detector = detector.exhaustive();
            }
            let suspect = options.opening().tree(suspect)?;
            let evidence = detector.examine_tree(&*suspect, &watch)?;
            evidence.verdict(suspect.name())?; // no answer is not "no"
            watch.settle();
            Ok(Found::new(evidence))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Compares two models: have they a common origin? Needs no key and no mark; `report` has the answer.
///
/// Options: identity, passphrase, context, accept_closed, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_lineage(
    options: *const wm_options,
    first: *const c_char,
    second: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.report(report);
        let options = Options::of(options, "wm_lineage", &[OPENING])?;
        let (first, second) = (c.path(first)?, c.path(second)?);
        out.open(work(|| {
            let watch = options.watch();
            let opening = options.opening();
            let (first, second) = (opening.tree_of_either(first)?, opening.tree_of_either(second)?);
            let found = lineage::compare_trees(&*first, &*second, &watch)?;
            watch.settle();
            Ok(Report::new("lineage", found.to_json()))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// The main job: marks the model at `model`, signs it, and encrypts it as the new directory `output`. `report` may be NULL, but
/// what is in it should be kept.
///
/// Options: owner_key, signing_key, recipient, copy, context, strength, beacon, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_protect(
    options: *const wm_options,
    model: *const c_char,
    output: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    const TAKES: &[&str] = &["owner_key", "signing_key", "recipient", "copy", "context", "strength", "beacon"];
    let body = |c: &Caller| {
        let out = c.report(report);
        let options = Options::of(options, "wm_protect", &[TAKES])?;
        let (model, output) = (c.path(model)?, c.path(output)?);
        out.open(work(|| {
            let watch = options.watch();
            let owner = options.need(&options.owner_key, "owner_key")?;
            let signer = &**options.need(&options.signing_key, "signing_key")?;
            let context = options.context.clone().unwrap_or_default();
            let mut protector = Protector::new(owner, signer, options.recipients()?).context(context);
            protector = protector.beacon(&options.beacon);
            if let Some(label) = options.only_copy()? {
                protector = protector.copy(label);
            }
            if let Some(strength) = options.strength {
                protector = protector.strength(strength);
            }
            let done = protector.protect_with(model, output, &watch)?;
            watch.settle();
            let mut record = json!(done);
            if let Some(fields) = record.as_object_mut() {
                fields.insert("beacon".into(), json!(options.beacon));
                fields.insert("output".into(), json!(output.display().to_string()));
            }
            Ok(Report::new("protect", record))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

impl Options {
    /// The label of the copy, where there can be but one.
    fn only_copy(&self) -> Result<Option<&String>> {
        match self.copies.as_slice() {
            [] => Ok(None),
            [label] => Ok(Some(label)),
            _ => Err(Failure::misuse("one copy has one label")),
        }
    }
}
