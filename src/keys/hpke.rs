//! Encryption keys: HPKE (RFC 9180) with the X-Wing KEM, that is X25519 and ML-KEM-768 together, so that weights
//! stolen today stay closed to the quantum computers of tomorrow.
//!
//! The suite is X-Wing (0x647a, draft-ietf-hpke-pq), HKDF-SHA256, ChaCha20-Poly1305.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::envelope::{Identity, InputKey, Recipient, Stanza};
use super::{file, text};
use crate::crypto::{self, label};
use crate::error::{Cause, Error, KeyError, Result};

const KIND: &str = "x-wing";
const IDENTITY: (&str, &str) = ("wmidentity", "weightmark identity (secret key)");
const RECIPIENT: (&str, &str) = ("wmrecipient", "weightmark recipient (public key)");

/// The secret half: opens what was encrypted to its [`recipient`](Self::recipient).
///
/// ```
/// use weightmark::keys::{Identity, InputKey, Recipient, XWingIdentity};
///
/// let identity = XWingIdentity::generate()?;
/// let key = InputKey::generate()?;
/// let stanza = identity.recipient().wrap(&key)?;
/// let opened = identity.unwrap(&stanza).ok_or("not for this identity")??;
/// assert_eq!(opened.expose(), key.expose());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct XWingIdentity {
    secret: <XWing as Kem>::PrivateKey,
    recipient: XWingRecipient,
}

impl XWingIdentity {
    /// A fresh random identity.
    pub fn generate() -> Result<Self> {
        Self::from_seed(&*crypto::random_secret()?).map_err(|cause| cause.on("random generator"))
    }

    /// Reads an identity file; one that others may read is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = file::read_secret(path)?;
        let parse = || file::key_line(&text, IDENTITY.1).and_then(Self::parse);
        parse().map_err(|cause| cause.on(path.display().to_string()))
    }

    /// Writes the identity to a new file for its owner alone, and its recipient to the same path + `.pub`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let public = format!("{}\n", self.recipient());
        let secret = Zeroizing::new(format!("# weightmark identity: keep it secret\n{}\n", *self.to_text()));
        file::write_pair(path, &secret, &public)
    }

    /// Who to encrypt to, for this identity to open it.
    pub fn recipient(&self) -> XWingRecipient {
        self.recipient.clone()
    }

    /// The secret text, `wmidentity1…`.
    pub fn to_text(&self) -> Zeroizing<String> {
        text::encode(IDENTITY.0, &Zeroizing::new(self.secret.to_bytes()))
    }

    /// Parses the secret text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::from_seed(&text::decode(IDENTITY.0, IDENTITY.1, text)?)
    }

    fn from_seed(seed: &[u8]) -> Result<Self, KeyError> {
        let malformed = |_| KeyError::Malformed { wanted: IDENTITY.1, problem: "wrong length".into() };
        let secret = <XWing as Kem>::PrivateKey::from_bytes(seed).map_err(malformed)?;
        let recipient = XWingRecipient { key: XWing::sk_to_pk(&secret) };
        Ok(Self { secret, recipient })
    }

    fn open(&self, stanza: &Stanza) -> Result<InputKey> {
        let fail = || Error::Key {
            name: format!("stanza {}", stanza.id),
            cause: KeyError::Malformed { wanted: "x-wing stanza", problem: "it does not open".into() },
        };
        let field = |name: &str| stanza.arguments.get(name).and_then(|text| BASE64_STANDARD.decode(text).ok());
        let (Some(enc), Some(body), 2) = (field("enc"), field("body"), stanza.arguments.len()) else {
            return Err(fail());
        };
        let enc = <XWing as Kem>::EncappedKey::from_bytes(&enc).map_err(|_| fail())?;
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.secret,
            &enc,
            label::X_WING,
            &body,
            b"",
        );
        let opened = Zeroizing::new(opened.map_err(|_| fail())?);
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return Err(fail());
        }
        key.copy_from_slice(&opened);
        Ok(InputKey::from_bytes(key))
    }
}

impl Identity for XWingIdentity {
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>> {
        (stanza.kind == KIND && stanza.id == self.recipient.id()).then(|| self.open(stanza))
    }
}

/// The public half: a post-quantum recipient. Its text, `wmrecipient1…`, is about 2,000 characters long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct XWingRecipient {
    key: <XWing as Kem>::PublicKey,
}

impl XWingRecipient {
    /// Reads a recipient file (`.pub`).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = file::read_public(path)?;
        let parse = || file::key_line(&text, RECIPIENT.1).and_then(str::parse);
        parse().map_err(|cause| cause.on(path.display().to_string()))
    }

    /// A short name: the first 8 bytes of the SHA-256 of the public key, in hexadecimal.
    pub fn id(&self) -> String {
        crypto::hex(&crypto::sha256(&[&self.key.to_bytes()])[..8])
    }
}

impl Recipient for XWingRecipient {
    fn wrap(&self, key: &InputKey) -> Result<Stanza> {
        let sealed = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeS::Base,
            &self.key,
            label::X_WING,
            key.expose(),
            b"",
        );
        let (enc, body) = sealed.map_err(|e| KeyError::Unsupported(e.to_string()).on(self.id()))?;
        let arguments = [("enc", BASE64_STANDARD.encode(enc.to_bytes())), ("body", BASE64_STANDARD.encode(body))];
        Ok(Stanza::new(KIND, self.id(), arguments))
    }
}

impl fmt::Display for XWingRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::encode(RECIPIENT.0, &self.key.to_bytes()))
    }
}

impl FromStr for XWingRecipient {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text::decode(RECIPIENT.0, RECIPIENT.1, text)?;
        let malformed = |_| KeyError::Malformed { wanted: RECIPIENT.1, problem: "not a point of the curve".into() };
        Ok(Self { key: <XWing as Kem>::PublicKey::from_bytes(&bytes).map_err(malformed)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_and_kinds_do_not_mix() {
        let identity = XWingIdentity::generate().unwrap();
        let recipient = identity.recipient();
        assert_eq!(recipient.to_string().parse::<XWingRecipient>().unwrap(), recipient);
        assert_eq!(XWingIdentity::parse(&identity.to_text()).unwrap().recipient(), recipient);
        assert!(matches!(XWingIdentity::parse(&recipient.to_string()), Err(KeyError::Malformed { .. })));
        assert!(matches!(identity.to_text().parse::<XWingRecipient>(), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn a_stanza_opens_for_its_identity_alone_and_not_when_changed() {
        let identity = XWingIdentity::generate().unwrap();
        let key = InputKey::generate().unwrap();
        let stanza = identity.recipient().wrap(&key).unwrap();
        assert_eq!(identity.unwrap(&stanza).unwrap().unwrap().expose(), key.expose());
        assert!(XWingIdentity::generate().unwrap().unwrap(&stanza).is_none());
        for field in ["enc", "body"] {
            let mut changed = stanza.clone();
            let text = changed.arguments.get_mut(field).unwrap();
            let flipped = if text.starts_with('A') { "B" } else { "A" };
            text.replace_range(..1, flipped);
            assert!(identity.unwrap(&changed).unwrap().is_err(), "{field}");
        }
    }
}
