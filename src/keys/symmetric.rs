//! A key that both sides share: 32 secret bytes, such as a data key that a key service has handed out.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

use super::envelope::{Identity, InputKey, Recipient, Stanza};
use super::{file, text};
use crate::crypto::{self, Locked, cobblestone, label};
use crate::error::{Cause, EncryptionError, KeyError, Result};

const KIND: &str = "key";
const TEXT: (&str, &str) = ("wmkey", "weightmark symmetric key");

/// 32 secret bytes that both encrypt and open.
///
/// ```
/// use weightmark::keys::{Identity, InputKey, Recipient, SymmetricKey};
///
/// let shared = SymmetricKey::from_bytes(&[7; 32])?; // in earnest: from a key service, or SymmetricKey::generate()
/// let key = InputKey::generate()?;
/// let opened = shared.unwrap(&shared.wrap(&key)?).ok_or("not for this key")??;
/// assert_eq!(opened.expose(), key.expose());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SymmetricKey(Locked<[u8; 32]>);

impl SymmetricKey {
    /// A fresh random key.
    pub fn generate() -> Result<Self> {
        crypto::random_secret().map(Self)
    }

    /// Takes 32 bytes that must be as good as random.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        Locked::copied(bytes).map(Self)
    }

    /// Reads a key file: the 32 bytes as they are, or the text. One that others may read is refused, and so are 32 bytes
    /// of readable text: a [`Passphrase`](super::Passphrase) is not a key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let (bytes, name) = (file::read_secret_bytes(&path)?, path.as_ref().display().to_string());
        match bytes.as_array() {
            Some(key) if !key.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
                Self::from_bytes(key)
            }
            _ => file::as_text(&bytes)
                .and_then(|text| file::key_line(text, TEXT.1))
                .map_err(|cause| cause.on(&name))
                .and_then(|text| Self::named(text, &name)),
        }
    }

    /// Writes the key's text to a new file for its owner alone.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        file::write_secret(path, &file::with_comment("weightmark key", &self.to_text()))
    }

    /// The secret text, `wmkey1…`.
    pub fn to_text(&self) -> Zeroizing<String> {
        text::encode(TEXT.0, &*self.0)
    }

    /// Parses the secret text.
    pub fn parse(text: &str) -> Result<Self> {
        Self::named(text, "key")
    }

    /// Tells keys apart without revealing them.
    pub fn id(&self) -> String {
        crypto::hex(&*crypto::hkdf_sha256::<8>(&self.0, label::KEY_NAME))
    }

    fn named(text: &str, name: &str) -> Result<Self> {
        let malformed = || KeyError::Malformed { wanted: TEXT.1, problem: "wrong length".into() };
        let bytes = text::decode(TEXT.0, TEXT.1, text).map_err(|cause| cause.on(name))?;
        Self::from_bytes(bytes.as_array().ok_or_else(|| malformed().on(name))?)
    }

    fn open(&self, stanza: &Stanza) -> Result<InputKey> {
        let body = stanza.exactly(["body"]).and_then(|[body]| BASE64_STANDARD.decode(body).ok());
        let opened = match body.as_deref().and_then(|body| body.as_array()) {
            Some(body) => cobblestone::unwrap(&self.0, label::KEY, body)?,
            None => None,
        };
        InputKey::from_bytes(&*opened.ok_or_else(|| EncryptionError::EnvelopeTampered.on(stanza.name()))?)
    }
}

impl Recipient for SymmetricKey {
    fn wrap(&self, key: &InputKey) -> Result<Stanza> {
        let body = cobblestone::wrap(&self.0, label::KEY, key.expose())?;
        Ok(Stanza::new(KIND, self.id(), [("body", BASE64_STANDARD.encode(body))]))
    }
}

impl Identity for SymmetricKey {
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>> {
        (stanza.kind == KIND && stanza.id == self.id()).then(|| self.open(stanza))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_text_or_the_bytes() {
        let home = tempfile::tempdir().unwrap();
        let key = SymmetricKey::generate().unwrap();
        key.save(home.path().join("text")).unwrap();
        file::write_secret(home.path().join("raw"), &"r\0".repeat(16)).unwrap();
        file::write_secret(home.path().join("passphrase"), "correct horse battery staple 123").unwrap();
        file::write_secret(home.path().join("long"), &"r".repeat(33)).unwrap();
        assert_eq!(SymmetricKey::load(home.path().join("text")).unwrap().id(), key.id());
        assert_eq!(
            SymmetricKey::load(home.path().join("raw")).unwrap().id(),
            SymmetricKey::from_bytes(b"r\0r\0r\0r\0r\0r\0r\0r\0r\0r\0r\0r\0r\0r\0r\0r\0").unwrap().id()
        );
        assert!(SymmetricKey::load(home.path().join("long")).is_err());
        assert!(SymmetricKey::load(home.path().join("passphrase")).is_err());
        assert_eq!(SymmetricKey::parse(&key.to_text()).unwrap().id(), key.id());
    }

    #[test]
    fn a_stanza_opens_for_its_key_alone_and_not_when_changed() {
        let (shared, key) = (SymmetricKey::generate().unwrap(), InputKey::generate().unwrap());
        let stanza = shared.wrap(&key).unwrap();
        assert_eq!(shared.unwrap(&stanza).unwrap().unwrap().expose(), key.expose());
        let other = SymmetricKey::generate().unwrap();
        assert!(other.unwrap(&stanza).is_none());
        let renamed = Stanza { id: other.id(), ..stanza.clone() };
        assert!(other.unwrap(&renamed).unwrap().is_err());
        for body in ["", "AAAA", "no base64"] {
            let mut changed = stanza.clone();
            changed.arguments.insert("body".into(), body.into());
            assert!(shared.unwrap(&changed).unwrap().is_err(), "{body}");
        }
    }
}
