//! The library that the tests in C are linked with.

pub use weightmark::ffi::*;
