//! One binary for all integration tests: through the public interface, the command line and real peer tools.
//!
//! Tests that need Python take its interpreter from `WEIGHTMARK_PYTHON`; `tests/run` sets it up and runs everything.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod it {
    mod alignment;
    mod attacks;
    mod bad_input;
    #[cfg(feature = "capi")]
    mod capi;
    mod certificates;
    mod claims;
    mod cli;
    mod convolutions;
    mod docs;
    mod embedding;
    mod encryption;
    mod exec;
    mod expectations;
    mod faults;
    mod gate;
    mod gguf;
    mod gguf_blocks;
    mod interop;
    #[cfg(feature = "sigstore")]
    mod keyless;
    mod lineage;
    mod load;
    mod matching;
    mod memory;
    mod minilm;
    mod onnx;
    mod policy;
    mod pytorch;
    mod recipients;
    mod rewrap;
    mod rooms;
    mod signing;
    mod signing_vectors;
    mod support;
    mod vectors;
    mod watermark;
}
