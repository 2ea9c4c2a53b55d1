//! An ONNX model: tensors lie within the file unless in another, and load unless their numbers are out of range.
#![no_main]

mod tensors;

use libfuzzer_sys::fuzz_target;
use weightmark::format::onnx;
use weightmark::io::SliceAt;

fuzz_target!(|file: &[u8]| {
    let source = SliceAt::new(file);
    if let Ok(index) = onnx::read(&source) {
        tensors::check(&source, &index);
    }
});
