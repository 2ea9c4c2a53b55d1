//! Keys, by what they are for. Each kind has its own type and its own text form, so that one cannot be taken for
//! another:
//!
//! | kind | secret | public | text |
//! |---|---|---|---|
//! | encryption | `XWingIdentity` | `XWingRecipient` | bech32m, `wmidentity1…` and `wmrecipient1…` |
//! | | `X25519Identity` | `X25519Recipient` | bech32m, `wmidentity-x255191…` and `wmrecipient-x255191…` |
//! | | `SymmetricKey` | | bech32m, `wmkey1…`, or 32 bytes |
//! | | `Passphrase` | | |
//! | signing | `SigningKey` | `VerifyingKey` | PEM, as OpenSSL writes it; encrypted or not |
//! | watermark | `OwnerKey` | `OwnerId` | bech32m, `wmowner1…` and `wmownerid1…` |
//!
//! Secrets are wiped from memory when dropped and have neither `Debug` nor `Clone`. Secret files are created for
//! their owner alone (mode 0600), never overwritten, and refused when others can read them ([`mod@file`]).

#[cfg(feature = "encryption")]
mod any;
#[cfg(feature = "encryption")]
pub mod envelope;
pub mod file;
#[cfg(feature = "encryption")]
pub mod hpke;
#[cfg(feature = "watermark")]
pub mod owner;
#[cfg(feature = "encryption")]
pub mod passphrase;
#[cfg(feature = "signing")]
pub(crate) mod pem;
#[cfg(feature = "signing")]
mod signer;
#[cfg(feature = "signing")]
pub mod signing;
#[cfg(feature = "encryption")]
pub mod symmetric;
#[cfg(any(feature = "encryption", feature = "watermark"))]
mod text;

#[cfg(feature = "encryption")]
pub use any::{load_identity, load_recipient};
#[cfg(feature = "encryption")]
pub use envelope::{Identity, InputKey, Recipient, Stanza};
#[cfg(feature = "encryption")]
pub use hpke::{X25519Identity, X25519Recipient, XWingIdentity, XWingRecipient};
#[cfg(feature = "watermark")]
pub use owner::{OwnerId, OwnerKey};
#[cfg(feature = "encryption")]
pub use passphrase::{Ceiling, Cost, Passphrase};
#[cfg(feature = "signing")]
pub use signer::Signer;
#[cfg(feature = "signing")]
pub use signing::{Algorithm, SigningKey, VerifyingKey};
#[cfg(feature = "encryption")]
pub use symmetric::SymmetricKey;
