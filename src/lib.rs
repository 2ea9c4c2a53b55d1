//! weightmark
#[cfg(any(feature = "encryption", feature = "signing", feature = "watermark"))]
mod crypto;
#[cfg(feature = "encryption")]
pub mod encryption;
pub mod error;
pub mod format;
pub mod io;
mod json;
pub mod keys;
pub mod model;
#[cfg(feature = "signing")]
pub mod signing;
pub mod tensor;
#[cfg(feature = "watermark")]
pub mod watermark;
pub use error::{Error, Result};
pub use model::Model;
