//! The text of a key, of any kind: parsed or refused, and what is parsed survives its own text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weightmark::keys::{
    SigningKey, SymmetricKey, VerifyingKey, X25519Identity, X25519Recipient, XWingIdentity, XWingRecipient,
};

fuzz_target!(|text: &str| {
    if let Ok(identity) = XWingIdentity::parse(text) {
        assert!(XWingIdentity::parse(&identity.to_text()).is_ok_and(|i| i.recipient() == identity.recipient()));
    }
    if let Ok(identity) = X25519Identity::parse(text) {
        assert!(X25519Identity::parse(&identity.to_text()).is_ok_and(|i| i.recipient() == identity.recipient()));
    }
    if let Ok(recipient) = text.parse::<X25519Recipient>() {
        assert!(recipient.to_string().parse().is_ok_and(|r: X25519Recipient| r == recipient));
    }
    if let Ok(key) = SymmetricKey::parse(text) {
        assert!(SymmetricKey::parse(&key.to_text()).is_ok_and(|k| k.id() == key.id()));
    }
    if let Ok(recipient) = text.parse::<XWingRecipient>() {
        assert!(recipient.to_string().parse().is_ok_and(|r: XWingRecipient| r == recipient));
    }
    if let Ok(key) = SigningKey::from_pem(text) {
        assert!(key.verifying_key().verify_bytes(b"message", &key.sign_bytes(b"message")));
    }
    if let Ok(key) = VerifyingKey::from_pem(text) {
        assert!(VerifyingKey::from_pem(&key.to_pem()).is_ok_and(|k| k == key));
    }
});
