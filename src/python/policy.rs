//! Who may sign what.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::arguments::Place;
use super::call::{misuse, released};
use crate::error::{Error, Result};
use crate::keys::{VerifyingKey, file};
use crate::signing::{self, CertificateAuthority};

/// What a model must satisfy to be verified. Unchanging: each method returns another policy.
///
/// >>> Policy.require("release.pem.pub").expect_name("acme/llama-1b").high_water("seen.json")
#[pyclass(module = "weightmark", frozen)]
pub(super) struct Policy(pub(super) signing::Policy);

#[pymethods]
impl Policy {
    /// Requires a signature by one of these keys: paths of PEM files.
    #[staticmethod]
    #[pyo3(signature = (*public_keys))]
    fn require(py: Python<'_>, public_keys: Vec<Place>) -> PyResult<Self> {
        released(py, || {
            let keys = public_keys.iter().map(|place| VerifyingKey::load(&place.0)).collect::<Result<Vec<_>>>()?;
            let policy = keys.into_iter().fold(None, |policy: Option<signing::Policy>, key| {
                Some(match policy {
                    Some(policy) => policy.or(key),
                    None => signing::Policy::require(key),
                })
            });
            policy.map(Self).ok_or(Error::ApiMisuse("a policy needs at least one key"))
        })
    }

    /// Reads a policy in TOML, with the keys and certificates that it names.
    #[staticmethod]
    fn load(py: Python<'_>, path: Place) -> PyResult<Self> {
        released(py, || signing::Policy::load(&path.0).map(Self))
    }

    /// Requires a signature by a certificate that one of these authorities issued: PEM files. ``identity``: to whom.
    #[staticmethod]
    #[pyo3(signature = (chain, *, identity=None))]
    fn from_certificates(py: Python<'_>, chain: Many<Place>, identity: Option<Many<String>>) -> PyResult<Self> {
        released(py, || {
            let anchors: Vec<PathBuf> = chain.into_vec().into_iter().map(|place| place.0).collect();
            let names = identity.map(Many::into_vec).unwrap_or_default();
            let authority =
                names.into_iter().fold(CertificateAuthority::load_all(anchors)?, |a, name| a.issued_to(name));
            Ok(Self(signing::Policy::require(authority)))
        })
    }

    /// Reads a public key (PEM) or a policy (TOML), whichever the file holds.
    #[staticmethod]
    fn from_file(py: Python<'_>, path: Place) -> PyResult<Self> {
        released(py, || {
            let text = file::read_public(&path.0)?;
            let is_key = text.trim_start().starts_with("-----BEGIN");
            Ok(Self(if is_key {
                signing::Policy::require(VerifyingKey::load(&path.0)?)
            } else {
                signing::Policy::load(&path.0)?
            }))
        })
    }

    /// Requires that the model was signed, or released, under this name.
    fn expect_name(&self, name: String) -> Self {
        Self(self.0.clone().expect_name(name))
    }

    /// Requires a release of this version or a later one.
    fn minimum_version(&self, version: u64) -> Self {
        Self(self.0.clone().minimum_version(version))
    }

    /// Keeps the highest version of each model in a file, and refuses a lower one.
    fn high_water(&self, path: Place) -> Self {
        Self(self.0.clone().high_water(path.0))
    }

    /// Takes no signature by the key of this id: 64 hexadecimal digits.
    fn revoke(&self, py: Python<'_>, key_id: String) -> PyResult<Self> {
        if !signing::Policy::is_key_id(&key_id) {
            return Err(misuse(py, "not the id of a key: 64 hexadecimal digits in lower case"));
        }
        Ok(Self(self.0.clone().revoke(key_id)))
    }

    /// Leaves out a path of the model, and all beneath it, even though it was not signed.
    fn danger_ignore_path(&self, py: Python<'_>, path: &str) -> PyResult<Self> {
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(misuse(py, "no path: to tolerate all that was not signed, say so"));
        }
        Ok(Self(self.0.clone().danger_ignore_path(path)))
    }

    /// Tolerates files that were not signed. Whatever loads them loads what nobody vouched for.
    fn danger_ignore_unsigned_files(&self) -> Self {
        Self(self.0.clone().danger_ignore_unsigned_files())
    }
}

/// One, or several.
#[derive(FromPyObject)]
enum Many<T> {
    One(T),
    Several(Vec<T>),
}

impl<T> Many<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Several(several) => several,
        }
    }
}
