//! The verbs about marks.

use std::path::Path;

use pyo3::prelude::*;
use serde_json::json;

use super::arguments::{Opening, Place, Secret, recipients, signing_key};
use super::call::watched;
use crate::error::Error;
use crate::keys::OwnerKey;
use crate::lineage::compare_trees;
use crate::model::Protector;
use crate::watermark::{Detector, Watermark};

/// Marks a model.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn embed(
    py: Python<'_>,
    original: Place,
    output: Place,
    owner_key: Place,
    copy: Option<String>,
    payload: Option<u64>,
    strength: Option<f64>,
    beacon: String,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    watched(py, progress, move |progress| {
        if copy.is_some() && payload.is_some() {
            return Err(Error::ApiMisuse("either the label of a copy or a payload, not both"));
        }
        let owner = OwnerKey::load(&owner_key.0)?;
        let mut watermark = Watermark::new(&owner).beacon(beacon);
        watermark = copy.into_iter().fold(watermark, Watermark::copy);
        watermark = payload.into_iter().fold(watermark, Watermark::payload);
        watermark = strength.into_iter().fold(watermark, Watermark::strength);
        Ok(json!(watermark.embed_with(&original.0, &output.0, progress)?).to_string())
    })
}

/// Looks for the owner's mark, and for whose copy it is.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn detect(
    py: Python<'_>,
    suspect: Place,
    opening: Opening,
    original: Place,
    owner_key: Place,
    copies: Vec<String>,
    strength: Option<f64>,
    beacon: String,
    partner: Option<Place>,
    exhaustive: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    watched(py, progress, move |progress| {
        let owner = OwnerKey::load(&owner_key.0)?;
        let mut detector = Detector::new(&owner, &original.0).beacon(beacon).copies(copies);
        detector = strength.into_iter().fold(detector, Detector::strength);
        detector = partner.into_iter().fold(detector, |detector, place| detector.partner(place.0));
        if exhaustive {
            detector = detector.exhaustive();
        }
        let suspect = opening.tree(&suspect)?;
        let evidence = detector.examine_tree(&*suspect, progress)?;
        evidence.verdict(suspect.name())?; // no answer is not "no"
        Ok(evidence.to_json().to_string())
    })
}

/// Whether two models have a common origin.
#[pyfunction]
pub(super) fn lineage(
    py: Python<'_>,
    first: Place,
    second: Place,
    opening: Opening,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    watched(py, progress, move |progress| {
        let options = opening.options()?;
        let (first, second) = (options.tree_of_either(&first.0)?, options.tree_of_either(&second.0)?);
        Ok(compare_trees(&*first, &*second, progress)?.to_json().to_string())
    })
}

/// Marks, signs and encrypts a copy.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn protect(
    py: Python<'_>,
    model: Place,
    output: Place,
    owner_key: Place,
    key: (Place, Option<Secret>),
    to: Vec<Place>,
    copy: Option<String>,
    context: String,
    strength: Option<f64>,
    beacon: String,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    watched(py, progress, move |progress| {
        let owner = OwnerKey::load(&owner_key.0)?;
        let signer = signing_key(&key.0, key.1.as_ref())?;
        let mut protector = Protector::new(&owner, &signer, recipients(&to, None)?).context(context).beacon(beacon);
        protector = copy.into_iter().fold(protector, Protector::copy);
        protector = strength.into_iter().fold(protector, Protector::strength);
        let (model, output): (&Path, &Path) = (&model.0, &output.0);
        Ok(json!(protector.protect_with(model, output, progress)?).to_string())
    })
}
