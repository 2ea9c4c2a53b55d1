//! What a mark survives: simulated attacks on the marked weights, and detection in what they leave.
//!
//! An attacked model is never written: it is a safetensors file whose bytes are worked out where they are read.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::attack::{Attack, Step};
use super::carrier::{Carrier, Original};
use super::detect::Detector;
use super::embed::Watermark;
use crate::error::Result;
use crate::format::{Elements, ModelIndex};
use crate::io::progress::Progress;
use crate::io::{Entry, ReadAt, SliceAt, Tree, check_bounds, tree};

/// Weights of a row attacked together: longer rows are cut.
const UNIT: u64 = 65_536;
/// Weights read at a time to find out which are the least.
const PIECE: u64 = 65_536;
/// The one file of an attacked model.
const FILE: &str = "model.safetensors";

/// What detection found after an attack.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Survival {
    /// The attack.
    pub attack: Attack,
    /// Normalised correlation with the owner mark.
    pub z: f64,
    /// Base-10 logarithm of the p-value of the owner mark.
    pub log10_p: f64,
    /// The same of the copy mark, if there is one, as if this copy were the only one.
    pub copy_log10_p: Option<f64>,
}

impl Watermark<'_> {
    /// Attacks the weights of `marked`, which [`embed`](Self::embed) has made of `original`, in memory, and looks for the
    /// marks in what each attack leaves.
    pub fn survive(
        &self,
        original: impl AsRef<Path>,
        marked: impl AsRef<Path>,
        attacks: &[Attack],
        progress: &dyn Progress,
    ) -> Result<Vec<Survival>> {
        if attacks.is_empty() {
            return Ok(Vec::new());
        }
        let tree = tree::open(&original)?;
        let carriers = Original::new(&*tree, &ModelIndex::read(&*tree)?, self.strength)?;
        let marked = tree::open(marked)?;
        let detector = self.detector(original.as_ref());
        attacks.iter().map(|attack| survival(&detector, &carriers, &*marked, attack, progress)).collect()
    }

    /// Looks for these marks.
    fn detector(&self, original: &Path) -> Detector<'_> {
        let mut detector = Detector::new(self.owner, original).beacon(&self.beacon).copies(self.copy.clone());
        if let Some(strength) = self.strength {
            detector = detector.strength(strength);
        }
        detector
    }
}

fn survival(
    detector: &Detector<'_>,
    original: &Original,
    marked: &dyn Tree,
    attack: &Attack,
    progress: &dyn Progress,
) -> Result<Survival> {
    let attacked = Attacked::new(original, marked, attack, progress)?;
    let evidence = detector.examine_tree(&attacked, progress)?;
    Ok(Survival {
        attack: attack.clone(),
        z: evidence.z(),
        log10_p: evidence.log10_p(),
        copy_log10_p: evidence.copies().first().map(|copy| copy.log10_p),
    })
}

/// The carriers of a model after an attack, as a model.
struct Attacked {
    entries: [Entry; 1],
    file: Arc<AttackedFile>,
    name: String,
}

struct AttackedFile {
    header: SliceAt<Vec<u8>>,
    tensors: Vec<AttackedTensor>,
    size: u64,
}

struct AttackedTensor {
    elements: Elements,
    columns: u64,
    /// The first byte in the file.
    start: u64,
    attack: Attack,
    /// For each step the magnitude below which it prunes.
    thresholds: Vec<f32>,
}

impl Attacked {
    fn new(original: &Original, marked: &dyn Tree, attack: &Attack, progress: &dyn Progress) -> Result<Self> {
        let mut header = serde_json::Map::new();
        let mut tensors = Vec::new();
        let mut end = 0u64;
        progress.begin("attack", original.carriers().iter().map(|carrier| carrier.tensor.size()).sum());
        for carrier in original.carriers() {
            let tensor = &carrier.tensor;
            let start = end;
            end += tensor.elements() * 4; // the reader of the format has checked that a carrier's bytes fit
            let entry = serde_json::json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]});
            header.insert(tensor.name.clone(), entry);
            tensors.push(AttackedTensor::new(carrier, marked, start, attack)?);
            crate::io::progress::step(progress, tensor.size())?;
        }
        let mut text = serde_json::Value::from(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        let (first, name) = (bytes.len() as u64, format!("{} after {attack}", marked.name()));
        tensors.iter_mut().for_each(|tensor| tensor.start += first);
        let file = AttackedFile { header: SliceAt::named(bytes, &name), tensors, size: first + end };
        Ok(Self { entries: [Entry::new(FILE, file.size)], file: Arc::new(file), name })
    }
}

impl Tree for Attacked {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, _: &str) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::clone(&self.file) as Arc<dyn ReadAt>)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl ReadAt for AttackedFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, mut offset: u64, buf: &mut [u8]) -> Result<()> {
        check_bounds(self, offset, buf.len())?;
        let mut rest = buf;
        let header = self.header.size();
        if offset < header {
            let (part, tail) = rest.split_at_mut(rest.len().min((header - offset) as usize));
            self.header.read_at(offset, part)?;
            offset += part.len() as u64;
            rest = tail;
        }
        let first = self.tensors.partition_point(|tensor| tensor.end() <= offset);
        for tensor in &self.tensors[first..] {
            if rest.is_empty() {
                break;
            }
            let (part, tail) = rest.split_at_mut(rest.len().min((tensor.end() - offset) as usize));
            tensor.read_bytes(offset - tensor.start, part)?;
            offset += part.len() as u64;
            rest = tail;
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.header.name()
    }
}

impl AttackedTensor {
    fn new(carrier: &Carrier, marked: &dyn Tree, start: u64, attack: &Attack) -> Result<Self> {
        // a lone file may have got another name
        let path =
            if marked.is_single_file() { marked.entries().first().map(|e| &*e.path) } else { Some(&*carrier.file) };
        let elements = Elements::open(marked.open(path.unwrap_or_default())?, &carrier.tensor)?;
        let thresholds = attack.steps().iter().map(|step| match step {
            Step::Prune(percent) => quantile(&elements, percent / 100.0),
            _ => Ok(0.0),
        });
        let thresholds = thresholds.collect::<Result<_>>()?;
        Ok(Self { elements, columns: carrier.columns, start, attack: attack.clone(), thresholds })
    }

    fn end(&self) -> u64 {
        self.start + self.elements.info().elements() * 4
    }

    /// The bytes from `offset` on.
    fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let wanted = offset / 4..(offset + out.len() as u64).div_ceil(4);
        let mut unit = self.unit(wanted.start);
        let mut values = Vec::new();
        while unit.start < wanted.end {
            values.resize((unit.end - unit.start) as usize, 0.0);
            self.elements.read_f32(unit.clone(), &mut values)?;
            for (step, threshold) in self.attack.steps().iter().zip(&self.thresholds) {
                step.apply(&mut values, unit.start, *threshold);
            }
            let from = unit.start.max(wanted.start);
            for (i, value) in (from..wanted.end).zip(&values[(from - unit.start) as usize..]) {
                for (byte, at) in value.to_le_bytes().into_iter().zip(4 * i..) {
                    let place = at.checked_sub(offset).and_then(|place| out.get_mut(place as usize));
                    place.into_iter().for_each(|place| *place = byte);
                }
            }
            if unit.end >= self.elements.info().elements() {
                break;
            }
            unit = self.unit(unit.end);
        }
        Ok(())
    }

    /// The weights that are attacked together with this one.
    fn unit(&self, weight: u64) -> std::ops::Range<u64> {
        let row = weight / self.columns * self.columns;
        let start = row + (weight - row) / UNIT * UNIT;
        start..(start + UNIT).min(row + self.columns)
    }
}

/// The magnitude below which this fraction of the weights lies, to one part in 256: by counting those that agree in the upper
/// half of their bits, which grow with the magnitude.
fn quantile(elements: &Elements, fraction: f64) -> Result<f32> {
    let total = elements.info().elements();
    let mut counts = vec![0u64; 1 << 16];
    let mut values = Vec::new();
    for start in (0..total).step_by(PIECE as usize) {
        let end = total.min(start + PIECE);
        values.resize((end - start) as usize, 0.0);
        elements.read_f32(start..end, &mut values)?;
        values.iter().for_each(|w: &f32| counts[(w.abs().to_bits() >> 15) as usize] += 1);
    }
    let wanted = (fraction * total as f64) as u64;
    let mut below = 0;
    for (bits, count) in (0u32..).zip(counts) {
        if below + count / 2 >= wanted {
            return Ok(f32::from_bits(bits << 15));
        }
        below += count;
    }
    Ok(f32::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ReadAtExt;
    use crate::tensor::{Dtype, TensorInfo};

    fn tensor(values: &[f32], columns: u64, attack: &str) -> AttackedTensor {
        let bytes: Vec<u8> = values.iter().flat_map(|w| w.to_le_bytes()).collect();
        let shape = vec![values.len() as u64 / columns, columns];
        let info = TensorInfo::new("x", Dtype::F32, shape, 0..bytes.len() as u64);
        let elements = Elements::open(Arc::new(SliceAt::new(bytes)), &info).unwrap();
        let attack: Attack = attack.parse().unwrap();
        let thresholds = attack.steps().iter().map(|step| match step {
            Step::Prune(percent) => quantile(&elements, percent / 100.0).unwrap(),
            _ => 0.0,
        });
        let thresholds = thresholds.collect();
        AttackedTensor { elements, columns, start: 0, attack, thresholds }
    }

    #[test]
    fn every_read_sees_the_same_bytes() {
        let values: Vec<f32> = (0..3 * 70_000u32).map(|i| (i.wrapping_mul(2_654_435_761) as i32) as f32).collect();
        let tensor = tensor(&values, 70_000, "noise10+prune30+int4");
        let size = tensor.end();
        let file = AttackedFile { header: SliceAt::new(vec![]), tensors: vec![tensor], size };
        let whole = file.read_span(0..size).unwrap();
        for (start, len) in [(0, 1), (3, 6), (262_140, 9), (279_997, 8), (size - 5, 5), (size, 0)] {
            assert_eq!(file.read_span(start..start + len).unwrap(), whole[start as usize..(start + len) as usize]);
        }
        assert!(file.read_span(size - 1..size + 1).is_err());
    }

    #[test]
    fn the_least_weights_are_pruned() {
        let values: Vec<f32> = (0..100_000).map(|i| if i % 2 == 0 { i as f32 } else { -i as f32 }).collect();
        for (percent, expected) in [(0, 0), (30, 30_000), (95, 95_000), (100, 100_000)] {
            let tensor = tensor(&values, 1000, &format!("prune{percent}"));
            let mut bytes = vec![0; 400_000];
            tensor.read_bytes(0, &mut bytes).unwrap();
            let zeros = bytes.as_chunks::<4>().0.iter().filter(|w| f32::from_le_bytes(**w) == 0.0).count();
            assert!(zeros.abs_diff(expected) <= 300, "{percent}: {zeros}");
        }
    }
}
