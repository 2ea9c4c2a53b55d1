//! What the tests share: the binary under test, peer tools, and small models.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::tensor::Dtype;

/// Runs the command line.
pub(super) fn weightmark<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    Run::of(Command::new(env!("CARGO_BIN_EXE_weightmark")).args(args))
}

/// Runs a script of `tests/python`, or any other, in the interpreter that `tests/run` has set up.
pub(super) fn python<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    Run::of(Command::new(interpreter()).args(args))
}

fn interpreter() -> PathBuf {
    std::env::var_os("WEIGHTMARK_PYTHON").expect("run tests/run: it sets up Python and its packages").into()
}

/// Runs a command on a terminal of its own and answers its prompts, each once nothing that is typed would show. Prints
/// what the terminal showed, and ends with the command's status.
const TERMINAL: &str = "
import os, pty, sys, termios, time
answers, command = sys.argv[1].split(','), sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
shown = b''
def read():
    global shown
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        piece = b''
    shown += piece
    return piece
for answer in answers:
    start = len(shown)
    while b': ' not in shown[start:] and read():
        pass
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(terminal, answer.encode() + b'\\n')
while read():
    pass
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";

/// Runs the command line on a terminal of its own, where it is given these answers (separated by commas), none of which may
/// be shown.
pub(super) fn on_terminal<'a>(answers: &'a str, args: impl IntoIterator<Item = &'a str>) -> Run {
    let run = python(["-c", TERMINAL, answers, env!("CARGO_BIN_EXE_weightmark")].into_iter().chain(args));
    for answer in answers.split(',') {
        assert!(!run.stdout.contains(answer), "shown: {}", run.stdout);
    }
    run
}

/// The path of a script in `tests/python`.
pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

/// Where the Python package `name` is installed, for the models that it carries.
pub(super) fn package(name: &str) -> PathBuf {
    let code = format!("import importlib.util as u; print(u.find_spec('{name}').submodule_search_locations[0])");
    PathBuf::from(python(["-c", &code]).ok().trim())
}

/// The path of a file in `attacks`.
pub(super) fn attacks(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks").join(name)
}

/// A file in `vectors`: made once, read for ever.
pub(super) fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

/// A finished command.
pub(super) struct Run {
    pub(super) status: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Run {
    pub(super) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Self { status: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The output of a command that must have succeeded.
    #[track_caller]
    pub(super) fn ok(self) -> String {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The one JSON object on stdout of a command that must have succeeded.
    #[track_caller]
    pub(super) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("one JSON object")
    }

    /// Asserts that the command failed with this status and one clear line that says each of `parts`.
    #[track_caller]
    pub(super) fn fails(self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        let error = self.stderr.lines().next().unwrap_or_default();
        assert!(error.starts_with("weightmark: error: "), "{error}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}

/// A temporary directory with the keys of everyone involved.
pub(super) struct Home {
    dir: TempDir,
}

impl Home {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// With `id.key`, `release.pem` and `owner.key`, each with its `.pub`.
    pub(super) fn with_keys() -> Self {
        let home = Self::new();
        weightmark(["keygen", "identity", "-o", &home.at("id.key")]).ok();
        weightmark(["keygen", "signing", "-o", &home.at("release.pem")]).ok();
        weightmark(["keygen", "owner", "--name", "Acme Ltd", "-o", &home.at("owner.key")]).ok();
        home
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path as text, for command lines.
    pub(super) fn at(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(&path, bytes).expect("a file");
        self.at(name)
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect(name)
    }

    /// The names of everything at the top, sorted: to show that nothing was left behind.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    /// A small model directory: configuration, tokenizer, and about `weights` weights in two tensors.
    pub(super) fn model(&self, name: &str, weights: usize) {
        self.write(&format!("{name}/config.json"), r#"{"hidden_size": 64, "architectures": ["Test"]}"#);
        self.write(&format!("{name}/tokenizer/vocab.txt"), "a\nb\n");
        self.write(&format!("{name}/model.safetensors"), safetensors(Dtype::F32, weights));
    }
}

/// Writes a file for its owner alone.
pub(super) fn secret(home: &Home, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::set_permissions(home.write(name, bytes), Permissions::from_mode(0o600)).expect("permissions");
}

/// A safetensors file with two matrices of normally distributed weights and a bias.
pub(super) fn safetensors(dtype: Dtype, weights: usize) -> Vec<u8> {
    let (columns, mut random) = (64, Random(7));
    let rows = (weights / columns).max(2);
    let shapes = [
        ("a.weight", vec![rows as u64 / 2, 64]),
        ("b.weight", vec![(rows - rows / 2) as u64, 64]),
        ("b.bias", vec![64]),
    ];
    let data: Vec<_> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let count: u64 = shape.iter().product();
            let bytes: Vec<u8> = (0..count).flat_map(|_| encode(dtype, 0.05 * random.normal())).collect();
            (name, shape, bytes)
        })
        .collect();
    let tensors: Vec<_> = data.iter().map(|(name, shape, bytes)| TensorData { name, dtype, shape, bytes }).collect();
    to_bytes(&tensors, &BTreeMap::from([("format".into(), "pt".into())])).expect("a valid file")
}

pub(super) fn encode(dtype: Dtype, value: f64) -> Vec<u8> {
    match dtype {
        Dtype::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        Dtype::BF16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        _ => (value as f32).to_le_bytes().to_vec(),
    }
}

/// SplitMix64: reproducible data, not secrets.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
