//! The C interface: `include/weightmark.h`, which says how to use it. The exports are public for tests in Rust.
//!
//! Handles are numbers (`table`), everything passes one boundary (`call`), and verbs are thin over the library.
#![allow(clippy::missing_safety_doc)] // what callers must heed stands at the top of the header, once

mod call;
mod encrypt;
mod failure;
mod file;
mod inspect;
mod keys;
mod mark;
mod model;
mod options;
mod policy;
mod progress;
mod report;
mod sign;
mod sources;
mod table;

pub use encrypt::*;
pub use failure::*;
pub use file::*;
pub use inspect::*;
pub use keys::*;
pub use mark::*;
pub use model::*;
pub use options::*;
pub use policy::*;
pub use progress::*;
pub use report::*;
pub use sign::*;
pub use sources::*;
