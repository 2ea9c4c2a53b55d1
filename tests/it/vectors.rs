//! The vectors of the encrypted file: what must open, to which bytes, and what must be refused, for which cause.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use weightmark::encryption::{Decryptor, inspect};
use weightmark::error::{EncryptionError, Error};
use weightmark::io::{FileAt, ReadAtExt};
use weightmark::keys::{Identity, Passphrase, SymmetricKey, X25519Identity, XWingIdentity, load_identity};

use super::support::{Home, vector};

#[derive(Deserialize)]
struct Index {
    keys: BTreeMap<String, BTreeMap<String, String>>,
    not_keys: Vec<BTreeMap<String, String>>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    path: String,
    identities: Vec<String>,
    context: Option<String>,
    repeat: Option<Repeat>,
    expect: String,
    #[serde(default)]
    files: BTreeMap<String, Content>,
    #[serde(default)]
    closed: BTreeSet<String>,
    expect_stream: Option<String>,
    released: Option<Content>,
    chunk: Option<u64>,
    chunk_stream: Option<u64>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Content {
    size: usize,
    sha256: String,
}

#[derive(Deserialize)]
struct Repeat {
    file: String,
    times: usize,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { size: bytes.len(), sha256 }
    }
}

/// The class of a refusal, and the chunk where it is about one.
fn class(error: Error) -> (String, Option<u64>) {
    match error {
        Error::Encryption { cause: EncryptionError::ChunkTampered { index }, .. } => {
            ("chunk-tampered".into(), Some(index))
        }
        Error::Encryption { cause, .. } => (cause.word().into(), None),
        Error::Key { cause, .. } => (cause.word().into(), None),
        other => panic!("{other}"),
    }
}

/// All files of an artifact and the paths that stay closed, read by a reader that can seek.
fn read(path: &Path, decryptor: &Decryptor<'_>) -> Result<(BTreeMap<String, Content>, BTreeSet<String>), Error> {
    let opened = decryptor.open(path)?;
    let files = opened.entries().iter().map(|entry| {
        let bytes = opened.open(&entry.path)?.read_all(1 << 20)?;
        assert_eq!(entry.size, bytes.len() as u64);
        Ok((entry.path.clone(), Content::of(&bytes)))
    });
    let closed = opened.closed().iter().map(|entry| entry.path.clone());
    Ok((files.collect::<Result<_, Error>>()?, closed.collect()))
}

/// The artifact of a vector: where it lies, or a copy with a file repeated.
fn place(home: &Home, vector_: &Vector) -> PathBuf {
    let path = vector(&format!("encryption/{}", vector_.path));
    let Some(repeat) = &vector_.repeat else { return path };
    let bytes = fs::read(path.join(&repeat.file)).unwrap().repeat(repeat.times);
    home.write(&format!("{}/{}", vector_.name, repeat.file), bytes);
    home.path(&vector_.name)
}

#[test]
fn every_vector_opens_or_is_refused_for_its_cause() {
    let home = Home::new();
    let index: Index = serde_json::from_slice(&fs::read(vector("encryption/index.json")).unwrap()).unwrap();
    let identity = |name: &String| -> Box<dyn Identity> {
        let (kind, value) = index.keys[name].iter().next().unwrap();
        let bytes = if kind == "file" {
            fs::read(vector(&format!("encryption/{value}"))).unwrap()
        } else {
            value.clone().into_bytes()
        };
        if kind == "passphrase" {
            return Box::new(Passphrase::new(value).unwrap());
        }
        home.write(name, bytes);
        fs::set_permissions(home.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        load_identity(home.path(name)).unwrap()
    };
    let (mut opened, mut refused) = (0, 0);
    for v in &index.vectors {
        let name = &v.name;
        let path = place(&home, v);
        let identities: Vec<_> = v.identities.iter().map(identity).collect();
        let identities: Vec<&dyn Identity> = identities.iter().map(|identity| &**identity).collect();
        let decryptor = || {
            let decryptor = Decryptor::new(&identities).accept_closed();
            match &v.context {
                Some(context) => decryptor.expect_context(context),
                None => decryptor,
            }
        };
        match read(&path, &decryptor()) {
            Ok((files, closed)) => {
                assert_eq!((v.expect.as_str(), &files, &closed), ("ok", &v.files, &v.closed), "{name}");
                opened += 1;
            }
            Err(error) => {
                let said = error.to_string();
                assert_eq!(class(error), (v.expect.clone(), v.chunk), "{name}: {said}");
                refused += 1;
            }
        }
        if path.is_dir() {
            continue;
        }
        let mut released = Vec::new();
        match decryptor().decrypt_stream(&*fs::read(&path).unwrap(), &mut released, &()) {
            Ok(()) => {
                assert_eq!(
                    (v.expect.as_str(), v.files.values().next()),
                    ("ok", Some(&Content::of(&released))),
                    "{name}"
                );
                inspect(&FileAt::open(&path).unwrap()).unwrap().unwrap(); // never refuses what opens
            }
            Err(error) => {
                let expect = v.expect_stream.as_ref().unwrap_or(&v.expect);
                let said = error.to_string();
                assert_eq!(class(error), (expect.clone(), v.chunk_stream.or(v.chunk)), "{name}, stream: {said}");
                assert_eq!(Some(&Content::of(&released)), v.released.as_ref(), "{name}, stream");
            }
        }
    }
    assert!(opened >= 58 && refused >= 329, "{opened} opened, {refused} refused");
    for not in &index.not_keys {
        let text = &not["text"];
        let parsed = XWingIdentity::parse(text).is_ok()
            || X25519Identity::parse(text).is_ok()
            || SymmetricKey::parse(text).is_ok();
        assert!(!parsed, "{}", not["comment"]);
    }
}
