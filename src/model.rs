//! Models as programs load them: decrypted, verified, tensor by tensor. The one room that knows all others.
//!
//! ```no_run
//! use weightmark::Model;
//! use weightmark::keys::{VerifyingKey, XWingIdentity};
//! use weightmark::signing::Policy;
//!
//! let model = Model::options()
//!     .identity(XWingIdentity::load("serving.key")?)
//!     .expect_context("acme/llama-1b@3")
//!     .policy(Policy::require(VerifyingKey::load("release.pub.pem")?))
//!     .open("out/")?;
//! let q = model.tensor("layers.0.q_proj.weight")?; // decrypts only its own chunks
//! # Ok::<(), weightmark::Error>(())
//! ```

#[cfg(all(feature = "signing", feature = "watermark"))]
mod claim;
#[cfg(all(feature = "encryption", feature = "signing"))]
mod inspect;
#[cfg(all(feature = "encryption", feature = "signing", feature = "watermark"))]
mod protect;
#[cfg(all(feature = "encryption", target_os = "linux"))]
mod sealed;
mod tensor;

use std::ops::Range;
use std::path::Path;
#[cfg(feature = "signing")]
use std::sync::Arc;

#[cfg(all(feature = "signing", feature = "watermark"))]
pub use claim::{Claim, digest};
#[cfg(all(feature = "encryption", feature = "signing"))]
pub use inspect::{Inspected, Plain, inspect};
#[cfg(all(feature = "encryption", feature = "signing", feature = "watermark"))]
pub use protect::{Protected, Protector};
#[cfg(all(feature = "encryption", target_os = "linux"))]
pub use sealed::Sealed;
pub use tensor::Tensor;

#[cfg(feature = "encryption")]
use crate::encryption::DecryptedTree;
use crate::error::{Cause, Error, FormatError, Result};
use crate::format::{self, ModelIndex, gate, is_signature, signature_path};
use crate::io::tree::{self, Held, Tree};
#[cfg(feature = "signing")]
use crate::io::{FileAt, ReadAt};
use crate::io::{Memory, Progress, ReadAtExt};
#[cfg(feature = "encryption")]
use crate::keys::Identity;
#[cfg(feature = "signing")]
use crate::signing::{Bundle, Policy, Signatures, Verified, outboard_path, path_inside};
use crate::tensor::{Storage, TensorInfo};
#[cfg(not(feature = "signing"))]
use std::convert::Infallible as Verified; // nothing is ever verified

/// An open model.
///
/// Its files were opened once, and are read through those same handles: replacing a file after it was verified
/// changes nothing here. Under a policy it has the files that were signed and no others, and every read is verified: what is
/// overwritten *inside* of a file meanwhile is refused where it is read. Without a policy, whoever may write to a plain
/// file changes what is read of it; an encrypted file authenticates every chunk at every read.
pub struct Model {
    tree: Box<dyn Tree>,
    index: ModelIndex,
    code: Vec<String>,
    #[cfg(feature = "signing")]
    verified: Option<Verified>,
}

/// What a caller expects of a model, and with which keys it opens. Nothing in the model can change it.
#[derive(Default)]
pub struct OpenOptions {
    #[cfg(feature = "encryption")]
    identities: Vec<Box<dyn Identity>>,
    #[cfg(feature = "encryption")]
    context: Option<String>,
    #[cfg(feature = "encryption")]
    expect_encrypted: bool,
    #[cfg(feature = "encryption")]
    accept_closed: bool,
    #[cfg(feature = "signing")]
    policy: Option<Policy>,
    accept_unsigned: bool,
    allow_code: Vec<String>,
}

impl Model {
    /// Starts to say what is expected.
    pub fn options() -> OpenOptions {
        OpenOptions::default()
    }

    /// All tensors, each with the file that holds it.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.index.tensors()
    }

    /// Reads one tensor into new memory. An encrypted model decrypts just the chunks it lies in.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let (file, info) = self.find(name)?;
        let bytes = format::load(&*self.tree.open(file)?, info)?;
        Ok(Tensor::new(info.clone(), bytes))
    }

    /// Reads one tensor into the caller's memory, which must be exactly [`TensorInfo::size`] bytes long.
    pub fn tensor_into(&self, name: &str, out: &mut [u8]) -> Result<()> {
        let (file, info) = self.find(name)?;
        if out.len() as u64 != info.size() {
            return Err(Error::ApiMisuse("the buffer is not of the size of the tensor"));
        }
        format::load_into(&*self.tree.open(file)?, info, out)
    }

    /// Reads rows of one tensor: the part of its first dimension in `rows`.
    pub fn rows(&self, name: &str, rows: Range<u64>) -> Result<Tensor> {
        let (file, info) = self.find(name)?;
        let (count, columns) = info.matrix();
        let row =
            info.dtype.size(columns).filter(|_| !info.shape.is_empty() && rows.start <= rows.end && rows.end <= count);
        let Some(row) = row else {
            return Err(Error::ApiMisuse("no such rows, or rows that do not end on bytes"));
        };
        let mut part = info.clone();
        if let Some(first) = part.shape.first_mut() {
            *first = rows.end - rows.start;
        }
        let source = self.tree.open(file)?;
        let inside = rows.start * row..rows.end * row;
        if info.is_plain() {
            part.span = info.span.start + inside.start..info.span.start + inside.end;
            return Ok(Tensor::new(part.clone(), source.read_memory(part.span)?));
        }
        let whole = format::load(&*source, info)?;
        let mut bytes = Memory::zeroed(inside.end - inside.start)?;
        bytes.copy_from_slice(&whole[inside.start as usize..inside.end as usize]);
        Ok(Tensor::new(part.stored(Storage::Plain), bytes))
    }

    /// The files of the model, tensors or not: configuration, tokenizer, decrypted if they were encrypted.
    pub fn files(&self) -> &dyn Tree {
        &*self.tree
    }

    /// The files that hold code, or what is not provably plain data, and that the caller let through.
    pub fn code(&self) -> &[String] {
        &self.code
    }

    /// What was verified, if a policy was given.
    #[cfg(feature = "signing")]
    pub fn verified(&self) -> Option<&Verified> {
        self.verified.as_ref()
    }

    /// The file that holds the tensor called `name`, and what the tensor is.
    pub fn find(&self, name: &str) -> Result<(&str, &TensorInfo)> {
        let is_ambiguous = self.index.contains(name);
        let problem = if is_ambiguous { FormatError::Duplicate } else { FormatError::UnknownTensor };
        self.index.tensor(name).ok_or_else(|| problem(name.to_owned()).on(self.tree.name()))
    }
}

impl OpenOptions {
    /// Adds an identity that may open the model. Whoever has one expects an encrypted model: a plain one in its place is
    /// refused.
    #[cfg(feature = "encryption")]
    pub fn identity(mut self, identity: impl Identity + 'static) -> Self {
        self.identities.push(Box::new(identity));
        self.expect_encrypted()
    }

    /// Opens a model that is not encrypted even though an identity or a context was given before: the file decides then
    /// whether what it says was kept secret, and came from someone who knew its recipients.
    #[cfg(feature = "encryption")]
    pub fn danger_accept_plaintext(mut self) -> Self {
        self.expect_encrypted = false;
        self
    }

    /// Opens an encrypted model even if some of its files stay closed to the identities, as
    /// [`Decryptor::accept_closed`](crate::encryption::Decryptor::accept_closed) does. [`Tree::closed`] names them.
    #[cfg(feature = "encryption")]
    pub fn accept_closed(mut self) -> Self {
        self.accept_closed = true;
        self
    }

    /// Refuses a model that is not encrypted under `context`.
    #[cfg(feature = "encryption")]
    pub fn expect_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self.expect_encrypted()
    }

    /// Refuses a model that is not encrypted.
    #[cfg(feature = "encryption")]
    pub fn expect_encrypted(mut self) -> Self {
        self.expect_encrypted = true;
        self
    }

    /// Refuses a model that is not exactly what was signed under `policy`. Opening then hashes every file, unless the model
    /// was signed in shards or has an outboard: then each range is hashed when it is read.
    #[cfg(feature = "signing")]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Opens a model without looking at its signature. Without this, a model that has one needs a policy.
    pub fn danger_accept_unsigned(mut self) -> Self {
        self.accept_unsigned = true;
        self
    }

    /// Opens a model although this file in it holds code, or what is not provably plain data ([`gate`]). Nothing here ever
    /// runs it; other loaders may.
    pub fn danger_allow_code(mut self, path: impl Into<String>) -> Self {
        self.allow_code.push(path.into());
        self
    }

    /// Opens a model: a directory or a file, plain or encrypted.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Model> {
        self.open_with(path, &())
    }

    /// As [`open`](Self::open), watched by `progress`.
    pub fn open_with(self, path: impl AsRef<Path>, progress: &dyn Progress) -> Result<Model> {
        let path = path.as_ref();
        self.open_files(Some(path), tree::open(path)?, progress)
    }

    /// Opens a model that lies anywhere: in memory, in a bucket, in storage that somebody else reads. The signatures of a
    /// lone file lie beside it, and there is nothing beside it here: under a policy it must be given as a directory, with
    /// its signatures in it.
    pub fn open_tree(self, tree: Box<dyn Tree>, progress: &dyn Progress) -> Result<Model> {
        self.open_files(None, tree, progress)
    }

    fn open_files(self, path: Option<&Path>, tree: Box<dyn Tree>, progress: &dyn Progress) -> Result<Model> {
        let (tree, _verified) = self.verified(path, tree, progress)?;
        let index = ModelIndex::read(&*tree)?;
        Ok(Model {
            code: gate(&*tree, &index, &self.allow_code)?,
            index,
            tree,
            #[cfg(feature = "signing")]
            verified: _verified,
        })
    }

    /// The files of a model that pass the gate only because the caller lets them through.
    #[cfg(all(feature = "encryption", target_os = "linux"))]
    fn code(&self, tree: &dyn Tree) -> Result<Vec<String>> {
        match (ModelIndex::read(tree), tree.entries()) {
            (Ok(index), _) => gate(tree, &index, &self.allow_code),
            // a lone file that is left closed
            (Err(Error::Format { .. }), [entry]) if self.allow_code.contains(&entry.path) => {
                Ok(vec![entry.path.clone()])
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The plaintext files of a model, which lies at `path` if anywhere, such that what is read is what was verified.
    fn verified(
        &self,
        path: Option<&Path>,
        tree: Box<dyn Tree>,
        progress: &dyn Progress,
    ) -> Result<(Box<dyn Tree>, Option<Verified>)> {
        let tree = self.decrypted(tree)?;
        #[cfg(feature = "signing")]
        if let Some(policy) = &self.policy {
            let place = path.map(outboard_path).filter(|_| tree.is_single_file());
            let outboard: Option<Arc<dyn ReadAt>> = match place {
                Some(place) if place.symlink_metadata().is_ok() => Some(Arc::new(FileAt::open(place)?)),
                _ => None,
            };
            let signatures = usual_signatures(path, &*tree)?;
            let (verified, tree) = policy.open_tree(tree, &signatures, outboard, progress)?;
            return Ok((Box::new(tree), Some(verified)));
        }
        let verified = self.verify(path, &*tree, progress)?;
        Ok((Box::new(Held::new(tree)), verified))
    }

    /// Holds the files of a model to the policy, if there is one. Without one the model must not be signed, or the caller
    /// must have said that this does not matter.
    fn verify(&self, path: Option<&Path>, tree: &dyn Tree, progress: &dyn Progress) -> Result<Option<Verified>> {
        #[cfg(feature = "signing")]
        if let Some(policy) = &self.policy {
            return policy.verify_tree(tree, &usual_signatures(path, tree)?, progress).map(Some);
        }
        let _ = progress;
        if !self.accept_unsigned && is_signed(path, tree) {
            let problem = "the model is signed: open it with a policy, or say danger_accept_unsigned()";
            return Err(Error::ApiMisuse(problem));
        }
        Ok(None)
    }

    /// The plaintext files of the model at `path`, decrypted as they are read. No signature is looked at.
    pub fn tree(&self, path: impl AsRef<Path>) -> Result<Box<dyn Tree>> {
        self.decrypted(tree::open(path)?)
    }

    /// As [`tree`](Self::tree), of one of two models that are compared: identities are for whichever is encrypted, and the other
    /// may be plain, unless a context is expected, which both must have.
    #[cfg(feature = "encryption")]
    pub fn tree_of_either(&self, path: impl AsRef<Path>) -> Result<Box<dyn Tree>> {
        use crate::error::EncryptionError;
        match self.tree(path.as_ref()) {
            Err(Error::Encryption { cause: EncryptionError::ExpectedEncrypted, .. }) if self.context.is_none() => {
                tree::open(path)
            }
            opened => opened,
        }
    }

    #[cfg(feature = "encryption")]
    fn decrypted(&self, tree: Box<dyn Tree>) -> Result<Box<dyn Tree>> {
        use crate::encryption::{Decryptor, inspect};
        use crate::error::EncryptionError;
        let is_encrypted = if tree.is_single_file() {
            inspect(&*tree.open("")?)?.is_some()
        } else {
            DecryptedTree::recognises(&*tree)
        };
        if is_encrypted {
            let identities: Vec<&dyn Identity> = self.identities.iter().map(|identity| &**identity).collect();
            let mut decryptor = Decryptor::new(&identities);
            if let Some(context) = &self.context {
                decryptor = decryptor.expect_context(context);
            }
            if self.accept_closed {
                decryptor = decryptor.accept_closed();
            }
            return decryptor.open_tree(tree);
        }
        if self.expect_encrypted {
            return Err(EncryptionError::ExpectedEncrypted.on(tree.name()));
        }
        Ok(tree)
    }

    #[cfg(not(feature = "encryption"))]
    fn decrypted(&self, tree: Box<dyn Tree>) -> Result<Box<dyn Tree>> {
        Ok(tree)
    }
}

/// The signatures at `places`, or else those in their usual places, of the model at `path` whose files are those of `tree`.
#[cfg(feature = "signing")]
pub fn signatures<P: AsRef<Path>>(
    path: impl AsRef<Path>,
    tree: &dyn Tree,
    places: impl IntoIterator<Item = P>,
) -> Result<Signatures> {
    let path = path.as_ref();
    let mut places = places.into_iter().peekable();
    if places.peek().is_none() {
        return Signatures::find(path, tree);
    }
    // a file beside encrypted ones is not one of the model, whatever its name
    #[cfg(feature = "encryption")]
    let is_plain = !DecryptedTree::recognises(&*tree::open(path)?);
    #[cfg(not(feature = "encryption"))]
    let is_plain = true;
    places.try_fold(Signatures::new(), |found, place| {
        let inside = path_inside(path, place.as_ref()).filter(|_| is_plain);
        Ok(found.and(inside, Bundle::read(place)?))
    })
}

/// The signatures of a model: in it, or beside it if it is a lone file.
#[cfg(feature = "signing")]
fn usual_signatures(path: Option<&Path>, tree: &dyn Tree) -> Result<Signatures> {
    match path {
        Some(path) if tree.is_single_file() => Signatures::beside(path),
        None if tree.is_single_file() => {
            Err(Error::ApiMisuse("a lone file that has no path has no signature: give a directory that holds both"))
        }
        _ => Signatures::within(tree),
    }
}

/// Whether there is a signature in its usual place, good or bad; where that cannot be told, there may be one.
fn is_signed(path: Option<&Path>, tree: &dyn Tree) -> bool {
    if tree.is_single_file() {
        let missing = |e: std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
        return path.is_some_and(|path| !signature_path(path).symlink_metadata().is_err_and(missing));
    }
    tree.entries().iter().any(|entry| is_signature(&entry.path))
}
