//! The verifier, against models that are not what was signed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;
use weightmark::error::{KeyError, VerifyError};
use weightmark::keys::{Algorithm, Signer, SigningKey, VerifyingKey};
use weightmark::signing::{self, Bundle, Manifest, Policy};
use weightmark::{Error, Model};

use super::support::{Home, Run, on_terminal, secret, weightmark};

fn signed() -> (Home, SigningKey) {
    let home = Home::new();
    home.model("model", 50_000);
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    key.sign(&Manifest::of(home.path("model")).unwrap()).unwrap().write(home.path("model/model.sig")).unwrap();
    (home, key)
}

fn cause(result: Result<impl Sized, Error>) -> VerifyError {
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
    for extra in ["modeling.py", ".hidden", "Config.json", "tokenizer/.x", "model.sig.bak", "tokenizer/.git/hooks"] {
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
            .is_ok_and(|bundle| policy.verify_tree(&*tree, &bundle, Some("model.sig"), &()).is_ok());
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
        assert_eq!(Policy::require(public.clone()).verify(home.path("model")).unwrap().signer(), &public);
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
    use base64::prelude::{BASE64_STANDARD, Engine};
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
    let (payload, kind) = (statement.to_string(), "application/vnd.in-toto+json");
    let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
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
    home.write("model/model.sig", bundle.to_string());
    let verify = || Policy::require(key.verifying_key()).verify(home.path("model"));
    assert_eq!(verify().unwrap().files(), 3);
    home.write("model/new", "");
    assert!(matches!(verify(), Err(Error::Verify { cause: VerifyError::ExtraFile { .. }, .. })));
    std::fs::remove_file(home.path("model/new")).unwrap();
    home.write("model/config.json", "{}");
    assert!(matches!(verify(), Err(Error::Verify { cause: VerifyError::DigestMismatch { .. }, .. })));
}
