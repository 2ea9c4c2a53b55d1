//! Options: what a caller gives to a verb, one call each.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::call::{self, Caller, Result, call};
use super::failure::{Failure, wm_code, wm_error};
use super::policy::{Held, wm_policy};
use super::progress::{Watch, Watcher, wm_advance, wm_cancelled};
use super::table::{self, Object};
use crate::keys::{Identity, OwnerKey, Passphrase, Recipient, SigningKey, load_identity};
use crate::model::{Model, OpenOptions};
use crate::signing::{HashType, Policy};

/// What a verb is given. One handle serves one verb, any number of times and from any thread.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_options {
    _opaque: [u8; 0],
}

/// All that can be given, and the names of what was.
#[derive(Clone, Default)]
pub(super) struct Options {
    given: Vec<&'static str>,
    watcher: Option<Watcher>,
    // opening
    pub(super) identities: Vec<Arc<dyn Identity>>,
    pub(super) context: Option<String>,
    pub(super) policy: Option<Policy>,
    pub(super) allow_code: Vec<String>,
    // encrypting
    pub(super) recipients: Vec<Arc<dyn Recipient>>,
    pub(super) groups: Vec<(String, Arc<dyn Recipient>)>,
    // signing
    pub(super) signing_key: Option<Arc<SigningKey>>,
    pub(super) hash: Option<HashType>,
    pub(super) ignored: Vec<String>,
    pub(super) signature: Option<PathBuf>,
    pub(super) release: Option<(String, u64, Option<SystemTime>)>,
    // marking
    pub(super) owner_key: Option<Arc<OwnerKey>>,
    pub(super) copies: Vec<String>,
    pub(super) payload: Option<u64>,
    pub(super) strength: Option<f64>,
    pub(super) beacon: String,
    pub(super) partner: Option<PathBuf>,
    // making keys
    pub(super) name: Option<String>,
    pub(super) algorithm: Option<String>,
}

/// What opens a model, for the verbs that do.
pub(super) const OPENING: &[&str] = &["identity", "passphrase", "context", "accept_closed"];

impl Object for Mutex<Options> {
    const KIND: &'static str = "wm_options";
}

impl Options {
    /// What lies behind a handle, or nothing behind none. Fails if anything was given that `verb` does not take.
    pub(super) fn of(handle: *const wm_options, verb: &str, takes: &[&[&str]]) -> Result<Self> {
        if handle.is_null() {
            return Ok(Self::default());
        }
        let options = table::get::<Mutex<Self>>(handle.addr())?;
        let options = options.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match options.given.iter().find(|given| !takes.iter().any(|names| names.contains(given))) {
            Some(given) => Err(Failure::misuse(format!("{verb} has no use for the option {given}"))),
            None => Ok(options),
        }
    }

    /// Whether the option of this name was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// The option that a verb cannot do without.
    pub(super) fn need<'a, T>(&self, value: &'a Option<T>, name: &str) -> Result<&'a T> {
        value.as_ref().ok_or_else(|| Failure::misuse(format!("the option {name} is missing")))
    }

    pub(super) fn watch(&self) -> Watch {
        Watch::new(self.watcher)
    }

    /// Whoever may open, as verbs of the library take them.
    pub(super) fn identities(&self) -> Vec<&dyn Identity> {
        self.identities.iter().map(|identity| &**identity).collect()
    }

    /// The options of a model that is opened.
    pub(super) fn opening(&self) -> OpenOptions {
        let mut options = Model::options();
        for identity in &self.identities {
            options = options.identity(Arc::clone(identity));
        }
        if let Some(context) = &self.context {
            options = options.expect_context(context);
        }
        if self.has("expect_encrypted") {
            options = options.expect_encrypted();
        }
        if self.has("accept_closed") {
            options = options.accept_closed();
        }
        if let Some(policy) = &self.policy {
            options = options.policy(policy.clone());
        }
        if self.has("danger_accept_plaintext") {
            options = options.danger_accept_plaintext();
        }
        if self.has("danger_accept_unsigned") {
            options = options.danger_accept_unsigned();
        }
        self.allow_code.iter().fold(options, OpenOptions::danger_allow_code)
    }
}

/// Gives an option, whose value is worked out before it is set.
pub(super) unsafe fn give<T>(
    options: *mut wm_options,
    error: *mut *mut wm_error,
    name: &'static str,
    value: impl FnOnce(&Caller) -> Result<T>,
    set: impl FnOnce(&mut Options, T),
) -> wm_code {
    let body = |caller: &Caller| {
        let options = table::get::<Mutex<Options>>(options.addr())?;
        let value = value(caller)?;
        let mut options = options.lock().unwrap_or_else(PoisonError::into_inner);
        if !options.has(name) {
            options.given.push(name);
        }
        set(&mut options, value);
        Ok(())
    };
    // SAFETY: as the caller of this vouches
    unsafe { call(error, body) }
}

/// New options, with nothing given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_new(options: *mut *mut wm_options, error: *mut *mut wm_error) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { call(error, |c| c.out_handle(options)?.open(Mutex::new(Options::default()))) }
}

/// Frees options. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_options_free(options: *mut wm_options) -> wm_code {
    call::free::<Mutex<Options>, _>(options)
}

/// Adds the identity (or symmetric key) in the file at `path` to those that may open. Whoever has one expects what is
/// encrypted: a plain model in its place is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_identity(
    options: *mut wm_options,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let identity = |c: &Caller| Ok(Arc::from(load_identity(c.path(path)?)?));
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "identity", identity, |o, identity| o.identities.push(identity)) }
}

/// Gives a passphrase: one more that may open, or, to `wm_encrypt`, the one to encrypt to. It is copied into locked memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_passphrase(
    options: *mut wm_options,
    passphrase: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let parsed = |c: &Caller| Ok(Arc::new(Passphrase::new(c.text(passphrase)?)?));
    let set = |o: &mut Options, passphrase: Arc<Passphrase>| {
        o.identities.push(Arc::clone(&passphrase) as Arc<dyn Identity>);
        o.recipients.push(passphrase);
    };
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "passphrase", parsed, set) }
}

/// The context, such as `acme/llama-1b@3`: what is encrypted is bound to it, what is opened must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_context(
    options: *mut wm_options,
    context: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "context", |c| Ok(c.text(context)?.to_owned()), |o, text| o.context = Some(text)) }
}

/// Refuses a model that is not encrypted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_expect_encrypted(options: *mut wm_options, error: *mut *mut wm_error) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "expect_encrypted", |_| Ok(()), |_, ()| ()) }
}

/// Opens an encrypted directory even if some of its files stay closed to the identities.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_accept_closed(options: *mut wm_options, error: *mut *mut wm_error) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "accept_closed", |_| Ok(()), |_, ()| ()) }
}

/// Refuses a model that is not exactly what was signed under `policy`, as it is now: what is changed in it later does not count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_policy(
    options: *mut wm_options,
    policy: *const wm_policy,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "policy", |_| Held::policy(policy), |o, policy| o.policy = Some(policy)) }
}

/// Opens a model that is not encrypted even though an identity or a context was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_danger_accept_plaintext(
    options: *mut wm_options,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "danger_accept_plaintext", |_| Ok(()), |_, ()| ()) }
}

/// Opens a model without looking at its signature. Without this, a model that has one needs a policy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_danger_accept_unsigned(
    options: *mut wm_options,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "danger_accept_unsigned", |_| Ok(()), |_, ()| ()) }
}

/// Opens, or signs, a model although this file in it holds code, or what is not provably plain data.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_danger_allow_code(
    options: *mut wm_options,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let text = |c: &Caller| Ok(c.text(path)?.to_owned());
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "danger_allow_code", text, |o, path| o.allow_code.push(path)) }
}

/// Lets `advance` hear how far the work is, about once a megabyte, and asks `cancelled` whether to stop; either may be NULL.
///
/// They are called from several threads, but never two of them at once for one verb. They may call any function of this
/// library. `context` is theirs, and must live as long as the options and whatever works with them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_progress(
    options: *mut wm_options,
    advance: wm_advance,
    cancelled: wm_cancelled,
    context: *mut c_void,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |_: &Caller| {
        let options = table::get::<Mutex<Options>>(options.addr())?;
        let mut options = options.lock().unwrap_or_else(PoisonError::into_inner);
        options.watcher = Some(Watcher { advance, cancelled, context });
        Ok(())
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}
