//! The original to be marked: floating point as it is, a GGUF file as numbers that its quantiser could have had before.

use std::path::Path;

use serde_json::Value;
use weightmark::format::gguf::names::{original, original_row, reordered_heads};
use weightmark::format::{Elements, ModelIndex, load as load_bytes};
use weightmark::io::tree;
use weightmark::tensor::TensorInfo;
use weightmark::tensor::blocks::Codes;

use crate::Result;
use crate::model::{Tensor, Weights, load};
use crate::random::Random;

/// Reads the original of a model file or directory.
pub(crate) fn read(path: &Path) -> Result<Weights> {
    if is_gguf(path) { dithered(path) } else { load(path) }
}

/// How many heads a transformer has, and how many for keys and values: from the metadata of a GGUF file, or from
/// `config.json`.
pub(crate) fn heads(path: &Path) -> Option<(usize, usize)> {
    if is_gguf(path) {
        let index = ModelIndex::read(&*tree::open(path).ok()?).ok()?;
        let metadata = index.files().first()?.index.metadata();
        let number = |key: &str| {
            metadata.get(&format!("{}.attention.{key}", metadata.get("general.architecture")?))?.parse().ok()
        };
        let heads = number("head_count")?;
        return Some((heads, number("head_count_kv").unwrap_or(heads)));
    }
    let directory = if path.is_dir() { path } else { path.parent()? };
    let config: Value = serde_json::from_slice(&std::fs::read(directory.join("config.json")).ok()?).ok()?;
    let number = |key: &str| config[key].as_u64().map(|number| number as usize);
    let heads = number("num_attention_heads").or_else(|| number("n_head"))?;
    Some((heads, number("num_key_value_heads").unwrap_or(heads)))
}

/// Whether a path is that of a GGUF file.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gguf")
}

/// Dequantises a GGUF file, adds to each weight uniform noise of one step of its own group, and undoes what its
/// converter did to names and to rows of Q and K.
fn dithered(path: &Path) -> Result<Weights> {
    let tree = tree::open(path)?;
    let index = ModelIndex::read(&*tree)?;
    let mut weights = Weights::new();
    for (file, info) in index.tensors() {
        let header = &index.file(file).ok_or("a file without index")?.index;
        let architecture = header.metadata().get("general.architecture").map_or("", String::as_str);
        let elements = Elements::open(tree.open(file)?, info)?;
        let mut values = vec![0.0; info.elements() as usize];
        elements.read_f32(0..info.elements(), &mut values)?;
        if let Some(codes) = Codes::of(info.dtype) {
            dither(&mut values, codes, info, &load_bytes(&*tree.open(file)?, info)?);
        }
        let mut tensor = Tensor { shape: info.shape.clone(), values };
        if let Some(heads) = reordered_heads(header, &info.name) {
            tensor = restored(&tensor, heads);
        }
        weights.insert(original(architecture, &info.name).unwrap_or_else(|| info.name.clone()), tensor);
    }
    Ok(weights)
}

/// Moves each weight within its own step.
fn dither(values: &mut [f32], codes: Codes, info: &TensorInfo, bytes: &[u8]) {
    let (elements, size) = info.dtype.block();
    let mut random = Random::new(4, &info.name);
    for (values, block) in values.chunks_mut(elements as usize).zip(bytes.chunks(size as usize)) {
        for (group, scale) in values.chunks_mut(codes.group()).zip(codes.scales(block)) {
            group.iter_mut().for_each(|value| *value += scale.step * (random.uniform() - 0.5));
        }
    }
}

/// The rows of Q or K in the order of the original.
fn restored(tensor: &Tensor, heads: u64) -> Tensor {
    let (rows, columns) = (tensor.rows() as u64, tensor.columns());
    let mut values = vec![0.0; tensor.values.len()];
    for (row, here) in tensor.values.chunks(columns).enumerate() {
        let place = original_row(row as u64, (rows / heads).max(2)) as usize * columns;
        values[place..place + columns].copy_from_slice(here);
    }
    tensor.with(values)
}
