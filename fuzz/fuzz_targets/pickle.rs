//! The pickle of a PyTorch checkpoint, in an archive made for it: it is refused, or its tensors lie within the storages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weightmark::format::{load, pytorch};
use weightmark::io::SliceAt;

/// The two storages that every checkpoint here has.
const STORAGES: [(&str, [u8; 96]); 2] = [("c/data/0", [1; 96]), ("c/data/1", [2; 96])];

fuzz_target!(|pickle: &[u8]| {
    let source = SliceAt::new(checkpoint(pickle));
    let Ok(index) = pytorch::read(&source) else { return };
    for tensor in index.tensors() {
        let data = load(&source, tensor).expect("within its storage");
        assert!(data.iter().all(|byte| *byte == data[0] && matches!(byte, 1 | 2)), "one storage, and nothing else");
    }
});

/// A zip archive of stored members, as `torch.save` writes it.
fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    let members = [("c/data.pkl", pickle)].into_iter().chain(STORAGES.iter().map(|(name, data)| (*name, &data[..])));
    let (mut file, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
    for (name, data) in members {
        let (offset, size) = (file.len() as u32, data.len() as u32);
        let mut facts = vec![0; 10]; // version, flags, method, time
        for number in [crc32fast::hash(data), size, size] {
            facts.extend(number.to_le_bytes());
        }
        facts.extend([name.len() as u8, 0, 0, 0]);
        file.extend([b"PK\x03\x04", &facts[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\0\0", &facts[..], &[0; 10], &offset.to_le_bytes(), name.as_bytes()].concat());
        count += 1;
    }
    let (start, size) = (file.len() as u32, directory.len() as u32);
    file.append(&mut directory);
    let counts = [count.to_le_bytes(), count.to_le_bytes()].concat();
    file.extend([b"PK\x05\x06\0\0\0\0", &counts[..], &size.to_le_bytes(), &start.to_le_bytes(), &[0; 2]].concat());
    file
}
