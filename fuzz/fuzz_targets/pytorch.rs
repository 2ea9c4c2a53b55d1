//! A PyTorch checkpoint, archive and pickle: the tensors of one that is accepted lie within the file, and load.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weightmark::format::{load, pytorch};
use weightmark::io::{ReadAt, SliceAt};
use weightmark::tensor::{Index, Storage};

/// Most bytes of a tensor that are loaded.
const MOST: u64 = 1 << 20;

fuzz_target!(|file: &[u8]| {
    let source = SliceAt::new(file);
    if let Ok(index) = pytorch::read(&source) {
        check(&source, &index);
    }
});

fn check(source: &dyn ReadAt, index: &Index) {
    for tensor in index.tensors().iter().filter(|tensor| !matches!(tensor.storage, Storage::External(_))) {
        assert!(tensor.span.end <= source.size(), "within the file");
        if tensor.size() < MOST {
            let loaded = load(source, tensor);
            assert!(loaded.is_ok_and(|data| data.len() as u64 == tensor.size()));
        }
    }
}
