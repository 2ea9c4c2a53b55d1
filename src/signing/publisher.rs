//! Signing a model as a whole: the signature, what goes with it, and where each belongs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use serde_json::{Value, json};

use super::release::Relation;
use super::{CertificateChain, Hashing, Manifest, Release, Scope, outboard_path, release_path, signature_path};
use super::{sign, sign_with_certificate};
use crate::error::{Error, Result};
use crate::io::atomic::refuse_existing;
use crate::io::{Progress, Tree, tree};
use crate::keys::Signer;

/// Signs models and puts signatures in their places.
///
/// ```no_run
/// use weightmark::keys::SigningKey;
/// use weightmark::signing::Publisher;
///
/// let key = SigningKey::load("release.pem")?;
/// let signed = Publisher::new(&key).outboard().release("acme/llama-1b", 3).publish("model/", &())?;
/// println!("{} files signed: {}", signed.files, signed.signature.display());
/// # Ok::<(), weightmark::Error>(())
/// ```
pub struct Publisher<'a> {
    signer: &'a dyn Signer,
    chain: Option<&'a CertificateChain>,
    hashing: Hashing,
    outboard: bool,
    place: Option<PathBuf>,
    ignored: Vec<String>,
    scope: Scope,
    release: Option<(String, u64)>,
    expires: Option<SystemTime>,
    parents: Vec<(Relation, String, [u8; 32])>,
}

/// What was signed, and where it says so.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Signed {
    /// The signature.
    pub signature: PathBuf,
    /// How many files it covers.
    pub files: usize,
    /// Id of the key that signed.
    pub signer: String,
    /// Name, version and place of the release, if there is one.
    pub release: Option<(String, u64, PathBuf)>,
}

impl<'a> Publisher<'a> {
    /// Signs with this key, SHA-256 over whole files.
    pub fn new(signer: &'a dyn Signer) -> Self {
        Self {
            signer,
            chain: None,
            hashing: Hashing::default(),
            outboard: false,
            place: None,
            ignored: Vec::new(),
            scope: Scope::default(),
            release: None,
            expires: None,
            parents: Vec::new(),
        }
    }

    /// Adds the certificate of the key, and what leads from it to an authority.
    pub fn certified(self, chain: &'a CertificateChain) -> Self {
        Self { chain: Some(chain), ..self }
    }

    /// Hashes files like this.
    pub fn hashing(self, hashing: Hashing) -> Self {
        Self { hashing, ..self }
    }

    /// Hashes with BLAKE3, whatever else was said, and keeps the digests of ranges beside, so that a loader hashes just what it
    /// reads.
    pub fn outboard(self) -> Self {
        Self { outboard: true, ..self }
    }

    /// Writes the signature to this place, and a release beside it, rather than to the usual places.
    pub fn signature(self, place: impl Into<PathBuf>) -> Self {
        Self { place: Some(place.into()), ..self }
    }

    /// Leaves out a path of the model, with all that is beneath it. It must be there.
    pub fn ignore(mut self, path: impl Into<String>) -> Self {
        self.ignored.push(path.into());
        self
    }

    /// Signs the model although this file in it holds code, or what is not provably plain data.
    pub fn danger_allow_code(self, path: impl Into<String>) -> Self {
        Self { scope: self.scope.danger_allow_code(path), ..self }
    }

    /// Says what is released: a name and a version, in a statement of its own.
    pub fn release(self, name: impl Into<String>, version: u64) -> Self {
        Self { release: Some((name.into(), version)), ..self }
    }

    /// Until when the release is good.
    pub fn expires_at(self, time: SystemTime) -> Self {
        Self { expires: Some(time), ..self }
    }

    /// What the release was made from: the name and the root digest of another model.
    pub fn made_from(mut self, relation: Relation, name: impl Into<String>, root: [u8; 32]) -> Self {
        self.parents.push((relation, name.into(), root));
        self
    }

    /// Signs the model at `path`, a file or a directory. Nothing is overwritten, and what is in the way is found before
    /// anything is hashed.
    pub fn publish(&self, path: impl AsRef<Path>, progress: &dyn Progress) -> Result<Signed> {
        let path = path.as_ref();
        let signature = self.place.clone().unwrap_or_else(|| signature_path(path));
        let outboard = self.outboard.then(|| outboard_path(path));
        let release = self.release_place(path)?;
        [Some(&signature), outboard.as_ref(), release.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|p| refuse_existing(p))?;
        let model = tree::open(path)?;
        let scope = self.scope(&*model, path_inside(path, &signature))?;
        let (manifest, digests) = if self.outboard {
            let (manifest, digests) = Manifest::with_outboard(&*model, &scope, progress)?;
            (manifest, Some(digests))
        } else {
            (Manifest::of_tree(&*model, self.hashing, &scope, progress)?, None)
        };
        let statement = self.statement(&*model, &manifest)?;
        let (signed, released) = match self.chain {
            None => (sign(&manifest, self.signer)?, statement.map(|s| s.sign(self.signer)).transpose()?),
            Some(chain) => (
                sign_with_certificate(&manifest, self.signer, chain)?,
                statement.map(|s| s.sign_with_certificate(self.signer, chain)).transpose()?,
            ),
        };
        if let (Some(place), Some(digests)) = (&outboard, &digests) {
            digests.write(place)?;
        }
        signed.write(&signature).inspect_err(|_| {
            outboard.iter().for_each(|place| _ = fs::remove_file(place)); // of no use without it
        })?;
        if let (Some(place), Some(released)) = (&release, &released) {
            released.write(place)?;
        }
        let release = self.release.clone().zip(release).map(|((name, version), place)| (name, version, place));
        Ok(Signed { signature, files: manifest.files(), signer: self.signer.verifying_key().id(), release })
    }

    /// Where the release goes: beside its signature, as `x.release.sig` beside `x.sig`.
    fn release_place(&self, path: &Path) -> Result<Option<PathBuf>> {
        if self.release.is_none() {
            let is_of_release = self.expires.is_some() || !self.parents.is_empty();
            return if is_of_release {
                Err(Error::ApiMisuse("only a release expires or has parents: name one"))
            } else {
                Ok(None)
            };
        }
        let beside = |signature: &PathBuf| signature.with_extension("release.sig");
        Ok(Some(self.place.as_ref().map_or_else(|| release_path(path), beside)))
    }

    fn scope(&self, model: &dyn Tree, signature: Option<String>) -> Result<Scope> {
        let mut scope = self.scope.clone();
        for path in self.ignored.iter().map(|path| path.trim_end_matches('/')) {
            if path.is_empty() || !model.entries().iter().any(|entry| Path::new(&entry.path).starts_with(path)) {
                let problem = io::Error::new(io::ErrorKind::NotFound, "there is no such path in the model");
                return Err(Error::io("leave out", path, problem));
            }
            scope = scope.ignore(path);
        }
        Ok(signature.into_iter().fold(scope, Scope::ignore))
    }

    fn statement(&self, model: &dyn Tree, manifest: &Manifest) -> Result<Option<Release>> {
        let Some((name, version)) = &self.release else { return Ok(None) };
        let release = Release::of(model, manifest, name, *version)?;
        let release = self.expires.into_iter().fold(release, Release::expires_at);
        let parents = self.parents.iter();
        Ok(Some(parents.fold(release, |release, (relation, name, root)| release.made_from(*relation, name, *root))))
    }
}

impl Signed {
    /// The same for machines, as the command line prints it.
    pub fn to_json(&self) -> Value {
        let release = self.release.as_ref();
        let release = release.map(
            |(name, version, place)| json!({"name": name, "version": version, "path": place.display().to_string()}),
        );
        json!({
            "signature": self.signature.display().to_string(),
            "files": self.files,
            "signer": {"key": self.signer},
            "release": release,
        })
    }
}

/// The path of a signature relative to its model, if it lies inside of it.
pub(crate) fn path_inside(model: &Path, signature: &Path) -> Option<String> {
    let folder = signature.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.canonicalize().ok()?.join(signature.file_name()?);
    Some(place.strip_prefix(model.canonicalize().ok()?).ok()?.to_str()?.to_owned())
}
