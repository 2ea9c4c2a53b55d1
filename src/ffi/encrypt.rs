//! Encrypting and decrypting artifacts, and the options for it.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::Arc;

use serde_json::json;

use super::call::{Caller, Result, call, work};
use super::failure::{Failure, wm_code, wm_error};
use super::options::{OPENING, Options, give, wm_options};
use super::report::{Report, wm_report};
use crate::encryption::{Decryptor, Encryptor};
use crate::error::Error;
use crate::format::ModelIndex;
use crate::io::tree;
use crate::keys::{InputKey, Recipient, Stanza, load_recipient};

/// A recipient that several encryptors share.
pub(super) struct Shared(pub(super) Arc<dyn Recipient>);

impl Recipient for Shared {
    fn wrap(&self, key: &InputKey) -> Result<Stanza, Error> {
        self.0.wrap(key)
    }
}

impl Options {
    /// Those to encrypt to, at least one.
    pub(super) fn recipients(&self) -> Result<impl Iterator<Item = Shared> + '_> {
        match self.recipients.is_empty() {
            true => Err(Failure::misuse("nobody to encrypt to: the option recipient is missing")),
            false => Ok(self.recipients.iter().cloned().map(Shared)),
        }
    }

    fn encryptor(&self) -> Result<Encryptor> {
        let mut encryptor = Encryptor::to(self.recipients()?).context(self.context.clone().unwrap_or_default());
        let mut groups: Vec<(&str, Vec<Shared>)> = Vec::new();
        for (path, recipient) in &self.groups {
            let recipient = Shared(Arc::clone(recipient));
            match groups.iter_mut().find(|(known, _)| known == path) {
                Some((_, recipients)) => recipients.push(recipient),
                None => groups.push((path, vec![recipient])),
            }
        }
        for (path, recipients) in groups {
            encryptor = encryptor.group(path, recipients);
        }
        Ok(encryptor)
    }
}

/// Adds a recipient to encrypt to: its text (`wmrecipient1..`), or the path of the file that holds it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_recipient(
    options: *mut wm_options,
    recipient: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let loaded = |c: &Caller| Ok(Arc::from(load_recipient(c.text(recipient)?)?));
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "recipient", loaded, |o, recipient| o.recipients.push(recipient)) }
}

/// Encrypts the files at `path` of a directory, and beneath it, under a key of their own, to this recipient and not to others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_group(
    options: *mut wm_options,
    path: *const c_char,
    recipient: *const c_char,
    error: *mut *mut wm_error,
) -> wm_code {
    let loaded = |c: &Caller| {
        let path = c.text(path)?.trim_end_matches('/').to_owned();
        Ok((path, Arc::from(load_recipient(c.text(recipient)?)?)))
    };
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "group", loaded, |o, group| o.groups.push(group)) }
}

/// Lists names and shapes of tensors where everybody can read them without a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_options_public_index(options: *mut wm_options, error: *mut *mut wm_error) -> wm_code {
    // SAFETY: pointers are what the header says
    unsafe { give(options, error, "public_index", |_| Ok(()), |_, ()| ()) }
}

/// Encrypts the file or directory at `input` to a new file or directory at `output`. `report` may be NULL.
///
/// Options: recipient or passphrase, group, context, public_index, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_encrypt(
    options: *const wm_options,
    input: *const c_char,
    output: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    const TAKES: &[&str] = &["recipient", "passphrase", "group", "context", "public_index"];
    let body = |c: &Caller| {
        let out = c.report(report);
        let options = Options::of(options, "wm_encrypt", &[TAKES])?;
        let (input, output) = (c.path(input)?, c.path(output)?);
        out.open(work(|| {
            let watch = options.watch();
            let mut encryptor = options.encryptor()?;
            if options.has("public_index") {
                encryptor = encryptor.public_index(ModelIndex::read(&*tree::open(input)?)?.tensors());
            }
            let seen = encryptor.encrypt_with(input, output, &watch)?;
            watch.settle();
            Ok(Report::new("encrypt", json!({"output": output.display().to_string(), "envelope": seen})))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}

/// Decrypts the encrypted file or directory at `input` to a new one at `output`, readable by its owner alone, which appears only
/// when every byte of it was authenticated. `report` may be NULL.
///
/// Options: identity, passphrase, context, accept_closed, progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wm_decrypt(
    options: *const wm_options,
    input: *const c_char,
    output: *const c_char,
    report: *mut *mut wm_report,
    error: *mut *mut wm_error,
) -> wm_code {
    let body = |c: &Caller| {
        let out = c.report(report);
        let options = Options::of(options, "wm_decrypt", &[OPENING])?;
        let (input, output) = (c.path(input)?, c.path(output)?);
        out.open(work(|| {
            let (watch, identities) = (options.watch(), options.identities());
            let mut decryptor = Decryptor::new(&identities);
            if let Some(context) = &options.context {
                decryptor = decryptor.expect_context(context);
            }
            if options.has("accept_closed") {
                decryptor = decryptor.accept_closed();
            }
            let closed = decryptor.decrypt(input, output, &watch)?;
            watch.settle();
            Ok(Report::new("decrypt", json!({"output": output.display().to_string(), "closed": closed})))
        })?)
    };
    // SAFETY: pointers are what the header says
    unsafe { call(error, body) }
}
