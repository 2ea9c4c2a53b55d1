//! The main job: mark a copy, sign it, encrypt it to its recipient.

use std::path::Path;

use serde::Serialize;

use crate::crypto;
use crate::encryption::Encryptor;
use crate::error::{Error, Result};
use crate::format::SIGNATURE_FILE;
use crate::io::atomic::{private_dir, refuse_existing, refuse_inside};
use crate::io::{Progress, tree};
use crate::keys::{OwnerKey, Recipient, Signer};
use crate::signing::{self, Hashing, Manifest, Scope};
use crate::watermark::{Embedded, Watermark};

/// Protects copies of a model: marks the weights, signs every file, encrypts all of it.
///
/// ```no_run
/// use weightmark::keys::{OwnerKey, SigningKey, XWingRecipient};
/// use weightmark::model::Protector;
///
/// let owner = OwnerKey::load("owner.key")?;
/// let key = SigningKey::load("release.pem")?;
/// let licensee = XWingRecipient::load("licensee-0017.pub")?;
/// let done = Protector::new(&owner, &key, [licensee]).copy("licensee-0017").context("acme/llama-1b@3").protect("model/", "out/")?;
/// println!("{} tensors marked", done.mark.tensors);
/// # Ok::<(), weightmark::Error>(())
/// ```
pub struct Protector<'a> {
    watermark: Watermark<'a>,
    signer: &'a dyn Signer,
    encryptor: Encryptor,
}

/// What was done to one copy: the record to keep of it. Holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Protected {
    /// The owner's public id.
    pub owner: String,
    /// The mark.
    pub mark: Embedded,
    /// Id of the key that signed.
    pub signer: String,
    /// Digest of the signed model, in hexadecimal.
    pub root_digest: String,
    /// Number of files signed.
    pub files: usize,
    /// The context that the encryption is bound to.
    pub context: String,
    /// Type and id of each recipient.
    pub recipients: Vec<(String, String)>,
}

impl<'a> Protector<'a> {
    /// Marks for this owner, signs with this key, encrypts to these recipients.
    pub fn new<R: Recipient + 'static>(
        owner: &'a OwnerKey,
        signer: &'a dyn Signer,
        recipients: impl IntoIterator<Item = R>,
    ) -> Self {
        Self { watermark: Watermark::new(owner), signer, encryptor: Encryptor::to(recipients) }
    }

    /// Marks this copy under a label, so that it can be told from all others.
    pub fn copy(self, label: impl Into<String>) -> Self {
        Self { watermark: self.watermark.copy(label), ..self }
    }

    /// Binds the encryption to a context such as `acme/llama-1b@3`.
    pub fn context(self, context: impl Into<String>) -> Self {
        Self { encryptor: self.encryptor.context(context), ..self }
    }

    /// Overrides the strength of the mark.
    pub fn strength(self, strength: f64) -> Self {
        Self { watermark: self.watermark.strength(strength), ..self }
    }

    /// Binds the mark to a public random value.
    pub fn beacon(self, beacon: impl Into<String>) -> Self {
        Self { watermark: self.watermark.beacon(beacon), ..self }
    }

    /// Protects the model at `model`, a file or a directory, as the new encrypted directory `output`.
    ///
    /// The marked copy lies in a temporary directory beside the output, readable by its owner alone, until it is
    /// encrypted. The signature, [`SIGNATURE_FILE`], is inside and encrypted too.
    pub fn protect(&self, model: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Protected> {
        self.protect_with(model, output, &())
    }

    /// As [`protect`](Self::protect), watched by `progress`.
    pub fn protect_with(
        &self,
        model: impl AsRef<Path>,
        output: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<Protected> {
        let (model, output) = (model.as_ref(), output.as_ref());
        refuse_inside(model, output)?;
        refuse_existing(output)?;
        let source = tree::open(model)?;
        let name = output.file_name().ok_or(Error::ApiMisuse("the output has no name"))?;
        let workshop = private_dir(output)?;
        let marked = workshop.path().join(name);
        let target = match source.entries() {
            [entry] if source.is_single_file() => {
                std::fs::create_dir(&marked).map_err(|e| Error::io("create", &marked, e))?;
                marked.join(&entry.path)
            }
            _ => marked.clone(),
        };
        let mark = self.watermark.embed_tree(&*source, &target, progress)?;
        let manifest = Manifest::of_tree(&*tree::open(&marked)?, Hashing::default(), &Scope::default(), progress)?;
        signing::sign(&manifest, self.signer)?.write(marked.join(SIGNATURE_FILE))?;
        let envelope = self.encryptor.encrypt_with(&marked, output, progress)?;
        Ok(Protected {
            owner: self.watermark.owner().to_string(),
            mark,
            signer: self.signer.verifying_key().id(),
            root_digest: crypto::hex(&manifest.root_digest()),
            files: manifest.resources().len(),
            context: envelope.context,
            recipients: envelope.groups.into_iter().flat_map(|group| group.recipients).collect(),
        })
    }
}
