//! Key pairs for encryption: HPKE (RFC 9180) in base mode, with HKDF-SHA256 and ChaCha20-Poly1305.
//!
//! [`XWingIdentity`] is the default: X25519 and ML-KEM-768 together (X-Wing, 0x647a, draft-ietf-hpke-pq), so that
//! weights stolen today stay closed to the quantum computers of tomorrow. [`X25519Identity`] has short recipients, and
//! does not.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::envelope::{Identity, InputKey, Recipient, Stanza};
use super::{file, text};
use crate::crypto::{self, Locked, label};
use crate::error::{Cause, EncryptionError, KeyError, Result};

/// A post-quantum identity. See [`HpkeIdentity`].
pub type XWingIdentity = HpkeIdentity<XWing>;
/// A post-quantum recipient. Its text, `wmrecipient1…`, is about 2,000 characters long. See [`HpkeRecipient`].
pub type XWingRecipient = HpkeRecipient<XWing>;
/// An identity on Curve25519 alone. See [`HpkeIdentity`].
pub type X25519Identity = HpkeIdentity<X25519>;
/// A recipient on Curve25519 alone, 77 characters of text. See [`HpkeRecipient`].
pub type X25519Recipient = HpkeRecipient<X25519>;

/// The KEM of [`XWingIdentity`].
#[allow(clippy::exhaustive_enums)]
pub enum XWing {}
/// The KEM of [`X25519Identity`].
#[allow(clippy::exhaustive_enums)]
pub enum X25519 {}

/// The secret half of a key pair: opens what was encrypted to its [`recipient`](Self::recipient).
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
pub struct HpkeIdentity<S: Suite> {
    secret: Locked<<S::Kem as Kem>::PrivateKey>,
    recipient: HpkeRecipient<S>,
}

/// The public half of a key pair: who to encrypt to.
pub struct HpkeRecipient<S: Suite> {
    key: <S::Kem as Kem>::PublicKey,
}

impl<S: Suite> HpkeIdentity<S> {
    /// A fresh random identity.
    pub fn generate() -> Result<Self> {
        Self::from_seed(&*crypto::random_secret()?, "identity")
    }

    /// Reads an identity file; one that others may read is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let (text, name) = (file::read_secret(&path)?, path.as_ref().display().to_string());
        Self::named(file::key_line(&text, S::IDENTITY.1).map_err(|cause| cause.on(&name))?, &name)
    }

    /// Writes the identity to a new file for its owner alone, and its recipient to the same path + `.pub`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let public = format!("{}\n", self.recipient);
        file::write_pair(path, &file::with_comment("weightmark identity", &self.to_text()), &public)
    }

    /// Who to encrypt to, for this identity to open it.
    pub fn recipient(&self) -> HpkeRecipient<S> {
        self.recipient.clone()
    }

    /// The secret text, `wmidentity1…` or `wmidentity-x255191…`.
    pub fn to_text(&self) -> Zeroizing<String> {
        text::encode(S::IDENTITY.0, &Zeroizing::new(self.secret.to_bytes()))
    }

    /// Parses the secret text.
    pub fn parse(text: &str) -> Result<Self> {
        Self::named(text, "identity")
    }

    fn named(text: &str, name: &str) -> Result<Self> {
        let seed = text::decode(S::IDENTITY.0, S::IDENTITY.1, text).map_err(|cause| cause.on(name))?;
        Self::from_seed(&seed, name)
    }

    fn from_seed(seed: &[u8], name: &str) -> Result<Self> {
        let malformed = |_| KeyError::Malformed { wanted: S::IDENTITY.1, problem: "wrong length".into() }.on(name);
        let secret = Locked::new(<S::Kem as Kem>::PrivateKey::from_bytes(seed).map_err(malformed)?)?;
        let recipient = HpkeRecipient { key: S::Kem::sk_to_pk(&secret) };
        Ok(Self { secret, recipient })
    }

    fn open(&self, stanza: &Stanza) -> Option<Zeroizing<[u8; 32]>> {
        let [enc, body] = stanza.exactly(["enc", "body"])?.map(|text| BASE64_STANDARD.decode(text).ok());
        let enc = <S::Kem as Kem>::EncappedKey::from_bytes(&enc?).ok()?;
        let mode = OpModeR::Base;
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, S::Kem>(
            &mode,
            &self.secret,
            &enc,
            S::INFO,
            &body?,
            b"",
        );
        let opened = Zeroizing::new(opened.ok()?);
        opened.as_array().map(|key| Zeroizing::new(*key))
    }
}

impl<S: Suite> Identity for HpkeIdentity<S> {
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>> {
        (stanza.kind == S::KIND && stanza.id == self.recipient.id()).then(|| {
            let key = self.open(stanza).ok_or_else(|| EncryptionError::EnvelopeTampered.on(stanza.name()))?;
            InputKey::from_bytes(&key)
        })
    }
}

impl<S: Suite> HpkeRecipient<S> {
    /// Reads a recipient file (`.pub`).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let (path, text) = (path.as_ref(), file::read_public(path.as_ref())?);
        let recipient = file::key_line(&text, S::RECIPIENT.1).and_then(str::parse);
        recipient.map_err(|cause| cause.on(path.display().to_string()))
    }

    /// A short name: the first 8 bytes of the SHA-256 of the public key, in hexadecimal.
    pub fn id(&self) -> String {
        crypto::hex(&crypto::sha256(&[&self.key.to_bytes()])[..8])
    }
}

impl<S: Suite> Recipient for HpkeRecipient<S> {
    fn wrap(&self, key: &InputKey) -> Result<Stanza> {
        let mode = OpModeS::Base;
        let sealed = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, S::Kem>(
            &mode,
            &self.key,
            S::INFO,
            key.expose(),
            b"",
        );
        let (enc, body) = sealed.map_err(|e| KeyError::Unsupported(e.to_string()).on(self.id()))?;
        let arguments = [("enc", BASE64_STANDARD.encode(enc.to_bytes())), ("body", BASE64_STANDARD.encode(body))];
        Ok(Stanza::new(S::KIND, self.id(), arguments))
    }
}

impl<S: Suite> fmt::Display for HpkeRecipient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::encode(S::RECIPIENT.0, &self.key.to_bytes()))
    }
}

impl<S: Suite> FromStr for HpkeRecipient<S> {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text::decode(S::RECIPIENT.0, S::RECIPIENT.1, text)?;
        let malformed = |_| KeyError::Malformed { wanted: S::RECIPIENT.1, problem: "not a public key".into() };
        Ok(Self { key: <S::Kem as Kem>::PublicKey::from_bytes(&bytes).map_err(malformed)? })
    }
}

impl<S: Suite> Clone for HpkeRecipient<S> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone() }
    }
}

impl<S: Suite> fmt::Debug for HpkeRecipient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HpkeRecipient({} {})", S::KIND, self.id())
    }
}

impl<S: Suite> Eq for HpkeRecipient<S> {}

impl<S: Suite> PartialEq for HpkeRecipient<S> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

mod suite {
    /// What sets the KEMs apart: not to be implemented elsewhere.
    pub trait Suite {
        /// The KEM.
        type Kem: hpke::Kem<PrivateKey: Send + Sync, PublicKey: Send + Sync>;
        /// The type of its stanzas.
        const KIND: &'static str;
        /// HPKE's info.
        const INFO: &'static [u8];
        /// Prefix and name of the secret text.
        const IDENTITY: (&'static str, &'static str);
        /// Prefix and name of the public text.
        const RECIPIENT: (&'static str, &'static str);
    }
}
use suite::Suite;

impl Suite for XWing {
    type Kem = hpke::kem::XWing;
    const KIND: &'static str = "x-wing";
    const INFO: &'static [u8] = label::X_WING;
    const IDENTITY: (&'static str, &'static str) = ("wmidentity", "weightmark identity (secret key)");
    const RECIPIENT: (&'static str, &'static str) = ("wmrecipient", "weightmark recipient (public key)");
}

impl Suite for X25519 {
    type Kem = hpke::kem::X25519HkdfSha256;
    const KIND: &'static str = "x25519";
    const INFO: &'static [u8] = label::X25519;
    const IDENTITY: (&'static str, &'static str) = ("wmidentity-x25519", "weightmark x25519 identity (secret key)");
    const RECIPIENT: (&'static str, &'static str) = ("wmrecipient-x25519", "weightmark x25519 recipient (public key)");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn texts_round_trip<S: Suite>() {
        let identity = HpkeIdentity::<S>::generate().unwrap();
        let recipient = identity.recipient();
        assert_eq!(recipient.to_string().parse::<HpkeRecipient<S>>().unwrap(), recipient);
        assert_eq!(HpkeIdentity::<S>::parse(&identity.to_text()).unwrap().recipient(), recipient);
        assert!(matches!(
            HpkeIdentity::<S>::parse(&recipient.to_string()),
            Err(Error::Key { cause: KeyError::Malformed { .. }, .. })
        ));
        assert!(matches!(identity.to_text().parse::<HpkeRecipient<S>>(), Err(KeyError::Malformed { .. })));
    }

    fn a_stanza_opens_for_its_identity_alone<S: Suite>() {
        let identity = HpkeIdentity::<S>::generate().unwrap();
        let key = InputKey::generate().unwrap();
        let stanza = identity.recipient().wrap(&key).unwrap();
        assert_eq!(identity.unwrap(&stanza).unwrap().unwrap().expose(), key.expose());
        assert!(HpkeIdentity::<S>::generate().unwrap().unwrap(&stanza).is_none());
        for field in ["enc", "body"] {
            let mut changed = stanza.clone();
            let text = changed.arguments.get_mut(field).unwrap();
            let flipped = if text.starts_with('A') { "B" } else { "A" };
            text.replace_range(..1, flipped);
            assert!(identity.unwrap(&changed).unwrap().is_err(), "{field}");
            let mut cut = stanza.clone();
            cut.arguments.remove(field);
            assert!(identity.unwrap(&cut).unwrap().is_err(), "{field}");
        }
        let mut more = stanza.clone();
        more.arguments.insert("keyfile".into(), "/etc/passwd".into());
        assert!(identity.unwrap(&more).unwrap().is_err());
    }

    #[test]
    fn both_kinds_hold_and_do_not_mix() {
        texts_round_trip::<XWing>();
        texts_round_trip::<X25519>();
        a_stanza_opens_for_its_identity_alone::<XWing>();
        a_stanza_opens_for_its_identity_alone::<X25519>();
        let (x_wing, x25519) = (XWingIdentity::generate().unwrap(), X25519Identity::generate().unwrap());
        assert!(X25519Identity::parse(&x_wing.to_text()).is_err() && XWingIdentity::parse(&x25519.to_text()).is_err());
        assert_eq!(x25519.recipient().to_string().len(), 77);
    }
}
