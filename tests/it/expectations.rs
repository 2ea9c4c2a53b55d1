//! What other formats were shown to accept, and this one must not: an attack a test, each refused for its exact cause.

use std::fs;
use std::process::Command;

use weightmark::encryption::{Decryptor, Encryptor, inspect};
use weightmark::error::{Code, EncryptionError, FormatError, KeyError, VerifyError};
use weightmark::io::{ReadAtExt, SliceAt, tree};
use weightmark::keys::{Algorithm, Identity, InputKey, Recipient, SigningKey, Stanza, XWingIdentity, XWingRecipient};
use weightmark::model::OpenOptions;
use weightmark::signing::{Manifest, Policy, Signatory};
use weightmark::{Error, Model, Result};

use super::support::{Home, Run, python, weightmark};

/// The length of the header of a lone file.
const HEADER: usize = 16 << 10;

/// A publisher's model, signed as a directory and as a file, and its licensee.
struct Market {
    home: Home,
    licensee: XWingIdentity,
    release: SigningKey,
}

impl Market {
    fn new() -> Self {
        let (home, release) = (Home::with_keys(), SigningKey::generate(Algorithm::EcdsaP256).unwrap());
        home.model("model", 20_000);
        release.save(home.path("publisher.pem")).unwrap();
        let sign = |path: &str| release.sign(&Manifest::of(home.path(path)).unwrap()).unwrap();
        sign("model/model.safetensors").write(home.path("file.sig")).unwrap();
        sign("model").write(home.path("model/model.sig")).unwrap();
        let licensee = XWingIdentity::load(home.path("id.key")).unwrap();
        Self { home, licensee, release }
    }

    /// Encrypts as anybody can who knows the licensee's recipient.
    fn encrypt(&self, input: &str, context: &str, output: &str) {
        let encryptor = Encryptor::to([self.licensee.recipient().clone()]).context(context);
        encryptor.encrypt(self.home.path(input), self.home.path(output)).unwrap();
    }

    fn identity(&self) -> XWingIdentity {
        XWingIdentity::load(self.home.path("id.key")).unwrap()
    }

    /// What the licensee insists on.
    fn options(&self) -> OpenOptions {
        let policy = Policy::require(self.release.verifying_key());
        Model::options().identity(self.identity()).expect_context("acme/model@2").policy(policy)
    }

    fn open(&self, path: &str) -> Result<Model> {
        self.options().open(self.home.path(path))
    }

    /// Why an encrypted artifact is refused.
    fn refusal(&self, options: OpenOptions, path: &str) -> EncryptionError {
        match options.open(self.home.path(path)).map(|_| ()) {
            Err(Error::Encryption { cause, .. }) => cause,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Why it is refused when nothing is expected of it.
    fn decrypt(&self, path: &str) -> EncryptionError {
        let out = self.home.path("out");
        let decrypted = Decryptor::new(&[&self.licensee]).decrypt(self.home.path(path), &out, &());
        assert!(!out.exists());
        match decrypted.map(|_| ()) {
            Err(Error::Encryption { cause, .. }) => cause,
            other => panic!("{path}: {other:?}"),
        }
    }
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn an_encrypted_and_signed_model_loads_for_whoever_expects_just_that() {
    let market = Market::new();
    let home = &market.home;
    market.encrypt("model", "acme/model@2", "sealed");
    let (model, plain) = (market.open("sealed").unwrap(), Model::options().danger_accept_unsigned());
    let plain = plain.open(home.path("model")).unwrap();
    assert_eq!(model.verified().unwrap().files(), 3);
    let signer = Signatory::Key(market.release.verifying_key());
    assert_eq!(model.verified().unwrap().signatories(), [signer]);
    for (_, info) in plain.tensors() {
        assert_eq!(model.tensor(&info.name).unwrap().bytes(), plain.tensor(&info.name).unwrap().bytes());
    }
    // the same of a lone file, whose signature lies beside it
    market.encrypt("model/model.safetensors", "acme/model@2", "file.wmenc");
    fs::copy(home.path("file.sig"), home.path("file.wmenc.sig")).unwrap();
    assert_eq!(market.open("file.wmenc").unwrap().verified().unwrap().files(), 1);

    let stranger = Policy::require(SigningKey::generate(Algorithm::EcdsaP256).unwrap().verifying_key());
    for path in ["sealed", "file.wmenc"] {
        match market.options().policy(stranger.clone()).open(home.path(path)).map(|_| ()) {
            Err(Error::Verify { cause: VerifyError::UntrustedKey { .. } | VerifyError::BadSignature, .. }) => {}
            other => panic!("{path}: {other:?}"),
        }
        // signed, and nobody said by whom
        let unsaid = Model::options().identity(market.identity()).open(home.path(path));
        assert!(matches!(unsaid.map(|_| ()), Err(Error::ApiMisuse(problem)) if problem.contains("policy")));
    }
}

#[test]
fn a_recipient_cannot_forge_weights_under_the_publishers_signature() {
    let market = Market::new();
    let home = &market.home;
    market.encrypt("model", "acme/model@2", "sealed");
    // the licensee opens it, changes a weight, and encrypts it again with the signature that was in it
    Decryptor::new(&[&market.licensee]).decrypt(home.path("sealed"), home.path("forged"), &()).unwrap();
    let mut weights = home.read("forged/model.safetensors");
    *weights.last_mut().unwrap() ^= 1;
    home.write("forged/model.safetensors", &weights);
    market.encrypt("forged", "acme/model@2", "sealed.forged");
    market.encrypt("forged/model.safetensors", "acme/model@2", "file.wmenc");
    fs::copy(home.path("file.sig"), home.path("file.wmenc.sig")).unwrap();
    for path in ["sealed.forged", "file.wmenc"] {
        match market.open(path).map(|_| ()) {
            Err(Error::Verify { cause: VerifyError::DigestMismatch { path }, .. }) => {
                assert_eq!(path, "model.safetensors");
            }
            other => panic!("{path}: {other:?}"),
        }
        let verify = ["verify", &home.at(path), "-i", &home.at("id.key"), "--key", &home.at("publisher.pem.pub")];
        weightmark(verify).fails(1, &[path, "digest mismatch: \"model.safetensors\""]);
    }
    // nor leave the signature out
    fs::remove_file(home.path("forged/model.sig")).unwrap();
    market.encrypt("forged", "acme/model@2", "unsigned");
    assert!(matches!(
        market.open("unsigned").map(|_| ()),
        Err(Error::Verify { cause: VerifyError::NoSignature { path }, .. }) if path == "model.sig"
    ));
    // nor put the genuine one beside the encrypted files
    fs::copy(home.path("model/model.sig"), home.path("unsigned/model.sig")).unwrap();
    assert!(matches!(
        market.open("unsigned").map(|_| ()),
        Err(Error::Verify { cause: VerifyError::NoSignature { .. }, .. })
    ));
}

#[test]
fn plaintext_in_the_place_of_the_encrypted_model_is_refused() {
    let market = Market::new();
    let home = &market.home;
    for path in ["model", "model/model.safetensors"] {
        for options in [
            Model::options().expect_encrypted(),
            Model::options().expect_context("acme/model@2"),
            Model::options().identity(market.identity()),
            Model::options().identity(market.identity()).danger_accept_unsigned(),
            Model::options().danger_accept_plaintext().identity(market.identity()), // the last word counts
            Model::options().identity(market.identity()).expect_context(""),
            market.options(),
        ] {
            assert_eq!(market.refusal(options, path), EncryptionError::ExpectedEncrypted);
        }
        for options in [market.options(), Model::options().expect_encrypted().danger_accept_unsigned()] {
            let opened = options.danger_accept_plaintext().tree(home.path(path)).unwrap();
            assert_eq!(opened.entries(), tree::open(home.path(path)).unwrap().entries());
        }
        let with_key = ["verify", &home.at(path), "--key", &home.at("publisher.pem.pub"), "-i", &home.at("id.key")];
        weightmark(with_key).fails(1, &[path, "expected to be encrypted, and it is not"]);
        let detect = ["detect", &home.at(path), "--original", &home.at("model"), "--owner-key", &home.at("owner.key")];
        weightmark(detect.iter().copied().chain(["-i", &home.at("id.key")]))
            .fails(1, &[path, "expected to be encrypted, and it is not"]);
        let verify = ["verify", &home.at(path), "--key", &home.at("publisher.pem.pub"), "--context", "acme/model@2"];
        weightmark(verify).fails(1, &[path, "expected to be encrypted, and it is not"]);
        assert_eq!(market.decrypt(path), EncryptionError::NotEncrypted);
    }
    // one file of it only
    market.encrypt("model", "acme/model@2", "sealed");
    fs::copy(home.path("model/config.json"), home.path("sealed/config.json.wmenc")).unwrap();
    assert_eq!(market.refusal(market.options(), "sealed"), EncryptionError::NotEncrypted);
    assert_eq!(market.decrypt("sealed"), EncryptionError::NotEncrypted);
    // which is refused even where plaintext is accepted, as is another context
    assert_eq!(market.refusal(market.options().danger_accept_plaintext(), "sealed"), EncryptionError::NotEncrypted);
    market.encrypt("model", "acme/model@1", "old");
    let mismatch = EncryptionError::ContextMismatch { expected: "acme/model@2".into(), found: "acme/model@1".into() };
    assert_eq!(market.refusal(market.options().danger_accept_plaintext(), "old"), mismatch);
    // or all of it, with the envelope taken away
    fs::remove_file(home.path("sealed/weightmark.keys")).unwrap();
    assert_eq!(market.refusal(market.options(), "sealed"), EncryptionError::ExpectedEncrypted);
    assert_eq!(market.decrypt("sealed"), EncryptionError::NotEncrypted);
}

#[test]
fn ciphertext_without_its_marker_never_becomes_weights() {
    let market = Market::new();
    let home = &market.home;
    market.encrypt("model/model.safetensors", "acme/model@2", "file.wmenc");
    let whole = home.read("file.wmenc");
    let overwritten = |with: &[u8]| [with, &whole[with.len()..]].concat();
    for (name, bytes) in [
        ("cut", whole[16..].to_vec()),
        ("cut-length-too", whole[20..].to_vec()),
        ("payload-alone", whole[HEADER..].to_vec()),
        ("ciphertext-alone", whole[HEADER + 56..].to_vec()),
        ("zeroed", overwritten(&[0; 16])),
        ("one-letter", overwritten(b"Weightmark")),
        ("as-another", overwritten(b"age-encryption.org")),
    ] {
        // as what it would be taken for by a loader that goes by names
        let file = format!("{name}/model.safetensors");
        home.write(&file, &bytes);
        assert_eq!(inspect(&SliceAt::new(bytes.as_slice())).unwrap(), None);
        for path in [name, &file] {
            assert_eq!(market.refusal(market.options(), path), EncryptionError::ExpectedEncrypted, "{path}");
            assert_eq!(market.decrypt(path), EncryptionError::NotEncrypted, "{path}");
            assert_eq!(
                market.refusal(Model::options().identity(market.identity()), path),
                EncryptionError::ExpectedEncrypted,
                "{path}"
            );
            // not even by a caller who expects nothing
            let opened = Model::options().identity(market.identity()).danger_accept_plaintext().open(home.path(path));
            match opened.map(|_| ()) {
                Err(Error::Format {
                    cause: FormatError::HeaderTooLarge { .. } | FormatError::MalformedHeader(_),
                    ..
                }) => {}
                other => panic!("{path}: {other:?}"),
            }
        }
        // and under the name it had, no tensor
        home.write("stripped.wmenc", &bytes);
        let options = Model::options().identity(market.identity()).danger_accept_plaintext();
        match options.open(home.path("stripped.wmenc")) {
            Ok(model) => assert_eq!(model.tensors().count(), 0, "{name}"),
            Err(error) => assert_eq!(error.code(), Code::Input, "{name}: {error}"),
        }
    }
    // another version is no plaintext
    home.write("version.wmenc", replace(&whole, "weightmark-enc-1", "weightmark-enc-2"));
    for options in [market.options(), Model::options()] {
        assert_eq!(market.refusal(options, "version.wmenc"), EncryptionError::UnknownVersion('2'));
    }
}

#[test]
fn no_file_says_where_to_look_for_a_key() {
    /// Wraps as it should, and lets the stanza say more.
    struct Hostile(XWingRecipient, &'static str, String);
    impl Recipient for Hostile {
        fn wrap(&self, key: &InputKey) -> Result<Stanza> {
            let mut stanza = self.0.wrap(key)?;
            stanza.arguments.insert(self.1.into(), self.2.clone());
            Ok(stanza)
        }
    }
    /// A stanza that names a file and nothing else.
    struct Keyfile(String);
    impl Recipient for Keyfile {
        fn wrap(&self, _: &InputKey) -> Result<Stanza> {
            Ok(Stanza::new("keyfile", "0123456789abcdef".into(), [("path", self.0.clone())]))
        }
    }
    let market = Market::new();
    let home = &market.home;
    // whoever opened it would wait for ever
    let fifo = home.at("fifo");
    Run::of(Command::new("mkfifo").arg(&fifo)).ok();
    let decrypt = |path: &str| {
        let args = ["10", env!("CARGO_BIN_EXE_weightmark"), "decrypt", &home.at(path), "-i", &home.at("id.key")];
        Run::of(Command::new("timeout").args(args).args(["-o", &home.at("out")]))
    };
    let recipient = || market.licensee.recipient().clone();
    for argument in ["keyfile", "key_file", "path", "url", "identity"] {
        let hostile = Encryptor::to([Hostile(recipient(), argument, fifo.clone())]);
        hostile.encrypt(home.path("model"), home.path(&format!("dir.{argument}"))).unwrap();
        hostile.encrypt(home.path("model/config.json"), home.path(&format!("file.{argument}"))).unwrap();
        for path in [format!("dir.{argument}"), format!("file.{argument}")] {
            assert_eq!(market.decrypt(&path), EncryptionError::EnvelopeTampered);
            decrypt(&path).fails(1, &[&path, "tampered: the envelope does not authenticate"]);
        }
    }
    let named: [Box<dyn Recipient>; 1] = [Box::new(Keyfile(fifo.clone()))];
    Encryptor::to(named).encrypt(home.path("model"), home.path("named")).unwrap();
    decrypt("named").fails(4, &["named/weightmark.keys", "none of the identities given can open it"]);
    let both: [Box<dyn Recipient>; 2] = [Box::new(Keyfile(fifo.clone())), Box::new(recipient())];
    Encryptor::to(both).encrypt(home.path("model/config.json"), home.path("both")).unwrap();
    decrypt("both").ok();
    fs::remove_file(home.path("out")).unwrap();

    // fields that are not in the specification, at every level
    market.encrypt("model", "acme/model@2", "sealed");
    market.encrypt("model/config.json", "acme/model@2", "file.wmenc");
    for (place, path) in [("sealed/weightmark.keys", "sealed"), ("file.wmenc", "file.wmenc")] {
        let whole = home.read(place);
        for (from, to) in [
            ("{\"suite\"", format!("{{\"keyfile\":\"{fifo}\",\"suite\"")),
            ("{\"suite\"", format!("{{\"identity\":\"{fifo}\",\"suite\"")),
            ("\"recipients\":[", format!("\"key\":{{\"path\":\"{fifo}\"}},\"recipients\":[")),
            ("\"body\":", format!("\"body\":{{\"path\":\"{fifo}\"}},\"x\":")),
        ] {
            let mut bytes = replace(&whole, from, &to);
            let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize + to.len() - from.len();
            bytes[16..20].copy_from_slice(&(length as u32).to_le_bytes());
            bytes.truncate(20 + length + 32);
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
            home.write(place, &bytes);
            assert!(matches!(market.decrypt(path), EncryptionError::BadEnvelope(_)), "{to}");
            decrypt(path).fails(3, &[place, "malformed envelope"]);
        }
        home.write(place, whole);
    }
    // nor is a key used that happens to lie there
    fs::copy(home.path("id.key"), home.path("sealed/id.key")).unwrap();
    let unopened = Model::options().open(home.path("sealed"));
    assert!(matches!(unopened.map(|_| ()), Err(Error::Key { cause: KeyError::Wanted, .. })));
}

#[test]
fn files_beside_the_encrypted_ones_are_not_part_of_the_model() {
    let market = Market::new();
    let home = &market.home;
    market.encrypt("model", "acme/model@2", "sealed");
    let evil = super::support::safetensors(weightmark::tensor::Dtype::F32, 50_000);
    home.write("sealed/model.safetensors", evil); // where a loader would look first
    home.write("sealed/config.json", "{\"auto_map\": {\"AutoModel\": \"evil.Model\"}}");
    home.write("sealed/evil.py", "import os");
    home.write("sealed/adapters/adapter.safetensors", "evil");
    let model = market.open("sealed").unwrap();
    let paths: Vec<_> = model.files().entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["config.json", "model.safetensors", "tokenizer/vocab.txt"]);
    assert_eq!(model.verified().unwrap().files(), 3);
    assert_eq!(model.files().open("config.json").unwrap().read_all(100).unwrap(), home.read("model/config.json"));
    let plain = Model::options().danger_accept_unsigned().open(home.path("model")).unwrap();
    assert_eq!(model.tensor("a.weight").unwrap(), plain.tensor("a.weight").unwrap());
    assert!(matches!(
        model.files().open("evil.py").map(|_| ()),
        Err(Error::Verify { cause: VerifyError::MissingFile { path }, .. }) if path == "evil.py"
    ));
    weightmark(["decrypt", &home.at("sealed"), "-i", &home.at("id.key"), "-o", &home.at("out")]).ok();
    Run::of(Command::new("diff").args(["-r", &home.at("model"), &home.at("out")])).ok();
    // an encrypted one that is not listed is another matter
    fs::copy(home.path("sealed/config.json.wmenc"), home.path("sealed/evil.wmenc")).unwrap();
    let extra = EncryptionError::ExtraFile { path: "evil.wmenc".into() };
    assert_eq!(market.refusal(market.options(), "sealed"), extra);
}

#[test]
fn the_same_envelope_in_other_words_is_another_envelope() {
    let market = Market::new();
    let home = &market.home;
    market.encrypt("model", "acme/model@2", "sealed");
    market.encrypt("model/config.json", "acme/model@2", "file.wmenc");
    for (place, path) in [("sealed/weightmark.keys", "sealed"), ("file.wmenc", "file.wmenc")] {
        let whole = home.read(place);
        let length = u32::from_le_bytes(whole[16..20].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&whole[20..20 + length]).unwrap();
        let meant: serde_json::Value = serde_json::from_str(text).unwrap();
        let start = "{\"suite\":\"cobblestone-256\",\"context\":\"acme/model@2\",";
        for other in [
            format!(" {}", text.strip_suffix(' ').unwrap_or(text)),
            format!("{text} "),
            format!("{}\n", text.trim_end()),
            text.replacen("\"suite\":", "\"suite\": ", 1),
            text.replacen("\"acme", "\"\\u0061cme", 1),
            text.replacen("acme/", "acme\\/", 1),
            text.replacen(start, "{\"context\":\"acme/model@2\",\"suite\":\"cobblestone-256\",", 1),
        ] {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&other).unwrap(), meant);
            let mut bytes = [&whole[..16], &(other.len() as u32).to_le_bytes(), other.as_bytes()].concat();
            bytes.extend_from_slice(&whole[20 + length..20 + length + 32]);
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
            let end = (20 + length + 32).next_multiple_of(4096);
            bytes.extend_from_slice(&whole[end..]);
            assert_ne!(bytes, whole);
            home.write(place, &bytes);
            assert_eq!(market.decrypt(path), EncryptionError::EnvelopeTampered, "{other}");
            assert_eq!(market.refusal(market.options(), path), EncryptionError::EnvelopeTampered, "{other}");
        }
        home.write(place, whole);
    }
    market.open("sealed").unwrap();
}

#[test]
fn an_older_version_cannot_be_passed_off_as_the_one_expected() {
    let market = Market::new();
    let home = &market.home;
    market.encrypt("model", "acme/model@1", "old");
    market.encrypt("model/model.safetensors", "acme/model@1", "old.wmenc");
    fs::copy(home.path("file.sig"), home.path("old.wmenc.sig")).unwrap();
    let mismatch = EncryptionError::ContextMismatch { expected: "acme/model@2".into(), found: "acme/model@1".into() };
    for path in ["old", "old.wmenc"] {
        assert_eq!(market.refusal(market.options(), path), mismatch);
        let decrypt = ["decrypt", &home.at(path), "-i", &home.at("id.key"), "--context", "acme/model@2"];
        weightmark([&decrypt[..], &["-o", &home.at("out")]].concat())
            .fails(1, &[path, "bound to context \"acme/model@1\", expected \"acme/model@2\""]);
    }
    // nor by writing the other context over it
    for place in ["old/weightmark.keys", "old.wmenc"] {
        home.write(place, replace(&home.read(place), "acme/model@1", "acme/model@2"));
        let path = place.split('/').next().unwrap();
        assert_eq!(market.refusal(market.options(), path), EncryptionError::EnvelopeTampered);
    }
    // nor by old files in a new directory
    market.encrypt("model", "acme/model@1", "older");
    market.encrypt("model", "acme/model@2", "new");
    fs::copy(home.path("older/config.json.wmenc"), home.path("new/config.json.wmenc")).unwrap();
    assert_eq!(market.refusal(market.options(), "new"), EncryptionError::ForeignFile);
}

#[test]
fn the_stock_loader_does_not_take_ciphertext_for_weights() {
    let market = Market::new();
    let home = &market.home;
    market.encrypt("model", "acme/model@2", "sealed");
    market.encrypt("model/model.safetensors", "acme/model@2", "file.wmenc");
    fs::copy(home.path("file.wmenc"), home.path("renamed.safetensors")).unwrap();
    let code = "
import sys
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, load_file
print(len(load_file(sys.argv[1])))
for path in sys.argv[2:]:
    for read in (load_file, lambda p: load(open(p, 'rb').read()), lambda p: safe_open(p, 'numpy').keys()):
        try:
            print('LOADED', path, read(path))
        except SafetensorError as error:
            print(str(error).split(':')[-1].strip())
";
    let sealed = ["sealed/model.safetensors.wmenc", "file.wmenc", "renamed.safetensors"].map(|path| home.at(path));
    let args = ["-c".to_owned(), code.into(), home.at("model/model.safetensors")];
    let printed = python(args.iter().chain(&sealed)).ok();
    assert_eq!(printed.lines().collect::<Vec<_>>(), [&["3"][..], &["header too large"; 9]].concat());
}

#[test]
fn an_identity_that_opens_everything_it_is_shown_gets_nothing() {
    /// Claims every stanza, with a key of its own.
    struct Eager;
    impl Identity for Eager {
        fn unwrap(&self, _: &Stanza) -> Option<Result<InputKey>> {
            Some(InputKey::from_bytes(&[7; 32]))
        }
    }
    let market = Market::new();
    market.encrypt("model", "acme/model@2", "sealed");
    market.encrypt("model/config.json", "acme/model@2", "file.wmenc");
    for path in ["sealed", "file.wmenc"] {
        assert_eq!(market.refusal(Model::options().identity(Eager), path), EncryptionError::EnvelopeTampered);
    }
}
