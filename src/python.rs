//! The Python package's native half, `weightmark._native`: the verbs and the model, thin over the library. What users see,
//! and its documentation, is in `python/weightmark`.

mod arguments;
mod buffer;
mod call;
mod model;
mod policy;
mod sealed;
mod signing;
mod verbs;
mod watermark;

use pyo3::prelude::*;

/// The module as maturin builds it.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::buffer::Buffer;
    #[pymodule_export]
    use super::model::{Model, open};
    #[pymodule_export]
    use super::policy::Policy;
    #[pymodule_export]
    use super::sealed::{Sealed, seal};
    #[pymodule_export]
    use super::signing::{sign, verify};
    #[pymodule_export]
    use super::verbs::{decrypt, encrypt, inspect, keygen, rewrap};
    #[pymodule_export]
    use super::watermark::{detect, embed, lineage, protect};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
