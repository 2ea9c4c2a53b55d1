//! The verbs about keys and encryption. Results are the JSON objects of the command line.

use pyo3::prelude::*;
use serde_json::json;

use super::arguments::{Opening, Place, Secret, recipients};
use super::call::{released, watched};
use crate::encryption::{Decryptor, Encryptor, Rewrap};
use crate::error::{Error, Result};
use crate::format::ModelIndex;
use crate::io::tree;
use crate::keys::file::public_path;
use crate::keys::{Algorithm, Identity, OwnerKey, SigningKey, SymmetricKey, X25519Identity, XWingIdentity, file};
use crate::model;

/// Makes a key at `path`. Returns the public text, or of a symmetric key its id.
#[pyfunction]
pub(super) fn keygen(
    py: Python<'_>,
    kind: &str,
    path: Place,
    name: Option<String>,
    algorithm: Option<&str>,
    x25519: bool,
) -> PyResult<String> {
    released(py, || {
        let problem = match kind {
            "signing" if x25519 || name.is_some() => Some("x25519 is for identities, and name for owner keys"),
            "identity" if algorithm.is_some() || name.is_some() => {
                Some("algorithm is for signing keys, and name for owners")
            }
            "owner" if x25519 || algorithm.is_some() => {
                Some("x25519 is for identities, and algorithm for signing keys")
            }
            "owner" if name.as_deref().is_none_or(str::is_empty) => Some("an owner needs a name"),
            "symmetric" if x25519 || algorithm.is_some() || name.is_some() => Some("a symmetric key has no variants"),
            "identity" | "owner" | "signing" | "symmetric" => None,
            _ => Some("the kind of a key is \"identity\", \"signing\", \"owner\" or \"symmetric\""),
        };
        if let Some(problem) = problem {
            return Err(Error::ApiMisuse(problem));
        }
        let path = path.0;
        match kind {
            "symmetric" => {
                let key = SymmetricKey::generate()?;
                key.save(&path)?;
                return Ok(key.id());
            }
            "identity" if x25519 => X25519Identity::generate()?.save(&path)?,
            "identity" => XWingIdentity::generate()?.save(&path)?,
            "owner" => OwnerKey::generate(&name.unwrap_or_default())?.save(&path)?,
            _ => SigningKey::generate(named(algorithm)?)?.save(&path)?,
        }
        Ok(file::read_public(public_path(&path))?.trim_end().to_owned())
    })
}

fn named(algorithm: Option<&str>) -> Result<Algorithm> {
    Ok(match algorithm.unwrap_or("p256") {
        "p256" => Algorithm::EcdsaP256,
        "p384" => Algorithm::EcdsaP384,
        "p521" => Algorithm::EcdsaP521,
        "ed25519" => Algorithm::Ed25519,
        _ => return Err(Error::ApiMisuse("the algorithm is \"p256\", \"p384\", \"p521\" or \"ed25519\"")),
    })
}

/// Encrypts a model to recipients and groups, or to a passphrase.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn encrypt(
    py: Python<'_>,
    source: Place,
    output: Place,
    to: Vec<Place>,
    passphrase: Option<Secret>,
    groups: Vec<(String, Vec<Place>)>,
    context: String,
    public_index: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    watched(py, progress, move |progress| {
        let mut encryptor = Encryptor::to(recipients(&to, passphrase.as_ref())?).context(context);
        for (path, to) in &groups {
            encryptor = encryptor.group(path.trim_end_matches('/'), recipients(to, None)?);
        }
        if public_index {
            encryptor = encryptor.public_index(ModelIndex::read(&*tree::open(&source.0)?)?.tensors());
        }
        Ok(json!(encryptor.encrypt_with(&source.0, &output.0, progress)?).to_string())
    })
}

/// Decrypts a model. Returns the files that stayed closed.
#[pyfunction]
pub(super) fn decrypt(
    py: Python<'_>,
    source: Place,
    output: Place,
    opening: Opening,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<String>> {
    watched(py, progress, move |progress| {
        let identities = opening.identities()?;
        let identities: Vec<&dyn Identity> = identities.iter().map(|identity| &**identity).collect();
        let mut decryptor = Decryptor::new(&identities);
        if let Some(context) = opening.context() {
            decryptor = decryptor.expect_context(context);
        }
        if opening.accepts_closed() {
            decryptor = decryptor.accept_closed();
        }
        decryptor.decrypt(&source.0, &output.0, progress)
    })
}

/// Changes who may open an encrypted model.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn rewrap(
    py: Python<'_>,
    path: Place,
    opening: Opening,
    add: Vec<Place>,
    only: Vec<Place>,
    remove: Vec<String>,
    group: String,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    watched(py, progress, move |progress| {
        let identities = opening.identities()?;
        let identities: Vec<&dyn Identity> = identities.iter().map(|identity| &**identity).collect();
        let mut rewrap = Rewrap::new().group(group.trim_end_matches('/')).also(recipients(&add, None)?);
        if !only.is_empty() {
            rewrap = rewrap.only(recipients(&only, None)?);
        }
        if let Some(context) = opening.context() {
            rewrap = rewrap.expect_context(context);
        }
        rewrap = remove.into_iter().fold(rewrap, Rewrap::remove);
        Ok(json!(rewrap.apply_with(&path.0, &identities, progress)?).to_string())
    })
}

/// What can be told of a file or directory without a key.
#[pyfunction]
pub(super) fn inspect(py: Python<'_>, path: Place) -> PyResult<String> {
    released(py, || Ok(model::inspect(&*tree::open(&path.0)?)?.to_json().to_string()))
}
