//! weightmark
mod crypto;
#[cfg(feature = "encryption")]
pub mod encryption;
pub mod error;
pub mod format;
pub mod io;
mod json;
pub mod keys;
pub mod tensor;
pub use error::{Error, Result};
