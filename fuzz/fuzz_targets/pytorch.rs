//! A PyTorch checkpoint, archive and pickle: the tensors of one that is accepted lie within the file, and load.
#![no_main]

mod tensors;

use libfuzzer_sys::fuzz_target;
use weightmark::format::pytorch;
use weightmark::io::SliceAt;

fuzz_target!(|file: &[u8]| {
    let source = SliceAt::new(file);
    if let Ok(index) = pytorch::read(&source) {
        tensors::check(&source, &index);
    }
});
