//! Readers of model formats, over any [`ReadAt`]: bytes in, an [`Index`] of tensors out. They never see a key.
//!
//! A format is told by its content, never by the name of the file. Readers take every file to come from an
//! attacker: sizes are checked before anything is allocated, arithmetic is checked, nothing is executed, and what two
//! parsers could read in two ways is refused. What each refuses, and where that is stricter than the libraries everybody
//! uses, says `spec/formats.md`.

mod checked;
mod cursor;
pub mod directory;
mod elements;
mod gate;
pub mod gguf;
mod inflate;
mod load;
pub mod numpy;
pub mod onnx;
mod pickle;
pub mod pytorch;
pub mod safetensors;
mod zip;

use std::fmt;
use std::path::{Path, PathBuf};

pub use directory::{ModelFile, ModelIndex};
pub use elements::{Bound, Elements};
pub use gate::gate;
pub use load::{load, load_into};

use crate::error::{Cause, FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::Index;

/// The name of a signature inside of the model directory that it signs.
pub const SIGNATURE_FILE: &str = "model.sig";
/// The name of a release statement there: a second signature, about the model rather than its files.
pub const RELEASE_FILE: &str = "model.release.sig";
/// The name of the digests of ranges there, by which a part of a file can be verified.
pub const OUTBOARD_FILE: &str = "model.outboard";

/// Whether a file of a model directory is a signature, to go by its path: `model.sig` or `model.*.sig` at the root.
pub fn is_signature(path: &str) -> bool {
    path == SIGNATURE_FILE || path.starts_with("model.") && path.ends_with(".sig") && !path.contains('/')
}

/// Whether a file of a model directory is about the model rather than of it: a signature, or the outboard.
pub fn is_about(path: &str) -> bool {
    path == OUTBOARD_FILE || is_signature(path)
}

/// Where the signature of the model at `model` lies unless somebody says otherwise: [`SIGNATURE_FILE`] in a directory,
/// the path and `.sig` beside a file.
pub fn signature_path(model: &Path) -> PathBuf {
    companion(model, SIGNATURE_FILE)
}

/// Where its release statement lies: [`RELEASE_FILE`] in a directory, the path and `.release.sig` beside a file.
pub fn release_path(model: &Path) -> PathBuf {
    companion(model, RELEASE_FILE)
}

/// Where its outboard lies: [`OUTBOARD_FILE`] in a directory, the path and `.outboard` beside a file.
pub fn outboard_path(model: &Path) -> PathBuf {
    companion(model, OUTBOARD_FILE)
}

/// A file that goes with a model: `model.*` in a directory, the same ending after the name of a file.
fn companion(model: &Path, name: &str) -> PathBuf {
    if model.is_dir() {
        return model.join(name);
    }
    let mut path = model.as_os_str().to_owned();
    path.push(name.trim_start_matches("model"));
    path.into()
}

/// The formats that hold tensors, those first that are preferred where a model is there in several.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>
    Safetensors,
    /// <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
    Gguf,
    /// One array: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
    Npy,
    /// A zip archive of arrays.
    Npz,
    /// <https://onnx.ai/onnx/repo-docs/IR.html>
    Onnx,
    /// A zip archive of a pickle and the storages it names, as `torch.save` writes it; or both without an archive, as it
    /// did before 1.6.
    Pytorch,
}

impl Format {
    /// The name of the format as people write it, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Onnx => "onnx",
            Self::Pytorch => "pytorch",
            Self::Safetensors => "safetensors",
        }
    }

    /// Whether files of this format are zip archives, which hold a checksum of every part. PyTorch's before 1.6 are not,
    /// and count as such.
    pub fn is_archive(self) -> bool {
        matches!(self, Self::Npz | Self::Pytorch)
    }

    /// The format that a file of this name must be of, if the name says so.
    pub fn of_name(path: &str) -> Option<Self> {
        let plain = [Self::Gguf, Self::Npy, Self::Npz, Self::Onnx, Self::Safetensors];
        let (_, extension) = path.rsplit_once('.')?;
        plain.into_iter().find(|format| format.name() == extension)
    }

    /// Reads the index of a file in this format.
    pub fn read(self, source: &dyn ReadAt) -> Result<Index> {
        match self {
            Self::Gguf => gguf::read(source),
            Self::Npy => numpy::read(source),
            Self::Npz => numpy::read_archive(source),
            Self::Onnx => onnx::read(source),
            Self::Pytorch => pytorch::read(source),
            Self::Safetensors => safetensors::read(source),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Tells the format of a file from its content, or `None` if it is none that holds tensors.
///
/// What can only be a model of the format counts, well-formed or not: reading it then says what is wrong.
pub fn detect(source: &dyn ReadAt) -> Result<Option<Format>> {
    let mut head = [0; 512];
    let head = &mut head[..source.size().min(512) as usize];
    source.read_at(0, head)?;
    Ok(match head {
        [b'G', b'G', b'U', b'F', ..] => Some(Format::Gguf),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Format::Npy),
        [b'P', b'K', 3, 4, ..] => zip::detect(source),
        [0x80, 2..=5, ..] => Some(Format::Pytorch), // a pickle
        _ if pytorch::begins_tar(head) => Some(Format::Pytorch),
        _ if safetensors::looks_like(head, source.size()) => Some(Format::Safetensors),
        _ if onnx::looks_like(source) => Some(Format::Onnx),
        _ => None,
    })
}

/// Reads the index of a file in any format known here.
pub fn read(source: &dyn ReadAt) -> Result<Index> {
    match detect(source)? {
        Some(format) => format.read(source),
        None => Err(FormatError::Unknown.on(source.name())),
    }
}
