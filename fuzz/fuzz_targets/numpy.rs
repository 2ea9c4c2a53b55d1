//! An array or an archive of arrays: tensors lie within the file, and load unless their compression is broken.
#![no_main]

mod tensors;

use libfuzzer_sys::fuzz_target;
use weightmark::format::numpy;
use weightmark::io::SliceAt;

fuzz_target!(|file: &[u8]| {
    let source = SliceAt::new(file);
    for index in [numpy::read(&source), numpy::read_archive(&source)].into_iter().flatten() {
        tensors::check(&source, &index);
    }
});
