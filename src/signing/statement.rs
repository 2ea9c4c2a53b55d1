//! in-toto v1 statements: about what a signature is, and what it says of it.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::manifest::Manifest;
use super::oms;
use super::release::{self, Release};
use crate::crypto;
use crate::error::VerifyError;
use crate::json::{self, Checked, Object, UniqueMap};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// What was signed.
#[derive(Debug, PartialEq)]
pub(super) enum Statement {
    /// The files of a model, as OMS has them.
    Model(Manifest),
    /// The version of a model, where it comes from, and how long it is good.
    Release(Release),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Object<Subject>>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Box<RawValue>,
}

/// What a statement is about: a name and digests by their algorithm.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) digest: UniqueMap<String>,
    // written before OMS 1.0, of no use
    #[serde(rename = "annotations")]
    _annotations: Option<Checked>,
}

impl Subject {
    /// The SHA-256, which must be the only digest.
    pub(super) fn sha256(&self) -> Option<[u8; 32]> {
        let digest = self.digest.0.get("sha256").filter(|_| self.digest.0.len() == 1)?;
        from_hex(digest, 32)?.try_into().ok()
    }
}

impl Statement {
    /// Parses a signed payload and checks it in itself.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, VerifyError> {
        let malformed = |problem: String| VerifyError::MalformedStatement(problem);
        let Raw { kind, subject, predicate_type, predicate } = json::parse(payload).map_err(malformed)?;
        let predicate = predicate.get();
        let Checked = serde_json::from_str(predicate).map_err(|e| malformed(e.to_string()))?;
        if kind != STATEMENT {
            return Err(malformed("not an in-toto v1 statement".into()));
        }
        let subjects: Vec<Subject> = subject.into_iter().map(|Object(subject)| subject).collect();
        match predicate_type.as_str() {
            oms::PREDICATE => oms::parse(sole(subjects)?, predicate).map(Self::Model),
            oms::PREDICATE_BEFORE_V1 => oms::parse_before_v1(subjects).map(Self::Model),
            release::PREDICATE => release::parse(sole(subjects)?, predicate).map(Self::Release),
            other => Err(malformed(format!("unknown predicate {other:?}"))),
        }
    }

    /// Whether a payload is a statement from before OMS 1.0.
    pub(super) fn is_before_v1(payload: &[u8]) -> bool {
        json::parse::<Raw>(payload).is_ok_and(|raw| raw.predicate_type == oms::PREDICATE_BEFORE_V1)
    }

    /// The digest of the model that it is about.
    #[cfg(feature = "sigstore")]
    pub(super) fn root_digest(&self) -> [u8; 32] {
        match self {
            Self::Model(manifest) => manifest.root_digest(),
            Self::Release(release) => *release.root_digest(),
        }
    }
}

/// A statement about one subject.
pub(super) fn to_json(name: &str, digest: &[u8; 32], predicate_type: &str, predicate: &Value) -> Vec<u8> {
    json!({
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": crypto::hex(digest)}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
    .to_string()
    .into_bytes()
}

fn sole(subjects: Vec<Subject>) -> Result<Subject, VerifyError> {
    match <[Subject; 1]>::try_from(subjects) {
        Ok([subject]) => Ok(subject),
        Err(_) => Err(VerifyError::MalformedStatement("not exactly one subject".into())),
    }
}

/// Bytes from lower-case hexadecimal digits, if they are so many.
pub(super) fn from_hex(text: &str, size: usize) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != size || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
