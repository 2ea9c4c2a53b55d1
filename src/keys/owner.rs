//! The owner key: who marks weights, and proves it later.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{file, text};
use crate::crypto::{self, Locked, label};
use crate::error::{Cause, KeyError, Result};

const SECRET: (&str, &str) = ("wmowner", "weightmark owner key (secret)");
const PUBLIC: (&str, &str) = ("wmownerid", "weightmark owner id (public)");
/// Longest name of an owner in bytes.
const MAX_NAME: usize = 255;

/// A 32-byte secret and the name of the owner, from which the marks of all copies of all models are derived.
///
/// Whoever holds it can find the marks, and remove them: it never leaves the owner. Wiped when dropped.
pub struct OwnerKey {
    master: Locked<[u8; 32]>,
    name: String,
}

impl OwnerKey {
    /// A fresh random key for an owner called `name` (1 to 255 bytes), such as `Acme Ltd`.
    pub fn generate(name: &str) -> Result<Self> {
        let this = Self { master: crypto::random_secret()?, name: name.to_owned() };
        check_name(name).map(|()| this).map_err(|cause| cause.on(name))
    }

    /// Reads an owner key file; one that others may read is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let (text, name) = (file::read_secret(&path)?, path.as_ref().display().to_string());
        Self::from_text(file::key_line(&text, SECRET.1).map_err(|cause| cause.on(&name))?, &name)
    }

    /// Writes the key to a new file for its owner alone, and its public id to the same path + `.pub`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let secret = file::with_comment("weightmark owner key", &self.to_text());
        file::write_pair(path, &secret, &format!("{}\n", self.id()))
    }

    /// The secret text, `wmowner1…`.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([self.master.as_slice(), self.name.as_bytes()].concat());
        text::encode(SECRET.0, &bytes)
    }

    /// Parses the secret text.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_text(text, "owner key")
    }

    fn from_text(text: &str, file: &str) -> Result<Self> {
        let parsed = text::decode(SECRET.0, SECRET.1, text).and_then(|bytes| split(&bytes, SECRET.1));
        let (master, name) = parsed.map_err(|cause| cause.on(file))?;
        Ok(Self { master: Locked::copied(&master)?, name })
    }

    /// The public half: the name, and a commitment to the secret.
    pub fn id(&self) -> OwnerId {
        let commitment = crypto::sha256(&[label::OWNER_COMMITMENT, &*self.master, self.name.as_bytes()]);
        OwnerId { commitment, name: self.name.clone() }
    }

    /// The owner's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn master(&self) -> &[u8; 32] {
        &self.master
    }
}

/// Names an owner and commits to their key, without revealing it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnerId {
    commitment: [u8; 32],
    name: String,
}

impl OwnerId {
    /// Parses the text, `wmownerid1…`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = text::decode(PUBLIC.0, PUBLIC.1, text)?;
        let (commitment, name) = split(&bytes, PUBLIC.1)?;
        Ok(Self { commitment: *commitment, name })
    }

    /// The owner's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::encode(PUBLIC.0, &[self.commitment.as_slice(), self.name.as_bytes()].concat()))
    }
}

fn split(bytes: &[u8], wanted: &'static str) -> Result<(Zeroizing<[u8; 32]>, String), KeyError> {
    let malformed = |problem: &str| KeyError::Malformed { wanted, problem: problem.into() };
    let (secret, name) = bytes.split_first_chunk().ok_or_else(|| malformed("wrong length"))?;
    let name = std::str::from_utf8(name).map_err(|_| malformed("its name is not text"))?;
    check_name(name)?;
    Ok((Zeroizing::new(*secret), name.to_owned()))
}

fn check_name(name: &str) -> Result<(), KeyError> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let problem = "an owner's name is 1 to 255 bytes of text without control characters".into();
        return Err(KeyError::Malformed { wanted: SECRET.1, problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ids_survive_their_text() {
        let key = OwnerKey::generate("Käse & Söhne").unwrap();
        let again = OwnerKey::parse(&key.to_text()).unwrap();
        assert_eq!((again.name(), again.id()), (key.name(), key.id()));
        assert_eq!(OwnerId::parse(&key.id().to_string()).unwrap(), key.id());
        assert!(OwnerKey::parse(&key.id().to_string()).is_err());
        assert!(OwnerKey::generate("").is_err() && OwnerKey::generate("a\nb").is_err());
    }
}
