//! What OMS says of a model: its files and their digests, in the predicate of v1.0 or, to be verified only, the one before.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::json;

use super::digest::HashType;
use super::manifest::{Hashing, Manifest, Resource};
use super::statement::{self, Subject, from_hex};
use crate::crypto;
use crate::error::VerifyError;
use crate::format::SIGNATURE_FILE;
use crate::io::tree::is_canonical;
use crate::json::{Object, UniqueMap};

pub(super) const PREDICATE: &str = "https://model_signing/signature/v1.0";
pub(super) const PREDICATE_BEFORE_V1: &str = "https://model_signing/Digests/v0.1";
/// Whole numbers up to here are exact as floating-point ones.
const MAX_FLOAT: f64 = 9_007_199_254_740_992.0;

/// The statement about a manifest.
pub(super) fn to_json(manifest: &Manifest) -> Vec<u8> {
    let Hashing { hash, shard_size } = manifest.hashing;
    let algorithm = label(manifest.hashing);
    let resources: Vec<_> = manifest
        .resources
        .iter()
        .map(|r| json!({"name": r.name(), "algorithm": algorithm, "digest": crypto::hex(&r.digest)}))
        .collect();
    let mut serialization = json!({
        "method": if shard_size.is_some() { "shards" } else { "files" },
        "hash_type": hash.name(),
        "allow_symlinks": false,
        "ignore_paths": manifest.ignore_paths,
    });
    if let (Some(size), Some(fields)) = (shard_size, serialization.as_object_mut()) {
        fields.insert("shard_size".into(), json!(size));
    }
    let predicate = json!({"serialization": serialization, "resources": resources});
    statement::to_json(&manifest.name, &manifest.root_digest(), PREDICATE, &predicate)
}

/// What the reference tool calls the digests.
fn label(hashing: Hashing) -> String {
    match hashing.shard_size {
        Some(size) => format!("{}-sharded-{size}", hashing.hash.name()),
        None => hashing.hash.name().to_owned(),
    }
}

/// Other fields than ours are allowed in it, duplicates are not.
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
    shard_size: Option<serde_json::Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResource {
    name: String,
    algorithm: String,
    digest: String,
}

/// The manifest in a statement, checked in itself: names canonical and unique, digests whole, root digest right.
pub(super) fn parse(subject: Subject, predicate: &str) -> Result<Manifest, VerifyError> {
    let malformed = |problem: &str| VerifyError::MalformedStatement(problem.to_owned());
    let Object(predicate): Object<Predicate> =
        serde_json::from_str(predicate).map_err(|e| VerifyError::MalformedStatement(e.to_string()))?;
    let Object(serialization) = predicate.serialization;
    let hashing = hashing(&serialization)?;
    if !serialization.ignore_paths.iter().all(|path| is_canonical(path)) {
        return Err(malformed("an ignored path is not canonical"));
    }
    let resources = predicate.resources.into_iter().map(|Object(raw)| resource(raw, hashing));
    let resources = resources.collect::<Result<Vec<_>, _>>()?;
    check_set(&resources, hashing.shard_size)?;
    let root = subject.sha256();
    let manifest =
        Manifest { name: subject.name, hashing, resources, ignore_paths: serialization.ignore_paths, code: Vec::new() };
    if root == Some(manifest.root_digest()) { Ok(manifest) } else { Err(VerifyError::RootMismatch) }
}

/// The manifest in a statement from before OMS 1.0: a subject for each file, and nothing else that counts.
pub(super) fn parse_before_v1(subjects: Vec<Subject>) -> Result<Manifest, VerifyError> {
    let resources = subjects.into_iter().map(|Subject { name, digest: UniqueMap(mut digests), .. }| {
        let digest = digests.remove("sha256").filter(|_| digests.is_empty()).unwrap_or_default();
        resource(RawResource { name, algorithm: "sha256".into(), digest }, Hashing::default())
    });
    let resources = resources.collect::<Result<Vec<_>, _>>()?;
    check_set(&resources, None)?;
    let ignore_paths = vec![SIGNATURE_FILE.to_owned()];
    Ok(Manifest { name: String::new(), hashing: Hashing::default(), resources, ignore_paths, code: Vec::new() })
}

/// How the signer hashed.
fn hashing(serialization: &Serialization) -> Result<Hashing, VerifyError> {
    let (method, hash, size) = (&serialization.method, &serialization.hash_type, &serialization.shard_size);
    let unsupported = || VerifyError::Unsupported(format!("method {method:?} with {hash:?}"));
    let hash = HashType::from_name(hash).ok_or_else(unsupported)?;
    match (method.as_str(), size) {
        ("files", _) => Ok(Hashing { hash, shard_size: None }),
        ("shards", Some(size)) => {
            let whole = |size: f64| (size.fract() == 0.0 && size <= MAX_FLOAT).then_some(size as u64); // 512.0 is 512
            let size = size.as_u64().or_else(|| size.as_f64().and_then(whole)).filter(|size| *size > 0);
            let size = size.ok_or_else(|| VerifyError::MalformedStatement("impossible shard size".into()))?;
            Ok(Hashing { hash, shard_size: Some(size) })
        }
        ("shards", None) => Err(VerifyError::MalformedStatement("shards without their size".into())),
        _ => Err(unsupported()),
    }
}

fn resource(raw: RawResource, hashing: Hashing) -> Result<Resource, VerifyError> {
    let malformed = |problem: &str| VerifyError::MalformedStatement(format!("resource {:?}: {problem}", raw.name));
    let (path, shard) = match hashing.shard_size {
        None => (raw.name.as_str(), None),
        Some(_) => {
            let mut parts = raw.name.rsplitn(3, ':');
            let (end, start) = (parts.next().and_then(decimal), parts.next().and_then(decimal));
            let shard = start.zip(end).filter(|(start, end)| start < end);
            let (path, (start, end)) =
                parts.next().zip(shard).ok_or_else(|| malformed("its name is not that of a part of a file"))?;
            (path, Some(start..end))
        }
    };
    if !is_canonical(path) && path != "." {
        return Err(malformed("its name is not a canonical relative path"));
    }
    if raw.algorithm != label(hashing) && raw.algorithm != hashing.hash.name() {
        return Err(malformed("its algorithm is not that of the serialization"));
    }
    let digest = from_hex(&raw.digest, hashing.hash.size());
    let digest = digest.ok_or_else(|| malformed("its digest is not in as many lower-case hexadecimal digits"))?;
    Ok(Resource { path: path.to_owned(), shard, digest })
}

/// Holds the resources to each other: some, none twice, parts of a file one after the other from its start, all but the
/// last of one size, and a lone `.` for a model that is one file.
fn check_set(resources: &[Resource], shard_size: Option<u64>) -> Result<(), VerifyError> {
    let malformed = |problem: String| Err(VerifyError::MalformedStatement(problem));
    let mut files: BTreeMap<&str, Vec<Option<&Range<u64>>>> = BTreeMap::new();
    for resource in resources {
        files.entry(&resource.path).or_default().push(resource.shard.as_ref());
    }
    if files.is_empty() || files.contains_key(".") && files.len() > 1 {
        return malformed("no resources, or '.' beside others".into());
    }
    for (path, mut parts) in files {
        parts.sort_by_key(|part| part.map(|part| part.start));
        let mut next = 0;
        for (i, part) in parts.iter().enumerate() {
            let is_last = i + 1 == parts.len();
            let fits = match (part, shard_size) {
                (None, None) => is_last,
                (Some(part), Some(size)) => {
                    let len = part.end - part.start;
                    let fits = part.start == next && (len == size || is_last && len < size);
                    next = part.end;
                    fits
                }
                _ => false,
            };
            if !fits {
                return malformed(format!("resource {path:?}: listed twice, or its parts do not follow one another"));
            }
        }
    }
    Ok(())
}

/// A number as Python writes it, and in no other way.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::statement::Statement;

    fn parse(payload: &[u8]) -> Result<Manifest, VerifyError> {
        match Statement::parse(payload)? {
            Statement::Model(manifest) => Ok(manifest),
            Statement::Release(_) => panic!("not about files"),
        }
    }

    fn manifest(paths: &[&str]) -> Manifest {
        let resource = |path: &&str| Resource { path: (*path).into(), shard: None, digest: vec![7; 32] };
        let resources = paths.iter().map(resource).collect();
        Manifest {
            name: "m".into(),
            hashing: Hashing::default(),
            resources,
            ignore_paths: vec!["model.sig".into()],
            code: Vec::new(),
        }
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
        assert!(matches!(with("\"files\"", "\"shards\""), MalformedStatement(_)));
        assert!(matches!(with("\"files\"", "\"trees\""), Unsupported(_)));
        assert!(matches!(with("\"hash_type\":\"sha256\"", "\"hash_type\":\"md5\""), Unsupported(_)));
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

    /// A manifest of parts of 8 bytes, but for the last of each file.
    fn sharded(parts: &[(&str, Range<u64>)]) -> Manifest {
        let resource = |(path, shard): &(&str, Range<u64>)| Resource {
            path: (*path).into(),
            shard: Some(shard.clone()),
            digest: vec![7; 64],
        };
        let hashing = Hashing { hash: HashType::Blake2b, shard_size: Some(8) };
        let resources = parts.iter().map(resource).collect();
        Manifest { name: "m".into(), hashing, resources, ignore_paths: Vec::new(), code: Vec::new() }
    }

    #[test]
    fn parts_follow_one_another_from_the_start_of_their_file() {
        let whole = sharded(&[("a:b", 0..8), ("a:b", 8..16), ("a:b", 16..19), ("c", 0..1)]);
        assert_eq!(parse(&to_json(&whole)).unwrap(), whole);
        let text = String::from_utf8(to_json(&whole)).unwrap();
        for (from, to) in [("\"shard_size\":8", "\"shard_size\":8.0"), ("blake2b-sharded-8\"", "blake2b\"")] {
            assert!(text.contains(from));
            assert_eq!(parse(text.replace(from, to).as_bytes()).unwrap(), whole);
        }
        for (from, to) in [
            ("\"shard_size\":8", "\"shard_size\":8.5"),
            ("\"shard_size\":8", "\"shard_size\":0"),
            ("\"shard_size\":8", "\"shard_size\":-8"),
            ("\"shard_size\":8", "\"shard_size\":9"),
            ("blake2b-sharded-8", "blake2b-sharded-9"),
            ("blake2b-sharded-8", "sha256-sharded-8"),
            ("a:b:8:16", "a:b:08:16"),
            ("a:b:8:16", "a:b:8:8"),
            ("a:b:8:16", "a:b:16"),
            ("a:b:8:16", "../b:8:16"),
            ("a:b:8:16", "a:b:8:18446744073709551616"),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(
                matches!(parse(text.replace(from, to).as_bytes()), Err(VerifyError::MalformedStatement(_))),
                "{to}"
            );
        }
        for parts in [
            &[("a", 8..16)][..],
            &[("a", 0..8), ("a", 0..8)],
            &[("a", 0..8), ("a", 16..24)],
            &[("a", 0..4), ("a", 4..12)],
            &[("a", 0..16)],
            &[("a", 0..8), ("a", 8..24)],
            &[(".", 0..8), ("a", 0..8)],
        ] {
            assert!(matches!(parse(&to_json(&sharded(parts))), Err(VerifyError::MalformedStatement(_))), "{parts:?}");
        }
    }

    #[test]
    fn statements_from_before_v1_list_files_as_subjects() {
        let statement = |subjects: serde_json::Value| {
            let predicate = json!({"unused": "Unused, just passed due to API requirements"});
            json!({"_type": "https://in-toto.io/Statement/v1", "subject": subjects, "predicateType": PREDICATE_BEFORE_V1, "predicate": predicate})
                .to_string()
        };
        let digest = "07".repeat(32);
        let subject = |name: &str| json!({"name": name, "digest": {"sha256": digest}});
        let manifest = parse(statement(json!([subject("a/b"), subject("c")])).as_bytes()).unwrap();
        assert_eq!(manifest.resources, self::manifest(&["a/b", "c"]).resources);
        for subjects in [
            json!([]),
            json!([subject("a"), subject("a")]),
            json!([subject("../a")]),
            json!([{"name": "a", "digest": {"sha512": digest}}]),
            json!([{"name": "a", "digest": {"sha256": digest, "sha512": digest}}]),
            json!([{"name": "a", "digest": {}}]),
        ] {
            let refused = parse(statement(subjects.clone()).as_bytes());
            assert!(matches!(refused, Err(VerifyError::MalformedStatement(_))), "{subjects}");
        }
    }
}
