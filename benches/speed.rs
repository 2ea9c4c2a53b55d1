//! How fast it is, beside what it can be compared with, in one run: `cargo bench --features full [-- MODEL]`, where MODEL
//! is a safetensors file, and 256 MiB of random weights otherwise.
//!
//! Contestants take turns, the fastest of several turns is kept, and what counts is the ratio to the first: machines
//! differ, and are noisy. Files lie in the page cache. Writing ends with an `fsync` here, and does not in `cp` and
//! `age`. `age` takes part where it is installed.

use std::cell::RefCell;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weightmark::encryption::{Encryptor, Reader};
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::io::{FileAt, ReadAt};
use weightmark::keys::{OwnerKey, XWingIdentity};
use weightmark::signing::Manifest;
use weightmark::tensor::Dtype;
use weightmark::watermark::{Detector, Watermark};

type Outcome = Result<(), Box<dyn Error>>;
type Contestant<'a> = (&'a str, Box<dyn FnMut() -> Outcome + 'a>);

/// Bytes of the model made here.
const SIZE: u64 = 256 << 20;
const TURNS: usize = 7;

fn main() -> Outcome {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    match std::env::args().skip(1).find(|arg| !arg.starts_with("--")) {
        Some(own) => fs::copy(own, path("model")).map(|_| ())?,
        None => write_model(&path("model"))?,
    }
    let size = fs::metadata(path("model"))?.len();
    let identity = XWingIdentity::generate()?;
    identity.save(path("id.key"))?;
    Encryptor::to([identity.recipient()]).encrypt(path("model"), path("model.wmenc"))?;
    let has_age = run("age-keygen", &["-o", &text("age.key")]).is_ok();
    if has_age {
        fs::write(path("age.pub"), Command::new("age-keygen").args(["-y", &text("age.key")]).output()?.stdout)?;
        run("age", &["-R", &text("age.pub"), "-o", &text("model.age"), &text("model")])?;
    }
    let binary = env!("CARGO_BIN_EXE_weightmark");
    println!("{} MiB, {} threads, fastest of {TURNS} turns", size >> 20, rayon::current_num_threads());

    let (plain, sealed) =
        (FileAt::open(path("model"))?, Reader::open(FileAt::open(path("model.wmenc"))?, &[&identity])?);
    let warm = RefCell::new(vec![1; size as usize]);
    compare(
        "read everything into a warm buffer, one thread for pread",
        size,
        [
            ("pread", Box::new(|| Ok(plain.read_at(0, &mut warm.borrow_mut())?)) as Box<dyn FnMut() -> Outcome>),
            ("weightmark", Box::new(|| Ok(sealed.read_at(0, &mut warm.borrow_mut())?))),
        ],
    )?;

    // whole processes, file to file
    let to_new = |program: &str, args: &[&str]| -> Outcome {
        let _ = fs::remove_file(path("new")); // absent in the first turn
        run(program, args)
    };
    let (model, new, public) = (text("model"), text("new"), text("id.key.pub"));
    let mut contest: Vec<Contestant<'_>> = vec![
        ("cp", Box::new(|| to_new("cp", &[&model, &new]))),
        ("weightmark", Box::new(|| to_new(binary, &["encrypt", &model, "-r", &public, "-o", &new]))),
    ];
    if has_age {
        contest.push(("age", Box::new(|| to_new("age", &["-R", &text("age.pub"), "-o", &new, &model]))));
    }
    compare("encrypt, file to file", size, contest)?;

    let (secret, encrypted) = (text("id.key"), text("model.wmenc"));
    let mut contest: Vec<Contestant<'_>> = vec![
        ("cp", Box::new(|| to_new("cp", &[&model, &new]))),
        ("weightmark", Box::new(|| to_new(binary, &["decrypt", &encrypted, "-i", &secret, "-o", &new]))),
    ];
    if has_age {
        contest
            .push(("age", Box::new(|| to_new("age", &["-d", "-i", &text("age.key"), "-o", &new, &text("model.age")]))));
    }
    compare("decrypt, file to file", size, contest)?;

    let owner = OwnerKey::generate("Acme Ltd")?;
    Watermark::new(&owner).embed(path("model"), path("marked"))?;
    compare(
        "look at every byte",
        size,
        [
            ("pread", Box::new(|| Ok(plain.read_at(0, &mut warm.borrow_mut())?)) as Box<dyn FnMut() -> Outcome>),
            ("sha256sum", Box::new(|| run("sha256sum", &[&model]))),
            ("manifest", Box::new(|| Ok(Manifest::of(path("model")).map(|_| ())?))),
            (
                "embed",
                Box::new(|| {
                    let _ = fs::remove_file(path("new"));
                    Ok(Watermark::new(&owner).embed(path("model"), path("new")).map(|_| ())?)
                }),
            ),
            ("detect", Box::new(|| Ok(Detector::new(&owner, path("model")).examine(path("marked")).map(|_| ())?))),
        ],
    )
}

/// Lets contestants take turns, and prints what the fastest turn of each took, and its ratio to the first.
fn compare<'a>(title: &str, size: u64, contestants: impl IntoIterator<Item = Contestant<'a>>) -> Outcome {
    let mut contestants: Vec<_> = contestants.into_iter().map(|(name, run)| (name, run, Duration::MAX)).collect();
    for _ in 0..TURNS {
        for (_, run, best) in &mut contestants {
            let start = Instant::now();
            run()?;
            *best = start.elapsed().min(*best);
        }
    }
    println!("\n{title}");
    let first = contestants.first().map_or(1.0, |(_, _, best)| best.as_secs_f64());
    for (name, _, best) in &contestants {
        let seconds = best.as_secs_f64();
        let speed = size as f64 / seconds / f64::from(1 << 30);
        println!("  {name:<12} {:>8.1} ms  {speed:>6.2} GiB/s  x {:.2}", 1000.0 * seconds, seconds / first);
    }
    Ok(())
}

fn run(program: &str, args: &[&str]) -> Outcome {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed").into()) }
}

/// A safetensors file of pseudo-random weights.
fn write_model(path: &Path) -> Outcome {
    let mut state = 1u64;
    let mut weight = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes()
    };
    let bytes: Vec<u8> = (0..SIZE / 4).flat_map(|_| weight()).collect();
    let tensor = TensorData { name: "weight", dtype: Dtype::F32, shape: &[SIZE / 4 / 4096, 4096], bytes: &bytes };
    Ok(fs::write(path, to_bytes(&[tensor], &Default::default())?)?)
}
