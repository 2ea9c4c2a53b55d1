//! The main job from beginning to end: protect a model, open it as a serving process would, steal it, prove whose it is.
//!
//! ```text
//! cargo run --release --features watermark --example protect              a small reader of letters, trained here
//! cargo run --release --features watermark --example protect -- MODEL     your own model: a file or a directory
//! ```

mod glyphs;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use weightmark::Model;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::keys::{Algorithm, OwnerKey, SigningKey, XWingIdentity};
use weightmark::model::Protector;
use weightmark::signing::Policy;
use weightmark::tensor::{Dtype, TensorInfo};
use weightmark::watermark::Detector;

use glyphs::Reader;

const TRAINING: (u64, usize) = (1, 2000); // seed, steps
const TEST: (u64, usize) = (2, 10_000); // seed, pictures

/// What a thief does to each row of weights.
type Damage = dyn Fn(&mut [f32]);

fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    let (model, metric) = match std::env::args_os().nth(1) {
        Some(own) => (PathBuf::from(own), None),
        None => train(&path("reader"))?,
    };

    // keys: the owner marks, the release key signs, the licensee decrypts
    let owner = OwnerKey::generate("Acme Ltd")?;
    let release = SigningKey::generate(Algorithm::EcdsaP256)?;
    let licensee = XWingIdentity::generate()?;
    let stranger = OwnerKey::generate("Somebody Else")?;

    let clock = Instant::now();
    let done = Protector::new(&owner, &release, [licensee.recipient()])
        .copy("licensee-0017")
        .context("acme/reader@1")
        .protect(&model, path("protected"))?;
    println!("protected in {:.2} s", clock.elapsed().as_secs_f64());
    println!("  marked     {} weights in {} tensors", done.mark.weights, done.mark.tensors);
    println!("  distorted  {:.2} % of a weight's size", 100.0 * done.mark.relative_distortion);
    println!("  signed     {} files, root digest {:.16}…", done.files, done.root_digest);
    println!("  encrypted  to {}, context {:?}", licensee.recipient().id(), done.context);

    // serving: nothing but what was published opens, and only here
    let clock = Instant::now();
    let served = Model::options()
        .identity(licensee)
        .expect_context("acme/reader@1")
        .policy(Policy::require(release.verifying_key()))
        .open(path("protected"))?;
    println!("opened, decrypted and verified in {:.2} s", clock.elapsed().as_secs_f64());
    if let Some(before) = metric {
        let reader = Reader::from_tensors(|name| load(&served, name)).ok_or("a tensor of the reader is missing")?;
        let after = reader.accuracy(TEST.0, TEST.1);
        println!("  reads      {:.2} % of {} test pictures ({:.2} % before)", 100.0 * after, TEST.1, 100.0 * before);
    }

    // theft: the licensee leaks what they decrypted, made smaller in three ways
    println!("found on the internet:");
    let labels = || (1..=50).map(|i| format!("licensee-{i:04}"));
    let thefts: [(&str, &Damage); 4] = [
        ("as it was", &|_| {}),
        ("8-bit", &|row| quantise(row, 127.0)),
        ("half pruned", &prune),
        ("4-bit", &|row| quantise(row, 7.0)),
    ];
    for (name, damage) in thefts {
        let suspect = path(&format!("{name}.safetensors"));
        leak(&served, &suspect, damage)?;
        let evidence = Detector::new(&owner, &model).copies(labels()).examine(&suspect)?;
        let copy = evidence.copy().map_or("no copy named", |copy| copy.label.as_str());
        println!("  {name:<12} log10 p = {:>9.1}, {copy}", evidence.log10_p());
    }
    let innocent = Detector::new(&stranger, &model).examine(path("as it was.safetensors"))?;
    println!("  another owner's key: log10 p = {:.1}", innocent.log10_p());
    Ok(())
}

/// Trains the reader, saves it as a model directory, and measures it.
fn train(dir: &Path) -> Result<(PathBuf, Option<f64>), Box<dyn Error>> {
    let clock = Instant::now();
    let reader = glyphs::train(TRAINING.0, TRAINING.1);
    println!("trained a reader of printed letters in {:.1} s", clock.elapsed().as_secs_f64());
    std::fs::create_dir(dir)?;
    std::fs::write(dir.join("config.json"), r#"{"architecture": "glyph-reader", "canvas": 14, "classes": 94}"#)?;
    let tensors = reader.tensors().into_iter().map(|(name, shape, values)| {
        let shape: Vec<u64> = shape.into_iter().map(|dim| dim as u64).collect();
        (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    });
    save(&dir.join("model.safetensors"), &tensors.collect::<Vec<_>>())?;
    Ok((dir.to_owned(), Some(reader.accuracy(TEST.0, TEST.1))))
}

fn save(path: &Path, tensors: &[(String, Vec<u64>, Vec<u8>)]) -> Result<(), Box<dyn Error>> {
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes }).collect();
    Ok(std::fs::write(path, to_bytes(&tensors, &BTreeMap::new())?)?)
}

fn load(model: &Model, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let tensor = model.tensor(name).ok()?;
    Some((tensor.info().shape.iter().map(|dim| *dim as usize).collect(), tensor.to_f32().ok()?))
}

/// Writes all floating-point tensors of a model to one file, each row damaged on the way.
fn leak(model: &Model, path: &Path, damage: &Damage) -> Result<(), Box<dyn Error>> {
    let is_float = |tensor: &TensorInfo| matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
    let mut tensors = Vec::new();
    for (_, info) in model.tensors().filter(|(_, tensor)| is_float(tensor)) {
        let mut values = model.tensor(&info.name)?.to_f32()?;
        if info.shape.len() >= 2 {
            values.chunks_exact_mut(info.matrix().1.max(1) as usize).for_each(damage);
        }
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((info.name.clone(), info.shape.clone(), bytes));
    }
    save(path, &tensors)
}

/// Rounds a row to `2 levels + 1` values.
fn quantise(row: &mut [f32], levels: f32) {
    let step = row.iter().fold(0.0f32, |top, value| top.max(value.abs())) / levels;
    row.iter_mut().filter(|_| step > 0.0).for_each(|value| *value = (*value / step).round() * step);
}

/// Sets the smaller half of a row to zero.
fn prune(row: &mut [f32]) {
    let mut sizes: Vec<f32> = row.iter().map(|value| value.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
    row.iter_mut().filter(|value| value.abs() < median).for_each(|value| *value = 0.0);
}
