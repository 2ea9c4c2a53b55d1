//! What Python hands over: paths, secrets, and what opens a model.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::io::Tree;
use crate::keys::{Identity, Passphrase, Recipient, SigningKey, load_identity, load_recipient};
use crate::model::{Model, OpenOptions};

/// A path: `str` (with the escapes of `os.fsdecode`), `bytes` or `os.PathLike`.
pub(super) struct Place(pub(super) PathBuf);

impl<'a, 'py> FromPyObject<'a, 'py> for Place {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyBytes>() {
            Ok(bytes) => Ok(Self(OsStr::from_bytes(bytes.as_bytes()).into())),
            Err(_) => object.extract().map(Self),
        }
    }
}

/// A passphrase, wiped when dropped (Python's own copy is not).
pub(super) struct Secret(Zeroizing<String>);

impl<'a, 'py> FromPyObject<'a, 'py> for Secret {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Zeroizing::new(object.extract::<&str>()?.to_owned())))
    }
}

/// What the user has to open a model with, and expects of it: identity files, a passphrase, the context, and whether files
/// may stay closed.
#[derive(FromPyObject)]
pub(super) struct Opening(Vec<Place>, Option<Secret>, Option<String>, bool);

impl Opening {
    pub(super) fn identities(&self) -> Result<Vec<Box<dyn Identity>>> {
        let mut identities = self.0.iter().map(|place| load_identity(&place.0)).collect::<Result<Vec<_>>>()?;
        if let Some(secret) = &self.1 {
            identities.push(Box::new(Passphrase::new(&secret.0)?));
        }
        Ok(identities)
    }

    pub(super) fn context(&self) -> Option<&str> {
        self.2.as_deref()
    }

    pub(super) fn accepts_closed(&self) -> bool {
        self.3
    }

    /// The same as options of a model.
    pub(super) fn options(&self) -> Result<OpenOptions> {
        let mut options = self.identities()?.into_iter().fold(Model::options(), OpenOptions::identity);
        if let Some(context) = self.context() {
            options = options.expect_context(context);
        }
        Ok(if self.accepts_closed() { options.accept_closed() } else { options })
    }

    /// The files of a model, decrypted as they are read if it is encrypted.
    pub(super) fn tree(&self, place: &Place) -> Result<Box<dyn Tree>> {
        self.options()?.tree(&place.0)
    }
}

/// Recipients by their texts, or by the files that hold them; or a passphrase.
pub(super) fn recipients(places: &[Place], passphrase: Option<&Secret>) -> Result<Vec<Box<dyn Recipient>>> {
    match passphrase {
        Some(_) if !places.is_empty() => Err(Error::ApiMisuse("either recipients or a passphrase, not both")),
        Some(secret) => Ok(vec![Box::new(Passphrase::new(&secret.0)?)]),
        None => places.iter().map(recipient).collect(),
    }
}

fn recipient(place: &Place) -> Result<Box<dyn Recipient>> {
    let text = place.0.to_str().ok_or(Error::ApiMisuse("the path of a recipient is not UTF-8"))?;
    load_recipient(text)
}

/// A signing key of a file, encrypted or not.
pub(super) fn signing_key(place: &Place, passphrase: Option<&Secret>) -> Result<SigningKey> {
    match passphrase {
        Some(secret) => SigningKey::load_encrypted(&place.0, &secret.0),
        None => SigningKey::load(&place.0),
    }
}
