//! Everyone who can be encrypted to: keys of every kind, passphrases, groups, key holders of one's own; and streams.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use weightmark::encryption::{Decryptor, Encryptor, Rewrap};
use weightmark::error::{Code, EncryptionError, KeyError};
use weightmark::io::{Entry, ReadAtExt, SliceAt, Tree};
use weightmark::keys::{
    Cost, Identity, InputKey, Passphrase, Recipient, Stanza, SymmetricKey, XWingIdentity, load_identity,
};
use weightmark::{Error, Model, Result};

use super::support::{Home, Random, Run, on_terminal, python, script, secret, weightmark};

const CHUNK: usize = 16 << 10;
/// What a stream is worked on at a time.
const PART: usize = 256 * CHUNK;
/// What a guess at a passphrase costs where that is not the point.
const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

/// A kind of recipient, as the command line and the second reader name its two sides.
struct Kind {
    name: &'static str,
    to: [String; 2],
    with: [String; 2],
    reader: String,
}

/// One of every kind, and its keys.
fn kinds(home: &Home) -> Vec<Kind> {
    weightmark(["keygen", "identity", "-o", &home.at("x-wing")]).ok();
    weightmark(["keygen", "identity", "--x25519", "-o", &home.at("x25519")]).ok();
    weightmark(["keygen", "symmetric", "-o", &home.at("symmetric")]).ok();
    secret(home, "raw", bytes(32, 1));
    secret(home, "passphrase", "correct horse battery stäple\n");
    let key = |name: &'static str, recipient: &str| Kind {
        name,
        to: ["-r".into(), recipient.into()],
        with: ["-i".into(), home.at(name)],
        reader: home.at(name),
    };
    let phrase = ["--passphrase-file".to_owned(), home.at("passphrase")];
    vec![
        key("x-wing", &home.at("x-wing.pub")),
        key("x25519", &home.at("x25519.pub")),
        key("symmetric", &home.at("symmetric")),
        key("raw", &home.at("raw")),
        Kind {
            name: "passphrase",
            to: phrase.clone(),
            with: phrase,
            reader: format!("passphrase:{}", home.at("passphrase")),
        },
    ]
}

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    std::iter::repeat_with(|| random.bits().to_le_bytes()).flatten().take(len).collect()
}

fn read_wmenc(identity: &str, input: &str, output: &str) -> Run {
    python([script("read_wmenc.py").to_str().unwrap(), identity, input, output])
}

/// Runs the command line with `input` on stdin.
fn piped(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weightmark"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(input); // the program may have stopped reading: that is for the test to see
        });
        child.wait_with_output().unwrap()
    })
}

/// What was written to stdout by a command that must have succeeded.
#[track_caller]
fn written(output: Output) -> Vec<u8> {
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    output.stdout
}

#[test]
fn every_kind_opens_a_file_and_a_directory_and_a_second_reader_agrees() {
    let home = Home::new();
    let kinds = kinds(&home);
    home.model("model", 20_000);
    let files = ["config.json", "model.safetensors", "tokenizer/vocab.txt"];
    for Kind { name, to, with, reader } in &kinds {
        let at = |place: &str| home.at(&format!("{name}.{place}"));
        let (model, file) = (home.at("model"), home.at("model/model.safetensors"));
        if *name == "passphrase" {
            let phrase = Passphrase::load(home.path("passphrase")).unwrap().cost(CHEAP); // once in earnest is enough
            Encryptor::to([phrase]).context("a@1").encrypt(&model, at("dir")).unwrap();
        } else {
            weightmark(["encrypt", &model, &to[0], &to[1], "--context", "a@1", "-o", &at("dir")]).ok();
        }
        weightmark(["encrypt", &file, &to[0], &to[1], "--context", "a@1", "-o", &at("wmenc")]).ok();
        weightmark(["decrypt", &at("dir"), &with[0], &with[1], "--context", "a@1", "-o", &at("dir.ours")]).ok();
        weightmark(["decrypt", &at("wmenc"), &with[0], &with[1], "--context", "a@1", "-o", &at("ours")]).ok();
        read_wmenc(reader, &at("dir"), &at("dir.theirs")).ok();
        read_wmenc(reader, &at("wmenc"), &at("theirs")).ok();
        for who in ["ours", "theirs"] {
            assert_eq!(home.read(&format!("{name}.{who}")), home.read("model/model.safetensors"), "{name} {who}");
            for file in files {
                let plain = home.read(&format!("model/{file}"));
                assert_eq!(home.read(&format!("{name}.dir.{who}/{file}")), plain, "{name} {who} {file}");
            }
        }
        // no other key helps, of whatever kind
        for other in kinds.iter().filter(|other| other.name != *name) {
            for sealed in ["dir", "wmenc"] {
                weightmark(["decrypt", &at(sealed), &other.with[0], &other.with[1], "-o", &at("out")])
                    .fails(4, &[sealed, "none of the identities given can open it"]);
            }
        }
        assert!(!home.path(&format!("{name}.out")).exists());
    }
    // another key of the same kind
    let more: [(&str, &[&str]); 3] =
        [("x-wing", &["identity"]), ("x25519", &["identity", "--x25519"]), ("symmetric", &["symmetric"])];
    for (name, kind) in more {
        let other = home.at(&format!("{name}.other"));
        weightmark([&["keygen"], kind, &["-o", &other]].concat()).ok();
        weightmark(["decrypt", &home.at(&format!("{name}.wmenc")), "-i", &other, "-o", &home.at("out")])
            .fails(4, &["none of the identities given can open it"]);
    }
    secret(&home, "raw.other", bytes(32, 2));
    weightmark(["decrypt", &home.at("raw.wmenc"), "-i", &home.at("raw.other"), "-o", &home.at("out")])
        .fails(4, &["none of the identities given can open it"]);
    secret(&home, "wrong", "correct horse battery staple\n");
    let wrong = ["--passphrase-file", &home.at("wrong")];
    weightmark(["decrypt", &home.at("passphrase.dir"), wrong[0], wrong[1], "-o", &home.at("out")])
        .fails(4, &["wrong passphrase"]);
    let theirs = read_wmenc(&format!("passphrase:{}", home.at("wrong")), &home.at("passphrase.dir"), &home.at("out"));
    assert_eq!(theirs.status, 1, "{}", theirs.stderr);
    assert!(!home.path("out").exists());
    assert!(!home.names().iter().any(|name| name.starts_with('.')), "{:?}", home.names());
}

#[test]
fn secrets_of_recipients_are_guarded_like_identities() {
    let home = Home::with_keys();
    let data = home.write("data", "weights");
    let out = home.at("out");
    weightmark(["keygen", "symmetric", "-o", &home.at("symmetric")]).ok();
    assert!(!home.path("symmetric.pub").exists());
    secret(&home, "raw", bytes(32, 1));
    secret(&home, "phrase", "correct horse\n");
    for name in ["symmetric", "raw", "phrase"] {
        fs::set_permissions(home.path(name), Permissions::from_mode(0o640)).unwrap();
        let flag = if name == "phrase" { "--passphrase-file" } else { "-r" };
        weightmark(["encrypt", &data, flag, &home.at(name), "-o", &out]).fails(4, &[name, "readable by others"]);
    }
    // a passphrase is not a key, even one of 32 bytes
    secret(&home, "text", "correct horse battery staple 123");
    secret(&home, "line", "correct horse battery staple\r\n\t\n");
    for name in ["text", "line"] {
        let text = home.at(name);
        assert_eq!(home.read(name).len(), 32);
        weightmark(["encrypt", &data, "-r", &text, "-o", &out]).fails(4, &[name, "no key text, or mistyped"]);
        weightmark(["decrypt", &data, "-i", &text, "-o", &out]).fails(4, &[name, "no key text, or mistyped"]);
    }
    secret(&home, "empty", "\n");
    weightmark(["encrypt", &data, "--passphrase-file", &home.at("empty"), "-o", &out])
        .fails(4, &["empty", "a passphrase is 1 to 1024 bytes of text"]);
    // a passphrase stands alone
    let phrase = ["--passphrase-file", &home.at("phrase")];
    let both = weightmark(["encrypt", &data, phrase[0], phrase[1], "-r", &home.at("id.key.pub"), "-o", &out]);
    assert_eq!(both.status, 2, "{}", both.stderr);
    assert_eq!(weightmark(["encrypt", &data, "-o", &out]).status, 2);
    assert!(!home.path("out").exists());
}

#[test]
fn a_passphrase_is_asked_for_on_the_terminal_and_not_shown() {
    let home = Home::new();
    let data = home.write("data", "weights");
    let sealed = home.at("data.wmenc");
    let encrypt = ["encrypt", &data, "--passphrase", "-o", &sealed];
    let differ = on_terminal("open sesame,open barley", encrypt);
    assert_eq!(differ.status, 2, "{}", differ.stdout);
    assert!(differ.stdout.contains("the two passphrases differ"), "{}", differ.stdout);
    assert!(!home.path("data.wmenc").exists());
    let shown = on_terminal("open sesame,open sesame", encrypt).ok();
    assert!(shown.contains("passphrase: ") && shown.contains("again: "), "{shown}");

    let (out, decrypt) = (home.at("out"), ["decrypt", &sealed, "--passphrase", "-o"]);
    let wrong = on_terminal("open barley", [&decrypt[..], &[&out]].concat());
    assert_eq!(wrong.status, 4, "{}", wrong.stdout);
    assert!(wrong.stdout.contains("wrong passphrase"), "{}", wrong.stdout);
    on_terminal("open sesame", [&decrypt[..], &[&out]].concat()).ok();
    assert_eq!(home.read("out"), b"weights");
    // typed or from a file, it is the same
    secret(&home, "phrase", "open sesame\n");
    weightmark(["decrypt", &sealed, "--passphrase-file", &home.at("phrase"), "-o", &home.at("again")]).ok();
    // without a terminal nobody can be asked
    let mut alone = Command::new("setsid");
    let run = Run::of(alone.args(["-w", env!("CARGO_BIN_EXE_weightmark")]).args(encrypt).stdin(Stdio::null()));
    run.fails(3, &["the terminal", "cannot read the passphrase from"]);
}

/// `model`, with adapters for two customers that have keys of their own, and `sealed`.
fn adapters(home: &Home) {
    home.model("model", 20_000);
    home.write("model/adapters/acme/a.dat", "for acme");
    home.write("model/adapters/acme/deep/b.dat", "for acme too");
    home.write("model/adapters/acmes.dat", "for all");
    home.write("model/adapters/beta.dat", "for beta");
    weightmark(["keygen", "identity", "--x25519", "-o", &home.at("acme.key")]).ok();
    weightmark(["keygen", "identity", "-o", &home.at("ally.key")]).ok();
    weightmark(["keygen", "symmetric", "-o", &home.at("beta.key")]).ok();
    weightmark([
        "encrypt",
        &home.at("model"),
        "-r",
        &home.at("id.key.pub"),
        "--group",
        &format!("adapters/acme/={}", home.at("acme.key.pub")),
        "--group",
        &format!("adapters/beta.dat={}", home.at("beta.key")),
        "--group",
        &format!("adapters/acme={}", home.at("ally.key.pub")),
        "--context",
        "acme/groups@1",
        "-o",
        &home.at("sealed"),
    ])
    .ok();
}

const MAIN: [&str; 4] = ["adapters/acmes.dat", "config.json", "model.safetensors", "tokenizer/vocab.txt"];
const ACME: [&str; 2] = ["adapters/acme/a.dat", "adapters/acme/deep/b.dat"];
const BETA: [&str; 1] = ["adapters/beta.dat"];

#[test]
fn groups_open_to_their_own_and_leave_the_others_out() {
    let home = Home::with_keys();
    adapters(&home);
    let inspected = weightmark(["inspect", &home.at("sealed"), "--json"]).json();
    let groups = inspected["envelope"]["groups"].as_array().unwrap();
    let paths: Vec<_> = groups.iter().map(|group| group["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["", "adapters/acme", "adapters/beta.dat"]);
    let kinds = |group: &Value| -> Vec<String> {
        group["recipients"].as_array().unwrap().iter().map(|r| r[0].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(groups.iter().map(kinds).collect::<Vec<_>>(), [vec!["x-wing"], vec!["x25519", "x-wing"], vec!["key"]]);

    type Files<'a> = &'a [&'a [&'a str]];
    let cases: [(&[&str], Files<'_>, Files<'_>); 6] = [
        (&["id.key"], &[&MAIN], &[&ACME, &BETA]),
        (&["acme.key"], &[&ACME], &[&MAIN, &BETA]),
        (&["ally.key"], &[&ACME], &[&MAIN, &BETA]),
        (&["beta.key"], &[&BETA], &[&MAIN, &ACME]),
        (&["beta.key", "id.key"], &[&MAIN, &BETA], &[&ACME]),
        (&["id.key", "ally.key", "beta.key", "acme.key"], &[&MAIN, &ACME, &BETA], &[]),
    ];
    for (i, (keys, open, closed)) in cases.into_iter().enumerate() {
        let mut closed: Vec<&str> = closed.concat();
        closed.sort_unstable();
        let given: Vec<String> = keys.iter().flat_map(|key| ["-i".to_owned(), home.at(key)]).collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let (json, text) = (home.at(&format!("json{i}")), home.at(&format!("text{i}")));
        let sealed = home.at("sealed");
        if let Some(path) = closed.first() {
            weightmark([&["decrypt", &sealed, "-o", &json], &given[..]].concat())
                .fails(4, &["sealed", &format!("encrypted file {path:?} is closed to the identities given")]);
            assert!(!home.path(&format!("json{i}")).exists());
        }
        let partial = if closed.is_empty() { &[][..] } else { &["--partial"] };
        let given = [&given[..], partial].concat();
        let seen = weightmark([&["decrypt", &sealed, "-o", &json, "--json"], &given[..]].concat()).json();
        assert_eq!(seen, json!({"schema": "weightmark/decrypt/1", "output": json, "closed": closed}));
        let shown = weightmark([&["decrypt", &sealed, "-o", &text], &given[..]].concat()).ok();
        let left_out: Vec<_> = closed.iter().map(|path| format!("left out, encrypted for others: {path}")).collect();
        assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), left_out, "{keys:?}");
        for path in open.concat() {
            assert_eq!(home.read(&format!("json{i}/{path}")), home.read(&format!("model/{path}")), "{keys:?} {path}");
        }
        for path in &closed {
            assert!(!home.path(&format!("json{i}/{path}")).exists(), "{keys:?} {path}");
        }
        if let [key] = keys {
            let theirs = read_wmenc(&home.at(key), &sealed, &home.at(&format!("theirs{i}")));
            let named = closed.iter().all(|path| theirs.stderr.contains(&format!("closed: {path}\n")));
            assert!(named && theirs.stderr.lines().count() == closed.len(), "{}", theirs.stderr);
            theirs.ok();
            let same = ["-r", &home.at(&format!("theirs{i}")), &json];
            Run::of(Command::new("diff").args(same)).ok();
        }
    }
    weightmark(["keygen", "identity", "-o", &home.at("nobody.key")]).ok();
    for partial in [&[][..], &["--partial"]] {
        let decrypt = ["decrypt", &home.at("sealed"), "-i", &home.at("nobody.key"), "-o", &home.at("out")];
        weightmark([&decrypt[..], partial].concat())
            .fails(4, &["weightmark.keys", "none of the identities given can open it"]);
    }
}

#[test]
fn no_verb_takes_a_part_for_the_whole() {
    let home = Home::with_keys();
    adapters(&home);
    let (model, sealed, out) = (home.at("model"), home.at("sealed"), home.at("out"));
    let (id, owner, release) = (home.at("id.key"), home.at("owner.key"), home.at("release.pem.pub"));
    weightmark(["sign", &model, "--key", &home.at("release.pem"), "--signature", &home.at("all.sig")]).ok();
    let signature = home.at("all.sig");
    let verify = ["verify", &sealed, "-i", &id, "--key", &release, "--signature", &signature];
    let detect = ["detect", &sealed, "-i", &id, "--original", &model, "--owner-key", &owner];
    for verb in [&verify, &detect] {
        let closed = format!("encrypted file {:?} is closed to the identities given", ACME[0]);
        weightmark(verb).fails(4, &["sealed", &closed]);
    }
    // what was signed is the whole
    weightmark([&verify[..], &["--partial"]].concat()).fails(1, &[ACME[0]]);
    let compared = weightmark([&detect[..], &["--partial", "--json"]].concat());
    assert!(compared.status == 1 && compared.stdout.contains("\"tensors_matched\":2"), "{}", compared.stdout);
    let all = ["-i", &home.at("acme.key"), "-i", &home.at("beta.key")];
    weightmark([&verify[..], &all].concat()).ok();
    weightmark(["rewrap", &sealed, "-i", &id, "--add", &home.at("id.key.pub"), "--partial"]).fails(2, &["--partial"]);
    weightmark(["rekey", &sealed, "-i", &id, "-r", &home.at("id.key.pub"), "--partial", "-o", &out])
        .fails(2, &["--partial would leave files out of the new one"]);
    assert!(!home.path("out").exists());
}

#[test]
fn groups_that_make_no_sense() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    let (model, recipient, out) = (home.at("model"), home.at("id.key.pub"), home.at("out"));
    let encrypt = |input: &str, path: &str| {
        weightmark(["encrypt", input, "-r", &recipient, "--group", &format!("{path}={recipient}"), "-o", &out])
    };
    let missing = ["adapters", "adapters/", "Tokenizer", "token", "tokenizer/vocab"];
    let crooked = ["", "/", "/abs", "./tokenizer", "tokenizer/.", "../model", "a//b", "a\\b", "."];
    for path in missing.into_iter().chain(crooked) {
        encrypt(&model, path).fails(2, &["a group without files: is its path right?"]);
    }
    encrypt(&home.at("model/config.json"), "config.json").fails(2, &["groups of files need a directory"]);
    let streamed = piped(&["encrypt", "-", "-r", &recipient, "--group", &format!("x={recipient}"), "-o", &out], b"");
    assert_eq!(streamed.status.code(), Some(2), "{streamed:?}");
    weightmark(["encrypt", &model, "-r", &recipient, "--group", "tokenizer", "-o", &out])
        .fails(2, &["--group tokenizer: it takes PATH=RECIPIENT"]);
    weightmark(["encrypt", &model, "-r", &recipient, "--group", "tokenizer=/nowhere", "-o", &out])
        .fails(3, &["/nowhere", "cannot open"]);
    let alone = weightmark(["encrypt", &model, "--group", &format!("tokenizer={recipient}"), "-o", &out]);
    assert_eq!(alone.status, 2, "{}", alone.stderr);
    assert!(!home.path("out").exists());
    assert!(!home.names().iter().any(|name| name.starts_with('.')), "{:?}", home.names());
}

#[test]
fn a_group_beside_a_passphrase_is_refused() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    secret(&home, "phrase", "open sesame\n");
    let (group, phrase) = (format!("tokenizer={}", home.at("id.key.pub")), home.at("phrase"));
    let encrypt = ["encrypt", &home.at("model"), "--group", &group, "-o", &home.at("out")];
    for flag in [&["--passphrase-file", phrase.as_str()][..], &["--passphrase"]] {
        assert_eq!(weightmark([&encrypt[..], flag].concat()).status, 2);
    }
    assert!(!home.path("out").exists());
}

#[test]
fn nothing_is_written_that_a_reader_would_refuse() {
    /// Wraps as it should, and lets the stanza say more.
    struct Talkative(&'static str);
    impl Recipient for Talkative {
        fn wrap(&self, key: &InputKey) -> Result<Stanza> {
            let mut stanza = SymmetricKey::from_bytes(&[7; 32])?.wrap(key)?;
            stanza.arguments.insert(self.0.into(), "x".into());
            Ok(stanza)
        }
    }
    let home = Home::with_keys();
    home.model("model", 20_000);
    for i in 0..256 {
        home.write(&format!("many/{i}/file"), "");
    }
    let key = || SymmetricKey::from_bytes(&[7; 32]).unwrap();
    let phrase = || Passphrase::new("open sesame").unwrap().cost(CHEAP);
    let why = |done: Result<()>| match done {
        Err(Error::Encryption { cause: EncryptionError::BadEnvelope(why), .. }) => why,
        other => panic!("{other:?}"),
    };
    let encrypt = |encryptor: &Encryptor, input: &str| {
        encryptor.encrypt(home.path(input), home.path("out")).map(drop) // and nothing is left
    };
    // a passphrase in one of several groups
    for encryptor in
        [Encryptor::to([key()]).group("tokenizer", [phrase()]), Encryptor::to([phrase()]).group("tokenizer", [key()])]
    {
        assert_eq!(why(encrypt(&encryptor, "model")), "a passphrase must be the only recipient");
    }
    // more groups than there may be, the main one included
    let groups = |count: usize| (0..count).fold(Encryptor::to([key()]), |e, i| e.group(i.to_string(), [key()]));
    assert!(why(encrypt(&groups(256), "many")).contains("256"));
    groups(255).encrypt(home.path("many"), home.path("most")).unwrap();
    assert_eq!(Decryptor::new(&[&key()]).open(home.path("most")).unwrap().entries().len(), 256);
    // the same group twice: the files are in one of them
    let twice = Encryptor::to([key()]).group("tokenizer", [key()]).group("tokenizer", [key()]);
    assert!(matches!(encrypt(&twice, "model"), Err(Error::ApiMisuse("a group without files: is its path right?"))));
    // a public index of what is not there
    let model = Model::options().open(home.path("model")).unwrap();
    let tensors = || model.tensors().map(|(_, tensor)| ("nowhere.safetensors", tensor));
    let indexed = Encryptor::to([key()]).public_index(tensors());
    let problem = "the public list names a file twice, or one that is not there";
    for input in ["model", "model/model.safetensors"] {
        assert_eq!(why(encrypt(&indexed, input)), problem);
    }
    assert_eq!(why(indexed.encrypt_bytes("m", b"weights").map(drop)), problem);
    let mut written = Vec::new();
    assert_eq!(why(indexed.encrypt_stream("m", &b"weights"[..], &mut written, &()).map(drop)), problem);
    // stanzas whose arguments are their type and id once more
    for argument in ["type", "id"] {
        let (one, dir) = (home.path(&format!("one.{argument}")), home.path(&format!("dir.{argument}")));
        Encryptor::to([key()]).encrypt(home.path("model/config.json"), &one).unwrap();
        Encryptor::to([key()]).encrypt(home.path("model"), &dir).unwrap();
        let read = || (fs::read(&one).unwrap(), fs::read(dir.join("weightmark.keys")).unwrap());
        let (before, encryptor) = (read(), Encryptor::to([Talkative(argument)]));
        let said = [
            why(encrypt(&encryptor, "model")),
            why(encrypt(&encryptor, "model/config.json")),
            why(encryptor.encrypt_bytes("m", b"weights").map(drop)),
            why(encryptor.encrypt_stream("m", &b"weights"[..], &mut written, &()).map(drop)),
            why(encryptor.rekey(&dir, home.path("out"), &Decryptor::new(&[&key()]), &()).map(drop)),
            why(Rewrap::new().only([Talkative(argument)]).apply(&one, &[&key()]).map(drop)),
            why(Rewrap::new().only([Talkative(argument)]).apply(&dir, &[&key()]).map(drop)),
        ];
        assert!(said.iter().all(|why| why.contains(argument)), "{said:?}");
        assert!(read() == before && written.is_empty());
    }
    let left = |name: &String| name.starts_with('.') || name.ends_with(".rewrap") || name == "out";
    assert!(!home.names().iter().any(left), "{:?}", home.names());
}

#[test]
fn nobody_is_a_recipient_twice() {
    let home = Home::with_keys();
    let (data, own, out) = (home.write("data", "weights"), home.at("id.key.pub"), home.at("out"));
    let text = String::from_utf8(home.read("id.key.pub")).unwrap();
    for again in [own.as_str(), text.trim()] {
        weightmark(["encrypt", &data, "-r", &own, "-r", again, "-o", &out])
            .fails(2, &["a recipient stands there twice"]);
    }
    assert!(!home.path("out").exists());
    weightmark(["encrypt", &data, "-r", &own, "-o", &out]).ok();
    let before = home.read("out");
    for flag in ["--add", "-r"] {
        weightmark(["rewrap", &out, "-i", &home.at("id.key"), flag, &own, flag, &own])
            .fails(2, &["a recipient stands there twice"]);
    }
    assert!(home.read("out") == before);
}

#[test]
fn paths_have_limits() {
    let home = Home::with_keys();
    let recipient = home.at("id.key.pub");
    let encryptor = || Encryptor::to([XWingIdentity::load(home.path("id.key")).unwrap().recipient().clone()]);
    let deep = |components: usize| vec!["d"; components].join("/");
    let long = |len: usize| format!("d/{}", "x".repeat(len - 2));
    for (fits, does_not) in [(deep(64), deep(65)), (long(4096), long(4097))] {
        let sealed = encryptor().encrypt_bytes(&fits, b"weights").unwrap();
        let opened = weightmark::encryption::inspect(&SliceAt::new(sealed)).unwrap().unwrap();
        assert_eq!(opened.groups[0].files, [(fits, 7)]);
        assert!(matches!(encryptor().encrypt_bytes(&does_not, b"weights"), Err(Error::ApiMisuse(_))));
        let named = ["encrypt", "-", "-r", &recipient, "-o", "-", "--name", &does_not];
        weightmark(named).fails(2, &["the path of an encrypted file must be canonical and relative"]);
    }
    home.write(&format!("model/{}", deep(64)), "deep");
    let (model, sealed, out) = (home.at("model"), home.at("sealed"), home.at("out"));
    weightmark(["encrypt", &model, "-r", &recipient, "-o", &sealed]).ok();
    weightmark(["decrypt", &sealed, "-i", &home.at("id.key"), "-o", &out]).ok();
    assert_eq!(home.read(&format!("out/{}", deep(64))), b"deep");
    home.write(&format!("deeper/{}/e/f", deep(63)), "too deep");
    weightmark(["encrypt", &home.at("deeper"), "-r", &recipient, "-o", &home.at("x")]).fails(3, &["deeper/d/d/"]);
    assert!(!home.path("x").exists());
}

#[test]
fn a_list_of_keys_over_64_mib_is_not_read() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    let (sealed, id) = (home.at("sealed"), home.at("id.key"));
    weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "-o", &sealed]).ok();
    let keys = fs::OpenOptions::new().write(true).open(home.path("sealed/weightmark.keys")).unwrap();
    for (len, cause) in [((64 << 20) + 1, "over 64 MiB"), (64 << 20, "bytes after it")] {
        keys.set_len(len).unwrap(); // sparse
        for args in [
            &["inspect", sealed.as_str()][..],
            &["decrypt", &sealed, "-i", &id, "-o", &home.at("out")],
            &["rewrap", &sealed, "-i", &id, "--add", &home.at("id.key.pub")],
        ] {
            weightmark(args).fails(3, &["sealed/weightmark.keys", &format!("malformed envelope: {cause}")]);
        }
        assert_eq!(read_wmenc(&id, &sealed, &home.at("out")).status, 1);
        assert_eq!(fs::metadata(home.path("sealed/weightmark.keys")).unwrap().len(), len);
    }
}

#[test]
fn closed_files_of_a_model_are_not_there_and_say_why() {
    let home = Home::with_keys();
    adapters(&home);
    let options = |key: &str| Model::options().identity(load_identity(home.path(key)).unwrap());
    let open = |key: &str| options(key).accept_closed().open(home.path("sealed"));
    let names = |entries: &[Entry]| entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>();
    let paths = |tree: &dyn Tree| names(tree.entries());
    // who did not say that this is fine gets none of it
    for (key, first) in [("id.key", ACME[0]), ("acme.key", MAIN[0]), ("beta.key", ACME[0])] {
        let identity = load_identity(home.path(key)).unwrap();
        let decryptor = Decryptor::new(&[&*identity]).open(home.path("sealed")).map(drop);
        for refused in [options(key).open(home.path("sealed")).map(drop), decryptor] {
            match refused {
                Err(Error::Encryption { cause: EncryptionError::ClosedFile { path }, .. }) => assert_eq!(path, first),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
    let model = open("id.key").unwrap();
    assert_eq!(paths(model.files()), MAIN);
    assert_eq!(names(model.files().closed()), [&ACME[..], &BETA].concat());
    assert_eq!(model.tensors().count(), 3);
    for path in ACME.into_iter().chain(BETA) {
        match model.files().open(path).map(|_| ()) {
            Err(error @ Error::Encryption { cause: EncryptionError::ClosedFile { .. }, .. }) => {
                assert_eq!(error.code(), Code::Key);
                assert!(
                    error.to_string().ends_with(&format!("encrypted file {path:?} is closed to the identities given"))
                );
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    match model.files().open("nowhere").map(|_| ()) {
        Err(Error::Encryption { cause: EncryptionError::MissingFile { path }, .. }) => assert_eq!(path, "nowhere"),
        other => panic!("{other:?}"),
    }
    let whole = options("id.key").identity(load_identity(home.path("acme.key")).unwrap());
    let whole = whole.identity(load_identity(home.path("beta.key")).unwrap()).open(home.path("sealed")).unwrap();
    assert_eq!((whole.files().entries().len(), whole.files().closed()), (7, &[][..]));
    let model = open("acme.key").unwrap();
    assert_eq!((paths(model.files()), model.tensors().count()), (ACME.map(String::from).to_vec(), 0));
    assert_eq!(model.files().open(ACME[0]).unwrap().read_all(100).unwrap(), b"for acme");

    // files that stay closed need not be there; all others must
    for path in ACME {
        fs::remove_file(home.path(&format!("sealed/{path}.wmenc"))).unwrap();
    }
    let model = open("id.key").unwrap();
    assert_eq!((paths(model.files()), model.files().closed().len()), (MAIN.map(String::from).to_vec(), 3));
    assert!(matches!(
        open("acme.key").map(|_| ()),
        Err(Error::Encryption { cause: EncryptionError::MissingFile { path }, .. }) if path == ACME[0]
    ));
}

#[test]
fn the_public_index_is_for_everybody_and_authenticated() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    let (model, file, recipient) = (home.at("model"), home.at("model/model.safetensors"), home.at("id.key.pub"));
    let tensors = json!([
        {"name": "a.weight", "dtype": "F32", "shape": [156, 64]},
        {"name": "b.bias", "dtype": "F32", "shape": [64]},
        {"name": "b.weight", "dtype": "F32", "shape": [156, 64]},
    ]);
    for (input, sealed) in [(&model, "sealed"), (&file, "file.wmenc")] {
        let made = ["encrypt", input, "-r", &recipient, "--public-index", "--json", "-o", &home.at(sealed)];
        let made = weightmark(made).json();
        let seen = weightmark(["inspect", &home.at(sealed), "--json"]).json();
        assert_eq!(seen["envelope"], made["envelope"]);
        let public = seen["envelope"]["public"].as_array().unwrap();
        let [listed] = public.as_slice() else { panic!("{seen}") };
        assert_eq!(listed["path"], "model.safetensors");
        let mut found = listed["tensors"].as_array().unwrap().clone();
        found.sort_by_key(|tensor| tensor["name"].to_string());
        assert_eq!(json!(found), tensors);
        let shown = weightmark(["inspect", &home.at(sealed)]).ok();
        for line in ["tensors of model.safetensors, as the publisher lists them:", "F32   [156, 64]  a.weight"] {
            assert!(shown.contains(line), "{shown}");
        }
        // a claim until the key is there, and then no more
        let place = if sealed == "sealed" { "sealed/weightmark.keys" } else { sealed };
        let whole = home.read(place);
        let mut forged = whole.clone();
        let at = forged.windows(8).position(|window| window == b"a.weight").unwrap();
        forged[at] = b'z';
        home.write(place, forged);
        assert!(weightmark(["inspect", &home.at(sealed)]).ok().contains("z.weight"));
        weightmark(["decrypt", &home.at(sealed), "-i", &home.at("id.key"), "-o", &home.at("out")])
            .fails(1, &[place, "tampered: the envelope does not authenticate"]);
        home.write(place, whole);
        weightmark(["decrypt", &home.at(sealed), "-i", &home.at("id.key"), "-o", &home.at(&format!("{sealed}.out"))])
            .ok();
    }
    // nobody is told without it
    weightmark(["encrypt", &model, "-r", &recipient, "-o", &home.at("secret")]).ok();
    let shown = weightmark(["inspect", &home.at("secret"), "--json"]).ok();
    assert!(shown.contains("model.safetensors") && !shown.contains("weight\"") && shown.contains("\"public\":[]"));

    let streamed = piped(&["encrypt", "-", "-r", &recipient, "--public-index", "-o", &home.at("out")], b"");
    let complaint = "weightmark: error: --public-index needs a file or directory, not stdin\n";
    assert_eq!((streamed.status.code(), streamed.stderr.as_slice()), (Some(2), complaint.as_bytes()));
    assert!(!home.path("out").exists());
}

#[test]
fn streams_of_every_length() {
    let home = Home::with_keys();
    let (recipient, identity) = (home.at("id.key.pub"), home.at("id.key"));
    let lengths = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + CHUNK];
    for len in lengths {
        let text = bytes(len, len as u64);
        let plain = home.write(&format!("plain{len}"), &text);
        let seal = |input: &str, output: &str| piped(&["encrypt", input, "-r", &recipient, "-o", output], &text);
        let open = |sealed: &[u8], input: &str, output: &str| {
            piped(&["decrypt", input, "-i", &identity, "-o", output], sealed)
        };
        let (from_stream, from_file) = (written(seal("-", "-")), written(seal(&plain, "-")));
        assert!(seal("-", &home.at(&format!("streamed{len}"))).status.success());
        let whole = [from_stream, from_file, home.read(&format!("streamed{len}"))];
        for (i, sealed) in whole.iter().enumerate() {
            let chunks = len / CHUNK + 1;
            assert_eq!(sealed.len(), CHUNK + 56 + len + 16 * chunks, "{len} {i}");
            assert!(written(open(sealed, "-", "-")) == text, "{len} {i}");
            let file = home.write(&format!("sealed{len}.{i}"), sealed);
            assert!(written(open(b"", &file, "-")) == text, "{len} {i}");
        }
        let place = format!("out{len}");
        assert!(open(&whole[0], "-", &home.at(&place)).status.success());
        assert!(home.read(&place) == text, "{len}");
        assert_eq!(fs::metadata(home.path(&place)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(open(b"", &home.at(&format!("sealed{len}.1")), &home.at(&format!("{place}.2"))).status.success());
        assert!(home.read(&format!("{place}.2")) == text, "{len}");
    }
    // through one real pipeline, and past the second reader
    let line = "set -o pipefail; head -c 9000001 /dev/zero | \
                \"$0\" encrypt - -r \"$2\" --name w.bin -o - | tee \"$3\" | \
                \"$0\" decrypt - -i \"$1\" -o - | cmp - <(head -c 9000001 /dev/zero)";
    let args = [env!("CARGO_BIN_EXE_weightmark"), &identity, &recipient, &home.at("teed.wmenc")];
    Run::of(Command::new("bash").args(["-c", line]).args(args)).ok();
    read_wmenc(&identity, &home.at("teed.wmenc"), &home.at("theirs")).ok();
    assert_eq!(home.read("theirs"), vec![0; 9_000_001]);
    let seen = weightmark(["inspect", &home.at("teed.wmenc"), "--json"]).json();
    assert_eq!(seen["envelope"]["groups"][0]["files"], json!([["w.bin", 9_000_001]]));
}

#[test]
fn a_cut_stream_is_no_success_and_gives_an_authentic_beginning_only() {
    let home = Home::with_keys();
    let (len, record) = (PART + 40 * CHUNK + 77, CHUNK + 16);
    let text = bytes(len, 7);
    let sealed = written(piped(&["encrypt", "-", "-r", &home.at("id.key.pub"), "-o", "-"], &text));
    let payload = CHUNK + 56; // the header of a lone file, salt and commitment
    let decrypt = ["decrypt", "-", "-i", &home.at("id.key"), "-o"];
    let open = |stream: &[u8], output: &str| piped(&[&decrypt[..], &[output]].concat(), stream);
    let cut = [
        (100, 0, 1),
        (CHUNK - 1, 0, 1),
        (payload - 1, 0, 1),
        (payload, 0, 1),
        (payload + 15, 0, 1),
        (payload + record - 1, 0, 1),
        (payload + record, 1, 1),
        (payload + 256 * record - 1, 255, 1),
        (payload + 256 * record, 256, 1), // just where a part ends
        (payload + 256 * record + 1, 256, 1),
        (payload + 296 * record, 296, 1), // all but the last chunk
        (sealed.len() - 1, 296, 1),
        (0, 0, 3),
        (15, 0, 3),
    ];
    for (end, chunks, status) in cut {
        let output = open(&sealed[..end], "-");
        assert_eq!(output.status.code(), Some(status), "{end}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == text[..chunks * CHUNK], "{end}: {} bytes", output.stdout.len());
        assert_eq!(open(&sealed[..end], &home.at("out")).status.code(), Some(status), "{end}");
        let file = home.write("cut.wmenc", &sealed[..end]);
        let from_file = piped(&["decrypt", &file, "-i", &home.at("id.key"), "-o", "-"], b"");
        assert_eq!((from_file.status.code(), from_file.stdout.len()), (Some(status), 0), "{end}");
    }
    for (at, chunks) in [(payload + 5 * record, 5), (payload + 270 * record + 9, 270), (sealed.len() - 1, 296)] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let output = open(&changed, "-");
        assert_eq!(output.status.code(), Some(1), "{at}");
        assert!(output.stdout == text[..chunks * CHUNK], "{at}: {} bytes", output.stdout.len());
        let complaint = format!("weightmark: error: input stream: tampered: chunk {chunks} does not authenticate\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr), complaint);
    }
    for extra in [1, 16, record] {
        let longer = [&sealed[..], &vec![0; extra]].concat();
        assert_eq!(open(&longer, "-").status.code(), Some(1), "{extra}");
    }
    assert!(!home.path("out").exists());
    assert!(!home.names().iter().any(|name| name.starts_with('.')), "{:?}", home.names());
}

#[test]
fn streams_that_cannot_be() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    let (model, data, recipient) = (home.at("model"), home.write("data", "weights"), home.at("id.key.pub"));
    weightmark(["encrypt", &model, "-r", &recipient, "-o", &home.at("sealed")]).ok();
    let identity = home.at("id.key");
    for args in [
        ["encrypt", &data, "-r", &recipient, "--json", "-o", "-"],
        ["encrypt", "-", "-r", &recipient, "--json", "-o", "-"],
        ["decrypt", &data, "-i", &identity, "--json", "-o", "-"],
        ["decrypt", "-", "-i", &identity, "--json", "-o", "-"],
    ] {
        weightmark(args).fails(2, &["--json needs stdout for itself: give --output a file"]);
    }
    weightmark(["decrypt", &home.at("sealed"), "-i", &identity, "-o", "-"])
        .fails(3, &["sealed", "a directory does not fit into a stream"]);
    weightmark(["encrypt", &model, "-r", &recipient, "-o", "-"]).fails(3, &["model", "is a directory"]);
    let named = ["encrypt", "-", "-r", &recipient, "-o", "-", "--name"];
    for name in ["../x", "/x", "", "a//b"] {
        weightmark([&named[..], &[name]].concat())
            .fails(2, &["the path of an encrypted file must be canonical and relative"]);
    }
    // a file of a directory does not open alone
    weightmark(["decrypt", &home.at("sealed/config.json.wmenc"), "-i", &identity, "-o", "-"])
        .fails(3, &["config.json.wmenc", "the file belongs to an encrypted directory: open the directory"]);
    let member = piped(&["decrypt", "-", "-i", &identity, "-o", "-"], &home.read("sealed/config.json.wmenc"));
    assert_eq!((member.status.code(), member.stdout.len()), (Some(3), 0));
    // nor does a stream under another context
    let bound = written(piped(&["encrypt", "-", "-r", &recipient, "--context", "a@1", "-o", "-"], b"weights"));
    let other = piped(&["decrypt", "-", "-i", &identity, "--context", "a@2", "-o", "-"], &bound);
    assert_eq!((other.status.code(), other.stdout.len()), (Some(1), 0));
}

#[test]
fn whoever_stops_reading_a_stream_has_not_got_it_all() {
    let home = Home::with_keys();
    let data = home.write("data", bytes(3 * PART, 3));
    weightmark(["encrypt", &data, "-r", &home.at("id.key.pub"), "-o", &home.at("data.wmenc")]).ok();
    let line = "case $1 in \
                from-file) \"$0\" \"${@:3}\" -o - ;; *) \"$0\" \"${@:3}\" -o - < \"$2\" ;; \
                esac | head -c 10; echo \" ${PIPESTATUS[0]}\"";
    for (verb, file, flag, key) in
        [("encrypt", data.clone(), "-r", "id.key.pub"), ("decrypt", home.at("data.wmenc"), "-i", "id.key")]
    {
        for (how, input) in [("from-file", file.as_str()), ("from-stream", "-")] {
            let args = [env!("CARGO_BIN_EXE_weightmark"), how, &file, verb, input, flag, &home.at(key)];
            let output = Command::new("bash").args(["-c", line]).args(args).output().unwrap();
            assert!(output.stdout.ends_with(b" 3\n") && output.stdout.len() == 13, "{verb} {how}: {output:?}");
            let complaint = "weightmark: error: output stream: cannot write: Broken pipe (os error 32)\n";
            assert_eq!(String::from_utf8_lossy(&output.stderr), complaint, "{verb} {how}");
        }
    }
}

/// A key service as a user may write one: it knows keys by name, writes down who asked for what, and may be down.
#[derive(Clone)]
struct Vault {
    name: &'static str,
    key: Arc<SymmetricKey>,
    asked: Arc<Mutex<Vec<String>>>,
    down: bool,
}

impl Vault {
    const KIND: &'static str = "acme.example/vault";

    fn new(name: &'static str) -> Self {
        Self { name, key: Arc::new(SymmetricKey::generate().unwrap()), asked: Arc::default(), down: false }
    }

    /// The same one, writing to the list of another.
    fn beside(self, other: &Self) -> Self {
        Self { asked: Arc::clone(&other.asked), ..self }
    }

    fn down(&self) -> Self {
        Self { down: true, ..self.clone() }
    }

    fn note(&self, what: &str) {
        self.asked.lock().unwrap().push(format!("{} {what}", self.name));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn unavailable(&self) -> Error {
        Error::Key { name: self.name.into(), cause: KeyError::Unavailable("connection refused".into()) }
    }
}

impl Recipient for Vault {
    fn wrap(&self, key: &InputKey) -> Result<Stanza> {
        self.note("wraps");
        if self.down {
            return Err(self.unavailable());
        }
        let body = self.key.wrap(key)?.arguments["body"].clone();
        Ok(Stanza::new(Self::KIND, self.name.into(), [("body", body)]))
    }
}

impl Identity for Vault {
    fn unwrap(&self, stanza: &Stanza) -> Option<Result<InputKey>> {
        self.note(&format!("sees {}", stanza.id));
        if (stanza.kind.as_str(), stanza.id.as_str()) != (Self::KIND, self.name) {
            return None;
        }
        let [body] = stanza.exactly(["body"])?;
        let inner = Stanza::new("key", self.key.id(), [("body", body.into())]);
        Some(if self.down { Err(self.unavailable()) } else { self.key.unwrap(&inner)? })
    }
}

#[test]
fn a_key_holder_of_the_users_own_opens_files_and_directories() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    let vault = Vault::new("prod");
    let xwing = || XWingIdentity::load(home.path("id.key")).unwrap();
    let encryptor = Encryptor::to([vault.clone()]).context("a@1");
    encryptor.encrypt(home.path("model"), home.path("sealed")).unwrap();
    encryptor.encrypt(home.path("model/config.json"), home.path("one.wmenc")).unwrap();
    let opened = Model::options().identity(vault.clone()).expect_context("a@1").open(home.path("sealed")).unwrap();
    assert_eq!(opened.tensors().count(), 3);
    Decryptor::new(&[&vault]).decrypt(home.path("one.wmenc"), home.path("one"), &()).unwrap();
    assert_eq!(home.read("one"), home.read("model/config.json"));

    // who does not know its stanzas skips them, and opens his own
    let both: [Box<dyn Recipient>; 3] =
        [Box::new(vault.clone()), Box::new(xwing().recipient().clone()), Box::new(Vault::new("spare"))];
    Encryptor::to(both).encrypt(home.path("model"), home.path("both")).unwrap();
    weightmark(["decrypt", &home.at("both"), "-i", &home.at("id.key"), "-o", &home.at("plain")]).ok();
    assert_eq!(home.read("plain/model.safetensors"), home.read("model/model.safetensors"));
    read_wmenc(&home.at("id.key"), &home.at("both"), &home.at("theirs")).ok();
    let shown = weightmark(["inspect", &home.at("both")]).ok();
    assert!(shown.contains("recipient  acme.example/vault prod") && shown.contains("acme.example/vault spare"));
    for sealed in ["sealed", "one.wmenc"] {
        weightmark(["decrypt", &home.at(sealed), "-i", &home.at("id.key"), "-o", &home.at("out")])
            .fails(4, &[sealed, "none of the identities given can open it"]);
    }
}

#[test]
fn a_key_holder_that_is_down_says_so_unless_somebody_else_opens() {
    let home = Home::new();
    home.write("data", "weights");
    let (vault, spare, foreign) = (Vault::new("prod"), Vault::new("spare"), Vault::new("foreign"));
    let down = vault.down();
    let stopped = Encryptor::to([spare.clone(), down.clone()]).encrypt(home.path("data"), home.path("out"));
    assert!(matches!(
        stopped.map(|_| ()),
        Err(Error::Key { name, cause: KeyError::Unavailable(why) }) if name == "prod" && why == "connection refused"
    ));
    assert_eq!(home.names(), ["data"]);

    Encryptor::to([vault.clone(), spare.clone()]).encrypt(home.path("data"), home.path("data.wmenc")).unwrap();
    let open = |identities: &[&dyn Identity]| {
        let tree = Decryptor::new(identities).open(home.path("data.wmenc"))?;
        tree.open("data")?.read_all(100)
    };
    for identities in [&[&down as &dyn Identity][..], &[&down, &foreign], &[&foreign, &down]] {
        match open(identities) {
            Err(error @ Error::Key { cause: KeyError::Unavailable(_), .. }) => {
                assert_eq!(error.to_string(), "prod: key holder unavailable: connection refused");
            }
            other => panic!("{other:?}"),
        }
    }
    for identities in [&[&down as &dyn Identity, &spare][..], &[&spare, &down], &[&down, &foreign, &spare]] {
        assert_eq!(open(identities).unwrap(), b"weights");
    }
    assert!(matches!(open(&[&foreign]), Err(Error::Key { cause: KeyError::NoMatch, .. })));
}

#[test]
fn key_holders_are_asked_in_order_once_a_group_and_never_for_a_file() {
    let home = Home::new();
    for i in 0..20 {
        home.write(&format!("model/file{i}"), format!("file {i}"));
        home.write(&format!("model/adapters/file{i}"), format!("adapter {i}"));
    }
    let first = Vault::new("first");
    let (second, third) = (Vault::new("second").beside(&first), Vault::new("third").beside(&first));
    Encryptor::to([first.clone(), second.clone()])
        .group("adapters", [second.clone(), third.clone()])
        .encrypt(home.path("model"), home.path("sealed"))
        .unwrap();
    assert_eq!(first.asked(), ["first wraps", "second wraps", "second wraps", "third wraps"]);

    let read_all = |identities: &[&dyn Identity]| {
        let tree = Decryptor::new(identities).accept_closed().open(home.path("sealed")).unwrap();
        for entry in tree.entries() {
            tree.open(&entry.path).unwrap().read_all(100).unwrap();
        }
        tree.entries().len()
    };
    assert_eq!(read_all(&[&second, &first]), 40);
    assert_eq!(first.asked(), ["second sees first", "second sees second", "second sees second"]);
    assert_eq!(read_all(&[&first, &third]), 40);
    assert_eq!(
        first.asked(),
        ["first sees first", "first sees second", "first sees third", "third sees second", "third sees third"]
    );
    assert_eq!(read_all(&[&first.down(), &first]), 20);
    assert_eq!(
        first.asked(),
        [
            "first sees first", // and is down
            "first sees second",
            "first sees first",
            "first sees second", // now of the other group, which opens to neither
            "first sees third",
            "first sees second",
            "first sees third"
        ]
    );
}
