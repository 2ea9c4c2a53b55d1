//! Signing and verifying models, and the options for it.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::call::{Caller, Result, call, work};
use super::failure::{Failure, wm_code, wm_error};
use super::options::{OPENING, Options, give, wm_options};
use super::report::{Report, wm_report};
use crate::io::Progress;
use crate::keys::SigningKey;
use crate::model::signatures;
use crate::signing::{HashType, Hashing, Publisher};

/// The private key (PEM) at `path` to sign with; `passphrase` opens it if it is encrypted, and is NULL otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_signing_key(
    options: *mut wm_options,
    path: *const c_char,
    passphrase: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let loaded = |c: &Caller| {
        let path = c.path(path)?;
        Ok(Arc::new(match c.optional_text(passphrase)? {
            Some(passphrase) => SigningKey::load_encrypted(path, passphrase)?,
            None => SigningKey::load(path)?,
        }))
    };
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "signing_key", loaded, |o, key| o.signing_key = Some(key)) }
}

/// Hashes files with `sha256` (as without this), `blake2b` or `blake3`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_hash(
    options: *mut wm_options,
    name: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let known = |c: &Caller| HashType::from_name(c.text(name)?).ok_or_else(|| Failure::misuse("no hash of this name"));
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "hash", known, |o, hash| o.hash = Some(hash)) }
}

/// Writes an outboard beside the signature, by which the model can be verified where it is read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_outboard(options: *mut wm_options, error: *mut *mut wm_error) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "outboard", |_| Ok(()), |_, ()| ()) }
}

/// Leaves a path of the model, with all that is beneath it, out of the signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_ignore(
    options: *mut wm_options,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let text = |c: &Caller| Ok(c.text(path)?.trim_end_matches('/').to_owned());
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "ignore", text, |o, path| o.ignored.push(path)) }
}

/// Where the signature lies, or goes, if not in its usual place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_signature(
    options: *mut wm_options,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let place = |c: &Caller| Ok(c.path(path)?.to_owned());
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "signature", place, |o, path| o.signature = Some(path)) }
}

/// Releases the model under this name as this version, which `expires` (seconds since 1970) if that is not 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_release(
    options: *mut wm_options,
    name: *const c_char,
    version: u64,
    expires: u64,
    error: *mut *mut wm_error,
) -> wm_code {
    let draft = |c: &Caller| {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(expires));
        let time = time.ok_or_else(|| Failure::misuse("it expires later than any clock shows"))?;
        Ok((c.text(name)?.to_owned(), version, (expires != 0).then_some(time)))
    };
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "release", draft, |o, draft| o.release = Some(draft)) }
}

/// Signs the model at `model`: writes a signature into it, or beside it if it is a file. `report` may be NULL.
///
/// Options: signing_key, hash, outboard, ignore, signature, release, danger_allow_code, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_sign(
    options: *const wm_options,
    model: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    const TAKES: &[&str] = &["signing_key", "hash", "outboard", "ignore", "signature", "release", "danger_allow_code"];
    let body = |c: &Caller| {
        let out = c.report(report);
        let options = Options::of(options, "wm_sign", &[TAKES])?;
        let model = c.path(model)?;
        out.open(work(|| {
            let watch = options.watch();
            let object = sign(&options, model, &watch)?;
            watch.settle();
            Ok(Report::new("sign", object))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

fn sign(options: &Options, path: &Path, progress: &dyn Progress) -> Result<Value> {
    let key = &**options.need(&options.signing_key, "signing_key")?;
    let hash = options.hash.unwrap_or_default();
    let mut publisher = Publisher::new(key).hashing(Hashing { hash, shard_size: None });
    if options.has("outboard") {
        publisher = publisher.outboard();
    }
    if let Some(place) = &options.signature {
        publisher = publisher.signature(place);
    }
    publisher = options.ignored.iter().fold(publisher, Publisher::ignore);
    publisher = options.allow_code.iter().fold(publisher, Publisher::danger_allow_code);
    if let Some((name, version, expires)) = &options.release {
        publisher = expires.iter().copied().fold(publisher.release(name, *version), Publisher::expires_at);
    }
    Ok(publisher.publish(path, progress)?.to_json())
}

/// Verifies that the model at `model` is exactly what was signed; `WM_REFUSED` if not. `report` may be NULL.
///
/// Options: policy, signature, identity, passphrase, context, accept_closed, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_verify(
    options: *const wm_options,
    model: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.report(report);
        let options = Options::of(options, "wm_verify", &[&["policy", "signature"], OPENING])?;
        let path = c.path(model)?;
        out.open(work(|| {
            let watch = options.watch();
            let policy = options.need(&options.policy, "policy")?;
            let tree = options.opening().tree(path)?;
            let verified = policy.verify_tree(&*tree, &signatures(path, &*tree, &options.signature)?, &watch)?;
            watch.settle();
            Ok(Report::new("verify", verified.to_json()))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}
