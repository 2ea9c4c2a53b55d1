//! A signature file: it verifies nothing but what was signed, and its JSON is stable once it has been parsed.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weightmark::io::SliceAt;
use weightmark::io::tree::SingleFile;
use weightmark::keys::VerifyingKey;
use weightmark::signing::{Bundle, Policy, Signatures};

/// Has signed seeds, none of them over the file that is verified here.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let pem = include_str!("../seeds/keys/p256.pub.pem");
    Policy::require(VerifyingKey::from_pem(pem).expect("a constant"))
});

fuzz_target!(|text: &[u8]| {
    let Ok(bundle) = Bundle::parse(text) else { return };
    let json = bundle.to_json();
    let again = Bundle::parse(json.as_bytes()).expect("what was written parses");
    assert_eq!(again.to_json(), json);
    assert_eq!(again.key_hint(), bundle.key_hint());
    let tree = SingleFile::new("model.bin", Arc::new(SliceAt::new(b"never signed")));
    assert!(POLICY.verify_tree(&tree, &Signatures::new().and(None, bundle), &()).is_err());
});
