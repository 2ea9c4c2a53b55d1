//! The direction of imports, as `ARCHITECTURE.md` draws it.

use std::fs;
use std::path::Path;

/// Rooms and what each may import from the crate.
const RULES: [(&str, &[&str]); 18] = [
    ("alignment", &["error", "format", "io", "linear", "matching", "tensor"]),
    ("candle", &["error", "model", "tensor"]),
    ("error", &["io"]), // only in a link of its documentation
    ("tensor", &[]),
    ("json", &[]),
    ("io", &["error", "tensor"]),
    ("ffi", &["encryption", "error", "format", "io", "keys", "lineage", "model", "signing", "tensor", "watermark"]),
    ("format", &["error", "io", "json", "tensor"]),
    ("crypto", &["error"]),
    ("keys", &["crypto", "error", "io", "json"]),
    ("encryption", &["crypto", "error", "io", "json", "keys", "tensor"]),
    ("signing", &["crypto", "error", "format", "io", "json", "keys"]),
    ("watermark", &["alignment", "crypto", "error", "format", "io", "json", "keys", "linear", "matching", "tensor"]),
    ("lineage", &["alignment", "error", "format", "io", "linear", "matching"]),
    ("linear", &[]),
    ("matching", &["error", "format", "io", "tensor"]),
    ("python", &["encryption", "error", "format", "io", "keys", "lineage", "model", "signing", "tensor", "watermark"]),
    ("model", &["crypto", "encryption", "error", "format", "io", "keys", "signing", "tensor", "watermark"]),
];

/// Files that may hold `unsafe`. Those of `ffi` export functions, and what they take from C passes through `ffi/call.rs`.
const UNSAFE: [&str; 19] = [
    "crypto/locked.rs",
    "crypto/poison.rs",
    "ffi/call.rs",
    "ffi/encrypt.rs",
    "ffi/failure.rs",
    "ffi/file.rs",
    "ffi/inspect.rs",
    "ffi/keys.rs",
    "ffi/mark.rs",
    "ffi/model.rs",
    "ffi/options.rs",
    "ffi/policy.rs",
    "ffi/progress.rs",
    "ffi/report.rs",
    "ffi/sign.rs",
    "ffi/sources.rs",
    "io/mmap.rs",
    "io/sealed.rs",
    "python/buffer.rs",
];

#[test]
fn rooms_import_only_what_they_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for (room, allowed) in RULES {
        for file in files_of(&src, room) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for (at, _) in code.match_indices("crate::") {
                let rest = &code[at + "crate::".len()..];
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine =
                    name == room || allowed.contains(&name.as_str()) || matches!(name.as_str(), "Error" | "Result");
                assert!(fine, "{} imports {name}, which {room} must not", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} imports found: does the test still read them?");
}

#[test]
fn every_room_has_a_rule() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let room = name.trim_end_matches(".rs");
        assert!(matches!(room, "lib" | "bin") || RULES.iter().any(|(known, _)| *known == room), "{room}");
    }
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files_below(&src) {
        let inside = file.strip_prefix(&src).unwrap().to_str().unwrap();
        let has = fs::read_to_string(&file).unwrap().contains("allow(unsafe_code)");
        assert_eq!(has, UNSAFE.contains(&inside), "{inside}");
    }
}

fn files_of(src: &Path, room: &str) -> Vec<std::path::PathBuf> {
    let mut files = files_below(&src.join(room));
    files.push(src.join(format!("{room}.rs")));
    files
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
