//! The encrypted file, attacked byte by byte.

use std::collections::HashSet;

use proptest::prelude::*;
use weightmark::encryption::{Encryptor, Reader};
use weightmark::error::{EncryptionError, KeyError};
use weightmark::io::{FileAt, Progress, ReadAt, ReadAtExt, SliceAt};
use weightmark::keys::{Identity, SymmetricKey, XWingIdentity};
use weightmark::{Error, Model};

use super::support::{Home, Random, vector};

const CHUNK: usize = 16 << 10;

fn sealed(plaintext: &[u8]) -> (XWingIdentity, Vec<u8>) {
    let identity = XWingIdentity::generate().unwrap();
    let file = Encryptor::to([identity.recipient()]).context("a@1").encrypt_bytes("m", plaintext).unwrap();
    (identity, file)
}

fn plaintext(len: usize) -> Vec<u8> {
    let mut random = Random(len as u64);
    (0..len).map(|_| random.bits() as u8).collect()
}

/// All plaintext of a file, or why it was refused.
fn open(file: &[u8], identity: &dyn Identity) -> Result<Vec<u8>, Error> {
    let reader = Reader::open(SliceAt::new(file), &[identity])?;
    reader.read_span(0..reader.size())
}

#[test]
fn every_bit_of_the_envelope_and_a_byte_of_every_chunk_is_covered() {
    let text = plaintext(5 * CHUNK + 100);
    let (identity, file) = sealed(&text);
    assert_eq!(open(&file, &identity).unwrap(), text);
    let payload = file.len() - (56 + 5 * (CHUNK + 16) + 100 + 16);
    assert_eq!(payload % 4096, 0);
    let mut changed = file.clone();
    for at in 0..payload + 56 {
        for bit in [1, 0x80] {
            changed[at] ^= bit;
            assert!(open(&changed, &identity).is_err(), "byte {at}");
            changed[at] = file[at];
        }
    }
    for chunk in 0..6 {
        for at in [0, 99, 100, 115] {
            let place = payload + 56 + chunk * (CHUNK + 16) + at;
            changed[place] ^= 1;
            match open(&changed, &identity) {
                Err(Error::Encryption { cause: EncryptionError::ChunkTampered { index }, .. }) => {
                    assert_eq!(index, chunk as u64)
                }
                other => panic!("chunk {chunk}: {other:?}"),
            }
            changed[place] = file[place];
        }
    }
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    let key = || SymmetricKey::from_bytes(&[7; 32]).unwrap(); // the cheapest to open with, some fifty thousand times
    let (identity, text) = (key(), plaintext(2 * CHUNK + 3));
    let file = Encryptor::to([key()]).encrypt_bytes("m", &text).unwrap();
    assert_eq!(open(&file, &identity).unwrap(), text);
    for len in 0..file.len() {
        assert!(open(&file[..len], &identity).is_err(), "{len}");
    }
    for extra in [1, 15, 16, CHUNK, CHUNK + 16] {
        let mut longer = file.clone();
        longer.resize(file.len() + extra, 0);
        assert!(open(&longer, &identity).is_err(), "{extra}");
    }
}

#[test]
fn chunks_cannot_be_exchanged_within_or_between_files() {
    let text = plaintext(4 * CHUNK);
    let (identity, file) = sealed(&text);
    let again = Encryptor::to([identity.recipient()]).context("a@1").encrypt_bytes("m", &text).unwrap();
    let record = CHUNK + 16;
    let first = file.len() - (4 * record + 16);
    let mut swapped = file.clone();
    let (a, b) = swapped[first..].split_at_mut(record);
    a.swap_with_slice(&mut b[..record]);
    assert!(matches!(
        open(&swapped, &identity),
        Err(Error::Encryption { cause: EncryptionError::ChunkTampered { index: 0 }, .. })
    ));
    let mut mixed = file.clone();
    mixed[first..first + record].copy_from_slice(&again[first..first + record]);
    assert!(matches!(
        open(&mixed, &identity),
        Err(Error::Encryption { cause: EncryptionError::ChunkTampered { index: 0 }, .. })
    ));
}

#[test]
fn nothing_repeats_and_no_plaintext_shows() {
    let text = b"a run of plaintext that nobody must see".repeat(400);
    let identity = XWingIdentity::generate().unwrap();
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let file = Encryptor::to([identity.recipient()]).encrypt_bytes("m", &text).unwrap();
        let payload = file.len() - (56 + text.len() + 16);
        assert!(seen.insert(file[payload..payload + 24].to_vec()), "a salt repeats");
        assert!(file.windows(16).all(|window| !text[..64].windows(16).any(|run| run == window)));
    }
}

#[test]
fn files_of_a_directory_cannot_be_exchanged() {
    let home = Home::new();
    let identity = XWingIdentity::generate().unwrap();
    for shard in ["one", "two"] {
        home.write(&format!("v1/{shard}"), shard.repeat(1000));
        home.write(&format!("v2/{shard}"), shard.repeat(1000));
    }
    let encryptor = Encryptor::to([identity.recipient()]).context("a@1");
    encryptor.encrypt(home.path("v1"), home.path("e1")).unwrap();
    encryptor.encrypt(home.path("v2"), home.path("e2")).unwrap();
    let cause = |from: &str, to: &str| {
        let whole = home.read(to);
        home.write(to, home.read(from));
        let model = Model::options().identity(XWingIdentity::parse(&identity.to_text()).unwrap()).open(home.path("e1"));
        let read = model.and_then(|model| model.files().open("two").and_then(|file| file.read_all(1 << 20)));
        home.write(to, whole);
        match read {
            Err(Error::Encryption { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(cause("e1/one.wmenc", "e1/two.wmenc"), EncryptionError::Commitment);
    assert_eq!(cause("e2/two.wmenc", "e1/two.wmenc"), EncryptionError::ForeignFile);
    assert_eq!(cause("v1/two", "e1/two.wmenc"), EncryptionError::NotEncrypted);
    assert_eq!(cause("e2/weightmark.keys", "e1/weightmark.keys"), EncryptionError::ForeignFile);
}

#[test]
fn a_loader_gets_what_it_expects_or_nothing() {
    let home = Home::new();
    home.model("model", 50_000);
    let text = XWingIdentity::generate().unwrap().to_text();
    let identity = || XWingIdentity::parse(&text).unwrap();
    Encryptor::to([identity().recipient()]).context("a@1").encrypt(home.path("model"), home.path("sealed")).unwrap();

    let model = Model::options().identity(identity()).expect_context("a@1").open(home.path("sealed")).unwrap();
    let plain = Model::options().open(home.path("model")).unwrap();
    for (_, info) in plain.tensors() {
        assert_eq!(model.tensor(&info.name).unwrap().bytes(), plain.tensor(&info.name).unwrap().bytes());
    }
    let rows = model.rows("a.weight", 3..7).unwrap();
    assert_eq!(
        (rows.info().shape.as_slice(), rows.bytes()),
        (&[4, 64][..], &plain.tensor("a.weight").unwrap().bytes()[768..1792])
    );
    assert!(matches!(model.rows("a.weight", 0..1 << 40), Err(Error::ApiMisuse(_))));
    assert!(matches!(model.tensor_into("b.bias", &mut [0; 3]), Err(Error::ApiMisuse(_))));

    let cause = |options: weightmark::model::OpenOptions, path: &str| match options.open(home.path(path)) {
        Err(Error::Encryption { cause, .. }) => cause,
        _ => panic!("opened, or failed otherwise"),
    };
    assert_eq!(cause(Model::options().expect_encrypted(), "model"), EncryptionError::ExpectedEncrypted);
    assert!(matches!(
        cause(Model::options().identity(identity()).expect_context("a@2"), "sealed"),
        EncryptionError::ContextMismatch { .. }
    ));
    let unopened = Model::options().open(home.path("sealed"));
    assert!(matches!(unopened, Err(Error::Key { cause: KeyError::Wanted, .. })));
}

/// Files of version 1 of the format open with every later version.
#[test]
fn vectors_open_for_ever() {
    let text = std::fs::read_to_string(vector("encryption/identity.txt")).unwrap();
    let identity = || XWingIdentity::parse(text.lines().find(|line| !line.starts_with('#')).unwrap()).unwrap();
    let reader = Reader::open(FileAt::open(vector("encryption/model.bin.wmenc")).unwrap(), &[&identity()]).unwrap();
    assert_eq!((reader.context(), reader.path()), ("acme/vector@1", "model.bin"));
    assert_eq!(reader.read_all(100).unwrap(), b"weights, sealed for ever\n");
    let model = Model::options().identity(identity()).expect_context("acme/vector@1");
    let tree = model.tree(vector("encryption/directory")).unwrap();
    let files: Vec<_> =
        tree.entries().iter().map(|e| (e.path.as_str(), tree.open(&e.path).unwrap().read_all(10).unwrap())).collect();
    assert_eq!(files, [("one", b"one".to_vec()), ("sub/two", b"two".to_vec())]);
}

#[test]
fn cancelling_leaves_nothing() {
    struct Stop;
    impl Progress for Stop {
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let home = Home::new();
    home.write("data", vec![1; 4 << 20]);
    let identity = XWingIdentity::generate().unwrap();
    let stopped = Encryptor::to([identity.recipient()]).encrypt_with(home.path("data"), home.path("out"), &Stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(home.names(), ["data"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_range_reads_as_in_the_plaintext(len in 0usize..3_000_000, ranges in proptest::collection::vec((0.0f64..1.0, 0.0f64..1.0), 8)) {
        let text = plaintext(len);
        let (identity, file) = sealed(&text);
        let reader = Reader::open(SliceAt::new(file), &[&identity]).unwrap();
        prop_assert_eq!(reader.size(), len as u64);
        for (start, part) in ranges {
            let start = (start * len as f64) as usize;
            let end = start + (part * (len - start) as f64) as usize;
            prop_assert_eq!(&reader.read_span(start as u64..end as u64).unwrap(), &text[start..end]);
        }
        prop_assert!(reader.read_span(0..len as u64 + 1).is_err());
    }
}
