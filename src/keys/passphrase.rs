//! A passphrase, made slow to guess by Argon2id (RFC 9106).

use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroize;

use super::envelope::{Identity, InputKey, PASSPHRASE, Recipient, Stanza};
use super::file;
use crate::crypto::{self, Locked, cobblestone, label};
use crate::error::{Cause, EncryptionError, Error, KeyError, Result};

/// Longest passphrase in bytes.
const MAX: usize = 1024;
const MAX_LANES: u32 = 16;

/// A passphrase that both encrypts and opens. Whoever opens an artifact with it knows that nobody else was given its
/// key: there can be no other recipient.
///
/// ```
/// use weightmark::keys::{Cost, Identity, InputKey, Passphrase, Recipient};
///
/// let cheap = Cost { memory: 64, passes: 1, lanes: 1 }; // for this example: the default takes about half a second
/// let passphrase = Passphrase::new("correct horse battery staple")?.cost(cheap);
/// let key = InputKey::generate()?;
/// let opened = passphrase.unwrap(&passphrase.wrap(&key)?).ok_or("not for a passphrase")??;
/// assert_eq!(opened.expose(), key.expose());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Passphrase {
    text: Locked<[u8; MAX]>,
    len: usize,
    cost: Cost,
    ceiling: Ceiling,
}

/// What an attacker pays for each guess, and every reader once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Cost {
    /// Memory in KiB, at least 8 a lane.
    pub memory: u32,
    /// Passes over the memory, at least 1.
    pub passes: u32,
    /// Lanes that can be computed in parallel, 1 to 16.
    pub lanes: u32,
}

/// What a reader accepts to pay. A file that asks for more is refused before anything is computed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Ceiling {
    /// Memory in KiB.
    pub memory: u32,
    /// Memory in KiB times passes.
    pub work: u64,
}

/// 256 MiB, 3 passes, 4 lanes: about half a second.
impl Default for Cost {
    fn default() -> Self {
        Self { memory: 256 << 10, passes: 3, lanes: 4 }
    }
}

/// 1 GiB, passed over up to four times.
impl Default for Ceiling {
    fn default() -> Self {
        Self { memory: 1 << 20, work: 4 << 20 }
    }
}

impl Passphrase {
    /// Takes a passphrase of 1 to 1024 bytes, as given.
    pub fn new(text: &str) -> Result<Self> {
        Self::named(text, "passphrase")
    }

    /// Reads a passphrase file: all of it but one line break at its end. One that others may read is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::named(&file::read_passphrase(&path)?, &path.as_ref().display().to_string())
    }

    /// Sets what each guess costs, for what is encrypted from now on; within the [`ceiling`](Self::ceiling), and within
    /// the default one for readers that do not raise theirs.
    pub fn cost(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    /// Sets what opening may cost.
    pub fn ceiling(self, ceiling: Ceiling) -> Self {
        Self { ceiling, ..self }
    }

    fn named(text: &str, name: &str) -> Result<Self> {
        if text.is_empty() || text.len() > MAX {
            let problem = "a passphrase is 1 to 1024 bytes of text".into();
            return Err(KeyError::Malformed { wanted: "passphrase", problem }.on(name));
        }
        let locked = Locked::filled(|bytes: &mut [u8; MAX]| {
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Ok(())
        });
        Ok(Self { text: locked?, len: text.len(), cost: Cost::default(), ceiling: Ceiling::default() })
    }

    fn open(&self, stanza: &Stanza) -> Result<InputKey> {
        let tampered = || EncryptionError::EnvelopeTampered.on(stanza.name());
        let [salt, memory, passes, lanes, body] =
            stanza.exactly(["salt", "memory", "passes", "lanes", "body"]).ok_or_else(tampered)?;
        let (salt, body) = (BASE64_STANDARD.decode(salt).ok(), BASE64_STANDARD.decode(body).ok());
        let salt = salt.as_deref().and_then(|salt| salt.as_array()).ok_or_else(tampered)?;
        let body = body.as_deref().and_then(|body| body.as_array()).ok_or_else(tampered)?;
        let [memory, passes, lanes] = [memory, passes, lanes].map(decimal);
        let cost = match (memory, passes, lanes) {
            (Some(memory), Some(passes), Some(lanes)) => self.ceiling.accept(memory, passes, lanes),
            _ => return Err(tampered()),
        };
        let cost = cost.map_err(|cause| cause.on(stanza.name()))?.ok_or_else(tampered)?;
        let opened = cobblestone::unwrap(&*self.stretch(salt, cost)?, label::PASSPHRASE, body)?;
        InputKey::from_bytes(&*opened.ok_or_else(|| KeyError::WrongPassphrase.on(stanza.name()))?)
    }

    /// Argon2id of the passphrase.
    fn stretch(&self, salt: &[u8; 16], cost: Cost) -> Result<Locked<[u8; 32]>> {
        let unusable = |e: argon2::Error| KeyError::Unsupported(e.to_string()).on("passphrase");
        let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).map_err(unusable)?;
        let mut blocks: Vec<Block> = Vec::new();
        let no_memory = |_| Error::io("allocate", "memory for the passphrase", std::io::ErrorKind::OutOfMemory);
        blocks.try_reserve_exact(params.block_count()).map_err(no_memory)?;
        blocks.resize(params.block_count(), Block::default());
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let key = Locked::filled(|key| {
            argon2.hash_password_into_with_memory(&self.text[..self.len], salt, key, &mut blocks).map_err(unusable)
        });
        blocks.iter_mut().for_each(Zeroize::zeroize);
        key
    }
}

impl Recipient for Passphrase {
    fn wrap(&self, key: &InputKey) -> Result<Stanza> {
        let mut salt = [0; 16];
        crypto::random(&mut salt)?;
        let Cost { memory, passes, lanes } = self.cost;
        let accepted = self.ceiling.accept(memory.into(), passes.into(), lanes.into());
        if accepted.map_err(|cause| cause.on("passphrase"))?.is_none() {
            return Err(Error::ApiMisuse("a passphrase takes at least one lane, one pass, and 8 KiB of memory a lane"));
        }
        let body = cobblestone::wrap(&*self.stretch(&salt, self.cost)?, label::PASSPHRASE, key.expose())?;
        let arguments = [
            ("salt", BASE64_STANDARD.encode(salt)),
            ("memory", memory.to_string()),
            ("passes", passes.to_string()),
            ("lanes", lanes.to_string()),
            ("body", BASE64_STANDARD.encode(body)),
        ];
        Ok(Stanza::new(PASSPHRASE, PASSPHRASE.to_owned(), arguments))
    }
}

impl Identity for Passphrase {
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>> {
        (stanza.kind == PASSPHRASE && stanza.id == PASSPHRASE).then(|| self.open(stanza))
    }
}

impl Ceiling {
    /// The cost as parameters of Argon2, `None` if they make no sense.
    fn accept(&self, memory: u64, passes: u64, lanes: u64) -> Result<Option<Cost>, KeyError> {
        let excessive = KeyError::ExcessiveWork { memory, passes, lanes };
        if lanes > u64::from(MAX_LANES) {
            return Err(excessive);
        }
        if lanes == 0 || passes == 0 || memory / 8 < lanes {
            return Ok(None);
        }
        if memory > u64::from(self.memory) || memory.saturating_mul(passes) > self.work {
            return Err(excessive);
        }
        match (u32::try_from(memory), u32::try_from(passes), u32::try_from(lanes)) {
            (Ok(memory), Ok(passes), Ok(lanes)) => Ok(Some(Cost { memory, passes, lanes })),
            _ => Err(excessive),
        }
    }
}

/// A number in its one decimal spelling; one beyond 64 bits counts as the largest.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    (canonical && !text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

    fn cause(passphrase: &Passphrase, stanza: &Stanza) -> KeyError {
        match passphrase.unwrap(stanza).unwrap().map(|_| ()) {
            Err(Error::Key { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    /// As OpenSSL 3.2 computes it.
    #[test]
    fn argon2id_is_the_published_one() {
        let passphrase = Passphrase::new("password").unwrap();
        let key = passphrase.stretch(b"somesaltsomesalt", Cost { memory: 1024, passes: 2, lanes: 4 }).unwrap();
        assert_eq!(crypto::hex(&*key), "41d149ca71825f08e61ec006d2aada40c2fbb4003e9578363a64f6b3282590ad");
    }

    #[test]
    fn only_the_right_passphrase_opens() {
        let key = InputKey::generate().unwrap();
        let stanza = Passphrase::new("right").unwrap().cost(CHEAP).wrap(&key).unwrap();
        let opened = Passphrase::new("right").unwrap().unwrap(&stanza).unwrap().unwrap();
        assert_eq!(opened.expose(), key.expose());
        assert_eq!(cause(&Passphrase::new("wrong").unwrap(), &stanza), KeyError::WrongPassphrase);
        assert!(Passphrase::new("").is_err() && Passphrase::new(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn hostile_costs_are_refused_before_they_are_paid() {
        let passphrase = Passphrase::new("x").unwrap();
        let stanza = passphrase.cost(CHEAP).wrap(&InputKey::generate().unwrap()).unwrap();
        let reader = Passphrase::new("x").unwrap();
        let with = |name: &str, value: &str| {
            let mut changed = stanza.clone();
            changed.arguments.insert(name.into(), value.into());
            changed
        };
        for (name, value) in [
            ("memory", "1048577"),
            ("memory", "4294967296"),
            ("memory", "99999999999999999999999"),
            ("passes", "65537"),
            ("passes", "18446744073709551616"),
        ] {
            assert!(matches!(cause(&reader, &with(name, value)), KeyError::ExcessiveWork { .. }), "{name} {value}");
        }
        let mut lanes = with("lanes", "17");
        lanes.arguments.insert("memory".into(), "1024".into());
        assert!(matches!(cause(&reader, &lanes), KeyError::ExcessiveWork { lanes: 17, .. }));
        for (name, value) in
            [("memory", "7"), ("memory", "064"), ("passes", "0"), ("lanes", "0"), ("lanes", "+1"), ("lanes", "")]
        {
            let opened = reader.unwrap(&with(name, value)).unwrap().map(|_| ());
            let tampered = matches!(opened, Err(Error::Encryption { cause: EncryptionError::EnvelopeTampered, .. }));
            assert!(tampered, "{name} {value}");
        }
        let low = Passphrase::new("x").unwrap().ceiling(Ceiling { memory: 63, work: 1 << 20 });
        assert!(matches!(cause(&low, &stanza), KeyError::ExcessiveWork { memory: 64, .. }));
    }
}
