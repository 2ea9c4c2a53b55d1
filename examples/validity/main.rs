//! Whether p-values are what they claim to be: many wrong keys against marked, attacked, unmarked and unrelated weights, and
//! many innocent labels against a leaked copy.
//!
//! ```text
//! cargo run --release --features watermark --example validity             25,000 keys a suspect, 100,000 labels
//! cargo run --release --features watermark --example validity -- --quick  a few of them
//! cargo run --release --features watermark --example validity -- COUNT    so many keys a suspect
//! ```
//!
//! Statistics of known law are put to the test of Kolmogorov and Smirnov: `z` against the normal distribution, the mean cosine
//! of the blind detector against a simulation. Proved bounds have to hold: `P(p <= x) <= x`, three standard errors aside.
//! Everything is the same on every run; wrong keys are those of one owner under other beacons.

mod law;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rayon::prelude::*;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::keys::OwnerKey;
use weightmark::tensor::Dtype;
use weightmark::watermark::{Detector, Method, Reading, Watermark};

use law::{Random, excess, kolmogorov_smirnov, mean_cosines, normal};

const SIDE: usize = 256;
/// Groups that these weights are in: of about 4096 owner weights each.
const GROUPS: usize = 8;
const LEVELS: [f64; 3] = [0.1, 0.01, 0.001];
/// Distributions that are as they should be fail this in one of ten thousand tests.
const LEAST_KS: f64 = 1e-4;
/// An owner key that is known to everybody.
const OWNER: &str = "wmowner18lgz47dn4ummspvufjm2heqrj29vz38cpp5tn7az6gx70pdzfdfyzcmdv5sycary5kz73e";
const LEAKED: &str = "leaked";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let count = match std::env::args().nth(1).as_deref() {
        None => 25_000,
        Some("--quick") => 300,
        Some(count) => count.parse()?,
    };
    let labels = 4 * count;
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    let owner = OwnerKey::parse(OWNER)?;

    let original = weights(1);
    write(&path("original"), &original)?;
    let watermark = Watermark::new(&owner).copy(LEAKED);
    watermark.embed(path("original"), path("marked"))?;
    let index = weightmark::Model::options().open(path("marked"))?;
    let marked = index.tensor("weight")?.to_f32()?;
    write(&path("attacked"), &prune_and_quantise(&marked))?;
    write(&path("unrelated"), &weights(2))?;

    println!(
        "{count} wrong keys a suspect, {SIDE} x {SIDE} weights. KS: p of the law; P: share of keys with p <= .1, .01, .001\n"
    );
    println!("| suspect | method | KS | P | ms a key, all methods |\n|---|---|---|---|---|");
    let simulated = mean_cosines(GROUPS, 1_000_000);
    let cosines = |z: f64| {
        let mean = z / (2.0 * GROUPS as f64).sqrt();
        simulated.partition_point(|s| *s <= mean) as f64 / simulated.len() as f64
    };
    let mut is_valid = true;
    for suspect in ["marked", "attacked", "original", "unrelated"] {
        let start = Instant::now();
        let examine = |key: usize| -> weightmark::Result<_> {
            let detector = Detector::new(&owner, path("original")).beacon(key.to_string()).exhaustive();
            Ok(detector.examine(path(suspect))?.readings().to_vec())
        };
        let found: Vec<Vec<Reading>> = (0..count).into_par_iter().map(examine).collect::<Result<_, _>>()?;
        let elapsed = start.elapsed().as_secs_f64() * 1e3 / count as f64 * rayon::current_num_threads() as f64;
        for method in [Method::Direct, Method::Cleaned, Method::Blind] {
            let readings = found.iter().flatten().filter(|reading| reading.method == method);
            let (z, p): (Vec<f64>, Vec<f64>) = readings.map(|reading| (reading.z, reading.log10_p)).unzip();
            // an original that is its own suspect leaves no residual, and its z is 0
            let ks = match method {
                _ if z.iter().all(|z| *z == 0.0) => 1.0,
                Method::Blind => kolmogorov_smirnov(z, cosines),
                _ => kolmogorov_smirnov(z, normal),
            };
            let shares = LEVELS.map(|level| {
                let share = p.iter().filter(|p| **p <= level.log10()).count() as f64 / p.len() as f64;
                is_valid &= p.len() == count && !excess(share, level, p.len());
                format!("{share:.5}")
            });
            is_valid &= ks > LEAST_KS;
            println!("| {suspect} | {method:?} | {ks:.3} | {} | {elapsed:.2} |", shares.join(" "));
        }
    }

    println!(
        "\n{labels} innocent labels, p corrected for their number\n\n| suspect | least log10 p | leaked copy | s |\n|---|---|---|---|"
    );
    for suspect in ["marked", "attacked", "original", "unrelated"] {
        let start = Instant::now();
        let labels = (0..labels).map(|i| format!("innocent-{i}")).chain([LEAKED.to_owned()]);
        let evidence = Detector::new(&owner, path("original")).copies(labels).examine(path(suspect))?;
        let of = |is_leaked: bool| {
            let copies = evidence.copies().iter().filter(|copy| (copy.label == LEAKED) == is_leaked);
            copies.map(|copy| copy.log10_p).fold(0.0, f64::min)
        };
        let (innocent, leaked) = (of(false), of(true));
        is_valid &= innocent > -9.0;
        println!("| {suspect} | {innocent:.2} | {leaked:.1} | {:.1} |", start.elapsed().as_secs_f64());
    }
    println!("\n{}", if is_valid { "all as claimed" } else { "NOT as claimed" });
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn weights(seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..SIDE * SIDE).map(|_| (0.02 * random.normal()) as f32).collect()
}

/// Half of the weights set to zero, the others on 15 levels of their row.
fn prune_and_quantise(weights: &[f32]) -> Vec<f32> {
    let quantise = |row: &[f32]| {
        let mut sizes: Vec<f32> = row.iter().map(|w| w.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let (median, step) = (sizes[SIDE / 2], sizes[SIDE - 1] / 7.0);
        row.iter().map(|w| if w.abs() < median { 0.0 } else { (w / step).round() * step }).collect::<Vec<_>>()
    };
    weights.chunks(SIDE).flat_map(quantise).collect()
}

fn write(path: &Path, weights: &[f32]) -> Result<(), Box<dyn Error>> {
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let shape = [SIDE as u64, SIDE as u64];
    let tensor = TensorData { name: "weight", dtype: Dtype::F32, shape: &shape, bytes: &bytes };
    std::fs::write(path, to_bytes(&[tensor], &BTreeMap::new())?)?;
    Ok(())
}
