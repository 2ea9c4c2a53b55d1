//! Real peer tools, in both directions.

use super::support::{Home, python, script, weightmark};

fn model_signing(args: &[&str]) -> super::support::Run {
    python(["-m", "model_signing"].iter().chain(args))
}

#[test]
fn the_reference_tool_verifies_what_we_sign_and_we_verify_what_it_signs() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    home.write("model/.gitattributes", "left out by both");
    home.write("model/a.b/c", "sorts differently by component than by code point");
    home.write("model/empty", "");
    let (model, ours, theirs) = (home.at("model"), home.at("ours.sig"), home.at("theirs.sig"));
    let (key, public) = (home.at("release.pem"), home.at("release.pem.pub"));

    weightmark(["sign", &model, "--key", &key, "--signature", &ours]).ok();
    model_signing(&["verify", "key", &model, "--signature", &ours, "--public_key", &public]).ok();
    model_signing(&["sign", "key", &model, "--signature", &theirs, "--private_key", &key]).ok();
    weightmark(["verify", &model, "--key", &public, "--signature", &theirs]).ok();

    // inside of the model, where both must leave out the signature itself
    weightmark(["sign", &model, "--key", &key]).ok();
    let inside = home.at("model/model.sig");
    model_signing(&["verify", "key", &model, "--signature", &inside, "--public_key", &public]).ok();
    std::fs::remove_file(&inside).unwrap();
    let named = home.at("model/their-own.sig");
    model_signing(&["sign", "key", &model, "--signature", &named, "--private_key", &key]).ok();
    weightmark(["verify", &model, "--key", &public, "--signature", &named]).ok();
    std::fs::remove_file(&named).unwrap();

    home.write("model/config.json", "changed");
    weightmark(["verify", &model, "--key", &public, "--signature", &theirs])
        .fails(1, &["digest mismatch", "config.json"]);
    assert_ne!(model_signing(&["verify", "key", &model, "--signature", &ours, "--public_key", &public]).status, 0);
}

#[test]
fn every_hash_and_method_both_ways() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    home.write("model/exact", vec![9; 3 << 14]);
    home.write("model/one more", vec![9; (3 << 14) + 1]);
    let (model, key, public) = (home.at("model"), home.at("release.pem"), home.at("release.pem.pub"));
    let modes = script("oms_modes.py").to_str().unwrap().to_owned();
    for (hash, shard) in [
        ("sha256", None),
        ("blake2b", None),
        ("blake3", None),
        ("sha256", Some("16384")),
        ("blake2b", Some("16384")),
        ("sha256", Some("1000000000")),
    ] {
        let name = format!("{hash}-{}", shard.unwrap_or("whole"));
        let (ours, theirs) = (home.at(&format!("{name}.ours")), home.at(&format!("{name}.theirs")));
        let mut sign = vec!["sign", &model, "--key", &key, "--signature", &ours, "--hash", hash];
        sign.extend(shard.into_iter().flat_map(|size| ["--shard-size", size]));
        weightmark(sign).ok();
        python([&modes[..], "verify", &model, &ours, &public, hash].into_iter().chain(shard)).ok();
        python([&modes[..], "sign", &model, &theirs, &key, hash].into_iter().chain(shard)).ok();
        weightmark(["verify", &model, "--key", &public, "--signature", &theirs]).ok();
        weightmark(["verify", &model, "--key", &public, "--signature", &ours]).ok();

        let before = home.read("model/one more");
        for changed in [[&before[..], b"x"].concat(), before[1..].to_vec(), [b"x", &before[1..]].concat()] {
            home.write("model/one more", changed);
            for signature in [&ours, &theirs] {
                weightmark(["verify", &model, "--key", &public, "--signature", signature])
                    .fails(1, &["digest mismatch", "one more"]);
            }
        }
        home.write("model/one more", before);
        home.write("model/extra", "");
        let run = weightmark(["verify", &model, "--key", &public, "--signature", &ours]);
        match shard {
            Some(_) => assert!(run.ok().contains("extra"), "an empty file has no parts to be signed"),
            None => run.fails(1, &["unsigned file", "extra"]),
        }
        std::fs::remove_file(home.path("model/extra")).unwrap();
    }
}

#[test]
fn on_every_curve_of_the_reference_tool() {
    let home = Home::new();
    home.model("model", 50_000);
    let (model, ours, theirs) = (home.at("model"), home.at("ours.sig"), home.at("theirs.sig"));
    let (key, public) = (home.at("key"), home.at("key.pub"));
    for algorithm in ["p256", "p384", "p521"] {
        weightmark(["keygen", "signing", "--algorithm", algorithm, "-o", &key]).ok();
        weightmark(["sign", &model, "--key", &key, "--signature", &ours]).ok();
        model_signing(&["verify", "key", &model, "--signature", &ours, "--public_key", &public]).ok();
        model_signing(&["sign", "key", &model, "--signature", &theirs, "--private_key", &key]).ok();
        weightmark(["verify", &model, "--key", &public, "--signature", &theirs]).ok();
        for path in [&key, &public, &ours, &theirs] {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn single_files_too() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let (file, key, public) = (home.at("model/model.safetensors"), home.at("release.pem"), home.at("release.pem.pub"));
    let (ours, theirs) = (home.at("ours.sig"), home.at("theirs.sig"));
    weightmark(["sign", &file, "--key", &key, "--signature", &ours]).ok();
    model_signing(&["verify", "key", &file, "--signature", &ours, "--public_key", &public]).ok();
    model_signing(&["sign", "key", &file, "--signature", &theirs, "--private_key", &key]).ok();
    weightmark(["verify", &file, "--key", &public, "--signature", &theirs]).ok();
}

#[test]
fn a_second_reader_opens_what_we_encrypt() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    home.write("model/empty", "");
    home.write("model/exact", vec![9; 3 << 14]);
    let read = |input: &str, output: &str| {
        let reader = script("read_wmenc.py").to_str().unwrap().to_owned();
        python([reader, home.at("id.key"), home.at(input), home.at(output)])
    };
    let recipient = home.at("id.key.pub");
    weightmark(["encrypt", &home.at("model"), "-r", &recipient, "--context", "acme/ü@1", "-o", &home.at("dir")]).ok();
    weightmark(["encrypt", &home.at("model/exact"), "-r", &recipient, "-o", &home.at("file.wmenc")]).ok();
    read("dir", "dir.out").ok();
    for file in ["model.safetensors", "config.json", "tokenizer/vocab.txt", "empty", "exact"] {
        assert_eq!(home.read(&format!("dir.out/{file}")), home.read(&format!("model/{file}")), "{file}");
    }
    read("file.wmenc", "file.out").ok();
    assert_eq!(home.read("file.out"), home.read("model/exact"));

    let mut flipped = home.read("file.wmenc");
    *flipped.last_mut().unwrap() ^= 1;
    home.write("flipped.wmenc", flipped);
    assert_ne!(read("flipped.wmenc", "flipped.out").status, 0);
}

#[test]
fn a_second_reader_agrees_on_every_vector_and_a_second_writer_makes_them_again() {
    let home = Home::new();
    let vectors = super::support::vector("encryption").to_str().unwrap().to_owned();
    let counts = python([script("check_vectors.py").to_str().unwrap(), &vectors]).json();
    assert!(counts["ok"].as_u64() >= Some(58) && counts["refused"].as_u64() >= Some(329), "{counts}");
    super::support::Run::of(std::process::Command::new("cp").args(["-r", &vectors, &home.at("again")])).ok();
    python([home.at("again/generate.py")]).ok();
    let difference = ["-r", "--exclude=__pycache__", &vectors, &home.at("again")];
    super::support::Run::of(std::process::Command::new("diff").args(difference)).ok();
}

#[test]
fn safetensors_in_python_loads_what_we_mark() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    weightmark(["embed", &home.at("model"), "--owner-key", &home.at("owner.key"), "-o", &home.at("marked")]).ok();
    let code = "import sys, numpy; from safetensors.numpy import load_file as load; \
                a, b = load(sys.argv[1]), load(sys.argv[2]); \
                print(max(float(abs(a[k] - b[k]).max()) for k in a), a.keys() == b.keys())";
    let file = |dir: &str| home.at(&format!("{dir}/model.safetensors"));
    let printed = python(["-c", code, &file("model"), &file("marked")]).ok();
    let (change, same) = printed.trim().split_once(' ').unwrap();
    let change: f64 = change.parse().unwrap();
    assert!(same == "True" && change > 0.0 && change < 0.05, "{printed}");
}
