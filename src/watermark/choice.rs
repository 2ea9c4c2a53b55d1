//! Which tensors carry a mark. Skipped is what an attacker can drop, recompute or put back for free, and what no change
//! would leave as it works.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::carrier::Carrier;
use super::keystream::hash;
use super::store;
use crate::error::{Cause, Result, WatermarkError};
use crate::format::ModelIndex;
use crate::io::{ReadAt, ReadAtExt, Tree};
use crate::tensor::{Dtype, TensorInfo};

/// A tensor with fewer weights is not worth marking.
const MIN_WEIGHTS: u64 = 4096;
/// A tensor with longer rows is not a matrix of weights.
const MAX_COLUMNS: u64 = 1 << 24;
/// A tensor of no more different values is a mask, or constant, and no weights.
const MAX_DEAD: usize = 4;
/// Bytes read at a time to tell so, and to find tensors that are equal: whole elements of every type.
const PIECE: u64 = 65_536 / 4 * 3;
/// Parts of names of tensors that an attacker can drop or recompute.
const FREE: [&str; 18] = [
    "norm",
    "pooler.",
    "position_emb",
    "position_ids",
    "positional_emb",
    "pos_emb",
    "embed_positions",
    "relative_attention_bias",
    "relative_position",
    "wpe.",
    "rotary",
    "inv_freq",
    "rope_f",
    "g_idx",
    "qzeros",
    "zero_point",
    "absmax",
    "quant_map",
];
/// Ends of names of scales of quantised weights.
const SCALES: [&str; 4] = ["scale", "scales", "scale_inv", "scale_2"];

/// A matrix of weights that does not carry the mark.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Skipped {
    /// Its name.
    pub tensor: String,
    /// Why not.
    pub reason: String,
}

/// The carriers of a model, ordered by name.
pub(super) struct Choice {
    pub(super) carriers: Vec<Carrier>,
    pub(super) skipped: Vec<Skipped>,
    /// A carrier that the model holds in another format, too.
    pub(super) twin: Option<String>,
    pub(super) sources: BTreeMap<String, Arc<dyn ReadAt>>,
}

impl Choice {
    pub(super) fn new(tree: &dyn Tree, index: &ModelIndex) -> Result<Self> {
        let mut skipped = Vec::new();
        let mut carriers = Vec::new();
        for (file, tensor) in index.tensors().filter(|(_, tensor)| is_matrix(tensor)) {
            match reason(tensor, index) {
                Some(reason) => skipped.push(Skipped { tensor: tensor.name.clone(), reason }),
                None => carriers.push(Carrier::new(file, tensor)),
            }
        }
        carriers.sort_by(|a, b| a.tensor.name.cmp(&b.tensor.name));
        let mut twin = None;
        for pair in carriers.windows(2).filter(|pair| pair[0].tensor.name == pair[1].tensor.name) {
            let name = &pair[0].tensor.name;
            if index.tensor(name).is_none() {
                return Err(WatermarkError::AmbiguousTensor(name.clone()).on(tree.name()));
            }
            twin = Some(name.clone());
        }
        carriers.retain(|carrier| index.tensor(&carrier.tensor.name).is_some_and(|(file, _)| file == carrier.file));
        let mut spans = HashSet::new(); // tied weights carry one mark
        carriers.retain(|carrier| spans.insert((carrier.file.clone(), carrier.tensor.span.clone())));
        let mut sources = BTreeMap::new();
        for carrier in &carriers {
            if !sources.contains_key(&carrier.file) {
                sources.insert(carrier.file.clone(), tree.open(&carrier.file)?);
            }
        }
        let mut choice = Self { carriers: Vec::new(), skipped, twin, sources };
        choice.judge(carriers)?;
        Ok(choice)
    }

    /// Sorts out by content.
    fn judge(&mut self, carriers: Vec<Carrier>) -> Result<()> {
        let mut alike: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for carrier in carriers {
            let (tensor, source) = (&carrier.tensor, &self.sources[&carrier.file]);
            if is_dead(&**source, tensor)? {
                let reason = format!("holds no more than {MAX_DEAD} different values");
                self.skipped.push(Skipped { tensor: tensor.name.clone(), reason });
                continue;
            }
            let start = source.read_span(tensor.span.start..tensor.span.end.min(tensor.span.start + PIECE))?;
            let shape: Vec<u8> = tensor.shape.iter().flat_map(|dim| dim.to_be_bytes()).collect();
            let others = alike.entry(hash(&[tensor.dtype.name().as_bytes(), &shape, &start])).or_default();
            let mut equal = None;
            for other in others.iter().copied() {
                let first = &self.carriers[other];
                if is_equal((&**source, tensor), (&*self.sources[&first.file], &first.tensor))? {
                    equal = Some(other);
                    break;
                }
            }
            if let Some(first) = equal {
                let first = &mut self.carriers[first];
                let reason = format!("equal to {:?}, whose mark it gets", first.tensor.name);
                self.skipped.push(Skipped { tensor: tensor.name.clone(), reason });
                first.places.push((carrier.file.clone(), tensor.span.start));
            } else {
                others.push(self.carriers.len());
                self.carriers.push(carrier);
            }
        }
        Ok(())
    }
}

/// Whether a tensor can carry a mark, by its description alone.
pub(super) fn may_carry(name: &str, dtype: Dtype, shape: &[u64]) -> bool {
    let product = |dims: &[u64]| dims.iter().fold(1, |product: u64, dim| product.saturating_mul(*dim));
    let name = name.to_lowercase();
    let free = SCALES.iter().any(|end| name.ends_with(end)) || FREE.iter().any(|part| name.contains(part));
    let fits = shape.len() >= 2 && product(shape) >= MIN_WEIGHTS && product(&shape[1..]) <= MAX_COLUMNS;
    fits && store::is_storable(dtype) && !free
}

fn is_matrix(tensor: &TensorInfo) -> bool {
    tensor.shape.len() >= 2 && tensor.elements() >= MIN_WEIGHTS
}

/// Why a matrix does not carry the mark, by its description.
fn reason(tensor: &TensorInfo, index: &ModelIndex) -> Option<String> {
    let name = tensor.name.to_lowercase();
    let scale = SCALES.iter().any(|end| name.ends_with(end));
    if scale || FREE.iter().any(|part| name.contains(part)) {
        return Some("its name says that it can be dropped or recomputed for free".to_owned());
    }
    if !store::is_storable(tensor.dtype) {
        return Some(format!("elements of type {} are not changed", tensor.dtype));
    }
    if tensor.dtype == Dtype::U8 && !has_scale(tensor, index) {
        return Some("bytes without a scale may be packed".to_owned());
    }
    if !tensor.is_plain() {
        return Some("not stored plainly".to_owned());
    }
    (tensor.matrix().1 > MAX_COLUMNS).then(|| format!("rows of more than {MAX_COLUMNS} weights"))
}

/// Whether the model has the scale of a tensor of integers, one for all of it or one a row or column, so that its elements
/// are codes and not something packed.
fn has_scale(tensor: &TensorInfo, index: &ModelIndex) -> bool {
    let stem = tensor.name.strip_suffix("_quantized").unwrap_or(&tensor.name);
    let scale = index.tensor(&format!("{stem}_scale")).or_else(|| index.tensor(&format!("{stem}.scale")));
    let (Some((_, scale)), Some(last)) = (scale, tensor.shape.last()) else { return false };
    let float = matches!(scale.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
    float && [1, tensor.matrix().0, *last].contains(&scale.elements())
}

/// Whether a tensor holds next to no different values. Found out by the first few that differ.
fn is_dead(source: &dyn ReadAt, tensor: &TensorInfo) -> Result<bool> {
    let width = tensor.dtype.block().1 as usize;
    let mut seen: Vec<Vec<u8>> = Vec::with_capacity(MAX_DEAD);
    let mut last: &[u8] = &[];
    let mut at = tensor.span.start;
    let piece = PIECE / width as u64 * width as u64;
    let mut bytes;
    while at < tensor.span.end {
        bytes = source.read_span(at..tensor.span.end.min(at + piece))?;
        for element in bytes.chunks_exact(width) {
            if element != last && !seen.iter().any(|value| value == element) {
                if seen.len() == MAX_DEAD {
                    return Ok(false);
                }
                seen.push(element.to_vec());
            }
            last = element;
        }
        last = &[];
        at += piece;
    }
    Ok(true)
}

fn is_equal(a: (&dyn ReadAt, &TensorInfo), b: (&dyn ReadAt, &TensorInfo)) -> Result<bool> {
    let size = a.1.span.end - a.1.span.start;
    let mut at = 0;
    while at < size {
        let piece = |(source, tensor): (&dyn ReadAt, &TensorInfo)| {
            source.read_span(tensor.span.start + at..tensor.span.start + size.min(at + PIECE))
        };
        if piece(a)? != piece(b)? {
            return Ok(false);
        }
        at += PIECE;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SliceAt;

    #[test]
    fn masks_and_constants_are_dead() {
        let dead = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|w| w.to_le_bytes()).collect();
            let tensor = TensorInfo::new("x", Dtype::F32, vec![values.len() as u64], 0..bytes.len() as u64);
            is_dead(&SliceAt::new(bytes), &tensor).unwrap()
        };
        assert!(dead(&[]) && dead(&[0.0; 100_000]) && dead(&[1.0, 0.0, f32::NAN, -1.0].repeat(9_000)));
        let mut values = vec![0.0; 100_000];
        values[99_996..].copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        assert!(!dead(&values) && dead(&values[..99_999]));
    }

    #[test]
    fn equal_tensors_are_equal_to_the_last_byte() {
        let bytes: Vec<u8> = (0..400_000u32).map(|i| (i / 7) as u8).collect();
        let mut twice = [bytes.clone(), bytes].concat();
        let tensor = |start| TensorInfo::new("x", Dtype::I8, vec![400_000], start..start + 400_000);
        let is_equal = |bytes: &[u8]| {
            let source = SliceAt::new(bytes);
            let source: &dyn ReadAt = &source;
            is_equal((source, &tensor(0)), (source, &tensor(400_000))).unwrap()
        };
        assert!(is_equal(&twice));
        *twice.last_mut().unwrap() ^= 1;
        assert!(!is_equal(&twice));
    }

    #[test]
    fn names_and_types_are_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = crate::format::safetensors::to_bytes(&[], &BTreeMap::new()).unwrap();
        std::fs::write(file.path(), empty).unwrap();
        let index = ModelIndex::read(&*crate::io::tree::open(file.path()).unwrap()).unwrap();
        for (name, dtype, skipped) in [
            ("wte.weight", Dtype::F32, false),
            ("upscale.conv.weight", Dtype::F16, false),
            ("a.weight_scale_inv", Dtype::F32, true),
            ("h.0.LayerNorm.weight", Dtype::F32, true),
            ("transformer.wpe.weight", Dtype::F32, true),
            ("blk.0.attn_q.weight", Dtype::Q4_K, false),
            ("blk.0.attn_q.weight", Dtype::IQ4_XS, true),
            ("a.weight", Dtype::I8, false),
            ("a.weight", Dtype::U8, true),
            ("a.weight", Dtype::I32, true),
        ] {
            let tensor = TensorInfo::new(name, dtype, vec![64, 256], 0..0);
            assert_eq!(reason(&tensor, &index).is_some(), skipped, "{name} {dtype}");
        }
    }
}
