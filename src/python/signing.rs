//! The verbs about signatures.

use pyo3::prelude::*;

use super::arguments::{Opening, Place, Secret, signing_key};
use super::call::watched;
use super::policy::Policy;
use crate::error::Error;
use crate::model::signatures;
use crate::signing::release::{name_and_version, time_of};
use crate::signing::{HashType, Hashing, Publisher};

/// Signs a model, and a release of it if there is one (`name@version`).
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn sign(
    py: Python<'_>,
    model: Place,
    key: Place,
    passphrase: Option<Secret>,
    hash: String,
    outboard: bool,
    signature: Option<Place>,
    ignore: Vec<String>,
    allow_code: Vec<String>,
    release: Option<String>,
    expires: Option<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    watched(py, progress, move |progress| {
        let key = signing_key(&key, passphrase.as_ref())?;
        let hash = HashType::from_name(&hash).ok_or(Error::ApiMisuse("the hash is sha256, blake2b or blake3"))?;
        let mut publisher = Publisher::new(&key).hashing(Hashing { hash, shard_size: None });
        if outboard {
            publisher = publisher.outboard();
        }
        if let Some(place) = signature {
            publisher = publisher.signature(place.0);
        }
        publisher = ignore.into_iter().fold(publisher, Publisher::ignore);
        publisher = allow_code.into_iter().fold(publisher, Publisher::danger_allow_code);
        if let Some(text) = release {
            let problem = Error::ApiMisuse("a release is NAME@VERSION, the version a number");
            let (name, version) = name_and_version(&text).ok_or(problem)?;
            publisher = publisher.release(name, version);
        }
        if let Some(text) = expires {
            let problem = Error::ApiMisuse("expires is a time (2027-01-31T00:00:00Z) or a span (90days)");
            publisher = publisher.expires_at(time_of(&text).ok_or(problem)?);
        }
        Ok(publisher.publish(&model.0, progress)?.to_json().to_string())
    })
}

/// Verifies a model under a policy.
#[pyfunction]
pub(super) fn verify(
    py: Python<'_>,
    model: Place,
    policy: &Bound<'_, Policy>,
    places: Vec<Place>,
    opening: Opening,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let policy = policy.get().0.clone();
    watched(py, progress, move |progress| {
        let tree = opening.tree(&model)?;
        let places = places.iter().map(|place| &place.0);
        let signatures = signatures(&model.0, &*tree, places)?;
        Ok(policy.verify_tree(&*tree, &signatures, progress)?.to_json().to_string())
    })
}
