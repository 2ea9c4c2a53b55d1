//! What a file or a directory is, told without any key and without trusting any of it.

use serde_json::{Value, json};

use crate::encryption::{self, Inspection, KEYS_FILE};
use crate::error::{Cause, FormatError, Result};
use crate::format::{ModelFile, ModelIndex, is_signature};
use crate::io::{Entry, Tree};
use crate::signing::Bundle;
use crate::tensor::{Storage, TensorInfo};

/// A model as anybody sees it. None of it was verified.
#[non_exhaustive]
pub enum Inspected {
    /// Its envelope, if it is encrypted.
    Encrypted(Inspection),
    /// Its files otherwise.
    Plain(Plain),
}

/// The files of a model that is not encrypted.
#[non_exhaustive]
pub struct Plain {
    /// All of them.
    pub entries: Vec<Entry>,
    /// What is in those that are of a known format, and why others were left closed.
    pub index: ModelIndex,
    /// Each signature in a directory: its path, and what it says of itself.
    pub signatures: Vec<(String, String)>,
}

/// Looks at the files of a model.
pub fn inspect(tree: &dyn Tree) -> Result<Inspected> {
    let envelope = tree.entries().iter().find(|entry| tree.is_single_file() || entry.path == KEYS_FILE);
    let envelope = envelope.map(|entry| encryption::inspect(&*tree.open(&entry.path)?)).transpose()?;
    if let Some(Some(inspection)) = envelope {
        return Ok(Inspected::Encrypted(inspection));
    }
    let index = ModelIndex::read(tree)?;
    if tree.is_single_file() && index.files().is_empty() {
        return Err(FormatError::Unknown.on(tree.name()));
    }
    let signatures = tree.entries().iter().filter(|entry| is_signature(&entry.path) && !tree.is_single_file());
    let claims = |path: &str| {
        let bundle = tree.open(path).and_then(|source| Bundle::read_from(&*source));
        bundle.map_or_else(|_| "unreadable".into(), |bundle| bundle.claims())
    };
    let signatures = signatures.map(|entry| (entry.path.clone(), claims(&entry.path))).collect();
    Ok(Inspected::Plain(Plain { entries: tree.entries().to_vec(), index, signatures }))
}

impl Inspected {
    /// The same for machines, as the command line prints it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Encrypted(envelope) => json!({"encrypted": true, "envelope": envelope}),
            Self::Plain(plain) => {
                let files = plain.entries.iter().map(|entry| file(entry, &plain.index));
                let signatures = plain.signatures.iter().map(|(path, claims)| json!({"path": path, "claims": claims}));
                json!({
                    "encrypted": false,
                    "files": files.collect::<Value>(),
                    "signatures": signatures.collect::<Value>(),
                })
            }
        }
    }
}

fn file(entry: &Entry, index: &ModelIndex) -> Value {
    let mut file = json!({"path": entry.path, "bytes": entry.size});
    if let Some(cause) = index.refusal(&entry.path) {
        file["refused"] = json!({"code": cause.word(), "message": cause.to_string()});
    }
    if let Some(ModelFile { format, index, .. }) = index.file(&entry.path) {
        file["format"] = json!(format.name());
        file["metadata"] = json!(index.metadata());
        file["notes"] = json!(index.notes());
        file["tensors"] = index.tensors().iter().map(tensor).collect();
    }
    file
}

fn tensor(tensor: &TensorInfo) -> Value {
    let storage = match &tensor.storage {
        Storage::Plain => json!("plain"),
        Storage::Strided(strides) => json!({"strides": strides}),
        Storage::External(path) => json!({"external": path}),
        Storage::Deflated { .. } => json!("deflated"),
        Storage::Varints => json!("varints"),
    };
    json!({
        "name": tensor.name,
        "dtype": tensor.dtype.name(),
        "shape": tensor.shape,
        "bytes": tensor.size(),
        "span": [tensor.span.start, tensor.span.end],
        "storage": storage,
    })
}
