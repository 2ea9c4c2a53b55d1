//! What holds for the tensors of every file that is accepted.

use weightmark::format::load;
use weightmark::io::ReadAt;
use weightmark::tensor::{Index, Storage};

/// Most bytes of a tensor that are loaded.
const MOST: u64 = 1 << 20;

/// Tensors lie within the file, and load as large as they say; only what has to be decoded may be refused then.
pub fn check(source: &dyn ReadAt, index: &Index) {
    for tensor in index.tensors().iter().filter(|tensor| !matches!(tensor.storage, Storage::External(_))) {
        assert!(tensor.span.end <= source.size(), "within the file");
        if tensor.size() < MOST {
            match load(source, tensor) {
                Ok(data) => assert_eq!(data.len() as u64, tensor.size()),
                Err(error) => {
                    assert!(matches!(tensor.storage, Storage::Deflated { .. } | Storage::Varints), "{error}");
                }
            }
        }
    }
}
