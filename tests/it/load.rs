//! Verified models as they are loaded: every byte handed out is one that was signed, and none of them is code.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use weightmark::error::{FormatError, VerifyError};
use weightmark::io::tree::{self, SingleFile, Sources};
use weightmark::io::{ReadAt, ReadAtExt, SliceAt};
use weightmark::keys::{VerifyingKey, XWingIdentity};
use weightmark::model::OpenOptions;
use weightmark::signing::Policy;
use weightmark::tensor::Dtype;
use weightmark::{Error, Model};

use super::signing::cause;
use super::support::{Home, Run, python, safetensors, script, weightmark};

/// A PyTorch checkpoint of arguments, as trainers leave it: a pickle that calls.
const CODE: &[u8] = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.";

fn options(home: &Home) -> OpenOptions {
    Model::options().policy(Policy::require(VerifyingKey::load(home.path("release.pem.pub")).unwrap()))
}

/// Flips a byte of a file in its place.
fn flip(home: &Home, name: &str, at: u64) {
    let file = File::options().read(true).write(true).open(home.path(name)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn sign(home: &Home, more: &[&str]) {
    let line = ["sign", &home.at("model"), "--key", &home.at("release.pem")];
    weightmark(line.iter().chain(more)).ok();
}

#[test]
fn what_is_overwritten_after_it_was_verified_is_not_handed_out() {
    for hashing in [&["--hash", "sha256"][..], &["--hash", "blake2b"], &["--outboard"], &["--shard-size", "100000"]] {
        let home = Home::with_keys();
        home.model("model", 500_000);
        sign(&home, hashing);
        let model = options(&home).open(home.path("model")).unwrap();
        let (first, second) = (model.tensor("a.weight").unwrap(), model.rows("b.weight", 9..10).unwrap());
        let last = fs::metadata(home.path("model/model.safetensors")).unwrap().len() - 1;
        flip(&home, "model/model.safetensors", last);
        assert_eq!(model.tensor("a.weight").unwrap(), first, "{hashing:?}");
        assert_eq!(model.rows("b.weight", 9..10).unwrap(), second);
        let path = "model.safetensors".to_owned();
        assert_eq!(cause(model.tensor("b.weight")), VerifyError::DigestMismatch { path: path.clone() });
        let mut buffer = vec![7; second.bytes().len() * 4];
        let info = model.tensors().find(|(_, tensor)| tensor.name == "b.weight").unwrap().1.clone();
        buffer.resize(info.size() as usize, 7);
        assert!(model.tensor_into("b.weight", &mut buffer).is_err());
        // put back, it is right again
        flip(&home, "model/model.safetensors", last);
        assert_eq!(model.tensor("b.weight").unwrap().info().shape, info.shape);
        // a small file is held in memory
        home.write("model/config.json", "{}");
        let config = model.files().open("config.json").unwrap();
        assert!(config.read_all(1000).unwrap().starts_with(b"{\"hidden_size\""));
        assert_eq!(
            cause(options(&home).open(home.path("model"))),
            VerifyError::DigestMismatch { path: "config.json".into() }
        );
    }
}

#[test]
fn with_an_outboard_only_what_is_read_is_hashed() {
    let home = Home::with_keys();
    home.model("model", 1_000_000);
    sign(&home, &["--outboard"]);
    assert_eq!(fs::metadata(home.path("model/model.outboard")).unwrap().len(), 16 + 32 * 62);
    let (model, public) = (home.at("model"), home.at("release.pem.pub"));
    let signature = home.at("model/model.sig");
    let modes = script("oms_modes.py");
    python([modes.to_str().unwrap(), "verify", &model, &signature, &public, "blake3"]).ok(); // the reference tool's interface
    // a changed range does no harm to others, and whoever hashes everything finds it
    let last = fs::metadata(home.path("model/model.safetensors")).unwrap().len() - 100_000;
    flip(&home, "model/model.safetensors", last);
    let path = "model.safetensors".to_owned();
    let open = options(&home).open(home.path("model")).unwrap();
    open.tensor("a.weight").unwrap();
    assert_eq!(cause(open.tensor("b.weight")), VerifyError::DigestMismatch { path: path.clone() });
    weightmark(["verify", &model, "--key", &public]).fails(1, &["digest mismatch"]);
    flip(&home, "model/model.safetensors", last);
    // the outboard is nothing to trust
    flip(&home, "model/model.outboard", 40);
    assert!(matches!(cause(options(&home).open(home.path("model"))), VerifyError::Outboard(_)));
    let whole = home.read("model/model.outboard");
    home.write("model/model.outboard", &whole[..whole.len() - 32]);
    assert!(matches!(cause(options(&home).open(home.path("model"))), VerifyError::Outboard(_)));
    weightmark(["verify", &model, "--key", &public]).ok(); // which does not need it
    fs::remove_file(home.path("model/model.outboard")).unwrap();
    options(&home).open(home.path("model")).unwrap().tensor("b.weight").unwrap();
    // one that is there is not overwritten, and nothing is signed
    fs::remove_file(home.path("model/model.sig")).unwrap();
    home.write("model/model.outboard", &whole);
    weightmark(["sign", &model, "--key", &home.at("release.pem"), "--outboard"]).fails(3, &["model.outboard"]);
    assert!(!home.path("model/model.sig").exists());
}

#[test]
fn a_single_file_has_its_outboard_beside_it() {
    let home = Home::with_keys();
    let file = home.write("w.safetensors", safetensors(Dtype::F32, 500_000));
    weightmark(["sign", &file, "--key", &home.at("release.pem"), "--outboard", "--release", "acme/w@1"]).ok();
    assert_eq!(home.names().iter().filter(|name| name.starts_with("w.")).count(), 4);
    let model = options(&home).open(&file).unwrap();
    assert_eq!(model.verified().unwrap().name(), "acme/w");
    let last = fs::metadata(&file).unwrap().len() - 1;
    flip(&home, "w.safetensors", last);
    model.tensor("a.weight").unwrap();
    assert_eq!(cause(model.tensor("b.weight")), VerifyError::DigestMismatch { path: "w.safetensors".into() });
}

#[test]
fn an_encrypted_model_is_verified_where_it_is_decrypted() {
    for hashing in [&["--outboard"][..], &["--hash", "sha256"], &["--shard-size", "65536"]] {
        let home = Home::with_keys();
        home.model("model", 500_000);
        sign(&home, hashing);
        weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "-o", &home.at("sealed")]).ok();
        let open =
            || options(&home).identity(XWingIdentity::load(home.path("id.key")).unwrap()).open(home.path("sealed"));
        let plain = options(&home).open(home.path("model")).unwrap();
        assert_eq!(open().unwrap().tensor("b.weight").unwrap(), plain.tensor("b.weight").unwrap());
        // whoever may open it encrypts other weights under the publisher's signature
        let last = fs::metadata(home.path("model/model.safetensors")).unwrap().len() - 1;
        flip(&home, "model/model.safetensors", last);
        fs::remove_dir_all(home.path("sealed")).unwrap();
        weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "-o", &home.at("sealed")]).ok();
        let refused = open().and_then(|model| model.tensor("b.weight"));
        assert_eq!(cause(refused), VerifyError::DigestMismatch { path: "model.safetensors".into() });
    }
}

#[test]
fn code_is_neither_signed_nor_opened_unless_somebody_says_so() {
    let home = Home::with_keys();
    home.model("model", 5_000);
    home.write("model/training_args.bin", CODE);
    home.write("model/tf_model.h5", b"\x89HDF\r\n\x1a\n and so on");
    let (model, key, public) = (home.at("model"), home.at("release.pem"), home.at("release.pem.pub"));
    let line = ["sign", &model, "--key", &key];
    weightmark(line).fails(3, &["tf_model.h5", "not plain data"]);
    assert!(!home.path("model/model.sig").exists());
    let allow = ["--allow-code", "tf_model.h5", "--allow-code", "training_args.bin"];
    assert_eq!(weightmark(line.iter().chain(&allow)).status, 2, "without a release nobody would know");
    weightmark(line.iter().chain(&allow[..2]).chain(&["--release", "acme/x@1"])).fails(3, &["training_args.bin"]);
    weightmark(line.iter().chain(&allow).chain(&["--release", "acme/x@1"])).ok();
    let verified = weightmark(["--json", "verify", &model, "--key", &public]).json();
    assert_eq!(verified["release"]["code"], serde_json::json!(["tf_model.h5", "training_args.bin"]));
    // that it was signed is no reason to load it
    let refused = options(&home).open(home.path("model")).map(drop);
    assert!(matches!(&refused, Err(Error::Format { cause: FormatError::Executable(_), .. })), "{refused:?}");
    let open = options(&home).danger_allow_code("training_args.bin").danger_allow_code("tf_model.h5");
    let open = open.open(home.path("model")).unwrap();
    assert_eq!(open.code(), ["tf_model.h5", "training_args.bin"]);
    open.tensor("a.weight").unwrap();
    weightmark(["encrypt", &model, "-r", &home.at("id.key.pub"), "-o", &home.at("sealed")]).ok();
    let run = ["exec", &home.at("sealed"), "-i", &home.at("id.key"), "--key", &public];
    weightmark(run.iter().chain(&["--", "true", "{}"])).fails(3, &["not plain data"]);
    weightmark(run.iter().chain(&allow).chain(&["--", "true", "{}"])).ok();
    // left out of the signature, it is left out of the gate, and of what a verified model hands out
    let sig = home.at("x.sig");
    let ignore = ["--ignore-paths", "training_args.bin", "--ignore-paths", "tf_model.h5", "--signature", &sig];
    weightmark(line.iter().chain(&ignore)).ok();
    for name in ["model.sig", "model.release.sig"] {
        fs::remove_file(home.path("model").join(name)).unwrap();
    }
    fs::rename(&sig, home.path("model/model.sig")).unwrap();
    let open = options(&home).open(home.path("model")).unwrap();
    assert!(open.code().is_empty() && open.files().open("tf_model.h5").is_err());
    Run::of(Command::new("test").args(["-e", &home.at("model/tf_model.h5")])).ok();
}

/// The files of a model on disk, read into memory.
fn in_memory(home: &Home, name: &str) -> Sources {
    let tree = tree::open(home.path(name)).unwrap();
    tree.entries().iter().fold(Sources::new("store"), |sources, entry| {
        let bytes = tree.open(&entry.path).unwrap().read_all(u64::MAX).unwrap();
        sources.and(&entry.path, Arc::new(SliceAt::new(bytes))).unwrap()
    })
}

#[test]
fn a_model_may_lie_anywhere() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    sign(&home, &["--outboard"]);
    weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "-o", &home.at("sealed")]).ok();
    let identity = || XWingIdentity::load(home.path("id.key")).unwrap();
    let on_disk = options(&home).open(home.path("model")).unwrap().tensor("a.weight").unwrap();
    for (name, options) in [("model", options(&home)), ("sealed", options(&home).identity(identity()))] {
        let model = options.open_tree(Box::new(in_memory(&home, name)), &()).unwrap();
        assert_eq!(model.tensor("a.weight").unwrap().bytes(), on_disk.bytes());
        assert_eq!(model.verified().unwrap().name(), "model");
    }
    // what is expected holds wherever the files lie
    let unread = Model::options().open_tree(Box::new(in_memory(&home, "model")), &());
    assert!(matches!(unread, Err(Error::ApiMisuse(_))));
    let more = in_memory(&home, "model").and("more.json", Arc::new(SliceAt::new("{}"))).unwrap();
    let extra = VerifyError::ExtraFile { path: "more.json".into() };
    assert_eq!(cause(options(&home).open_tree(Box::new(more), &())), extra);
    // a lone file has nothing beside it
    let source: Arc<dyn ReadAt> = Arc::new(SliceAt::new(home.read("model/model.safetensors")));
    let lone = || Box::new(SingleFile::new("model.safetensors", Arc::clone(&source)));
    assert!(matches!(options(&home).open_tree(lone(), &()), Err(Error::ApiMisuse(_))));
    let model = Model::options().open_tree(lone(), &()).unwrap();
    assert_eq!(model.tensor("a.weight").unwrap().bytes(), on_disk.bytes());
}
