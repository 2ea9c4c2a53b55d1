//! Contestants take turns, the fastest of several turns is kept, and what counts is the ratio to the first: machines
//! differ, and are noisy, and one that slows down slows all contestants down alike.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::tensor::Dtype;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What takes turns: it returns the time that counts, if that is not all of its turn.
pub(crate) type Contestant<'a> = (&'a str, Box<dyn FnMut() -> Outcome<Option<Duration>> + 'a>);

/// How often each takes a turn.
pub(crate) const TURNS: usize = 7;

/// A contestant of whose turn all counts, whatever it makes.
pub(crate) fn all<'a, T>(name: &'a str, mut run: impl FnMut() -> Outcome<T> + 'a) -> Contestant<'a> {
    (name, Box::new(move || run().map(|_| None)))
}

/// Lets contestants take turns, and prints what the fastest turn of each took, and its ratio to the first. A `size` in
/// bytes is for speeds; without it there are only times. Contests whose title lacks what `ONLY` says are left out.
pub(crate) fn compare<'a>(
    title: &str,
    size: Option<u64>,
    contestants: impl IntoIterator<Item = Contestant<'a>>,
) -> Outcome {
    if std::env::var("ONLY").is_ok_and(|only| !title.contains(&only)) {
        return Ok(());
    }
    let mut contestants: Vec<_> = contestants.into_iter().map(|(name, run)| (name, run, Duration::MAX)).collect();
    for _ in 0..TURNS {
        for (_, run, best) in &mut contestants {
            let start = Instant::now();
            let counted = run()?;
            *best = counted.unwrap_or_else(|| start.elapsed()).min(*best);
        }
    }
    println!("\n{title}");
    let first = contestants.first().map_or(1.0, |(_, _, best)| best.as_secs_f64());
    for (name, _, best) in &contestants {
        let seconds = best.as_secs_f64();
        let speed =
            size.map_or(String::new(), |size| format!("{:>6.2} GiB/s", size as f64 / seconds / f64::from(1 << 30)));
        println!("  {name:<34} {:>9.2} ms  {speed}  x {:.2}", 1000.0 * seconds, seconds / first);
    }
    Ok(())
}

/// Runs a program to its end.
#[allow(dead_code)] // not all benchmarks have programs among their contestants
pub(crate) fn run(program: &str, args: &[&str]) -> Outcome {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed").into()) }
}

/// Writes a safetensors file of pseudo-random F32 matrices, each of so many MiB, called `t0`, `t1`, and so on.
pub(crate) fn write_model(path: &Path, mebibytes: impl IntoIterator<Item = usize>) -> Outcome {
    let mut state = 1u64;
    let mut weight = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes()
    };
    let data = mebibytes.into_iter().enumerate().map(|(i, size)| {
        let bytes: Vec<u8> = (0..size << 18).flat_map(|_| weight()).collect();
        (format!("t{i}"), [(size << 6) as u64, 4096], bytes)
    });
    let data: Vec<_> = data.collect();
    let tensors: Vec<_> =
        data.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes }).collect();
    Ok(fs::write(path, to_bytes(&tensors, &Default::default())?)?)
}
