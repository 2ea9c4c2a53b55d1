//! Making keys, and what can be told of a model without any.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::path::Path;

use serde_json::{Value, json};

use super::call::{Caller, Result, call, work};
use super::failure::{Failure, wm_code, wm_error};
use super::options::{Options, give, wm_options};
use super::report::{Report, wm_report};
use super::table;
use crate::keys::file::public_path;
use crate::keys::{Algorithm, OwnerKey, SigningKey, SymmetricKey, X25519Identity, XWingIdentity};

/// The owner's name, which an owner key holds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_name(
    options: *mut wm_options,
    name: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "name", |c| Ok(c.text(name)?.to_owned()), |o, name| o.name = Some(name)) }
}

/// The algorithm of a new key: `x-wing` (as without this) or `x25519` of an identity, `p256` (as without this), `p384`, `p521` or
/// `ed25519` of a signing key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_algorithm(
    options: *mut wm_options,
    name: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let text = |c: &Caller| Ok(c.text(name)?.to_owned());
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "algorithm", text, |o, name| o.algorithm = Some(name)) }
}

/// Makes a key: an `identity`, a `signing`, `owner` or `symmetric` key. The secret goes to a new file at `path`, readable
/// by its owner alone, the public half, if it has one, to `path` with `.pub` behind it. `report` may be NULL.
///
/// Options: name (of an owner, who needs one), algorithm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_keygen(
    options: *const wm_options,
    kind: *const c_char,
    path: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.report(report);
        let (kind, path) = (c.text(kind)?, c.path(path)?);
        let takes: &[&str] = match kind {
            "identity" | "signing" => &["algorithm"],
            "owner" => &["name"],
            _ => &[],
        };
        let options = Options::of(options, &format!("wm_keygen of this kind, {kind:?},"), &[takes])?;
        out.open(work(|| Ok(Report::new("keygen", generate(&options, kind, path)?)))?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

fn generate(options: &Options, kind: &str, path: &Path) -> Result<Value> {
    let unknown = || Failure::misuse("no key of this kind and algorithm");
    let (noun, id) = match (kind, options.algorithm.as_deref()) {
        ("symmetric", None) => {
            let key = SymmetricKey::generate()?;
            key.save(path)?;
            ("symmetric key", key.id())
        }
        ("identity", None | Some("x-wing")) => {
            let identity = XWingIdentity::generate()?;
            identity.save(path)?;
            ("identity", identity.recipient().id())
        }
        ("identity", Some("x25519")) => {
            let identity = X25519Identity::generate()?;
            identity.save(path)?;
            ("identity", identity.recipient().id())
        }
        ("signing", algorithm) => {
            let key = SigningKey::generate(match algorithm {
                None | Some("p256") => Algorithm::EcdsaP256,
                Some("p384") => Algorithm::EcdsaP384,
                Some("p521") => Algorithm::EcdsaP521,
                Some("ed25519") => Algorithm::Ed25519,
                Some(_) => return Err(unknown()),
            })?;
            key.save(path)?;
            ("signing key", key.verifying_key().id())
        }
        ("owner", None) => {
            let name = options.need(&options.name, "name")?;
            let named = Some(name).filter(|name| !name.is_empty());
            let key = OwnerKey::generate(named.ok_or_else(|| Failure::misuse("an owner needs a name"))?)?;
            key.save(path)?;
            ("owner key", key.id().to_string())
        }
        _ => return Err(unknown()),
    };
    let public = (kind != "symmetric").then(|| public_path(path).display().to_string());
    Ok(json!({"kind": noun, "id": id, "secret": path.display().to_string(), "public": public}))
}

/// Number of handles that were not freed yet, for tests.
#[unsafe(no_mangle)]
pub extern "C" fn wm_live_handles() -> usize {
    table::live()
}

/// The version of the library: `0.1.0`. It lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn wm_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
