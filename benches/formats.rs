//! Reading formats: `cargo bench --features full --bench formats`. Indices of files of 1 GiB, the numbers in quantised
//! blocks beside what `gguf` does with NumPy (in the Python that `PEERS_PYTHON` names, on one thread, timed inside of it),
//! and a whole model found in another.
//!
//! One thread each, so that times are those of a core.

mod turns;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weightmark::format::{self, ModelIndex};
use weightmark::io::{FileAt, tree};
use weightmark::matching::{Side, correspond};
use weightmark::tensor::{Dtype, blocks};

use turns::{Outcome, TURNS, all, compare, write_model};

/// Weights that are turned into numbers in one turn.
const WEIGHTS: u64 = 16 << 20;

fn main() -> Outcome {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    println!("one thread, fastest of {TURNS} turns");
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    indices(&path("a.safetensors"), &path("a.gguf"))?;
    for dtype in [Dtype::Q8_0, Dtype::Q4_K, Dtype::Q6_K, Dtype::IQ2_XXS] {
        numbers(dtype, &path("blocks"))?;
    }
    write_model(&path("ours"), [32; 8])?;
    fs::copy(path("ours"), path("theirs"))?;
    let (ours, theirs) = (tree::open(path("ours"))?, tree::open(path("theirs"))?);
    compare(
        "find 8 tensors of 32 MiB in another file",
        None,
        [all("correspond", || {
            let (ours_index, theirs_index) = (ModelIndex::read(&*ours)?, ModelIndex::read(&*theirs)?);
            Ok(correspond(Side::new(&*ours, &ours_index), Side::new(&*theirs, &theirs_index))?)
        })],
    )
}

/// The index of 1 GiB: 290 tensors, as a Llama of 32 layers has, and a vocabulary of 128,000 words.
fn indices(safetensors: &Path, gguf: &Path) -> Outcome {
    let (count, each) = (290u64, (1u64 << 30) / 290 / 4096 * 4096);
    let mut header = serde_json::Map::new();
    for i in 0..count {
        let tensor = serde_json::json!({"dtype": "BF16", "shape": [each / 4096, 2048], "data_offsets": [i * each, (i + 1) * each]});
        header.insert(format!("model.layers.{i}.self_attn.q_proj.weight"), tensor);
    }
    let header = serde_json::Value::from(header).to_string();
    sparse(safetensors, &[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat(), count * each)?;

    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut head = [&b"GGUF"[..], &3u32.to_le_bytes(), &count.to_le_bytes(), &1u64.to_le_bytes()].concat();
    head.extend(
        [text("tokenizer.ggml.tokens"), [9u32, 8].map(u32::to_le_bytes).concat(), 128_000u64.to_le_bytes().to_vec()]
            .concat(),
    );
    (0..128_000).for_each(|i| head.extend(text(&format!("word{i}"))));
    for i in 0..count {
        head.extend([text(&format!("blk.{i}.attn_q.weight")), 2u32.to_le_bytes().to_vec()].concat());
        head.extend([2048, each / 4096].map(u64::to_le_bytes).concat());
        head.extend([&30u32.to_le_bytes()[..], &(i * each).to_le_bytes()].concat());
    }
    head.resize(head.len().next_multiple_of(32), 0);
    sparse(gguf, &head, count * each)?;

    let read = |path: &Path| -> Outcome<usize> { Ok(format::read(&FileAt::open(path)?)?.tensors().len()) };
    assert_eq!((read(safetensors)?, read(gguf)?), (290, 290));
    compare(
        "index of 1 GiB",
        None,
        [all("safetensors", || read(safetensors)), all("gguf, 128,000 words", || read(gguf))],
    )
}

/// A file of `head` and `size` bytes of zeros.
fn sparse(path: &Path, head: &[u8], size: u64) -> Outcome {
    let mut file = File::create(path)?;
    file.write_all(head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.set_len(head.len() as u64 + size)?)
}

/// Blocks of one type to numbers, beside `gguf`.
fn numbers(dtype: Dtype, path: &Path) -> Outcome {
    let bytes: Vec<u8> =
        (0..dtype.size(WEIGHTS).unwrap_or_default()).map(|i| ((i * 2_654_435_761) >> 7) as u8 & 0x3f).collect();
    fs::write(path, &bytes)?;
    let mut out = vec![0f32; WEIGHTS as usize];
    let mut turns = vec![all("weightmark", move || {
        assert!(blocks::dequantise(dtype, &bytes, &mut out));
        Ok(())
    })];
    if let Ok(python) = std::env::var("PEERS_PYTHON") {
        turns.push(("gguf, NumPy", Box::new(move || Ok(Some(gguf(&python, dtype, path)?)))));
    }
    compare(&format!("{} million weights of {dtype}", WEIGHTS / 1_000_000), Some(WEIGHTS * 4), turns)
}

/// The time that `gguf` takes for the same.
fn gguf(python: &str, dtype: Dtype, path: &Path) -> Outcome<Duration> {
    const CODE: &str = "\
import sys, time, numpy, gguf
data = numpy.fromfile(sys.argv[1], numpy.uint8)
kind = gguf.GGMLQuantizationType[sys.argv[2]]
start = time.perf_counter()
gguf.quants.dequantize(data, kind)
print(time.perf_counter() - start)";
    let run = Command::new(python).args(["-c", CODE]).arg(path).arg(dtype.name()).output()?;
    Ok(Duration::from_secs_f64(String::from_utf8(run.stdout)?.trim().parse()?))
}
