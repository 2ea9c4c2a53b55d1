//! Policies: whose signature counts, and what is expected of a model.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use super::call::{self, Caller, Result, call};
use super::failure::{Failure, wm_code, wm_error};
use super::table::{self, Object};
use crate::keys::VerifyingKey;
use crate::signing::{CertificateAuthority, Policy};

/// Whose signature counts, and what is expected of a model.
#[allow(missing_debug_implementations, non_camel_case_types)]
pub struct wm_policy {
    _opaque: [u8; 0],
}

/// A policy that C holds.
pub(super) struct Held(Mutex<Policy>);

impl Object for Held {
    const KIND: &'static str = "wm_policy";
}

impl Held {
    fn new(policy: Policy) -> Self {
        Self(Mutex::new(policy))
    }

    /// The policy of a handle, as it is now.
    pub(super) fn policy(handle: *const wm_policy) -> Result<Policy> {
        let held = table::get::<Self>(handle.addr())?;
        Ok(held.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

unsafe fn change(
    policy: *mut wm_policy,
    error: *mut *mut wm_error,
    change: impl FnOnce(&Caller, Policy) -> Result<Policy>,
) -> wm_code {
    let body = |caller: &Caller| {
        let held = table::get::<Held>(policy.addr())?;
        let mut policy = held.0.lock().unwrap_or_else(PoisonError::into_inner);
        *policy = change(caller, policy.clone())?;
        Ok(())
    };
    // SAFETY: as the caller of this vouches
    unsafe { call(error, body) }
}

/// Requires a signature by the public key (PEM) at `path`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_require(
    path: *const c_char,
    policy: *mut *mut wm_policy,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(policy)?;
        out.open(Held::new(Policy::require(VerifyingKey::load(c.path(path)?)?)))
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Reads a policy (TOML) from the file at `path`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_load(
    path: *const c_char,
    policy: *mut *mut wm_policy,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(policy)?;
        out.open(Held::new(Policy::load(c.path(path)?)?))
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Requires a signature under one of the certificates (PEM) at `path`, by a certificate issued to `name`, or to anybody
/// if that is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_certificates(
    path: *const c_char,
    name: *const c_char,
    policy: *mut *mut wm_policy,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.out_handle(policy)?;
        let authority = CertificateAuthority::load(c.path(path)?)?;
        let authority = c.optional_text(name)?.into_iter().fold(authority, CertificateAuthority::issued_to);
        out.open(Held::new(Policy::require(authority)))
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Accepts a signature by the public key (PEM) at `path` as well.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_or(
    policy: *mut wm_policy,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { change(policy, error, |c, policy| Ok(policy.or(VerifyingKey::load(c.path(path)?)?))) }
}

/// Requires that the model was signed under this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_expect_name(
    policy: *mut wm_policy,
    name: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { change(policy, error, |c, policy| Ok(policy.expect_name(c.text(name)?))) }
}

/// Requires a release of this version or a later one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_minimum_version(
    policy: *mut wm_policy,
    version: u64,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { change(policy, error, |_, policy| Ok(policy.minimum_version(version))) }
}

/// Keeps the highest version of each model in the file at `path`, and refuses a lower one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_high_water(
    policy: *mut wm_policy,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { change(policy, error, |c, policy| Ok(policy.high_water(c.path(path)?))) }
}

/// Takes no signature by the key of this id: 64 hexadecimal digits in lower case.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_revoke(
    policy: *mut wm_policy,
    key_id: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let revoke = |c: &Caller, policy: Policy| match c.text(key_id)? {
        id if Policy::is_key_id(id) => Ok(policy.revoke(id)),
        _ => Err(Failure::misuse("not the id of a key: 64 hexadecimal digits in lower case")),
    };
    // SAFETY: pointers are what the header says
    unsafe { change(policy, error, revoke) }
}

/// Leaves out a path of the model, with all that is beneath it, even though it was not signed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_danger_ignore_path(
    policy: *mut wm_policy,
    path: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let ignore = |c: &Caller, policy: Policy| match c.text(path)?.trim_end_matches('/') {
        "" => Err(Failure::misuse("a path of nothing: to tolerate all that was not signed, say so")),
        path => Ok(policy.danger_ignore_path(path)),
    };
    // SAFETY: pointers are what the header says
    unsafe { change(policy, error, ignore) }
}

/// Tolerates files that were not signed. Whatever loads them loads what nobody vouched for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_policy_danger_ignore_unsigned_files(
    policy: *mut wm_policy,
    error: *mut *mut wm_error,
) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { change(policy, error, |_, policy| Ok(policy.danger_ignore_unsigned_files())) }
}

/// Frees a policy. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn wm_policy_free(policy: *mut wm_policy) -> wm_code {
    call::free::<Held, _>(policy)
}
