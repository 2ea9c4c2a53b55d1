//! Encryption at rest: any file or model directory, opened by its recipients alone, readable in part.
//!
//! A payload is C2SP *Cobblestone-256* (chunked AES-256-GCM with key commitment), bound to a context and a path. Its
//! input key is wrapped to each recipient in an envelope at the front. The format is in `spec/encryption.md`.
//!
//! ```
//! use weightmark::encryption::{Encryptor, Reader};
//! use weightmark::io::{ReadAtExt, SliceAt};
//! use weightmark::keys::XWingIdentity;
//!
//! let identity = XWingIdentity::generate()?;
//! let sealed = Encryptor::to([identity.recipient()]).context("acme/llama-1b@3").encrypt_bytes("model.bin", b"weights")?;
//!
//! let reader = Reader::open(SliceAt::new(sealed), &[&identity])?;
//! assert_eq!(reader.context(), "acme/llama-1b@3");
//! assert_eq!(reader.read_span(0..7)?, b"weights");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decryptor;
mod envelope;
mod header;
mod inspect;
mod reader;
mod rewrap;
mod stream;
mod tree;
mod writer;

pub use decryptor::Decryptor;
pub use envelope::{PublicFile, PublicTensor};
pub use inspect::{Group, Inspection, inspect};
pub use reader::Reader;
pub use rewrap::Rewrap;
pub use tree::DecryptedTree;
pub use writer::Encryptor;

/// What an encrypted file is called: the name of the plaintext file and this.
pub const EXTENSION: &str = ".wmenc";
/// The envelope of an encrypted directory.
pub const KEYS_FILE: &str = "weightmark.keys";
