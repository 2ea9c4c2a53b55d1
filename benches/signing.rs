//! Signing, verifying and verified reads beside the reference tool, in one run: `cargo bench --features full --bench
//! signing`.
//!
//! Files lie in the page cache. `benches/README.md` says what is measured, and what was seen.

mod turns;

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use weightmark::Model;
use weightmark::encryption::{Encryptor, Reader};
use weightmark::format::{self, ModelIndex};
use weightmark::io::tree::{self, SingleFile};
use weightmark::io::{FileAt, Tree, copy};
use weightmark::keys::{Algorithm, SigningKey, XWingIdentity};
use weightmark::signing::{HashType, Hashing, Manifest, Policy, Scope, Signatures, VerifiedTree};

use turns::{Contestant, Outcome, TURNS, all, compare, run, write_model};

const FILES: usize = 5000;

fn main() -> Outcome {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    for name in ["one", "four", "small"] {
        fs::create_dir(path(name))?;
    }
    write_model(&path("one/model.safetensors"), std::iter::repeat_n(128, 6).chain(std::iter::repeat_n(8, 32)))?;
    for i in 0..4 {
        write_model(&path(&format!("four/model-{i}.safetensors")), [256])?;
    }
    for i in 0..FILES {
        fs::write(path(&format!("small/{i}.json")), format!("{{\"number\": {i}}}{}", " ".repeat(1000)))?;
    }
    let key = SigningKey::generate(Algorithm::EcdsaP256)?;
    key.save(path("key"))?;
    println!("{} threads, fastest of {TURNS} turns", rayon::current_num_threads());

    let python = std::env::var("PEERS_PYTHON").ok();
    let policy = Policy::require(key.verifying_key());
    let hashings = [HashType::Sha256, HashType::Blake3].map(|hash| Hashing { hash, shard_size: None });
    for name in ["one", "four", "small"] {
        let (model, size) = (path(name), tree::open(path(name))?.total_size());
        let peer = |job: &'static str, hash: HashType| -> Option<Contestant<'_>> {
            let texts =
                [model.clone(), path("key"), path("key.pub"), path("peer.sig")].map(|p| p.display().to_string());
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/model_signing_peer.py");
            let args = [script, job, hash.name()].map(str::to_owned).into_iter().chain(texts).collect::<Vec<_>>();
            let python = python.clone()?;
            Some((peer_name(hash), Box::new(move || measured(&python, &args).map(Some))))
        };
        let title = |job: &str| match name {
            "small" => format!("{job} {FILES} small files"),
            _ => format!("{job} {} MiB in {name}", size >> 20),
        };
        let mut contest = vec![all("pread, all threads", || {
            let tree = tree::open(&model)?;
            Ok(tree.entries().iter().try_for_each(|e| copy(&*tree.open(&e.path)?, &|_, _| Ok(()), &()))?)
        })];
        let sign =
            |hashing| Ok(key.sign(&Manifest::of_tree(&*tree::open(&model)?, hashing, &Scope::default(), &())?)?);
        let [sha256, blake3] = hashings;
        contest.push(all("weightmark, sha256", || sign(sha256)));
        contest.push(all("weightmark, blake3", || sign(blake3)));
        contest.push(all("weightmark, blake3 and outboard", || {
            let (manifest, _outboard) = Manifest::with_outboard(&*tree::open(&model)?, &Scope::default(), &())?;
            Ok(key.sign(&manifest)?)
        }));
        contest.extend([peer("sign", HashType::Sha256), peer("sign", HashType::Blake3)].into_iter().flatten());
        compare(&title("sign"), Some(size), contest)?;

        let bundles = [sign(sha256)?, sign(blake3)?];
        let signatures = bundles.clone().map(|bundle| Signatures::new().and(None, bundle));
        let manifests =
            hashings.map(|hashing| Manifest::of_tree(&*tree::open(&model)?, hashing, &Scope::default(), &()));
        let [of_sha256, of_blake3] = manifests;
        let [of_sha256, of_blake3] = [of_sha256?, of_blake3?];
        let verify = |i: usize| Ok(policy.verify_tree(&*tree::open(&model)?, &signatures[i], &())?);
        let eager = |manifest: &Manifest| Ok(VerifiedTree::eager(tree::open(&model)?, manifest, &())?);
        let mut contest = vec![
            all("weightmark, sha256", || verify(0)),
            all("weightmark, blake3", || verify(1)),
            all("the same for reads, sha256", || eager(&of_sha256)),
            all("the same for reads, blake3", || eager(&of_blake3)),
        ];
        contest.extend([peer("verify", HashType::Sha256), peer("verify", HashType::Blake3)].into_iter().flatten());
        compare(&title("verify"), Some(size), contest)?;

        let [signature, public] = [path(&format!("{name}.sig")), path("key.pub")];
        bundles[0].write(&signature)?;
        let [model, signature, public] = [&model, &signature, &public].map(|p| p.display().to_string());
        let ours = ["verify", &model, "--signature", &signature, "--key", &public];
        let mut contest = vec![all("weightmark, sha256", || run(env!("CARGO_BIN_EXE_weightmark"), &ours))];
        let theirs =
            ["-m", "model_signing", "verify", "key", &model, "--signature", &signature, "--public_key", &public];
        if let Some(python) = &python {
            contest.push(all("model_signing, sha256", || run(python, &theirs)));
        }
        compare(&title("whole processes: verify"), Some(size), contest)?;
    }
    decrypted(&path("one/model.safetensors"), home.path(), hashings)?;
    verified_reads(&path("one/model.safetensors"))
}

/// Hashing the plaintext of an encrypted file.
fn decrypted(model: &Path, home: &Path, hashings: [Hashing; 2]) -> Outcome {
    let identity = XWingIdentity::generate()?;
    Encryptor::to([identity.recipient()]).encrypt(model, home.join("encrypted"))?;
    let size = fs::metadata(model)?.len();
    for hashing in hashings {
        let hash = |tree: &dyn Tree| Ok(Manifest::of_tree(tree, hashing, &Scope::default(), &())?);
        let sealed = || Reader::open(FileAt::open(home.join("encrypted"))?, &[&identity]);
        compare(
            &format!("hash what is encrypted, {}", hashing.hash.name()),
            Some(size),
            [
                all("hash plaintext", || hash(&SingleFile::open(model)?)),
                all("decrypt", || Ok(copy(&sealed()?, &|_, _| Ok(()), &())?)),
                all("decrypt and hash", || hash(&SingleFile::new("model", Arc::new(sealed()?)))),
            ],
        )?;
    }
    Ok(())
}

/// Reads of a part of a model, each byte verified in the buffer.
fn verified_reads(model: &Path) -> Outcome {
    let (manifest, outboard) = Manifest::with_outboard(&*tree::open(model)?, &Scope::default(), &())?;
    let beside = model.with_extension("outboard");
    outboard.write(&beside)?;
    let shards = Hashing { hash: HashType::Sha256, shard_size: Some(1 << 20) };
    let shards = Manifest::of_tree(&*tree::open(model)?, shards, &Scope::default(), &())?;
    let open = |manifest: &Manifest, with_outboard: bool| -> Outcome<(VerifiedTree, ModelIndex)> {
        let outboard = with_outboard.then(|| FileAt::open(&beside)).transpose()?;
        let outboard = outboard.map(|file| Arc::new(file) as _);
        let tree = VerifiedTree::lazy(tree::open(model)?, manifest, outboard)?;
        let index = ModelIndex::read(&tree)?;
        Ok((tree, index))
    };
    let load = |(tree, index): &(VerifiedTree, ModelIndex), name: &str| -> Outcome<_> {
        let (file, info) = index.tensor(name).ok_or("no such tensor")?;
        Ok(format::load(&*tree.open(file)?, info)?)
    };
    compare(
        "one tensor of 8 MiB of 1 GiB, from a cold open",
        None,
        [
            all("not verified", || Ok(Model::options().open(model)?.tensor("t20")?)),
            all("blake3 and outboard", || load(&open(&manifest, true)?, "t20")),
            all("sha256, shards of 1 MiB", || load(&open(&shards, false)?, "t20")),
            all("blake3, all of the file", || load(&open(&manifest, false)?, "t20")),
        ],
    )?;
    let (plain, warm) = (Model::options().open(model)?, open(&manifest, true)?);
    let (file, info) = warm.1.tensor("t0").ok_or("no such tensor")?;
    let rows = |tree: &dyn Tree, start: u64| -> Outcome {
        let source = tree.open(file)?;
        Ok(source.read_at(info.span.start + (start << 14), &mut [0; 48 << 10])?)
    };
    compare(
        "48 KiB of rows of a tensor of 128 MiB",
        None,
        [
            all("not verified", || Ok(plain.rows("t0", 1001..1004)?)),
            all("blake3 and outboard", || rows(&warm.0, 1001)),
            all("from a cold open", || rows(&open(&manifest, true)?.0, 1001)),
        ],
    )?;
    let buffer = RefCell::new(vec![1; 128 << 20]);
    let read = |tree: &dyn Tree| Ok(tree.open(file)?.read_at(info.span.start, &mut buffer.borrow_mut())?);
    let eager = VerifiedTree::eager(tree::open(model)?, &manifest, &())?;
    compare(
        "a tensor of 128 MiB into a warm buffer",
        Some(128 << 20),
        [
            all("not verified", || read(plain.files())),
            all("blake3 and outboard", || read(&warm.0)),
            all("eager", || read(&eager)),
        ],
    )
}

fn peer_name(hash: HashType) -> &'static str {
    if hash == HashType::Blake3 { "model_signing, blake3" } else { "model_signing, sha256" }
}

/// The milliseconds that a peer says it took.
fn measured(python: &str, args: &[String]) -> Outcome<Duration> {
    let output = Command::new(python).args(args).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let milliseconds: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Duration::from_secs_f64(milliseconds / 1000.0))
}
