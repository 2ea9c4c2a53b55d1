//! Signing and marking beside what else looks at every byte, in one run: `cargo bench --features full --bench speed
//! [-- MODEL]`, where MODEL is a safetensors file, and 256 MiB of random weights otherwise.
//!
//! Files lie in the page cache. Writing ends with an `fsync`.

mod turns;

use std::cell::RefCell;
use std::fs;

use weightmark::io::{FileAt, ReadAt};
use weightmark::keys::OwnerKey;
use weightmark::signing::Manifest;
use weightmark::watermark::{Detector, Watermark};

use turns::{Outcome, TURNS, all, compare, run, write_model};

fn main() -> Outcome {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    match std::env::args().skip(1).find(|arg| !arg.starts_with("--")) {
        Some(own) => fs::copy(own, path("model")).map(|_| ())?,
        None => write_model(&path("model"), [256])?,
    }
    let size = fs::metadata(path("model"))?.len();
    println!("{} MiB, {} threads, fastest of {TURNS} turns", size >> 20, rayon::current_num_threads());

    let (plain, model) = (FileAt::open(path("model"))?, path("model").display().to_string());
    let warm = RefCell::new(vec![1; size as usize]);
    let owner = OwnerKey::generate("Acme Ltd")?;
    Watermark::new(&owner).embed(path("model"), path("marked"))?;
    compare(
        "look at every byte",
        Some(size),
        [
            all("pread, one thread", || Ok(plain.read_at(0, &mut warm.borrow_mut())?)),
            all("sha256sum", || run("sha256sum", &[&model])),
            all("manifest", || Ok(Manifest::of(path("model"))?)),
            all("embed", || {
                let _ = fs::remove_file(path("new")); // absent in the first turn
                Ok(Watermark::new(&owner).embed(path("model"), path("new"))?)
            }),
            all("detect", || Ok(Detector::new(&owner, path("model")).examine(path("marked"))?)),
        ],
    )
}
