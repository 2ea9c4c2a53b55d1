//! Killed, disk full, or an I/O error at any system call: afterwards there is the old output, a whole new one, or none.
//!
//! `strace` makes one call after the other fail, or kills the program at it, until each has had its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use weightmark::encryption::{Decryptor, Encryptor, Rewrap};
use weightmark::io::ReadAtExt;
use weightmark::keys::file::read_secret;
use weightmark::keys::{Identity, XWingIdentity};

use super::support::{Home, Random, Run, weightmark};

/// Calls that make, change and remove files.
const WRITING: &str = "openat,open,creat,write,pwrite64,pwritev,writev,ftruncate,fallocate,fsync,fdatasync,syncfs,\
    rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,fchmod,fchmodat,chmod,flock,\
    copy_file_range";
/// Calls that read them.
const READING: &str = "read,pread64,preadv,getdents64";
/// Calls that need room on the disk.
const GROWING: [&str; 9] =
    ["openat", "write", "pwrite64", "ftruncate", "fsync", "syncfs", "renameat2", "mkdir", "linkat"];
/// What may be left of a run that was killed.
const TEMPORARY: &str = ".weightmark-";
/// What a rewrap that failed may leave too, for the next one to finish.
const JOURNAL: &str = "rewrap";

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Error(&'static str),
    Kill,
}

/// One run in which something went wrong.
struct Case {
    fault: Fault,
    call: String,
    /// Which of the calls of that name it was, in one of the threads.
    number: usize,
    run: Run,
}

impl Case {
    fn label(&self) -> String {
        format!("{:?} at {} {}: {}", self.fault, self.call, self.number, self.run.stderr)
    }

    fn killed(&self) -> bool {
        self.fault == Fault::Kill
    }
}

/// A home with a key, inputs, and a place `work` for outputs that is made anew for every run.
struct Bench {
    home: Home,
    identity: XWingIdentity,
}

impl Bench {
    /// `None`, with a word about it, where there is no `strace`.
    fn new() -> Option<Self> {
        let traces = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
        if !traces.is_ok_and(|output| output.status.success()) {
            let problem = "strace is not there, or may not trace: no system call was made to fail";
            assert!(std::env::var_os("CI").is_none(), "{problem}");
            eprintln!("{problem}");
            return None;
        }
        let home = Home::new();
        weightmark(["keygen", "identity", "-o", &home.at("id.key")]).ok();
        let identity = XWingIdentity::load(home.path("id.key")).unwrap();
        home.write("data", noise(1, 40_000));
        for (i, path) in ["a", "b/c", "b/d", "e", "f/g/h"].into_iter().enumerate() {
            home.write(&format!("model/{path}"), noise(i as u64, 20_000 * i));
        }
        let encryptor = Encryptor::to([identity.recipient()]);
        encryptor.encrypt(home.path("data"), home.path("data.wmenc")).unwrap();
        encryptor.encrypt(home.path("model"), home.path("sealed")).unwrap();
        Some(Self { home, identity })
    }

    /// Makes every call of `weightmark ARGS` fail in turn, in a fresh `work` that `prepare` fills, and has `check` look
    /// at what is there afterwards. What has a slash in `args` is a path within the home.
    fn each_fault(&self, args: &[&str], stdin: Option<&str>, prepare: impl Fn(&Path), check: impl Fn(&Case)) {
        let work = self.home.path("work");
        let fresh = || {
            let _ = fs::remove_dir_all(&work); // the first time there is none
            fs::create_dir(&work).unwrap();
            prepare(&work);
        };
        fresh();
        let run = self.traced(&["-e", &format!("trace={WRITING},{READING}")], args, stdin);
        assert_eq!(run.status, 0, "{}", run.stderr);
        let calls = self.calls();
        check(&Case { fault: Fault::Error("none"), call: "none".into(), number: 0, run });
        let known = names_below(&work);
        let mut injected = 0;
        for (call, (early, most)) in &calls {
            let errors = [Some("EIO"), Some("ENOSPC").filter(|_| GROWING.contains(&call.as_str()))];
            let faults = errors.into_iter().flatten().map(Fault::Error);
            for fault in faults.chain([Fault::Kill]) {
                for number in early + 1..=*most {
                    fresh();
                    let what = match fault {
                        Fault::Error(error) => format!("error={error}"),
                        Fault::Kill => "signal=KILL".into(),
                    };
                    let inject = format!("inject={call}:{what}:when={number}");
                    let run = self.traced(&["-e", &format!("trace={call}"), "-e", &inject], args, stdin);
                    let case = Case { fault, call: call.clone(), number, run };
                    self.check_case(&case, &work, &known);
                    check(&case);
                    injected += 1;
                }
            }
        }
        assert!(injected >= 10, "only {injected} of {calls:?}");
        println!("{}: {injected} faults of {calls:?}", args[0]);
    }

    /// What holds whatever the output is. `known` are the names there after a run in which nothing goes wrong.
    fn check_case(&self, case: &Case, work: &Path, known: &[PathBuf]) {
        let log = fs::read_to_string(self.home.path("log")).unwrap();
        let (status, label) = (case.run.status, case.label());
        if case.killed() {
            assert!(status == -1 && log.contains("killed by SIGKILL"), "{label}");
        } else {
            assert!(log.contains("(INJECTED)"), "{label}");
            assert!(matches!(status, 0 | 1 | 3), "{status}: {label}");
            assert!(!case.run.stderr.contains("panicked"), "{label}");
            let lines: Vec<_> = case.run.stderr.lines().filter(|line| !line.starts_with("hint: ")).collect();
            let clear = lines.iter().all(|line| line.starts_with("weightmark: error: "));
            assert!(clear && lines.len() == usize::from(status != 0), "{label}");
        }
        let new = names_below(work).into_iter().filter(|path| !known.contains(path));
        let (temporary, other): (Vec<_>, Vec<_>) = new.partition(|path| path.to_str().unwrap().contains(TEMPORARY));
        assert!(other.iter().all(|path| path.extension().is_some_and(|e| e == JOURNAL)), "{other:?} left: {label}");
        let is_removal = log.lines().any(|line| line.contains("(INJECTED)") && is_of_removal(line));
        assert!(temporary.is_empty() || case.killed() || is_removal, "{temporary:?} left: {label}");
    }

    /// Runs the program under strace, on one thread beside the main one.
    fn traced(&self, options: &[&str], args: &[&str], stdin: Option<&str>) -> Run {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-y", "-o", &self.home.at("log")])
            .args(options)
            .arg(env!("CARGO_BIN_EXE_weightmark"));
        let args = args.iter().map(|arg| if arg.contains('/') { self.home.at(arg) } else { (*arg).to_owned() });
        let stdin = stdin.map_or(Stdio::null(), |name| fs::File::open(self.home.path(name)).unwrap().into());
        command.args(args).env("RAYON_NUM_THREADS", "1").env_remove("LD_LIBRARY_PATH"); // cargo's, a long way to search
        Run::of(command.stdin(stdin))
    }

    /// The calls of the run just traced: how many of each a thread made before it came to our files, and in all.
    fn calls(&self) -> BTreeMap<String, (usize, usize)> {
        let (log, home) = (fs::read_to_string(self.home.path("log")).unwrap(), self.home.at(""));
        let mut counts: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        let mut is_early = true;
        for line in log.lines() {
            let (thread, rest) = line.split_once(' ').unwrap();
            let is_name = |call: &str| call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let Some((call, _)) = rest.trim_start().split_once('(').filter(|(call, _)| is_name(call)) else {
                continue; // the end of a call that was interrupted in the log, or of a thread; one that strace did not see
            };
            is_early &= !line.contains(&home);
            let (early, all) = counts.entry((thread, call)).or_default();
            *early += usize::from(is_early);
            *all += 1;
        }
        assert!(!is_early, "{log}");
        let mut calls: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for ((_, call), (early, all)) in counts {
            let most = calls.entry(call.to_owned()).or_default();
            *most = (most.0.max(early), most.1.max(all));
        }
        calls
    }

    /// Asserts that the artifact opens and holds what `original` does.
    fn assert_opens(&self, artifact: &Path, identity: &dyn Identity, original: &str, label: &str) {
        let opened = Decryptor::new(&[identity]).open(artifact).unwrap_or_else(|e| panic!("{e}: {label}"));
        let plain = weightmark::io::tree::open(self.home.path(original)).unwrap();
        assert_eq!(opened.entries(), plain.entries(), "{label}");
        for entry in plain.entries() {
            let read = |tree: &dyn weightmark::io::Tree| tree.open(&entry.path).unwrap().read_all(1 << 20).unwrap();
            assert!(read(&*opened) == read(&*plain), "{}: {label}", entry.path);
        }
    }

    /// Asserts that an artifact made from a stream opens and holds what `original` does.
    fn assert_holds(&self, artifact: &Path, identity: &dyn Identity, original: &str, label: &str) {
        let opened = Decryptor::new(&[identity]).open(artifact).unwrap_or_else(|e| panic!("{e}: {label}"));
        let bytes = opened.open("").unwrap().read_all(1 << 20).unwrap();
        assert!(bytes == self.home.read(original), "{label}");
    }

    /// Asserts that `work/out` is what `assert_whole` accepts or not there, and there just if the run says so.
    fn assert_whole_or_nothing(&self, case: &Case, assert_whole: impl Fn(&Path, &str)) {
        let (out, label) = (self.home.path("work/out"), case.label());
        let is_there = out.exists();
        if is_there {
            assert_whole(&out, &label);
        }
        assert!(case.killed() || is_there == self.is_done(case), "{label}");
    }

    /// Whether all was done but, maybe, saying so.
    fn is_done(&self, case: &Case) -> bool {
        let log = fs::read_to_string(self.home.path("log")).unwrap();
        case.run.status == 0 || log.lines().any(|line| line.contains("(INJECTED)") && line.contains(" write(1<"))
    }

    /// Rewraps a copy of `artifact`, which holds `original`, to so many more recipients. Whatever happens, it opens with
    /// the old identity, and the same again, undisturbed, makes it open with the new ones and leaves nothing behind.
    fn rewrapping(&self, artifact: &str, original: &str, more: usize) {
        let new: Vec<_> = (0..more).map(|_| XWingIdentity::generate().unwrap()).collect();
        let files: Vec<_> = (0..more).map(|i| format!("./new{i}.pub")).collect();
        for (file, identity) in files.iter().zip(&new) {
            self.home.write(file, identity.recipient().to_string());
        }
        let target = format!("work/{artifact}");
        let mut args = vec!["rewrap", &target, "-i", "./id.key"];
        args.extend(files.iter().flat_map(|file| ["--add", file]));
        let prepare = |work: &Path| {
            let (from, to) = (self.home.path(artifact), work.join(artifact));
            if from.is_dir() {
                copy_all(&from, &to);
            } else {
                fs::copy(from, to).unwrap();
            }
        };
        let payload = |path: &Path| -> Vec<Vec<u8>> {
            if path.is_file() {
                return vec![tail(path)];
            }
            let names = names_below(path).into_iter().filter(|name| name.to_str().unwrap().ends_with(".wmenc"));
            BTreeSet::from_iter(names).into_iter().map(|name| fs::read(path.join(name)).unwrap()).collect()
        };
        let before = payload(&self.home.path(artifact));
        let (place, journal) = (self.home.path(&target), self.home.path(&format!("{target}.rewrap")));
        self.each_fault(&args, None, prepare, |case| {
            let label = case.label();
            self.assert_opens(&place, &self.identity, original, &label);
            let opens_to_new = || new.iter().all(|new| Decryptor::new(&[new]).open(&place).is_ok());
            assert!(case.run.status != 0 || opens_to_new() && !journal.exists(), "{label}");
            assert!(payload(&place) == before, "{label}");

            let again = Rewrap::new().also(new.iter().map(XWingIdentity::recipient));
            again.apply(&place, &[&self.identity]).unwrap_or_else(|e| panic!("{e}: {label}"));
            assert!(opens_to_new() && payload(&place) == before && !journal.exists(), "{label}");
            self.assert_opens(&place, &self.identity, original, &label);
        });
    }
}

/// Whether a line of the log is of a call that removes a temporary file or directory, alone or on the way.
fn is_of_removal(line: &str) -> bool {
    let lists = line.contains("getdents64(") || line.contains("O_DIRECTORY");
    line.contains("unlink") || line.contains("rmdir(") || lists && line.contains(TEMPORARY)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.bits() as u8).collect()
}

/// Everything beneath a directory, by its path in it.
fn names_below(dir: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        names.push(entry.file_name().into());
        if entry.file_type().unwrap().is_dir() {
            let below = names_below(&entry.path());
            names.extend(below.into_iter().map(|path| Path::new(&entry.file_name()).join(path)));
        }
    }
    names
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn encrypting() {
    let Some(bench) = Bench::new() else { return };
    for input in ["./data", "./model", "-"] {
        let stdin = (input == "-").then_some("data");
        let args = ["encrypt", input, "-r", "./id.key.pub", "-o", "work/out"];
        let whole = |out: &Path, label: &str| match stdin {
            None => bench.assert_opens(out, &bench.identity, input, label),
            Some(_) => bench.assert_holds(out, &bench.identity, "data", label),
        };
        bench.each_fault(&args, stdin, |_| (), |case| bench.assert_whole_or_nothing(case, whole));
    }
}

#[test]
fn decrypting() {
    let Some(bench) = Bench::new() else { return };
    let inputs = [("./data.wmenc", "data", 0o600), ("./sealed", "model", 0o700), ("-", "data", 0o600)];
    for (input, original, mode) in inputs {
        let stdin = (input == "-").then_some("data.wmenc");
        let args = ["decrypt", input, "-i", "./id.key", "-o", "work/out"];
        let whole = |out: &Path, label: &str| {
            assert_same(out, &bench.home.path(original), label);
            assert_eq!(fs::metadata(out).unwrap().permissions().mode() & 0o777, mode, "{label}");
        };
        bench.each_fault(&args, stdin, |_| (), |case| bench.assert_whole_or_nothing(case, whole));
    }
}

#[test]
fn rekeying() {
    let Some(bench) = Bench::new() else { return };
    weightmark(["keygen", "identity", "-o", &bench.home.at("new.key")]).ok();
    let new = XWingIdentity::load(bench.home.path("new.key")).unwrap();
    for (input, original) in [("./data.wmenc", "data"), ("./sealed", "model")] {
        let args = ["rekey", input, "-i", "./id.key", "-r", "./new.key.pub", "-o", "work/out"];
        let whole = |out: &Path, label: &str| bench.assert_opens(out, &new, original, label);
        bench.each_fault(&args, None, |_| (), |case| bench.assert_whole_or_nothing(case, whole));
    }
}

#[test]
fn making_keys() {
    let Some(bench) = Bench::new() else { return };
    for kind in ["identity", "signing", "symmetric"] {
        let check = |case: &Case| {
            let (label, secret, public) = (case.label(), bench.home.path("work/out"), bench.home.path("work/out.pub"));
            if secret.exists() {
                assert!(read_secret(&secret).unwrap().ends_with('\n'), "{label}");
            }
            if case.killed() {
                assert!(secret.exists() || !public.exists(), "{label}"); // never a lock without its key
            } else {
                let done = bench.is_done(case);
                assert_eq!((secret.exists(), public.exists()), (done, done && kind != "symmetric"), "{label}");
            }
        };
        bench.each_fault(&["keygen", kind, "-o", "work/out"], None, |_| (), check);
    }
}

#[test]
fn rewrapping_a_directory() {
    let Some(bench) = Bench::new() else { return };
    bench.rewrapping("sealed", "model", 1);
}

#[test]
fn rewrapping_a_file_in_place() {
    let Some(bench) = Bench::new() else { return };
    bench.rewrapping("data.wmenc", "data", 1);
}

#[test]
fn rewrapping_a_file_that_outgrows_its_room() {
    let Some(bench) = Bench::new() else { return };
    bench.rewrapping("data.wmenc", "data", 12);
}

/// The machine stops while the header of a lone file is overwritten: any of its pages may be the old or the new ones.
#[test]
fn a_header_of_old_and_new_pages_is_mended_by_the_next_rewrap() {
    let Some(bench) = Bench::new() else { return };
    let [new, other] = ["new.key", "other.key"].map(|name| {
        weightmark(["keygen", "identity", "-o", &bench.home.at(name)]).ok();
        XWingIdentity::load(bench.home.path(name)).unwrap()
    });
    let (place, journal) = (bench.home.path("work/data.wmenc"), bench.home.path("work/data.wmenc.rewrap"));
    let old = bench.home.read("data.wmenc");
    bench.home.write("work/data.wmenc", &old);
    let kill = ["-e", "trace=unlink", "-e", "inject=unlink:signal=KILL"];
    let new_alone = ["rewrap", "work/data.wmenc", "-i", "./id.key", "--recipient", "./new.key.pub"];
    assert_eq!(bench.traced(&kill, &new_alone, None).status, -1);
    let (whole, stored) = (fs::read(&place).unwrap(), fs::read(&journal).unwrap());
    assert_eq!(fs::metadata(&journal).unwrap().permissions().mode() & 0o777, 0o600);
    let header = old.len() - tail(&place).len();
    assert!(whole != old && tail(&place) == tail(&bench.home.path("data.wmenc")));
    assert!(stored == [&old[..header], &whole[..header]].concat());
    let opens = |key: &XWingIdentity| Decryptor::new(&[key]).open(&place).is_ok();
    for pages in 0..1u32 << (header / 4096) {
        let mixed = old.chunks(4096).zip(whole.chunks(4096)).enumerate();
        let mixed: Vec<u8> = mixed.flat_map(|(i, (a, b))| if pages >> i & 1 == 0 { a } else { b }).copied().collect();
        // whoever could open it before undoes the change, whoever can after it finishes it, unless one of them is whole
        for (key, lost, is_other_whole) in
            [(&bench.identity, &new, mixed == whole), (&new, &bench.identity, mixed == old)]
        {
            let label = format!("pages {pages:b} {}", key.recipient().id());
            // anew: a process that another test is starting may hold a copy of the last lock for a moment
            fs::remove_file(&place).unwrap();
            fs::write(&place, &mixed).unwrap();
            fs::write(&journal, &stored).unwrap();
            let rewrapped = Rewrap::new().also([other.recipient()]).apply(&place, &[key]);
            assert!(!journal.exists(), "{label}");
            if is_other_whole {
                assert!(rewrapped.is_err() && fs::read(&place).unwrap() == mixed, "{label}");
                continue;
            }
            rewrapped.unwrap_or_else(|e| panic!("{e}: {label}"));
            bench.assert_opens(&place, &other, "data", &label);
            bench.assert_opens(&place, key, "data", &label);
            assert!(!opens(lost) && tail(&place) == tail(&bench.home.path("data.wmenc")), "{label}");
        }
    }
}

/// The payload of a lone file of 40,000 bytes.
fn tail(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    bytes[bytes.len() - (56 + 40_000 + 3 * 16)..].to_vec()
}

/// Asserts that two files or directories hold the same.
fn assert_same(a: &Path, b: &Path, label: &str) {
    if a.is_file() {
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{label}");
        return;
    }
    let names = |dir| BTreeSet::from_iter(names_below(dir));
    assert_eq!(names(a), names(b), "{label}");
    for name in names(a).iter().filter(|name| a.join(name).is_file()) {
        assert!(fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap(), "{}: {label}", name.display());
    }
}
