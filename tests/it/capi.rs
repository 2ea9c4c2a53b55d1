//! The C interface: its header, and programs in C that use it, plain, under valgrind and under sanitizers.
#![allow(unsafe_code)]

use std::env;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::{self, null, null_mut};
use std::sync::LazyLock;

use tempfile::TempDir;
use weightmark::ffi::*;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::tensor::Dtype;

use super::support::Run;

/// Files of `src/ffi` in the order of the header.
const HEADER: [&str; 13] = [
    "failure", "options", "policy", "progress", "sources", "model", "file", "encrypt", "sign", "mark", "keys",
    "inspect", "report",
];
const STRICT: [&str; 5] = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"];

/// The header is what cbindgen makes of the exports. `WEIGHTMARK_WRITE=1` writes it anew.
#[test]
fn the_header_is_that_of_the_exports() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml is well-formed");
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = HEADER.iter().fold(builder, |b, name| b.with_src(root().join(format!("src/ffi/{name}.rs"))));
    let mut header = Vec::new();
    builder.generate().expect("cbindgen reads the exports").write(&mut header);
    let (header, place) = (String::from_utf8(header).unwrap(), root().join("include/weightmark.h"));
    if env::var_os("WEIGHTMARK_WRITE").is_some() {
        fs::write(&place, &header).unwrap();
    }
    assert_eq!(fs::read_to_string(&place).unwrap(), header, "WEIGHTMARK_WRITE=1 writes it anew");
    for name in exports() {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
}

#[test]
fn the_header_is_c_and_cpp() {
    let home = tempfile::tempdir().unwrap();
    for (compiler, language, standard) in
        [("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11"), ("c++", "c++", "-std=c++20")]
    {
        let source = home.path().join("header.c");
        fs::write(&source, "#include <weightmark.h>\nint main(void) { return wm_version() == 0; }\n").unwrap();
        let mut command = Command::new(compiler);
        command.args(["-x", language, standard, "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]).arg("-I");
        Run::of(command.arg(root().join("include")).arg(source)).ok();
    }
}

#[test]
fn programs_in_c_find_all_as_it_must_be() {
    let home = Home::new();
    let program = home.compile("tests/c/check.c", &STRICT);
    assert!(home.run(&mut Command::new(program)).contains("all as it must be"));
}

#[test]
fn nothing_is_read_or_written_that_must_not_be() {
    let home = Home::new();
    let program = home.compile("tests/c/check.c", &["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    assert!(home.run(&mut Command::new(program)).contains("all as it must be"));
}

#[test]
fn nothing_is_lost() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("left out for want of valgrind");
        return;
    }
    let home = Home::new();
    let program = home.compile("tests/c/check.c", &["-g"]);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
    valgrind.arg("--show-leak-kinds=definite").arg(program).current_dir(home.dir.path());
    let run = Run::of(&mut valgrind);
    assert_eq!(run.stderr, ""); // what the child did wrong is not in the status
    assert!(run.ok().contains("all as it must be"));
}

#[test]
fn the_examples_open_a_model_and_say_why_not() {
    let home = Home::new();
    let path = |name: &str| home.dir.path().join(name).to_str().unwrap().to_owned();
    for (kind, name) in [("identity", "id"), ("signing", "signer"), ("identity", "other")] {
        super::support::weightmark(["keygen", kind, "-o", &path(name)]).ok();
    }
    super::support::weightmark(["sign", &path("plain.safetensors"), "--key", &path("signer")]).ok();
    super::support::weightmark(["encrypt", &path("plain.safetensors"), "-r", &path("id.pub"), "-o", &path("m")]).ok();
    fs::copy(path("plain.safetensors.sig"), path("m.sig")).unwrap();

    let load = home.compile("examples/c/load.c", &STRICT);
    let run = |args: &[&str]| Run::of(Command::new(&load).args(args));
    let sum: u64 = weights().iter().map(|byte| u64::from(*byte)).sum();
    let shown = run(&[&path("m"), &path("id"), &path("signer.pub")]).ok();
    assert!(shown.contains("F32    [256, 256]  w") && shown.contains(&format!("sum to {sum}")), "{shown}");
    assert!(shown.contains("verified: {"), "{shown}");
    assert!(!run(&[&path("m"), &path("id")]).ok().contains("verified"));
    for (args, status, cause) in
        [(["m", "other"], 4, "no-match"), (["plain.safetensors", "id"], 1, "expected-encrypted")]
    {
        let run = run(&[&path(args[0]), &path(args[1])]);
        assert!(run.status == status && run.stderr.contains(cause), "{} {}", run.status, run.stderr);
    }

    let callbacks = home.compile("examples/c/callbacks.c", &STRICT);
    let run = |args: &[&str]| Run::of(Command::new(&callbacks).args(args));
    let stopped = run(&[&path("m"), &path("id"), "stop"]);
    assert!(stopped.status == 5 && stopped.stderr.contains("cancelled"), "{} {}", stopped.status, stopped.stderr);
    assert!(!home.dir.path().join("m.plain").exists());
    assert!(run(&[&path("m"), &path("id")]).ok().contains("2 tensors, "));
    assert_eq!(fs::read(path("m.plain")).unwrap(), fs::read(path("plain.safetensors")).unwrap());
}

/// Rust functions, as C calls them, that panic.
unsafe extern "C-unwind" fn read_and_panic(_: *mut c_void, _: u64, _: *mut c_void, _: usize) -> c_int {
    panic!("the storage is on fire")
}

unsafe extern "C-unwind" fn advance_and_panic(_: *mut c_void, _: *const c_char, _: u64, _: u64) {
    panic!("the screen is on fire")
}

unsafe extern "C-unwind" fn release_and_panic(_: *mut c_void) {
    panic!("the bin is on fire")
}

#[test]
fn a_panic_is_a_code() {
    let home = Home::new();
    let text = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
    let (mut error, mut sources, mut model, mut options) = (null_mut(), null_mut(), null_mut(), null_mut());
    let read: wm_read_at = Some(read_and_panic);
    // SAFETY: all pointers are what they must be
    unsafe {
        let code =
            wm_sources_lone(c"m".as_ptr(), 9, read, null_mut(), Some(release_and_panic), &mut sources, &mut error);
        assert_eq!(code, wm_code::WM_OK);
        assert_eq!(wm_model_open_sources(null(), sources, &mut model, &mut error), wm_code::WM_PANIC);
        assert!(CStr::from_ptr(wm_error_message(error)).to_str().unwrap().contains("the storage is on fire"));
        assert!(wm_error_code(error) == wm_code::WM_PANIC && model.is_null());
        assert_eq!(wm_error_free(error), wm_code::WM_OK);
        assert_eq!(wm_sources_free(sources), wm_code::WM_OK);

        let (plain, key, out) =
            (home.dir.path().join("plain.safetensors"), home.dir.path().join("k"), home.dir.path().join("out"));
        assert_eq!(
            wm_keygen(null(), c"symmetric".as_ptr(), text(&key).as_ptr(), null_mut(), &mut error),
            wm_code::WM_OK
        );
        assert_eq!(wm_options_new(&mut options, &mut error), wm_code::WM_OK);
        assert_eq!(wm_options_recipient(options, text(&key).as_ptr(), &mut error), wm_code::WM_OK);
        let code = wm_options_progress(options, Some(advance_and_panic), None, ptr::null_mut(), &mut error);
        assert_eq!(code, wm_code::WM_OK);
        let code = wm_encrypt(options, text(&plain).as_ptr(), text(&out).as_ptr(), null_mut(), &mut error);
        assert_eq!(code, wm_code::WM_PANIC);
        assert!(!out.exists());
        assert_eq!(wm_error_free(error), wm_code::WM_OK);
        assert_eq!(wm_options_free(options), wm_code::WM_OK);
    }
}

/// A directory with a model in it, and the library installed beside, as packages install it.
struct Home {
    dir: TempDir,
    prefix: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap(), prefix: tempfile::tempdir().unwrap() };
        let (w, b) = (weights(), [0; 64]);
        let tensors = [
            TensorData { name: "w", dtype: Dtype::F32, shape: &[256, 256], bytes: &w },
            TensorData { name: "b", dtype: Dtype::F32, shape: &[16], bytes: &b },
        ];
        fs::write(home.dir.path().join("plain.safetensors"), to_bytes(&tensors, &Default::default()).unwrap()).unwrap();
        let prefix = home.prefix.path();
        for dir in ["include", "lib/pkgconfig"] {
            fs::create_dir_all(prefix.join(dir)).unwrap();
        }
        fs::copy(root().join("include/weightmark.h"), prefix.join("include/weightmark.h")).unwrap();
        fs::hard_link(LIBRARY.join("libweightmark.so"), prefix.join("lib/libweightmark.so"))
            .or_else(|_| fs::copy(LIBRARY.join("libweightmark.so"), prefix.join("lib/libweightmark.so")).map(drop))
            .unwrap();
        let place = prefix.to_str().unwrap();
        let values = [("prefix", place), ("libdir", "${prefix}/lib"), ("includedir", "${prefix}/include")];
        let values = values.into_iter().chain([("version", env!("CARGO_PKG_VERSION")), ("libs_private", "-lm")]);
        let template = fs::read_to_string(root().join("weightmark.pc.in")).unwrap();
        let filled = values.fold(template, |text, (name, value)| text.replace(&format!("@{name}@"), value));
        assert!(!filled.contains('@'), "{filled}");
        fs::write(prefix.join("lib/pkgconfig/weightmark.pc"), filled).unwrap();
        home
    }

    /// Compiles a program with what pkg-config says.
    fn compile(&self, source: &str, flags: &[&str]) -> PathBuf {
        let program = self.prefix.path().join(Path::new(source).file_stem().unwrap());
        let mut pkg_config = Command::new("pkg-config");
        pkg_config.env("PKG_CONFIG_PATH", self.prefix.path().join("lib/pkgconfig"));
        let found = Run::of(pkg_config.args(["--cflags", "--libs", "weightmark"])).ok();
        let mut cc = Command::new("cc");
        cc.args(flags).arg(root().join(source)).args(found.split_whitespace()).arg("-pthread").arg("-o").arg(&program);
        let library = self.prefix.path().join("lib");
        Run::of(cc.arg(format!("-Wl,-rpath,{}", library.display()))).ok();
        program
    }

    /// What a program prints that must succeed.
    fn run(&self, command: &mut Command) -> String {
        Run::of(command.current_dir(self.dir.path())).ok()
    }
}

/// 256 x 256 numbers without a pattern.
fn weights() -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..256 * 256).flat_map(|_| (0.02 * (next() + next() + next())).to_le_bytes()).collect()
}

/// Where the library lies, built with what the tests are built with.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    // those of the tests themselves, so that nothing is compiled twice
    let more = [("sigstore", cfg!(feature = "sigstore")), ("candle", cfg!(feature = "candle"))];
    let features = more.iter().filter(|(_, on)| *on).fold("full,capi".to_owned(), |all, (name, _)| all + "," + name);
    let mut cargo = Command::new(env!("CARGO"));
    Run::of(cargo.current_dir(root()).args(["build", "--example", "weightmark", "--features", &features])).ok();
    let place = env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples");
    assert!(place.join("libweightmark.a").exists());
    place
});

/// The names of all exports, in whatever file.
fn exports() -> Vec<String> {
    let files = fs::read_dir(root().join("src/ffi")).unwrap().map(|entry| entry.unwrap().path());
    let text: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let names = text.split("extern \"C\" fn ").skip(1).map(|rest| rest.split('(').next().unwrap().to_owned());
    let names: Vec<_> = names.collect();
    assert!(names.len() > 50 && names.iter().all(|name| name.starts_with("wm_")), "{names:?}");
    names
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
