//! The verifier, against models that are not what was signed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;
use weightmark::error::{KeyError, VerifyError};
use weightmark::keys::{Algorithm, Signer, SigningKey, VerifyingKey};
use weightmark::signing::{self, Bundle, Manifest, Policy, Signatory, Signatures};
use weightmark::{Error, Model};

use super::support::{Home, Run, on_terminal, secret, weightmark};

fn signed() -> (Home, SigningKey) {
    let home = Home::new();
    home.model("model", 50_000);
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    key.sign(&Manifest::of(home.path("model")).unwrap()).unwrap().write(home.path("model/model.sig")).unwrap();
    (home, key)
}

pub(super) fn cause(result: Result<impl Sized, Error>) -> VerifyError {
    match result {
        Err(Error::Verify { cause, .. }) => cause,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_model_that_is_not_exactly_what_was_signed_is_refused() {
    use VerifyError::*;
    let (home, key) = signed();
    let policy = Policy::require(key.verifying_key());
    let verify = || policy.verify(home.path("model"));
    assert_eq!(verify().unwrap().files(), 3);

    let original = home.read("model/tokenizer/vocab.txt");
    for i in 0..original.len() * 8 {
        let mut flipped = original.clone();
        flipped[i / 8] ^= 1 << (i % 8);
        home.write("model/tokenizer/vocab.txt", flipped);
        assert_eq!(cause(verify()), DigestMismatch { path: "tokenizer/vocab.txt".into() });
    }
    home.write("model/tokenizer/vocab.txt", &original);
    for extra in [
        "modeling.py",
        ".hidden",
        "Config.json",
        "tokenizer/.x",
        "model.sig.bak",
        "tokenizer/.git/hooks",
        "tokenizer/model.sig",
    ] {
        home.write(&format!("model/{extra}"), "");
        assert_eq!(cause(verify()), ExtraFile { path: extra.into() });
        fs::remove_file(home.path("model").join(extra)).unwrap();
    }
    home.write("model/.git/config", "left out by OMS, and said so");
    assert_eq!(verify().unwrap().ignored(), [".git/config"]);

    fs::rename(home.path("model/config.json"), home.path("config.json")).unwrap();
    assert_eq!(cause(verify()), MissingFile { path: "config.json".into() });
    fs::rename(home.path("config.json"), home.path("model/config.json")).unwrap();
    fs::rename(home.path("model/tokenizer"), home.path("model/other")).unwrap();
    assert_eq!(cause(verify()), MissingFile { path: "tokenizer/vocab.txt".into() });
    fs::rename(home.path("model/other"), home.path("model/tokenizer")).unwrap();

    home.write("model/notes.txt", "ours");
    assert_eq!(policy.clone().danger_ignore_path("notes.txt").verify(home.path("model")).unwrap().ignored().len(), 2);
    assert_eq!(policy.clone().danger_ignore_unsigned_files().verify(home.path("model")).unwrap().files(), 3);
    fs::remove_file(home.path("model/notes.txt")).unwrap();
    fs::remove_file(home.path("model/model.sig")).unwrap();
    assert_eq!(cause(verify()), NoSignature { path: "model.sig".into() });
}

#[test]
fn only_the_keys_of_the_policy_count() {
    let (home, key) = signed();
    let other = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    let found = key.verifying_key().id();
    assert_eq!(
        cause(Policy::require(other.verifying_key()).verify(home.path("model"))),
        VerifyError::UntrustedKey { found }
    );
    Policy::require(other.verifying_key()).or(key.verifying_key()).verify(home.path("model")).unwrap();

    // signed again by the attacker, under the publisher's name
    let bundle = other.sign(&Manifest::of(home.path("model")).unwrap()).unwrap();
    let forged = bundle.to_json().replace(&other.verifying_key().id(), &key.verifying_key().id());
    home.write("model/model.sig", forged);
    assert_eq!(cause(Policy::require(key.verifying_key()).verify(home.path("model"))), VerifyError::BadSignature);
}

#[test]
fn every_changed_byte_of_a_signature_file_is_refused_or_means_the_same() {
    let (home, key) = signed();
    let policy = Policy::require(key.verifying_key());
    let whole = home.read("model/model.sig");
    let tree = weightmark::io::tree::open(home.path("model")).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let verified = Bundle::parse(&changed)
            .map(|bundle| Signatures::new().and(Some("model.sig".into()), bundle))
            .is_ok_and(|signatures| policy.verify_tree(&*tree, &signatures, &()).is_ok());
        assert!(!verified, "byte {at}");
    }
    for end in 0..whole.len() {
        assert!(Bundle::parse(&whole[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_signed_model_is_not_opened_undecided_and_a_swapped_file_changes_nothing() {
    let (home, key) = signed();
    assert!(matches!(Model::options().open(home.path("model")), Err(Error::ApiMisuse(_))));
    Model::options().danger_accept_unsigned().open(home.path("model")).unwrap();
    let model = Model::options().policy(Policy::require(key.verifying_key())).open(home.path("model")).unwrap();
    assert_eq!(model.verified().unwrap().files(), 3);
    let before = model.tensor("a.weight").unwrap();
    let evil = super::support::safetensors(weightmark::tensor::Dtype::F32, 100);
    home.write("evil", evil);
    fs::rename(home.path("evil"), home.path("model/model.safetensors")).unwrap();
    assert_eq!(model.tensor("a.weight").unwrap(), before);
}

#[test]
fn a_single_file_is_held_to_the_signature_beside_it() {
    let (home, key) = signed();
    let file = home.path("model/model.safetensors");
    let policy = || Policy::require(key.verifying_key());
    assert!(matches!(cause(Model::options().policy(policy()).open(&file)), VerifyError::NoSignature { .. }));
    key.sign(&Manifest::of(&file).unwrap()).unwrap().write(home.path("model/model.safetensors.sig")).unwrap();
    assert!(matches!(Model::options().open(&file), Err(Error::ApiMisuse(_))));
    assert_eq!(Model::options().policy(policy()).open(&file).unwrap().verified().unwrap().files(), 1);
    home.write("model/model.safetensors", super::support::safetensors(weightmark::tensor::Dtype::F32, 100));
    assert_eq!(
        cause(Model::options().policy(policy()).open(&file)),
        VerifyError::DigestMismatch { path: "model.safetensors".into() }
    );
}

#[test]
fn a_model_that_two_parsers_could_read_in_two_ways_is_not_signed() {
    let home = Home::new();
    let a = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let header = format!("{{{a},{a}}}");
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), b"x"].concat();
    home.write("model/model.safetensors", bytes);
    assert!(matches!(Manifest::of(home.path("model")), Err(Error::Format { .. })));
}

#[test]
fn a_bundle_of_lists_for_objects_is_refused() {
    let (home, key) = signed();
    let text = String::from_utf8(home.read("model/model.sig")).unwrap();
    let hint = format!("{{\"hint\":\"{}\"}}", key.verifying_key().id());
    assert!(text.contains(&hint));
    let listed = text.replace(&hint, &format!("[\"{}\",null,null]", key.verifying_key().id()));
    assert!(matches!(Bundle::parse(listed.as_bytes()), Err(VerifyError::MalformedBundle(_))));
}

#[test]
fn a_model_of_more_files_than_a_process_may_open_is_verified_and_opened() {
    let home = Home::new();
    home.model("model", 50_000);
    for i in 0..1500 {
        home.write(&format!("model/files/{i}"), format!("some text, number {i}"));
    }
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    key.sign(&Manifest::of(home.path("model")).unwrap()).unwrap().write(home.path("model/model.sig")).unwrap();
    let line = format!(
        "ulimit -n 256; exec {} verify {} --key {}",
        env!("CARGO_BIN_EXE_weightmark"),
        home.at("model"),
        home.write("key.pem", key.verifying_key().to_pem())
    );
    super::support::Run::of(std::process::Command::new("bash").args(["-c", &line])).ok();
    let model = Model::options().policy(Policy::require(key.verifying_key())).open(home.path("model")).unwrap();
    assert_eq!(model.verified().unwrap().files(), 1503);
    let handles = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(handles < 400, "{handles} handles open");
}

#[test]
fn every_algorithm_signs() {
    for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::EcdsaP521, Algorithm::Ed25519] {
        let home = Home::new();
        home.model("model", 50_000);
        let key = SigningKey::generate(algorithm).unwrap();
        let public = key.verifying_key();
        key.sign(&Manifest::of(home.path("model")).unwrap()).unwrap().write(home.path("model/model.sig")).unwrap();
        let verified = Policy::require(public.clone()).verify(home.path("model")).unwrap();
        assert_eq!(verified.signatories(), [Signatory::Key(public)]);
    }
}

/// A key service: says whose signatures it makes, and what it answers.
struct Service<F>(VerifyingKey, F);

impl<F: Fn(&[u8]) -> Result<Vec<u8>, Error> + Send + Sync> Signer for Service<F> {
    fn verifying_key(&self) -> VerifyingKey {
        self.0.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        (self.1)(message)
    }
}

#[test]
fn what_a_signer_returns_is_verified_before_it_is_handed_on() {
    let (home, key) = signed();
    let manifest = Manifest::of(home.path("model/tokenizer")).unwrap();
    let public = key.verifying_key();
    signing::sign(&manifest, &Service(public.clone(), |message: &[u8]| Ok(key.sign_bytes(message)))).unwrap();
    let other = SigningKey::generate(Algorithm::EcdsaP384).unwrap();
    let foreign = Service(public.clone(), |message: &[u8]| Ok(other.sign_bytes(message)));
    assert_eq!(cause(signing::sign(&manifest, &foreign)), VerifyError::BadSignature);
    let wrong = Service(public.clone(), |_: &[u8]| Ok(key.sign_bytes(b"another message")));
    assert_eq!(cause(signing::sign(&manifest, &wrong)), VerifyError::BadSignature);
    let empty = Service(public.clone(), |_: &[u8]| Ok(Vec::new()));
    assert_eq!(cause(signing::sign(&manifest, &empty)), VerifyError::BadSignature);
    let gone = Service(public, |_: &[u8]| {
        Err(Error::Key { name: "service".into(), cause: KeyError::Unavailable("it is down".into()) })
    });
    let refused = signing::sign(&manifest, &gone).unwrap_err();
    assert!(matches!(refused, Error::Key { cause: KeyError::Unavailable(_), .. }), "{refused}");
}

#[test]
fn an_encrypted_key_signs_with_its_passphrase() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let (model, locked, sig) = (home.at("model"), home.at("locked.pem"), home.at("model.sig"));
    let release = home.at("release.pem");
    let encrypt = ["pkcs8", "-topk8", "-scrypt", "-passout", "pass:open sesame", "-in", &release, "-out", &locked];
    Run::of(Command::new("openssl").args(encrypt)).ok();
    fs::set_permissions(&locked, Permissions::from_mode(0o600)).unwrap();
    secret(&home, "phrase", "open sesame\n");
    secret(&home, "wrong", "open barley\n");
    let sign = ["sign", &model, "--key", &locked, "--signature", &sig];
    let from_file = |phrase: &str| weightmark([&sign[..], &["--key-passphrase-file", &home.at(phrase)]].concat());
    let verify = || {
        weightmark(["verify", &model, "--key", &home.at("release.pem.pub"), "--signature", &sig]).ok();
        fs::remove_file(&sig).unwrap();
    };
    from_file("phrase").ok();
    verify();
    from_file("wrong").fails(4, &["locked.pem", "wrong passphrase"]);
    on_terminal("open sesame", sign).ok();
    verify();
    assert_eq!(on_terminal("open barley", sign).status, 4);
    // without a terminal nobody can be asked
    let mut alone = Command::new("setsid");
    let run = Run::of(alone.args(["-w", env!("CARGO_BIN_EXE_weightmark")]).args(sign).stdin(Stdio::null()));
    assert!(run.stderr.contains("--key-passphrase-file"), "{}", run.stderr);
    run.fails(4, &["locked.pem", "protected by a passphrase, and none was given"]);
    // a passphrase for a key that has none is a mistake
    let plain = ["sign", &model, "--key", &release, "--key-passphrase-file", &home.at("phrase"), "--signature", &sig];
    weightmark(plain).fails(4, &["release.pem", "not encrypted"]);
    fs::set_permissions(home.path("phrase"), Permissions::from_mode(0o640)).unwrap();
    from_file("phrase").fails(4, &["phrase", "readable by others"]);
    assert!(!home.path("model.sig").exists());

    fs::set_permissions(home.path("phrase"), Permissions::from_mode(0o600)).unwrap();
    weightmark([
        "protect",
        &model,
        "--owner-key",
        &home.at("owner.key"),
        "--signing-key",
        &locked,
        "--key-passphrase-file",
        &home.at("phrase"),
        "-r",
        &home.at("id.key.pub"),
        "-o",
        &home.at("sealed"),
    ])
    .ok();
    let key = home.at("release.pem.pub");
    weightmark(["verify", &home.at("sealed"), "--key", &key, "-i", &home.at("id.key")]).ok();
}

#[test]
fn signatures_from_before_v1_are_verified() {
    use sha2::{Digest, Sha256};
    let home = Home::new();
    home.model("model", 5_000);
    let digest = |path: &str| {
        let bytes = home.read(&format!("model/{path}"));
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let subject = |path: &str| json!({"name": path, "digest": {"sha256": digest(path)}});
    let subjects = ["config.json", "model.safetensors", "tokenizer/vocab.txt"].map(subject);
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    });
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    home.write("model/model.sig", bundle(&key, &statement.to_string()));
    let verify = || Policy::require(key.verifying_key()).verify(home.path("model"));
    assert_eq!(verify().unwrap().files(), 3);
    home.write("model/new", "");
    assert!(matches!(verify(), Err(Error::Verify { cause: VerifyError::ExtraFile { .. }, .. })));
    std::fs::remove_file(home.path("model/new")).unwrap();
    home.write("model/config.json", "{}");
    assert!(matches!(verify(), Err(Error::Verify { cause: VerifyError::DigestMismatch { .. }, .. })));
}

/// A bundle over any payload, in the way of tools from before OMS 1.0.
pub(super) fn bundle(key: &SigningKey, payload: &str) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let kind = "application/vnd.in-toto+json";
    let signature = key.sign_bytes(format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len()).as_bytes());
    let raw = BASE64_STANDARD.encode(key.verifying_key().to_pem());
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"rawBytes": raw, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}},
        "dsseEnvelope": {
            "payload": BASE64_STANDARD.encode(payload),
            "payloadType": kind,
            "signatures": [{"sig": BASE64_STANDARD.encode(signature), "keyid": null}],
        },
    });
    bundle.to_string()
}

#[test]
fn bombs_are_refused_at_once() {
    use VerifyError::*;
    let (home, key) = signed();
    let policy = Policy::require(key.verifying_key());
    // a signature file of 10 GB, none of it on the disk
    let file = fs::File::create(home.path("model/model.sig")).unwrap();
    file.set_len(10 << 30).unwrap();
    assert!(matches!(policy.verify(home.path("model")), Err(Error::Io { .. })));
    // deep, in the bundle and in the statement
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(1 << 20), close.repeat(1 << 20));
    for bomb in [deep("[", "]"), deep("{\"a\":", "}")] {
        assert!(matches!(Bundle::parse(bomb.as_bytes()), Err(MalformedBundle(_))));
        let entries = format!("{{\"verificationMaterial\":{{\"tlogEntries\":[{bomb}]}}}}");
        assert!(matches!(Bundle::parse(entries.as_bytes()), Err(MalformedBundle(_))));
        let statement = format!("{{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicate\":{bomb}}}");
        home.write("model/model.sig", bundle(&key, &statement));
        assert!(matches!(cause(policy.verify(home.path("model"))), MalformedStatement(_)));
    }
    // a million subjects, resources, ignored paths: read, and refused for what they say
    let many = |item: &str| vec![item; 1_000_000].join(",");
    let subject = r#"{"name":"a","digest":{"sha256":"00"}}"#;
    for statement in [
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{}],"predicateType":"https://model_signing/Digests/v0.1","predicate":{{}}}}"#,
            many(subject)
        ),
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{}],"predicateType":"https://model_signing/signature/v1.0","predicate":{{}}}}"#,
            many(subject)
        ),
    ] {
        home.write("model/model.sig", bundle(&key, &statement));
        assert!(matches!(cause(policy.verify(home.path("model"))), MalformedStatement(_)));
    }
}

#[test]
fn names_that_forge_output_are_escaped_and_names_that_are_not_text_refused() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::with_keys();
    home.model("model", 5_000);
    let (model, public) = (home.at("model"), home.at("release.pem.pub"));
    weightmark(["sign", &model, "--key", &home.at("release.pem")]).ok();
    for (name, shown) in [
        ("a\nverified: 3 files", "a\\u{a}verified"),
        ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
        ("\u{202e}yp.x", "\\u{202e}yp.x"),
        ("\u{200b}", "\\u{200b}"),
    ] {
        home.write(&format!("model/{name}"), "x");
        let run = weightmark(["verify", &model, "--key", &public]);
        let raw = format!("{}{}", run.stdout, run.stderr);
        assert!(!raw.contains(name), "{raw:?}");
        run.fails(1, &["unsigned file"]);
        // signed with such a name, and left out
        let sig = home.at("odd.sig");
        weightmark(["sign", &model, "--key", &home.at("release.pem"), "--signature", &sig, "--ignore-paths", name])
            .ok();
        let verified =
            weightmark(["verify", &model, "--key", &public, "--signature", &sig, "--ignore-paths", "model.sig"]).ok();
        assert!(verified.contains(shown) && !verified.contains(name), "{verified:?}");
        fs::remove_file(sig).unwrap();
        fs::remove_file(home.path("model").join(name)).unwrap();
    }
    let raw = home.path("model").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    fs::write(&raw, "x").unwrap();
    weightmark(["verify", &model, "--key", &public]).fails(3, &["name is not UTF-8"]);
    weightmark(["sign", &model, "--key", &home.at("release.pem"), "--signature", &home.at("x.sig")])
        .fails(3, &["name is not UTF-8"]);
}
