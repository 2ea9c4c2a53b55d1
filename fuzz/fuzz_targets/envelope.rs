//! An encrypted file: it opens to exactly what was sealed, or not at all, and as a stream to the same. `inspect` never
//! fails on one that opens.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weightmark::encryption::{Decryptor, Reader, inspect};
use weightmark::io::{ReadAt, ReadAtExt, SliceAt};
use weightmark::keys::XWingIdentity;

/// The seeds are sealed to its recipient.
static IDENTITY: LazyLock<XWingIdentity> = LazyLock::new(|| {
    let text = "wmidentity1vntvxh2x8gfcdmztkdtd2g5wsj7t0vlw7vgkzja25hqvds4qxgvstxddt8";
    XWingIdentity::parse(text).expect("a constant")
});

fuzz_target!(|file: &[u8]| {
    let inspection = inspect(&SliceAt::new(file));
    let mut streamed = Vec::new();
    let whole = Decryptor::new(&[&*IDENTITY]).decrypt_stream(file, &mut streamed, &()).is_ok();
    let Ok(reader) = Reader::open(SliceAt::new(file), &[&*IDENTITY]) else { return };
    let sealed = match reader.path() {
        "empty" => vec![],
        "short" => b"weights".to_vec(),
        "long" => vec![7; (16 << 10) + 1], // two chunks
        other => panic!("{other:?} was never sealed"),
    };
    assert_eq!((reader.context(), reader.size()), ("fuzz", sealed.len() as u64));
    assert!(sealed.starts_with(&streamed), "what a stream releases is authentic");
    match reader.read_span(0..reader.size()) {
        Ok(opened) => assert_eq!((&opened, &streamed, whole), (&sealed, &sealed, true)),
        Err(_) => assert!(!whole),
    }
    let inspection = inspection.expect("it opens").expect("it opens");
    assert_eq!((inspection.context.as_str(), inspection.files().count()), (reader.context(), 1));
    assert_eq!(inspection.groups[0].files[0], (reader.path().to_owned(), reader.size()));
});
