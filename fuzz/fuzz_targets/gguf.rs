//! A GGUF file: what is accepted leaves no byte of its data to no tensor or to two, and loads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weightmark::format::{gguf, load};
use weightmark::io::SliceAt;

fuzz_target!(|file: &[u8]| {
    let source = SliceAt::new(file);
    let Ok(index) = gguf::read(&source) else { return };
    let mut end = 0;
    for tensor in index.tensors() {
        assert!(tensor.span.start >= end, "apart");
        end = tensor.span.end;
        let data = load(&source, tensor).expect("plain bytes");
        assert_eq!(&*data, &file[tensor.span.start as usize..end as usize]);
    }
    assert!(end <= file.len() as u64, "within the file");
});
