//! What a model must satisfy, and the verifier that holds it to that.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::authority::{Authority, Judgement, Signatory, signatory};
use super::components;
use super::digest::HashType;
use super::high_water::HighWater;
use super::manifest::{Hashing, Manifest, hash, is_ignored};
use super::release::{self, Release};
use super::rule::Rule;
use super::signatures::Signatures;
use super::statement::{Statement, from_hex};
use super::tree::VerifiedTree;
use super::verified::Verified;
use super::{OUTBOARD_FILE, SIGNATURE_FILE};
use crate::crypto;
use crate::error::{Cause, Result, VerifyError};
use crate::io::{Progress, ReadAt, Tree, tree};

/// What a model must satisfy to be verified.
///
/// Only what the caller puts here counts: nothing in a signature can widen it.
///
/// ```
/// # use weightmark::keys::{Algorithm, SigningKey};
/// use weightmark::signing::{Policy, Rule};
///
/// # let key = || SigningKey::generate(Algorithm::EcdsaP256).map(|key| key.verifying_key());
/// # let (release, alice, bob, carol) = (key()?, key()?, key()?, key()?);
/// // one key, for everything
/// let simple = Policy::require(release.clone());
///
/// // two of three for the large model, one key for the rest
/// let large = Rule::signed_by(alice).or(bob).or(carol).threshold(2).models(["acme/llama-70b"]).minimum_version(4);
/// let policy = Policy::from(large).and(Rule::signed_by(release)).high_water("/var/lib/serving/versions.json");
/// # Ok::<(), weightmark::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    revoked: BTreeSet<String>,
    name: Option<String>,
    minimum_version: Option<u64>,
    parents: Vec<[u8; 32]>,
    high_water: Option<HighWater>,
    at: Option<SystemTime>,
    ignore_unsigned: bool,
    ignore_paths: Vec<String>,
}

impl From<Rule> for Policy {
    fn from(rule: Rule) -> Self {
        Self {
            rules: vec![rule],
            revoked: BTreeSet::new(),
            name: None,
            minimum_version: None,
            parents: Vec::new(),
            high_water: None,
            at: None,
            ignore_unsigned: false,
            ignore_paths: Vec::new(),
        }
    }
}

impl Policy {
    /// Requires a signature by `authority`.
    pub fn require(authority: impl Into<Authority>) -> Self {
        Rule::signed_by(authority).into()
    }

    /// Accepts a signature by `authority` as well: one of them suffices.
    pub fn or(mut self, authority: impl Into<Authority>) -> Self {
        if let Some(last) = self.rules.pop() {
            self.rules.push(last.or(authority));
        }
        self
    }

    /// Adds a rule for models that those before it are not for.
    pub fn and(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Whether a text can be the id of a key: 64 hexadecimal digits in lower case.
    pub fn is_key_id(text: &str) -> bool {
        from_hex(text, 32).is_some()
    }

    /// Takes no signature by the key of this [id](Self::is_key_id), nor one by a certificate with it or under it.
    pub fn revoke(mut self, key: impl Into<String>) -> Self {
        self.revoked.insert(key.into());
        self
    }

    /// Requires that the model was signed under this name: that of its release, or else the one in its signature.
    pub fn expect_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Requires a release of this version or a later one, whatever the name of the model.
    pub fn minimum_version(mut self, version: u64) -> Self {
        self.minimum_version = Some(version);
        self
    }

    /// Requires that the release names the model of this root digest as one that it was made from.
    pub fn expect_parent(mut self, root: [u8; 32]) -> Self {
        self.parents.push(root);
        self
    }

    /// Keeps the highest version of each model in a file, and refuses a lower one, or another of the same number. A version
    /// counts once its release and signatures are verified; where files are verified as they are read, before they are.
    pub fn high_water(mut self, file: impl Into<PathBuf>) -> Self {
        self.high_water = Some(HighWater::at(file));
        self
    }

    /// Judges certificates and expiry as of this time rather than now.
    pub fn at(mut self, time: SystemTime) -> Self {
        self.at = Some(time);
        self
    }

    /// Leaves out a path of the model, with all that is beneath it, even though it was not signed.
    pub fn danger_ignore_path(mut self, path: impl Into<String>) -> Self {
        self.ignore_paths.push(path.into());
        self
    }

    /// Tolerates files that were not signed. Whatever loads them loads what nobody vouched for.
    pub fn danger_ignore_unsigned_files(mut self) -> Self {
        self.ignore_unsigned = true;
        self
    }

    /// Verifies the model at `path` against the [signatures](Signatures::find) in it, or beside it.
    pub fn verify(&self, path: impl AsRef<Path>) -> Result<Verified> {
        let path = path.as_ref();
        let tree = tree::open(path)?;
        self.verify_tree(&*tree, &Signatures::find(path, &*tree)?, &())
    }

    /// Verifies the files of a tree.
    ///
    /// The order of checks is that of `spec/signing.md`: signatures before anything they say, the set of files before any
    /// is hashed, every file through one handle.
    pub fn verify_tree(&self, tree: &dyn Tree, signatures: &Signatures, progress: &dyn Progress) -> Result<Verified> {
        let accepted = self.accept(tree, signatures)?;
        for manifest in &accepted.manifests {
            check_files(tree, manifest, progress)?;
        }
        self.conclude(tree, accepted)
    }

    /// Verifies a model to be read: the tree returned has the files that were signed, and hands out no byte of them that is
    /// not what was signed, whatever becomes of them later. (Files of an encrypted model that were hashed as a whole are
    /// vouched for by its key from then on.)
    ///
    /// If it was signed in parts, or has an `outboard` (there may be one called [`OUTBOARD_FILE`] in a directory), each
    /// range is hashed when it is read; otherwise every file is hashed now.
    pub fn open_tree(
        &self,
        tree: Box<dyn Tree>,
        signatures: &Signatures,
        outboard: Option<Arc<dyn ReadAt>>,
        progress: &dyn Progress,
    ) -> Result<(Verified, VerifiedTree)> {
        let accepted = self.accept(&*tree, signatures)?;
        let [manifest, others @ ..] = accepted.manifests.as_slice() else {
            return Err(VerifyError::NoSignature { path: SIGNATURE_FILE.into() }.on(tree.name()));
        };
        let hashing = manifest.hashing();
        let is_whole_blake3 = hashing == Hashing { hash: HashType::Blake3, shard_size: None };
        let has_outboard = !tree.is_single_file() && tree.entries().iter().any(|entry| entry.path == OUTBOARD_FILE);
        let outboard = match outboard {
            _ if !is_whole_blake3 => None,
            None if has_outboard => Some(tree.open(OUTBOARD_FILE)?),
            given => given,
        };
        let tree = if outboard.is_some() || hashing.shard_size.is_some() {
            VerifiedTree::lazy(tree, manifest, outboard)?
        } else {
            VerifiedTree::eager(tree, manifest, progress)?
        };
        for other in others {
            check_files(&tree, other, progress)?; // the very bytes that will be handed out
        }
        Ok((self.conclude(&tree, accepted)?, tree))
    }

    /// Verifies the signatures alone, for what they say of a model whose files are elsewhere.
    pub fn verify_signatures(&self, signatures: &Signatures) -> Result<(Manifest, Option<Release>)> {
        let Signed { manifests, release, .. } = self.signed(signatures).map_err(|cause| cause.on("signature"))?;
        let first = manifests.into_iter().next();
        let missing = || VerifyError::NoSignature { path: SIGNATURE_FILE.into() }.on("signature");
        Ok((first.ok_or_else(missing)?, release))
    }

    /// Everything but the bytes of the files: who signed, what the release says, and which files are there.
    fn accept(&self, tree: &dyn Tree, signatures: &Signatures) -> Result<Accepted> {
        let fail = |cause: VerifyError| cause.on(tree.name());
        let Signed { manifests, signatories, release } = self.signed(signatures).map_err(fail)?;
        if let (Some(high_water), Some(release)) = (&self.high_water, &release) {
            high_water.check(release)?;
        }
        let mut distinct: Vec<Manifest> = Vec::new();
        let (mut files, mut ignored) = (0, BTreeSet::new());
        for mut manifest in manifests {
            manifest.resources = manifest.resources_in(tree)?;
            let same = distinct.iter().find(|other| other.hashing() == manifest.hashing());
            if same.is_some_and(|same| same.ignore_paths == manifest.ignore_paths) {
                continue; // it lists the same, as all of one hashing do
            }
            files = files.max(manifest.files());
            ignored.extend(self.check_set(tree, &manifest, signatures).map_err(fail)?);
            if same.is_none() {
                distinct.push(manifest);
            }
        }
        let Some(first) = distinct.first() else {
            return Err(fail(VerifyError::NoSignature { path: SIGNATURE_FILE.into() }));
        };
        let verified = Verified {
            name: release.as_ref().map_or_else(|| first.name.clone(), |release| release.name().to_owned()),
            root_digest: first.root_digest(),
            hashing: first.hashing,
            signatories,
            release,
            files,
            ignored: ignored.into_iter().collect(),
        };
        Ok(Accepted { manifests: distinct, verified })
    }

    /// What is left to do once the files are known to be those that were signed.
    fn conclude(&self, tree: &dyn Tree, accepted: Accepted) -> Result<Verified> {
        let Accepted { manifests, verified } = accepted;
        if let (Some(release), Some(manifest)) = (verified.release(), manifests.first()) {
            let (there, named) = (components::of(tree, manifest)?, release.components());
            let odd = there.iter().find(|component| !named.contains(component));
            let odd = odd.or_else(|| named.iter().find(|component| !there.contains(component)));
            if let Some(odd) = odd {
                return Err(VerifyError::Component { path: odd.name.clone() }.on(tree.name()));
            }
            if let Some(high_water) = &self.high_water {
                high_water.raise(release)?;
            }
        }
        Ok(verified)
    }

    /// Verifies every signature, and holds them and the release to the rule for models of that name.
    fn signed(&self, signatures: &Signatures) -> Result<Signed, VerifyError> {
        let at = self.at.unwrap_or_else(SystemTime::now);
        let judgement = Judgement { at, revoked: &self.revoked };
        let everyone: Vec<&Authority> = self.rules.iter().flat_map(|rule| &rule.authorities).collect();
        let (mut models, mut releases) = (Vec::new(), Vec::new());
        for bundle in signatures.bundles() {
            signatory(bundle, &everyone, &judgement)?;
            match Statement::parse(bundle.payload())? {
                Statement::Model(manifest) => models.push((manifest, bundle)),
                Statement::Release(release) => releases.push((release, bundle)),
            }
        }
        if models.is_empty() {
            return Err(VerifyError::NoSignature { path: SIGNATURE_FILE.into() });
        }
        let release = agreed(releases.iter().map(|(release, _)| release))?;
        if let Some(release) = &release
            && !models.iter().any(|(manifest, _)| manifest.root_digest() == *release.root_digest())
        {
            return Err(VerifyError::ForeignRelease);
        }
        if let Some(release) = &release {
            models.sort_by_key(|(manifest, _)| manifest.root_digest() != *release.root_digest()); // the one it is about first
        }
        check_agreement(models.iter().map(|(manifest, _)| manifest), release.is_some())?;
        let name = release.as_ref().map_or(models.first().map_or("", |(first, _)| &first.name), Release::name);
        if let Some(expected) = self.name.as_ref().filter(|expected| *expected != name) {
            return Err(VerifyError::WrongName { found: name.into(), expected: expected.clone() });
        }
        let rule = self.rules.iter().find(|rule| rule.covers(name));
        let rule = rule.ok_or_else(|| VerifyError::NoRule { name: name.into() })?;
        let bundles: Vec<_> = models.iter().map(|(_, bundle)| *bundle).collect();
        let signatories = rule.hold(&bundles, &judgement)?;
        // whoever takes a release away, and with it the name, does not get to another rule of the same signer
        let evades = |other: &Rule| other.is_stricter_than(rule) && other.has_signed(&bundles, &judgement);
        if release.is_none() && self.rules.iter().any(evades) {
            return Err(VerifyError::NoRelease);
        }
        if !releases.is_empty() {
            rule.hold(&releases.iter().map(|(_, bundle)| *bundle).collect::<Vec<_>>(), &judgement)?;
        }
        self.check_release(rule, release.as_ref(), at)?;
        Ok(Signed { manifests: models.into_iter().map(|(manifest, _)| manifest).collect(), signatories, release })
    }

    fn check_release(&self, rule: &Rule, release: Option<&Release>, at: SystemTime) -> Result<(), VerifyError> {
        let Some(release) = release else {
            let expects = self.minimum_version.is_some() || self.high_water.is_some() || !self.parents.is_empty();
            return if expects || rule.needs_release() { Err(VerifyError::NoRelease) } else { Ok(()) };
        };
        if let Some(expires) = release.expires().filter(|expires| *expires <= at) {
            return Err(VerifyError::Expired { at: release::to_text(expires) });
        }
        rule.check_release(release)?;
        if let Some(required) = self.minimum_version.filter(|required| release.version() < *required) {
            return Err(VerifyError::Version { found: release.version(), required });
        }
        let missing = self.parents.iter().find(|root| !release.parents().iter().any(|parent| parent.root == **root));
        missing.map_or(Ok(()), |root| Err(VerifyError::Parent { digest: crypto::hex(root) }))
    }

    /// Holds the files that are there to those that a manifest lists. Returns those that it leaves out.
    fn check_set(
        &self,
        tree: &dyn Tree,
        manifest: &Manifest,
        signatures: &Signatures,
    ) -> Result<Vec<String>, VerifyError> {
        let sizes: BTreeMap<&str, u64> = tree.entries().iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
        let there: BTreeSet<&str> = sizes.keys().copied().collect();
        let listed = manifest.paths();
        if let Some(path) = listed.difference(&there).next() {
            return Err(VerifyError::MissingFile { path: (*path).into() });
        }
        let mut ignored = Vec::new();
        for path in there.difference(&listed).filter(|path| !signatures.contains(path)) {
            let has_no_shards = manifest.hashing.shard_size.is_some() && sizes.get(path) == Some(&0);
            let tolerated = [&manifest.ignore_paths, &self.ignore_paths].iter().any(|paths| is_ignored(path, paths));
            if !tolerated && !has_no_shards && !self.ignore_unsigned {
                return Err(VerifyError::ExtraFile { path: (*path).into() });
            }
            ignored.push((*path).to_owned());
        }
        Ok(ignored)
    }
}

/// Hashes every file that a manifest lists.
fn check_files(tree: &dyn Tree, manifest: &Manifest, progress: &dyn Progress) -> Result<()> {
    let mut hashed = manifest.resources.clone();
    hash(tree, manifest.hashing.hash, &mut hashed, progress)?;
    let odd = hashed.iter().zip(&manifest.resources).find(|(found, expected)| found.digest != expected.digest);
    odd.map_or(Ok(()), |(found, _)| Err(VerifyError::DigestMismatch { path: found.path.clone() }.on(tree.name())))
}

/// The one release that several signers speak of: the one that was issued first.
fn agreed<'a>(releases: impl Iterator<Item = &'a Release> + Clone) -> Result<Option<Release>, VerifyError> {
    let Some(first) = releases.clone().min_by_key(|release| release.issued()) else { return Ok(None) };
    if releases.clone().all(|other| other.says_the_same(first)) {
        return Ok(Some(first.clone()));
    }
    Err(VerifyError::ForeignRelease)
}

/// Holds statements about the files of one model to each other: they list the same files, with the same digests where these
/// were made in the same way; and under the same name, where no release says it.
fn check_agreement<'a>(
    mut manifests: impl Iterator<Item = &'a Manifest> + Clone,
    is_released: bool,
) -> Result<(), VerifyError> {
    let all = manifests.clone();
    let Some(first) = manifests.next() else { return Ok(()) };
    let agrees = |other: &Manifest| {
        let lists = other.paths() == first.paths() && (is_released || other.name() == first.name());
        let mut alike = all.clone().filter(|third| third.hashing() == other.hashing());
        lists && alike.next().is_none_or(|third| third.lists_the_same(other))
    };
    if manifests.all(agrees) { Ok(()) } else { Err(VerifyError::Disagreement) }
}

/// A model whose signatures are accepted, and whose files are yet to be hashed.
struct Accepted {
    /// Those that differ in what they list or how it was hashed.
    manifests: Vec<Manifest>,
    verified: Verified,
}

/// What was signed, and by whom.
struct Signed {
    manifests: Vec<Manifest>,
    signatories: Vec<Signatory>,
    release: Option<Release>,
}
