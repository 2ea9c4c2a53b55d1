//! Marking and finding marks beside what reads and writes as many bytes, in one run: `cargo bench --features full --bench
//! watermark [-- MODEL]`, where MODEL is a safetensors file, and 512 MiB of random weights otherwise.
//!
//! Files lie in the page cache. What hashes the original, which binds the mark to it, is timed apart from what marks and
//! scores, by the stages that a progress bar shows.

mod turns;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use weightmark::io::{FileAt, Progress, ReadAt};
use weightmark::keys::OwnerKey;
use weightmark::watermark::{Detector, Watermark};

use turns::{Outcome, TURNS, all, compare, write_model};

/// Times stages.
#[derive(Default)]
struct Stages(Mutex<Vec<(String, Instant)>>);

impl Progress for Stages {
    fn begin(&self, stage: &str, _: u64) {
        if let Ok(mut stages) = self.0.lock() {
            stages.push((stage.to_owned(), Instant::now()));
        }
    }
}

impl Stages {
    /// How long each took, the last one until now.
    fn times(&self) -> BTreeMap<String, Duration> {
        let stages = self.0.lock().map(|stages| stages.clone()).unwrap_or_default();
        let ends = stages.iter().skip(1).map(|(_, start)| *start).chain([Instant::now()]);
        let mut times = BTreeMap::new();
        for ((name, start), end) in stages.iter().zip(ends) {
            *times.entry(name.clone()).or_default() += end - *start;
        }
        times
    }
}

fn main() -> Outcome {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    match std::env::args().skip(1).find(|arg| !arg.starts_with("--")) {
        Some(own) => fs::copy(own, path("model")).map(|_| ())?,
        None => write_model(&path("model"), [128, 128, 128, 128])?,
    }
    let size = fs::metadata(path("model"))?.len();
    let owner = OwnerKey::generate("Acme Ltd")?;
    Watermark::new(&owner).copy("a").embed(path("model"), path("marked"))?;
    println!("{} million weights, fastest of {TURNS} turns", size >> 22);
    for threads in [1, 2] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        let (model, marked) = (FileAt::open(path("model"))?, FileAt::open(path("marked"))?);
        let stage = |name: &'static str, run: &(dyn Fn(&Stages) -> Outcome + Sync)| -> Outcome<Option<Duration>> {
            let stages = Stages::default();
            pool.install(|| run(&stages))?;
            Ok(stages.times().get(name).copied())
        };
        let detector = Detector::new(&owner, path("model"));
        let detect = |stages: &Stages| {
            detector.examine_tree(&*weightmark::io::tree::open(path("marked"))?, stages)?;
            Ok(())
        };
        compare(
            &format!("detect, {threads} threads: two files are read"),
            Some(2 * size),
            [
                all("pread of both through reused buffers", || {
                    pool.install(|| [&model, &marked].into_iter().try_for_each(|file| read_through(file)))
                }),
                ("score", Box::new(|| stage("detect", &detect))),
                ("digest of the original", Box::new(|| stage("digest", &detect))),
            ],
        )?;
        let embed = |stages: &Stages| {
            let _ = fs::remove_file(path("new")); // absent in the first turn
            Watermark::new(&owner).copy("a").embed_with(path("model"), path("new"), stages)?;
            Ok(())
        };
        compare(
            &format!("embed, {threads} threads: one file is read, one written"),
            Some(size),
            [
                all("copy, and fsync", || {
                    fs::copy(path("model"), path("copy"))?;
                    Ok(fs::File::open(path("copy"))?.sync_all()?)
                }),
                ("mark, store, write and fsync", Box::new(|| stage("mark", &embed))),
                ("digest of the original", Box::new(|| stage("digest", &embed))),
            ],
        )?;
    }
    Ok(())
}

/// Reads a file in pieces of 4 MiB.
fn read_through(file: &FileAt) -> Outcome {
    const PIECE: u64 = 4 << 20;
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let pieces = file.size().div_ceil(PIECE);
    (0..pieces).into_par_iter().try_for_each(|piece| {
        let start = piece * PIECE;
        let len = PIECE.min(file.size() - start) as usize;
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(len, 0);
            Ok(file.read_at(start, buffer)?)
        })
    })
}
