//! Whatever is wrong with what the user gives: one clear line naming file and cause, the right exit status, and
//! nothing left behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::support::{Home, Run, weightmark};

/// Every verb that reads `input` and writes `out`.
fn writers(home: &Home, input: &str) -> Vec<Run> {
    let (out, recipient) = (home.at("out"), home.at("id.key.pub"));
    let (owner, release) = (home.at("owner.key"), home.at("release.pem"));
    vec![
        weightmark(["encrypt", input, "-r", &recipient, "-o", &out]),
        weightmark(["decrypt", input, "-i", &home.at("id.key"), "-o", &out]),
        weightmark(["embed", input, "--owner-key", &owner, "-o", &out]),
        weightmark(["protect", input, "--owner-key", &owner, "--signing-key", &release, "-r", &recipient, "-o", &out]),
    ]
}

#[test]
fn inputs_that_are_not_there_or_not_files() {
    let home = Home::with_keys();
    let before = home.names();
    for run in writers(&home, &home.at("missing")) {
        run.fails(3, &["missing", "cannot open"]);
    }
    assert_eq!(home.names(), before);

    assert!(Command::new("mkfifo").arg(home.path("fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(home.path("socket")).unwrap();
    for (name, cause) in [("fifo", "not a regular file"), ("socket", "cannot open")] {
        for run in writers(&home, &home.at(name)) {
            run.fails(3, &[name, cause]); // at once: nobody ever writes to that FIFO
        }
    }
    for run in writers(&home, "/dev/zero") {
        run.fails(3, &["/dev/zero", "not a regular file"]);
    }
    assert!(!home.path("out").exists() && !home.path("out.record.json").exists());
}

#[test]
fn models_that_hold_what_is_not_a_file() {
    for (make, cause) in [
        (
            &(|home: &Home| symlink("config.json", home.path("model/link")).unwrap()) as &dyn Fn(&Home),
            "symbolic links are not followed",
        ),
        (
            &|home| assert!(Command::new("mkfifo").arg(home.path("model/fifo")).status().unwrap().success()),
            "not a regular file",
        ),
        (
            &|home| {
                fs::write(
                    home.path("model/").join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff")),
                    "",
                )
                .unwrap()
            },
            "not UTF-8",
        ),
        (&|home| drop(home.write("model/a\\b", "")), "backslash"),
    ] {
        let home = Home::with_keys();
        home.model("model", 50_000);
        make(&home);
        for run in writers(&home, &home.at("model")) {
            run.fails(3, &["model/", cause]);
        }
        weightmark(["sign", &home.at("model"), "--key", &home.at("release.pem")]).fails(3, &[cause]);
        assert!(!home.path("out").exists());
    }
}

#[test]
fn outputs_that_exist_or_equal_the_input_or_lie_inside_it() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    home.write("out/keep", "precious");
    weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "-o", &home.at("model.enc")]).ok();
    for input in ["model", "model.enc"] {
        let verb = if input == "model" { 0 } else { 1 };
        writers(&home, &home.at(input)).remove(verb).fails(3, &["out", "it exists already"]);
    }
    for run in writers(&home, &home.at("model")).into_iter().skip(2) {
        run.fails(3, &["out", "it exists already"]);
    }
    assert_eq!(home.read("out/keep"), b"precious");

    let same = home.at("model");
    weightmark(["encrypt", &same, "-r", &home.at("id.key.pub"), "-o", &same]).fails(3, &["model", "it exists already"]);
    let inside = home.at("model/enc");
    weightmark(["encrypt", &same, "-r", &home.at("id.key.pub"), "-o", &inside]).fails(3, &["inside of the input"]);
    weightmark(["embed", &same, "--owner-key", &home.at("owner.key"), "-o", &inside])
        .fails(3, &["inside of the input"]);
    let sealed = home.at("model.enc");
    weightmark(["decrypt", &sealed, "-i", &home.at("id.key"), "-o", &format!("{sealed}/x")])
        .fails(3, &["inside of the input"]);
    weightmark(["keygen", "identity", "-o", &home.at("id.key")]).fails(3, &["id.key", "it exists already"]);
    assert_eq!(fs::read_dir(home.path("model")).unwrap().count(), 3);
    weightmark(["encrypt", &same, "-r", &home.at("id.key.pub"), "-o", &home.at("no/such/dir")])
        .fails(3, &["no/such/dir"]);
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let home = Home::with_keys();
    let model = super::support::safetensors(weightmark::tensor::Dtype::F32, 50_000);
    let embed =
        |name: &str| weightmark(["embed", &home.at(name), "--owner-key", &home.at("owner.key"), "-o", &home.at("out")]);
    home.write("cut.safetensors", &model[..model.len() - 1]);
    embed("cut.safetensors").fails(3, &["cut.safetensors", "lies beyond the end"]);
    home.write("long.safetensors", [model.as_slice(), b"x"].concat());
    embed("long.safetensors").fails(3, &["long.safetensors", "1 bytes after"]);
    home.write("bomb.safetensors", u64::MAX.to_le_bytes());
    embed("bomb.safetensors").fails(3, &["bomb.safetensors", "over the limit"]);
    home.write("text.bin", "this is no model at all");
    embed("text.bin").fails(3, &["text.bin", "no tensor can carry a mark"]);
    weightmark(["inspect", &home.at("text.bin")]).fails(3, &["text.bin", "not a model format"]);
    weightmark(["decrypt", &home.at("text.bin"), "-i", &home.at("id.key"), "-o", &home.at("out")])
        .fails(3, &["text.bin", "not encrypted by weightmark"]);
    weightmark(["decrypt", &home.at("id.key.pub"), "-i", &home.at("id.key"), "-o", &home.at("out")])
        .fails(3, &["not encrypted"]);
    home.write("nan.safetensors", {
        let mut bytes = model.clone();
        let at = bytes.len() - 4096;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    });
    embed("nan.safetensors").fails(3, &["nan.safetensors", "not finite"]);
    embed("../nowhere").fails(3, &["cannot open"]);
    home.write("folder/file", "x");
    weightmark(["verify", &home.at("folder"), "--key", &home.at("release.pem.pub")])
        .fails(1, &["folder", "no signature"]);
    home.write("empty/.git/config", "x");
    weightmark(["sign", &home.at("empty"), "--key", &home.at("release.pem")]).fails(3, &["empty", "no files"]);
    assert!(!home.path("out").exists());
}

#[test]
fn keys_that_are_missing_foreign_open_to_others_or_of_another_kind() {
    let home = Home::with_keys();
    home.write("data", "weights");
    let (data, sealed, out) = (home.at("data"), home.at("data.wmenc"), home.at("out"));
    weightmark(["encrypt", &data, "-r", &home.at("id.key.pub"), "-o", &sealed]).ok();
    weightmark(["keygen", "identity", "-o", &home.at("other.key")]).ok();
    let decrypt = |key: &str| weightmark(["decrypt", &sealed, "-i", &home.at(key), "-o", &out]);
    decrypt("other.key").fails(4, &["data.wmenc", "none of the identities"]);
    weightmark(["decrypt", &sealed, "-o", &out]).fails(4, &["data.wmenc", "no identity was given"]);
    decrypt("missing.key").fails(3, &["missing.key", "cannot open"]);
    fs::create_dir(home.path("folder")).unwrap();
    decrypt("folder").fails(3, &["folder", "is a directory"]);
    weightmark(["sign", &data, "--key", &home.at("folder")]).fails(3, &["folder", "is a directory"]);
    weightmark(["verify", &data, "--key", &home.at("folder")]).fails(3, &["folder", "is a directory"]);
    decrypt("owner.key").fails(4, &["owner.key", "another kind of key"]);
    decrypt("release.pem").fails(4, &["release.pem", "not a weightmark identity"]);
    weightmark(["encrypt", &data, "-r", &home.at("id.key"), "-o", &out]).fails(4, &["id.key", "another kind of key"]);
    weightmark(["encrypt", &data, "-r", "wmrecipient1qqqq", "-o", &out]).fails(4, &["recipient", "mistyped"]);
    weightmark(["sign", &data, "--key", &home.at("release.pem.pub")])
        .fails(4, &["release.pem.pub", "readable by others"]);
    weightmark(["sign", &data, "--key", &home.at("owner.key")]).fails(4, &["owner.key", "no private key"]);
    weightmark(["verify", &data, "--key", &home.at("release.pem")]).fails(4, &["release.pem", "not a verifying key"]);
    fs::set_permissions(home.path("id.key"), Permissions::from_mode(0o644)).unwrap();
    decrypt("id.key").fails(4, &["id.key", "readable by others", "644"]);
    assert!(!home.path("out").exists());
}

#[test]
fn tampering_exits_1_and_leaves_nothing() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let (sealed, out, key) = (home.at("sealed"), home.at("out"), home.at("id.key"));
    weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "--context", "a@1", "-o", &sealed]).ok();
    let decrypt = || weightmark(["decrypt", &sealed, "-i", &key, "-o", &out]);
    weightmark(["decrypt", &sealed, "-i", &key, "--context", "a@2", "-o", &out])
        .fails(1, &["bound to context \"a@1\""]);

    let payload = "sealed/model.safetensors.wmenc";
    let whole = home.read(payload);
    let mut flipped = whole.clone();
    flipped[100_000] ^= 1;
    home.write(payload, &flipped);
    decrypt().fails(1, &["model.safetensors.wmenc", "tampered: chunk 5"]);
    home.write(payload, &whole[..whole.len() - 1]);
    decrypt().fails(1, &["model.safetensors.wmenc", "does not authenticate"]);
    home.write(payload, &whole);
    home.write("sealed/extra.wmenc", &whole);
    decrypt().fails(1, &["sealed", "unexpected encrypted file \"extra.wmenc\""]);
    fs::remove_file(home.path("sealed/extra.wmenc")).unwrap();
    fs::rename(home.path("sealed/config.json.wmenc"), home.path("config.json.wmenc")).unwrap();
    decrypt().fails(1, &["sealed", "\"config.json\" is missing"]);
    assert!(!home.path("out").exists());
    assert!(!home.names().iter().any(|name| name.starts_with('.')), "{:?}", home.names());
}

#[test]
fn a_file_that_may_not_be_read() {
    let home = Home::with_keys();
    let data = home.write("data", "weights");
    fs::set_permissions(&data, Permissions::from_mode(0o000)).unwrap();
    let (recipient, out) = (home.at("id.key.pub"), home.at("out"));
    let is_root = Run::of(Command::new("id").arg("-u")).ok().trim() == "0";
    let run = if is_root {
        // root may read everything: become somebody else, with a copy of the program where they can run it
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        let program = place.path().join("weightmark");
        fs::copy(env!("CARGO_BIN_EXE_weightmark"), &program).unwrap();
        let somebody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        fs::set_permissions(home.path("."), Permissions::from_mode(0o755)).unwrap();
        let args = ["encrypt", &data, "-r", &recipient, "-o", &out];
        Run::of(Command::new("setpriv").args(somebody).arg(&program).args(args))
    } else {
        weightmark(["encrypt", &data, "-r", &recipient, "-o", &out])
    };
    run.fails(3, &["data", "cannot open", "Permission denied"]);
    assert!(!home.path("out").exists());
}

#[test]
fn a_full_disk_leaves_nothing() {
    let home = Home::with_keys();
    let small = home.path("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&small).output().unwrap();
    if !mount.status.success() {
        // without the right to mount: a limit on the size of files fails in the same place
        home.write("data", vec![7; 2 << 20]);
        let line = format!(
            "ulimit -f 1024; trap '' XFSZ; exec {} encrypt {} -r {} -o {}",
            env!("CARGO_BIN_EXE_weightmark"),
            home.at("data"),
            home.at("id.key.pub"),
            home.at("small/out")
        );
        Run::of(Command::new("bash").args(["-c", &line])).fails(3, &["small/out", "cannot write"]);
    } else {
        home.write("data", vec![7; 2 << 20]);
        let run = weightmark(["encrypt", &home.at("data"), "-r", &home.at("id.key.pub"), "-o", &home.at("small/out")]);
        let left = fs::read_dir(&small).unwrap().count();
        assert!(Command::new("umount").arg(&small).status().unwrap().success());
        run.fails(3, &["small/out", "cannot write"]);
        assert_eq!(left, 0);
        return;
    }
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
}

#[test]
fn flags_that_make_no_sense() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let (model, key) = (home.at("model"), home.at("release.pem"));
    for path in ["missing", "./tokenizer", "", ".", "/abs"] {
        weightmark(["sign", &model, "--key", &key, "--ignore-paths", path]).fails(3, &[path, "no such path"]);
    }
    weightmark(["sign", &model, "--key", &key, "--ignore-paths", "tokenizer/"]).ok();
    weightmark(["verify", &model, "--key", &home.at("release.pem.pub")]).ok();
    weightmark(["sign", &model, "--key", &key]).fails(3, &["model.sig", "it exists already"]);
    weightmark(["keygen", "identity", "-o", &home.at("k"), "--algorithm", "ed25519"])
        .fails(2, &["--algorithm is for signing keys"]);
    weightmark(["keygen", "signing", "-o", &home.at("k"), "--name", "x"]).fails(2, &["--name is for owner keys"]);
    weightmark(["keygen", "owner", "-o", &home.at("k"), "--name", ""]).fails(2, &["needs a --name"]);
    let long = home.at(&"k".repeat(253)); // with .pub it is too long
    weightmark(["keygen", "identity", "-o", &long]).fails(3, &["cannot create"]);
    assert!(!home.names().iter().any(|name| name.starts_with('k') || name.starts_with('.')), "{:?}", home.names());

    let record = home.at("model/record.json");
    let protect = |out: &str, more: &[&str]| {
        let (owner, recipient) = (home.at("owner.key"), home.at("id.key.pub"));
        let args = ["protect", &model, "-o", out, "--owner-key", &owner, "--signing-key", &key, "-r", &recipient];
        weightmark(args.iter().chain(more))
    };
    protect(&home.at("out"), &["--record", &record]).fails(3, &["record.json", "inside of the input"]);
    protect(&format!("{}/", home.at("out")), &[]).ok();
    assert!(home.path("out/weightmark.keys").exists() && home.path("out.record.json").exists());
}

#[test]
fn an_unsigned_file_cannot_pass_as_the_signature_of_an_encrypted_model() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    weightmark(["sign", &home.at("model"), "--key", &home.at("release.pem")]).ok();
    let signature = home.read("model/model.sig");
    home.write("model/evil.py", "import os");
    fs::remove_file(home.path("model/model.sig")).unwrap();
    weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "-o", &home.at("sealed")]).ok();
    let place = home.write("sealed/evil.py", signature);
    let (sealed, key) = (home.at("sealed"), home.at("release.pem.pub"));
    weightmark(["verify", &sealed, "-i", &home.at("id.key"), "--key", &key, "--signature", &place])
        .fails(1, &["unsigned file \"evil.py\""]);
}

#[test]
fn a_changed_stanza_is_tampering_and_names_the_file() {
    let home = Home::with_keys();
    home.write("data", "weights");
    weightmark(["encrypt", &home.at("data"), "-r", &home.at("id.key.pub"), "-o", &home.at("data.wmenc")]).ok();
    let mut bytes = home.read("data.wmenc");
    let at = bytes.windows(8).position(|window| window == b"\"body\":\"").unwrap() + 8;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    home.write("data.wmenc", bytes);
    weightmark(["decrypt", &home.at("data.wmenc"), "-i", &home.at("id.key"), "-o", &home.at("out")])
        .fails(1, &["data.wmenc", "tampered"]);
}

#[test]
fn nobody_else_can_look_while_a_model_is_protected() {
    struct Look(std::path::PathBuf, std::sync::atomic::AtomicU32);
    impl weightmark::io::Progress for Look {
        fn begin(&self, _: &str, _: u64) {
            for entry in fs::read_dir(&self.0).unwrap().map(Result::unwrap) {
                if entry.file_name().to_str().unwrap().starts_with('.') {
                    assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o700);
                    self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }
    }
    let home = Home::with_keys();
    home.model("model", 50_000);
    let owner = weightmark::keys::OwnerKey::load(home.path("owner.key")).unwrap();
    let key = weightmark::keys::SigningKey::load(home.path("release.pem")).unwrap();
    let recipient = weightmark::keys::XWingRecipient::load(home.path("id.key.pub")).unwrap();
    let look = Look(home.path("."), 0.into());
    let protector = weightmark::model::Protector::new(&owner, &key, [recipient]);
    protector.protect_with(home.path("model"), home.path("out"), &look).unwrap();
    assert!(look.1.into_inner() > 2);
}

#[test]
fn names_cannot_forge_the_output() {
    let home = Home::with_keys();
    let name = "evil\n\x1b[2Jweightmark: verified.safetensors";
    home.write(&format!("model/{name}"), "not a model");
    let run = weightmark(["inspect", &home.at("model")]);
    assert_eq!(run.status, 3);
    assert!(run.stderr.contains("evil\\u{a}\\u{1b}[2J") && !run.stderr.contains('\x1b'), "{:?}", run.stderr);

    // nor can what stands in a file
    home.write("plain/config.json", "{}");
    weightmark(["sign", &home.at("plain"), "--key", &home.at("release.pem")]).ok();
    let text = String::from_utf8(home.read("plain/model.sig")).unwrap();
    let start = text.find("\"hint\":\"").unwrap() + 8;
    let forged = format!("{}\\n\\u001b[32mverified{}", &text[..start], &text[start..]);
    home.write("plain/model.sig", forged);
    let run = weightmark(["verify", &home.at("plain"), "--key", &home.at("release.pem.pub")]);
    assert_eq!((run.status, run.stderr.lines().count()), (1, 1), "{}", run.stderr);
    assert!(!run.stderr.contains('\x1b'));
}
