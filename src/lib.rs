//! weightmark protects machine-learning model artifacts between the people who train them and the machines that serve
//! them. It **encrypts** weights at rest and decrypts just the tensors that are read; it **signs** models and
//! **verifies** that only exactly what was published gets loaded; it **watermarks** the weights themselves, so that
//! each copy can be traced and ownership of stolen weights proved with an exact p-value.
//!
//! # Stance
//!
//! - Published constructions, from well-kept libraries: C2SP Cobblestone-256, HPKE with X-Wing, OpenSSF Model Signing.
//! - Every file is taken to come from an attacker. Errors have closed causes; nothing panics; no unauthenticated byte
//!   is released; an output appears whole or not at all.
//! - What a caller expects (encrypted, signed, under which context) is said by the caller, never by the file.
//! - p-values are proved bounds that hold for every suspect, not estimates.
//!
//! # The picture
//!
//! ```text
//!  bytes --ReadAt--> encryption::Reader --ReadAt--> format --> Index --+--> signing    digests what is there
//!  (file, map,       (plaintext, chunk by           (tensors:          +--> watermark  marks weights, scores suspects
//!   memory)           chunk authenticated)           names, spans)     +--> Model      hands out tensors
//! ```
//!
//! Every source of bytes is a [`io::ReadAt`], a decrypted view of an encrypted file as well; every model is an
//! [`io::Tree`] of such files. Signing, marking and loading work on those, and never ask where the bytes come from.
//!
//! # Three examples
//!
//! Encrypt, then load lazily:
//!
//! ```no_run
//! # #[cfg(feature = "encryption")] {
//! use weightmark::Model;
//! use weightmark::encryption::Encryptor;
//! use weightmark::keys::XWingIdentity;
//!
//! let identity = XWingIdentity::load("serving.key")?;
//! Encryptor::to([identity.recipient()]).context("acme/llama-1b@3").encrypt("model/", "out/")?;
//! let model = Model::options().identity(identity).expect_context("acme/llama-1b@3").open("out/")?;
//! let q = model.tensor("layers.0.q_proj.weight")?; // decrypts only its own chunks
//! # }
//! # Ok::<(), weightmark::Error>(())
//! ```
//!
//! Sign, then verify at load:
//!
//! ```no_run
//! # #[cfg(feature = "signing")] {
//! use weightmark::Model;
//! use weightmark::keys::{SigningKey, VerifyingKey};
//! use weightmark::signing::{Manifest, Policy};
//!
//! SigningKey::load("release.pem")?.sign(&Manifest::of("model/")?)?.write("model/model.sig")?;
//! let policy = Policy::require(VerifyingKey::load("release.pem.pub")?);
//! let model = Model::options().policy(policy).open("model/")?; // refuses anything not exactly what was signed
//! # }
//! # Ok::<(), weightmark::Error>(())
//! ```
//!
//! Mark every copy, find the leak, prove it:
//!
//! ```no_run
//! # #[cfg(feature = "watermark")] {
//! use weightmark::keys::OwnerKey;
//! use weightmark::watermark::{Detector, Watermark};
//!
//! let owner = OwnerKey::load("owner.key")?;
//! Watermark::new(&owner).copy("licensee-0017").embed("model.safetensors", "licensee-0017.safetensors")?;
//! let evidence = Detector::new(&owner, "model.safetensors").copies(["licensee-0017"]).examine("suspect.safetensors")?;
//! println!("p < 10^{:.0}, copy {:?}", evidence.log10_p(), evidence.copy());
//! # }
//! # Ok::<(), weightmark::Error>(())
//! ```
//!
//! All three at once: `model::Protector`.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `encryption` | yes | `encryption`, identities and recipients |
//! | `signing` | yes | `signing`, signing and verifying keys |
//! | `watermark` | | `watermark`, `alignment`, `lineage`, owner keys |
//! | `ndarray` | | tensors as `ndarray` arrays |
//! | `cli` | | the program `weightmark` |
//! | `full` | | all of the above |
//! | `sigstore` | | keyless signatures, verified offline; builds a C library |
//! | `capi` | | the C interface, `ffi` and `include/weightmark.h` |
//! | `python` | | the Python package, built by `pip install .` |
//! | `candle` | | weights for `candle`: `candle::var_builder` |
//!
//! Features add, and never change what others do. Reading formats and plain models needs none.
//!
//! Unix only: Linux is tested.

#[cfg(feature = "watermark")]
pub mod alignment;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(any(feature = "encryption", feature = "signing", feature = "watermark"))]
mod crypto;
#[cfg(feature = "encryption")]
pub mod encryption;
pub mod error;
#[cfg(feature = "capi")]
pub mod ffi;
pub mod format;
pub mod io;
mod json;
pub mod keys;
#[cfg(feature = "watermark")]
pub mod lineage;
#[cfg(feature = "watermark")]
mod linear;
pub mod matching;
pub mod model;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "signing")]
pub mod signing;
pub mod tensor;
#[cfg(feature = "watermark")]
pub mod watermark;

pub use error::{Error, Result};
pub use model::Model;

/// The examples of the README, compiled as tests.
#[cfg(all(doctest, feature = "encryption", feature = "signing", feature = "watermark"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
