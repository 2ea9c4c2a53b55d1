//! Readers of model formats, over any [`ReadAt`]: bytes in, an [`Index`] of tensors out. They never see a key.
//!
//! A format is told by its first bytes, never by the name of the file. Readers take every file to come from an
//! attacker: sizes are checked before anything is allocated, arithmetic is checked, and what two parsers could
//! read in two ways is refused.

pub mod directory;
pub mod safetensors;

use std::path::{Path, PathBuf};

pub use directory::ModelIndex;

use crate::error::{Cause, FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::Index;

/// The name of a signature inside of the model directory that it signs.
pub const SIGNATURE_FILE: &str = "model.sig";

/// Where the signature of the model at `model` lies unless somebody says otherwise: [`SIGNATURE_FILE`] in a directory,
/// the path and `.sig` beside a file.
pub fn signature_path(model: &Path) -> PathBuf {
    if model.is_dir() {
        return model.join(SIGNATURE_FILE);
    }
    let mut name = model.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The formats that hold tensors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>
    Safetensors,
}

/// Tells the format of a file from its first bytes, or `None` if it is none that holds tensors.
pub fn detect(source: &dyn ReadAt) -> Result<Option<Format>> {
    let mut head = [0; 9];
    if source.size() < head.len() as u64 {
        return Ok(None);
    }
    source.read_at(0, &mut head)?;
    Ok(safetensors::looks_like(head, source.size()).then_some(Format::Safetensors))
}

/// Reads the index of a file in any format known here.
pub fn read(source: &dyn ReadAt) -> Result<Index> {
    match detect(source)? {
        Some(Format::Safetensors) => safetensors::read(source),
        None => Err(FormatError::Unknown.on(source.name())),
    }
}
