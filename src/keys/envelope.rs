//! The one joint of encryption: who can wrap an input key, and who can unwrap it.
//!
//! A payload is encrypted under one random [`InputKey`]. Each [`Recipient`] wraps it into a [`Stanza`] of the
//! envelope, which the matching [`Identity`] unwraps. Key services and hardware plug in here: `examples/key_holder.rs`
//! is one, whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::{self, Locked};
use crate::error::Result;
use crate::json::UniqueMap;

/// The type of a passphrase's stanza.
pub(super) const PASSPHRASE: &str = "passphrase";

/// The 32 random bytes under which a payload is encrypted, in memory that is locked and wiped.
pub struct InputKey(Locked<[u8; 32]>);

impl InputKey {
    /// A fresh random key.
    pub fn generate() -> Result<Self> {
        crypto::random_secret().map(Self)
    }

    /// Takes bytes that an [`Identity`] has unwrapped. Fails only where memory does.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        Locked::copied(bytes).map(Self)
    }

    /// The bytes, for a [`Recipient`] to wrap.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// An input key wrapped to one recipient, as it stands in the envelope.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "UniqueMap<String>")]
#[non_exhaustive]
pub struct Stanza {
    /// How it is wrapped, such as `x-wing`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tells recipients apart without revealing their key.
    pub id: String,
    /// What the kind needs to unwrap.
    #[serde(flatten)]
    pub arguments: BTreeMap<String, String>,
}

impl TryFrom<UniqueMap<String>> for Stanza {
    type Error = &'static str;

    fn try_from(UniqueMap(mut fields): UniqueMap<String>) -> Result<Self, Self::Error> {
        let mut take = |name| fields.remove(name).ok_or("a stanza without type or id");
        let (kind, id) = (take("type")?, take("id")?);
        Ok(Self { kind, id, arguments: fields })
    }
}

impl Stanza {
    /// A stanza of the given kind and id.
    pub fn new<const N: usize>(kind: &str, id: String, arguments: [(&str, String); N]) -> Self {
        let arguments = arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { kind: kind.to_owned(), id, arguments }
    }

    /// The values of these arguments, if they are all there and no others are.
    pub fn exactly<const N: usize>(&self, names: [&str; N]) -> Option<[&str; N]> {
        let values = names.map(|name| self.arguments.get(name).map(String::as_str));
        (self.arguments.len() == N && values.iter().all(Option::is_some)).then(|| values.map(Option::unwrap_or_default))
    }

    /// Whether it is a passphrase's, which must be the only one.
    pub(crate) fn is_passphrase(&self) -> bool {
        self.kind == PASSPHRASE
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        format!("recipient {} {}", self.kind, self.id)
    }
}

/// Someone to encrypt to.
///
/// Called once for each artifact, or group of files in it, before any work on it: an implementation may be slow, remote,
/// and may fail. Nothing is written then.
pub trait Recipient: Send + Sync {
    /// Wraps the key so that the matching [`Identity`] can unwrap it.
    ///
    /// The stanza's type should be named for a domain of the implementer's, such as `acme.example/vault`, and its id
    /// tell keys apart without revealing them. All of it is stored in clear, and authenticated by the envelope.
    fn wrap(&self, key: &InputKey) -> Result<Stanza>;
}

/// Someone who can open what was encrypted to them.
///
/// Called while an artifact is opened, once for each of its stanzas and groups of files, however many files there are.
/// Identities are asked in the order in which the caller gives them: local ones first, slow and remote ones last.
pub trait Identity: Send + Sync {
    /// Unwraps a stanza: `None` if it is not for this identity, which should be told from its type and id alone,
    /// without asking anybody; an error if it is but does not open.
    ///
    /// After an error other stanzas and identities are tried; if none opens, the first error is what the caller sees.
    /// One that may pass should be [`KeyError::Unavailable`](crate::error::KeyError::Unavailable); a stanza that is
    /// wrong, [`EncryptionError::EnvelopeTampered`](crate::error::EncryptionError::EnvelopeTampered). Whether the key
    /// is the right one need not be checked here: the envelope is authenticated under it.
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>>;
}

impl<R: Recipient + ?Sized> Recipient for Box<R> {
    fn wrap(&self, key: &InputKey) -> Result<Stanza> {
        (**self).wrap(key)
    }
}

impl<I: Identity + ?Sized> Identity for Box<I> {
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>> {
        (**self).unwrap(stanza)
    }
}

impl<I: Identity + ?Sized> Identity for std::sync::Arc<I> {
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>> {
        (**self).unwrap(stanza)
    }
}
