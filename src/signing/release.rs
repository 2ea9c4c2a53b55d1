//! What a publisher says of a model besides its files: a release, signed on its own.
//!
//! It names the version, how long it is good, from which models it was made, and what in it is code, chat template and
//! tokenizer. OMS has no place for any of this, so it is a statement of its own in a bundle of its own, whose subject is the
//! root digest of the OMS signature beside it (`spec/signing.md`).

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::certificate::CertificateChain;
use super::components::{self, Component};
use super::manifest::Manifest;
use super::statement::{self, Subject, from_hex};
use crate::crypto;
use crate::error::{Cause, Error, Result, VerifyError};
use crate::io::Tree;
use crate::io::tree::is_canonical;
use crate::json::{self, Object, UniqueMap};
use crate::keys::Signer;

pub(super) const PREDICATE: &str = "https://weightmark/release/v1";
/// Longest name of a model, in bytes.
const MAX_NAME: usize = 255;

/// A version of a model, as its publisher describes it.
///
/// ```
/// use weightmark::io::tree;
/// use weightmark::keys::{Algorithm, SigningKey};
/// use weightmark::signing::{Manifest, Policy, Release, Rule};
///
/// # let home = tempfile::tempdir()?;
/// # let model = home.path().join("llama-1b");
/// # std::fs::create_dir(&model)?;
/// # std::fs::write(model.join("config.json"), "{}")?;
/// let key = SigningKey::generate(Algorithm::EcdsaP256)?;
/// let manifest = Manifest::of(&model)?;
/// key.sign(&manifest)?.write(model.join("model.sig"))?;
/// let release = Release::of(&*tree::open(&model)?, &manifest, "acme/llama-1b", 3)?;
/// release.sign(&key)?.write(model.join("model.release.sig"))?;
///
/// let rule = Rule::signed_by(key.verifying_key()).models(["acme/*"]).minimum_version(2);
/// let verified = Policy::from(rule).verify(&model)?;
/// assert_eq!(verified.release().map(|release| release.version()), Some(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    name: String,
    root: [u8; 32],
    version: u64,
    issued: SystemTime,
    expires: Option<SystemTime>,
    parents: Vec<Parent>,
    components: Vec<Component>,
    code: Vec<String>,
}

/// A model that another was made from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Parent {
    /// What it was to the other.
    pub relation: Relation,
    /// Its name.
    pub name: String,
    /// The root digest of its signature.
    pub root: [u8; 32],
}

/// What one model is to another that was made from it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Relation {
    /// An adapter (such as a LoRA) fits this model and no other.
    Base,
    /// It was trained further.
    FineTuned,
    /// Its weights were quantised.
    Quantised,
    /// It was merged with others.
    Merged,
    /// It was written in another format.
    Converted,
}

impl Relation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Base, Self::FineTuned, Self::Quantised, Self::Merged, Self::Converted];

    /// The word in statements and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::FineTuned => "fine-tuned",
            Self::Quantised => "quantised",
            Self::Merged => "merged",
            Self::Converted => "converted",
        }
    }
}

impl Release {
    /// A release of the model that `manifest` lists, issued now. The files of `tree` that are chat template, tokenizer and
    /// code are found by their names and hashed.
    ///
    /// `name` has 1 to 255 bytes, no control characters, and no blanks around it; `version` grows with every release.
    pub fn of(tree: &dyn Tree, manifest: &Manifest, name: &str, version: u64) -> Result<Self> {
        if !is_name(name) {
            return Err(Error::ApiMisuse(
                "the name of a model has 1 to 255 bytes, and no control characters or outer blanks",
            ));
        }
        let components = components::of(tree, manifest)?;
        Ok(Self {
            name: name.into(),
            root: manifest.root_digest(),
            version,
            issued: seconds(SystemTime::now()),
            expires: None,
            parents: Vec::new(),
            components,
            code: manifest.code().to_vec(),
        })
    }

    /// No verifier takes it for good after this time, in whole seconds.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires = Some(seconds(time));
        self
    }

    /// Adds a model that this one was made from.
    pub fn made_from(mut self, relation: Relation, name: impl Into<String>, root: [u8; 32]) -> Self {
        self.parents.push(Parent { relation, name: name.into(), root });
        self
    }

    /// Whether two signers say the same of a model, but for the time when they said it.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { issued: self.issued, ..other.clone() }
    }

    /// Signs the release.
    pub fn sign(&self, signer: &dyn Signer) -> Result<Bundle> {
        self.seal(signer, None)
    }

    /// Signs the release, with the certificates that lead from the signer to an authority.
    pub fn sign_with_certificate(&self, signer: &dyn Signer, chain: &CertificateChain) -> Result<Bundle> {
        self.seal(signer, Some(chain))
    }

    fn seal(&self, signer: &dyn Signer, chain: Option<&CertificateChain>) -> Result<Bundle> {
        let payload = self.to_json();
        statement::Statement::parse(&payload).map_err(|cause| cause.on(&self.name))?; // what no verifier reads is not signed
        Bundle::seal(signer, chain, &payload)
    }

    /// The name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The root digest of the model.
    pub fn root_digest(&self) -> &[u8; 32] {
        &self.root
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it was released, to go by the publisher's clock.
    pub fn issued(&self) -> SystemTime {
        self.issued
    }

    /// Until when it is good.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The models it was made from.
    pub fn parents(&self) -> &[Parent] {
        &self.parents
    }

    /// Chat template, tokenizer and code.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The files that hold code and were released all the same.
    pub fn code(&self) -> &[String] {
        &self.code
    }

    /// The release for machines, as the statement has it.
    pub fn predicate(&self) -> Value {
        let parents = self.parents.iter().map(|Parent { relation, name, root }| {
            json!({"relation": relation.word(), "name": name, "digest": {"sha256": crypto::hex(root)}})
        });
        let components = self.components.iter().map(|component| {
            json!({"kind": component.kind.word(), "name": component.name, "digest": {"sha256": crypto::hex(&component.digest)}})
        });
        let mut predicate = json!({
            "version": self.version,
            "issued": to_text(self.issued),
            "parents": parents.collect::<Vec<_>>(),
            "components": components.collect::<Vec<_>>(),
            "code": self.code,
        });
        if let (Some(expires), Some(fields)) = (self.expires, predicate.as_object_mut()) {
            fields.insert("expires".into(), json!(to_text(expires)));
        }
        predicate
    }

    fn to_json(&self) -> Vec<u8> {
        statement::to_json(&self.name, &self.root, PREDICATE, &self.predicate())
    }
}

/// A time as statements have it: RFC 3339, in UTC and whole seconds.
pub fn to_text(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(seconds(time)).to_string()
}

/// A time from the one form that [`to_text`] gives it.
pub fn from_text(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok().filter(|time| to_text(*time) == text)
}

/// A time as people say it: `2027-01-31T00:00:00Z`, or from now `90days`.
pub fn time_of(text: &str) -> Option<SystemTime> {
    from_text(text).or_else(|| SystemTime::now().checked_add(humantime::parse_duration(text).ok()?))
}

/// A release as people say it, `NAME@VERSION`, the version a number.
pub fn name_and_version(text: &str) -> Option<(&str, u64)> {
    text.rsplit_once('@').and_then(|(name, version)| Some((name, version.parse().ok()?)))
}

/// A time in whole seconds, from 1970 to the end of 9999: other years have no text.
fn seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(253_402_300_799);
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since)
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.trim() == name && !name.chars().any(char::is_control)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    version: u64,
    issued: String,
    #[serde(default, deserialize_with = "json::present")]
    expires: Option<String>,
    parents: Vec<Object<RawParent>>,
    components: Vec<Object<RawComponent>>,
    code: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParent {
    relation: Relation,
    name: String,
    digest: UniqueMap<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawComponent {
    kind: components::Kind,
    name: String,
    digest: UniqueMap<String>,
}

/// The release in a statement, checked in itself.
pub(super) fn parse(subject: Subject, predicate: &str) -> Result<Release, VerifyError> {
    let malformed = |problem: &str| VerifyError::MalformedStatement(problem.to_owned());
    let Object(raw): Object<Predicate> =
        serde_json::from_str(predicate).map_err(|e| VerifyError::MalformedStatement(e.to_string()))?;
    let root = subject.sha256().ok_or_else(|| malformed("the subject has no SHA-256 of its own"))?;
    let time = |text: &str| from_text(text).ok_or_else(|| malformed("a time is not in UTC and whole seconds"));
    let digest = |UniqueMap(digests): &UniqueMap<String>| {
        let digest = digests.get("sha256").filter(|_| digests.len() == 1).and_then(|text| from_hex(text, 32));
        digest.and_then(|digest| digest.try_into().ok()).ok_or_else(|| malformed("a digest is not one SHA-256"))
    };
    let parents = raw.parents.into_iter().map(|Object(parent)| {
        Ok(Parent { relation: parent.relation, root: digest(&parent.digest)?, name: parent.name })
    });
    let parents = parents.collect::<Result<Vec<_>, VerifyError>>()?;
    let components = raw.components.into_iter().map(|Object(component)| {
        Ok(Component { kind: component.kind, digest: digest(&component.digest)?, name: component.name })
    });
    let components = components.collect::<Result<Vec<_>, VerifyError>>()?;
    if ![&subject.name].into_iter().chain(parents.iter().map(|parent| &parent.name)).all(|name| is_name(name)) {
        return Err(malformed("the name of a model is empty, too long, or has control characters in it"));
    }
    if !raw.code.iter().all(|path| is_canonical(path)) {
        return Err(malformed("the path of a file with code is not canonical"));
    }
    if !components.is_sorted_by(|a, b| (a.kind, &a.name) < (b.kind, &b.name)) {
        return Err(malformed("components are listed twice, or out of order"));
    }
    Ok(Release {
        name: subject.name,
        root,
        version: raw.version,
        issued: time(&raw.issued)?,
        expires: raw.expires.as_deref().map(time).transpose()?,
        parents,
        components,
        code: raw.code,
    })
}
