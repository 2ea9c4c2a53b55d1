//! A safetensors file: every byte of one that is accepted is accounted for, and the reference reader agrees on it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;
use weightmark::format::safetensors::read;
use weightmark::io::SliceAt;

fuzz_target!(|file: &[u8]| {
    let Ok(index) = read(&SliceAt::new(file)) else { return };
    let reference = SafeTensors::deserialize(file).expect("the reference reader accepts it too");
    assert_eq!(reference.len(), index.tensors().len());
    let mut end = 8 + u64::from_le_bytes(file[..8].try_into().expect("8 bytes"));
    for tensor in index.tensors() {
        assert_eq!(tensor.span.start, end, "contiguous");
        end = tensor.span.end;
        let theirs = reference.tensor(&tensor.name).expect("the same names");
        assert_eq!(theirs.data().as_ptr_range(), file[tensor.span.start as usize..end as usize].as_ptr_range());
        assert_eq!(theirs.dtype().to_string(), tensor.dtype.to_string());
        assert!(theirs.shape().iter().map(|dim| *dim as u64).eq(tensor.shape.iter().copied()));
    }
    assert_eq!(end, file.len() as u64, "to the end");
});
