//! The statement that is signed: in-toto v1 with the OMS predicate.

use serde::Deserialize;
use serde_json::json;

use super::manifest::{Manifest, Resource};
use crate::crypto;
use crate::error::VerifyError;
use crate::io::tree::is_canonical;
use crate::json::{self, Object, Strict, UniqueMap};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
const PREDICATE_BEFORE_V1: &str = "https://model_signing/Digests/v0.1";

/// The statement about a manifest.
pub(super) fn to_json(manifest: &Manifest) -> Vec<u8> {
    let resources: Vec<_> = manifest
        .resources
        .iter()
        .map(|r| json!({"name": r.path, "algorithm": "sha256", "digest": crypto::hex(&r.digest)}))
        .collect();
    json!({
        "_type": STATEMENT,
        "subject": [{"name": manifest.name, "digest": {"sha256": crypto::hex(&manifest.root_digest())}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": false,
                "ignore_paths": manifest.ignore_paths,
            },
            "resources": resources,
        },
    })
    .to_string()
    .into_bytes()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Object<Subject>>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Strict, // other fields than ours are allowed in it, duplicates are not
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: UniqueMap<String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Object<Serialization>,
    resources: Vec<Object<RawResource>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(rename = "allow_symlinks")]
    _allow_symlinks: bool, // links are never followed here, so a signature that allows them changes nothing
    #[serde(default)]
    ignore_paths: Vec<String>,
    #[serde(rename = "shard_size")]
    _shard_size: Option<serde_json::Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResource {
    name: String,
    algorithm: String,
    digest: String,
}

/// The manifest in a signed statement, checked in itself: names canonical and unique, digests whole, root digest right.
pub(super) fn parse(payload: &[u8]) -> Result<Manifest, VerifyError> {
    let malformed = |problem: &str| VerifyError::MalformedStatement(problem.to_owned());
    let statement: Statement = json::parse(payload).map_err(VerifyError::MalformedStatement)?;
    if statement.kind != STATEMENT {
        return Err(malformed("not an in-toto v1 statement"));
    }
    match statement.predicate_type.as_str() {
        PREDICATE => {}
        PREDICATE_BEFORE_V1 => return Err(VerifyError::Unsupported("a signature from before OMS 1.0".into())),
        other => return Err(VerifyError::MalformedStatement(format!("unknown predicate {other:?}"))),
    }
    let Ok([Object(subject)]) = <[Object<Subject>; 1]>::try_from(statement.subject) else {
        return Err(malformed("not exactly one subject"));
    };
    let Object(predicate): Object<Predicate> =
        serde_json::from_value(statement.predicate.0).map_err(|e| VerifyError::MalformedStatement(e.to_string()))?;
    let Object(serialization) = predicate.serialization;
    if serialization.method != "files" || serialization.hash_type != "sha256" {
        let found = format!("method {:?} with {:?}", serialization.method, serialization.hash_type);
        return Err(VerifyError::Unsupported(found));
    }
    if !serialization.ignore_paths.iter().all(|path| is_canonical(path)) {
        return Err(malformed("an ignored path is not canonical"));
    }
    let single = predicate.resources.len() == 1;
    let resources =
        predicate.resources.into_iter().map(|Object(raw)| resource(raw, single)).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<_> = resources.iter().map(|resource| resource.path.as_str()).collect();
    names.sort_unstable();
    if names.is_empty() || names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(malformed("no resources, or one listed twice"));
    }
    let manifest = Manifest { name: subject.name, resources, ignore_paths: serialization.ignore_paths };
    let root = crypto::hex(&manifest.root_digest());
    if subject.digest.0.len() != 1 || subject.digest.0.get("sha256") != Some(&root) {
        return Err(VerifyError::RootMismatch);
    }
    Ok(manifest)
}

fn resource(raw: RawResource, single: bool) -> Result<Resource, VerifyError> {
    let malformed = |problem: &str| VerifyError::MalformedStatement(format!("resource {:?}: {problem}", raw.name));
    if !(is_canonical(&raw.name) || single && raw.name == ".") {
        return Err(malformed("its name is not a canonical relative path"));
    }
    if raw.algorithm != "sha256" {
        return Err(malformed("its algorithm is not that of the serialization"));
    }
    let digest =
        from_hex(&raw.digest).ok_or_else(|| malformed("its digest is not 64 lower-case hexadecimal digits"))?;
    Ok(Resource { path: raw.name, digest })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut digest = [0; 32];
    if pairs.len() != digest.len() || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(paths: &[&str]) -> Manifest {
        let resources = paths.iter().map(|path| Resource { path: (*path).into(), digest: [7; 32] }).collect();
        Manifest { name: "m".into(), resources, ignore_paths: vec!["model.sig".into()] }
    }

    #[test]
    fn a_statement_round_trips() {
        for paths in [&["a/b", "c"][..], &["."]] {
            assert_eq!(parse(&to_json(&manifest(paths))).unwrap(), manifest(paths));
        }
    }

    #[test]
    fn statements_that_could_be_read_in_two_ways_are_refused() {
        use VerifyError::*;
        let with = |from: &str, to: &str| {
            let text = String::from_utf8(to_json(&manifest(&["a/b", "c"]))).unwrap();
            assert!(text.contains(from), "{from}");
            parse(text.replacen(from, to, 1).as_bytes()).unwrap_err()
        };
        assert_eq!(with("07", "08"), RootMismatch);
        assert!(matches!(with("\"files\"", "\"shards\""), Unsupported(_)));
        assert!(matches!(with("\"hash_type\":\"sha256\"", "\"hash_type\":\"md5\""), Unsupported(_)));
        assert!(matches!(with("signature/v1.0", "Digests/v0.1"), Unsupported(_)));
        for (from, to) in [
            ("a/b", "c"),
            ("a/b", "../b"),
            ("a/b", "/b"),
            ("a/b", "a//b"),
            ("a/b", "./b"),
            ("a/b", "."),
            ("a/b", "a\\\\b"),
            ("a/b", "a\\u0000b"),
            ("model.sig", "."),
            ("model.sig", "../x"),
            ("model.sig", ""),
            ("07", "0G"),
            ("07", "7"),
            ("Statement/v1", "Statement/v2"),
            ("signature/v1.0", "signature/v9"),
            ("\"algorithm\":\"sha256\"", "\"algorithm\":\"blake2b\""),
            ("\"_type\"", "\"_type\":\"x\",\"_type\""),
            ("\"method\"", "\"hash_type\":\"sha256\",\"method\""),
            ("\"method\"", "\"unknown\":1,\"method\""),
            ("\"subject\":[", "\"subject\":[{\"name\":\"m\",\"digest\":{\"sha256\":\"0\"}},"),
        ] {
            assert!(matches!(with(from, to), MalformedStatement(_)), "{from} -> {to}");
        }
        let mut empty = manifest(&[]);
        empty.resources.clear();
        assert!(matches!(parse(&to_json(&empty)), Err(MalformedStatement(_))));
    }
}
