//! The one joint of encryption: who can wrap an input key, and who can unwrap it.
//!
//! A payload is encrypted under one random [`InputKey`]. Each [`Recipient`] wraps it into a [`Stanza`] of the
//! envelope, which the matching [`Identity`] unwraps. Key services and hardware plug in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto;
use crate::error::Result;
use crate::json::UniqueMap;

/// The 32 random bytes under which a payload is encrypted. Wiped when dropped.
pub struct InputKey(Zeroizing<[u8; 32]>);

impl InputKey {
    /// A fresh random key.
    pub fn generate() -> Result<Self> {
        crypto::random_secret().map(Self)
    }

    /// Takes bytes that an [`Identity`] has unwrapped.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
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
}

/// Someone to encrypt to.
pub trait Recipient: Send + Sync {
    /// Wraps the key so that the matching [`Identity`] can unwrap it.
    fn wrap(&self, key: &InputKey) -> Result<Stanza>;
}

/// Someone who can open what was encrypted to them.
pub trait Identity: Send + Sync {
    /// Unwraps a stanza: `None` if it is not for this identity, an error if it is but does not open.
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
