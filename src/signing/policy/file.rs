//! A policy in a file: TOML, strict, with paths that are relative to it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::value::Datetime;

use super::super::authority::Authority;
use super::super::certificate::CertificateAuthority;
use super::super::release::from_text;
use super::super::rule::Rule;
use super::Policy;
use crate::error::{Error, Result};
use crate::io::{FileAt, ReadAt, ReadAtExt};
use crate::keys::VerifyingKey;

/// Larger than any policy.
const MAX_SIZE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    rule: Vec<RawRule>,
    #[serde(default)]
    revoked: Vec<String>,
    high_water: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRule {
    models: Option<Vec<String>>,
    #[serde(default)]
    keys: Vec<PathBuf>,
    #[serde(default)]
    certificates: Vec<Certificates>,
    #[cfg(feature = "sigstore")]
    #[serde(default)]
    keyless: Vec<Identity>,
    threshold: Option<usize>,
    minimum_version: Option<u64>,
    not_older_than: Option<Datetime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Certificates {
    authorities: Vec<PathBuf>,
    #[serde(default)]
    issued_to: Vec<String>,
}

#[cfg(feature = "sigstore")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    identity: String,
    issuer: String,
    trusted_root: PathBuf,
}

impl Policy {
    /// Reads a policy in TOML, as `spec/signing.md` describes it, with the keys and certificates that it names.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = FileAt::open(path)?;
        let text = String::from_utf8(file.read_all(MAX_SIZE)?).map_err(|_| bad(&file, "not UTF-8"))?;
        let document: Document = toml::from_str(&text).map_err(|e| bad(&file, &e.to_string()))?;
        let home = path.parent().unwrap_or(Path::new(""));
        let rules = document.rule.into_iter().map(|raw| {
            rule(raw, home).map_err(|problem| match problem {
                Problem::Text(problem) => bad(&file, problem),
                Problem::Error(error) => error,
            })
        });
        let mut rules = rules.collect::<Result<Vec<_>>>()?.into_iter();
        let first = rules.next().ok_or_else(|| bad(&file, "no rule"))?;
        let policy = rules.fold(Self::from(first), Self::and);
        if !document.revoked.iter().all(|key| Self::is_key_id(key)) {
            return Err(bad(&file, "what is revoked is not the id of a key: 64 hexadecimal digits in lower case"));
        }
        let policy = document.revoked.into_iter().fold(policy, Self::revoke);
        Ok(match document.high_water {
            Some(place) => policy.high_water(home.join(place)),
            None => policy,
        })
    }
}

enum Problem {
    Text(&'static str),
    Error(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn rule(raw: RawRule, home: &Path) -> Result<Rule, Problem> {
    let mut authorities: Vec<Authority> = Vec::new();
    for key in &raw.keys {
        authorities.push(VerifyingKey::load(home.join(key))?.into());
    }
    for Certificates { authorities: paths, issued_to } in raw.certificates {
        let authority = CertificateAuthority::load_all(paths.iter().map(|path| home.join(path)))?;
        authorities.push(issued_to.into_iter().fold(authority, CertificateAuthority::issued_to).into());
    }
    #[cfg(feature = "sigstore")]
    for Identity { identity, issuer, trusted_root } in raw.keyless {
        authorities.push(super::super::keyless::Keyless::load(home.join(trusted_root), identity, issuer)?.into());
    }
    let count = authorities.len();
    let mut authorities = authorities.into_iter();
    let first = authorities.next().ok_or(Problem::Text("a rule that names no signer"))?;
    let mut rule = authorities.fold(Rule::signed_by(first), Rule::or);
    if let Some(threshold) = raw.threshold {
        if !(1..=count).contains(&threshold) {
            return Err(Problem::Text("a threshold that is zero, or above the number of signers"));
        }
        rule = rule.threshold(threshold);
    }
    match raw.models {
        Some(models) if models.is_empty() => {
            return Err(Problem::Text("a rule for no models: leave `models` out for all"));
        }
        Some(models) => rule = rule.models(models),
        None => {}
    }
    if let Some(version) = raw.minimum_version {
        rule = rule.minimum_version(version);
    }
    if let Some(time) = raw.not_older_than {
        let time = from_text(&time.to_string())
            .ok_or(Problem::Text("not-older-than is not a time in UTC and whole seconds"))?;
        rule = rule.not_older_than(time);
    }
    Ok(rule)
}

fn bad(file: &FileAt, problem: &str) -> Error {
    let problem = problem.trim_end().replace('\n', " | ");
    Error::io("use the policy", file.name(), std::io::Error::new(std::io::ErrorKind::InvalidData, problem))
}
