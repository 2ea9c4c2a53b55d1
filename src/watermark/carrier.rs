//! What carries a mark: which tensors, cut into which blocks, under which parameters.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::fingerprint::CODE_LEN;
use super::keystream::{Chips, Key, RUN, Role, hash};
use super::weights::{Weights, is_weight};
use crate::error::{Cause, Result, WatermarkError};
use crate::format::ModelIndex;
use crate::io::progress::{Progress, step};
use crate::io::{ReadAt, ReadAtExt, Tree};
use crate::keys::OwnerKey;
use crate::tensor::{Dtype, TensorInfo, lanes};

/// Weights of a block, rounded down to whole rows: the unit of keys, of Merkle leaves and of memory.
const BLOCK: u64 = 1 << 20;
/// A tensor with fewer weights is not worth marking.
const MIN_WEIGHTS: u64 = 4096;
/// A tensor with longer rows is not a matrix of weights.
const MAX_COLUMNS: u64 = 1 << 24;
/// Parts of names of tensors that an attacker can drop or recompute for free.
const FREE: [&str; 6] = ["norm", "pooler.", "position_embedding", "position_ids", "rotary", "inv_freq"];

/// Everything that a mark depends on besides the keys. All of it goes into the key derivation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameters {
    /// Relative distortion of owner and copy weights: change over root mean square of the row.
    pub(super) strength: f64,
    /// Owner weights of a group, about.
    pub(super) group: u64,
}

impl Parameters {
    /// Five times the strength that is found for certain after 4-bit quantisation, within sensible limits.
    fn for_weights(owner_weights: u64, strength: Option<f64>) -> Result<Self, WatermarkError> {
        let n = owner_weights as f64;
        let strength = strength.unwrap_or((6.6 / n.sqrt()).clamp(0.0005, 0.01));
        if !(1e-5..=0.1).contains(&strength) {
            return Err(WatermarkError::Strength(strength));
        }
        let group = if owner_weights < 10_000_000 { (owner_weights / 300).max(4096) } else { 65_536 };
        Ok(Self { strength, group })
    }
}

/// One tensor that carries the mark, as a matrix.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    pub(super) file: String,
    pub(super) tensor: TensorInfo,
    pub(super) rows: u64,
    pub(super) columns: u64,
}

impl Carrier {
    fn new(file: &str, tensor: &TensorInfo) -> Option<Self> {
        let (rows, columns) = tensor.matrix();
        let weights = tensor.elements();
        let free = FREE.iter().any(|part| tensor.name.to_lowercase().contains(part));
        let fits = tensor.shape.len() >= 2 && weights >= MIN_WEIGHTS && columns <= MAX_COLUMNS;
        let carries = fits && tensor.is_plain() && lanes::is_float(tensor.dtype) && !free;
        carries.then(|| Self { file: file.to_owned(), tensor: tensor.clone(), rows, columns })
    }

    fn rows_per_block(&self) -> u64 {
        (BLOCK / self.columns).max(1)
    }

    fn blocks(&self) -> u64 {
        self.rows.div_ceil(self.rows_per_block())
    }
}

/// A run of rows of a carrier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Index of the carrier.
    pub(super) carrier: usize,
    /// Number of the block in its carrier.
    pub(super) number: u64,
    first_row: u64,
    rows: u64,
}

/// The original weights: the carriers, and where to read them.
pub(super) struct Original {
    sources: BTreeMap<String, Arc<dyn ReadAt>>,
    carriers: Vec<Carrier>,
    blocks: Vec<Block>,
    pub(super) parameters: Parameters,
    /// A carrier that the model holds in another format, too.
    pub(super) twin: Option<String>,
}

impl Original {
    /// Finds the carriers of a model; `strength` overrides the default.
    pub(super) fn new(tree: &dyn Tree, index: &ModelIndex, strength: Option<f64>) -> Result<Self> {
        let fail = |cause: WatermarkError| cause.on(tree.name());
        let mut carriers: Vec<_> = index.tensors().filter_map(|(file, tensor)| Carrier::new(file, tensor)).collect();
        carriers.sort_by(|a, b| a.tensor.name.cmp(&b.tensor.name));
        let mut twin = None;
        for pair in carriers.windows(2).filter(|pair| pair[0].tensor.name == pair[1].tensor.name) {
            let name = &pair[0].tensor.name;
            if index.tensor(name).is_none() {
                return Err(fail(WatermarkError::AmbiguousTensor(name.clone())));
            }
            twin = Some(name.clone());
        }
        carriers.retain(|carrier| index.tensor(&carrier.tensor.name).is_some_and(|(file, _)| file == carrier.file));
        let mut spans = HashSet::new(); // tied weights carry one mark
        carriers.retain(|carrier| spans.insert((carrier.file.clone(), carrier.tensor.span.clone())));
        if carriers.is_empty() {
            return Err(fail(WatermarkError::NoCarrier));
        }
        let weights: u64 = carriers.iter().map(|carrier| carrier.tensor.elements()).sum();
        let parameters = Parameters::for_weights(weights / 2, strength).map_err(fail)?;
        let mut sources = BTreeMap::new();
        for carrier in &carriers {
            if !sources.contains_key(&carrier.file) {
                sources.insert(carrier.file.clone(), tree.open(&carrier.file)?);
            }
        }
        let blocks = carriers.iter().enumerate().flat_map(|(c, carrier)| {
            (0..carrier.blocks()).map(move |number| {
                let first_row = number * carrier.rows_per_block();
                Block { carrier: c, number, first_row, rows: carrier.rows_per_block().min(carrier.rows - first_row) }
            })
        });
        Ok(Self { blocks: blocks.collect(), sources, carriers, parameters, twin })
    }

    pub(super) fn carriers(&self) -> &[Carrier] {
        &self.carriers
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn carrier(&self, block: &Block) -> &Carrier {
        &self.carriers[block.carrier]
    }

    pub(super) fn weights(&self) -> u64 {
        self.carriers.iter().map(|carrier| carrier.tensor.elements()).sum()
    }

    /// Bytes of all carriers.
    pub(super) fn size(&self) -> u64 {
        self.carriers.iter().map(|carrier| carrier.tensor.size()).sum()
    }

    /// Reads the weights of a block.
    pub(super) fn read(&self, block: &Block) -> Result<Weights> {
        let carrier = self.carrier(block);
        let source = &self.sources[&carrier.file];
        let weights = Weights::read(source, &carrier.tensor, block)?;
        if !weights.values.iter().copied().all(is_weight) {
            return Err(WatermarkError::NotFinite(carrier.tensor.name.clone()).on(source.name()));
        }
        Ok(weights)
    }

    /// The Merkle root of the blocks: what binds a mark to exactly these weights.
    pub(super) fn root(&self, progress: &dyn Progress) -> Result<[u8; 32]> {
        progress.begin("digest", self.size());
        let leaf = |block: &Block| {
            let carrier = self.carrier(block);
            let bytes = self.sources[&carrier.file].read_span(block.span(&carrier.tensor))?;
            step(progress, bytes.len() as u64)?;
            Ok(hash(&[b"leaf", carrier.tensor.name.as_bytes(), block.number.to_string().as_bytes(), &bytes]))
        };
        let leaves: Vec<[u8; 32]> = self.blocks.par_iter().map(leaf).collect::<Result<_>>()?;
        Ok(merkle_root(leaves))
    }

    /// The key of all marks of this owner in these weights, bound one-way to the owner's name, the weights, a public
    /// random value and every parameter.
    pub(super) fn mark_key(&self, owner: &OwnerKey, root: &[u8; 32], beacon: &str) -> Key {
        let shapes: Vec<_> = self
            .carriers
            .iter()
            .map(|c| [c.rows.to_string(), c.columns.to_string(), c.tensor.dtype.to_string()])
            .collect();
        let mut table: Vec<&[u8]> = vec![b"table"];
        for (carrier, [rows, columns, dtype]) in self.carriers.iter().zip(&shapes) {
            table.extend([carrier.tensor.name.as_bytes(), dtype.as_bytes(), rows.as_bytes(), columns.as_bytes()]);
        }
        let Parameters { strength, group } = self.parameters;
        let numbers = [group, CODE_LEN as u64, RUN as u64, BLOCK].map(|n| n.to_string());
        let mut parameters: Vec<&[u8]> = vec![b"params", b"1"];
        let strength = strength.to_bits().to_be_bytes();
        let table = hash(&table);
        parameters.push(&strength);
        parameters.extend(numbers.iter().map(String::as_bytes));
        parameters.push(&table);
        let master = Key::new(*owner.master());
        master.derive(&[b"wm/v1/own", owner.name().as_bytes(), root, beacon.as_bytes(), &hash(&parameters)])
    }

    /// The chips of a block.
    pub(super) fn chips(&self, mark: &Key, block: &Block) -> Chips {
        let carrier = self.carrier(block);
        let weights = block.rows * carrier.columns;
        let group = self.parameters.group;
        let groups = ((weights + group) / (2 * group)).max(1); // half of the weights are the owner's
        Chips::new(&self.block_key(mark, block), weights as usize, groups as usize)
    }

    pub(super) fn block_key(&self, mark: &Key, block: &Block) -> Key {
        let tensor = mark.derive(&[b"tensor", self.carrier(block).tensor.name.as_bytes()]);
        tensor.derive(&[b"seg", block.number.to_string().as_bytes()])
    }
}

impl Block {
    pub(super) fn first_row(&self) -> u64 {
        self.first_row
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The bytes of this block in `tensor`, its carrier.
    pub(super) fn span(&self, tensor: &TensorInfo) -> crate::tensor::Span {
        let row = tensor.matrix().1 * tensor.dtype.block().1;
        let start = tensor.span.start + self.first_row * row;
        start..start + self.rows * row
    }
}

/// The owner's displacement of every group of a block: how far its projection is moved to reach the lattice.
pub(super) struct Displacement {
    /// Change of an owner weight over its row's scale, for each group; the chip gives the sign.
    pub(super) amplitude: Vec<f64>,
}

impl Displacement {
    /// Dithered quantisation (Chen and Wornell 2001) of each group's projection onto its chips.
    ///
    /// Projections are summed as integers in units of 2^-20, so that every implementation finds the same.
    pub(super) fn new(weights: &Weights, scales: &[f64], chips: &Chips, strength: f64) -> Self {
        let groups = chips.dither.len();
        let (mut sums, mut counts) = (vec![0i64; groups], vec![0u64; groups]);
        for piece in weights.pieces() {
            let Role::Owner(group) = chips.role(piece.run, CODE_LEN) else { continue };
            counts[group] += (piece.end - piece.start) as u64;
            let scale = scales[piece.row];
            if scale > 0.0 {
                let values = &weights.values[piece.start..piece.end];
                let units = values.iter().zip(piece.chips(chips.signs(piece.run)));
                sums[group] += units.map(|(w, s)| round_ties_even(s * (w / scale) * 1_048_576.0) as i64).sum::<i64>();
            }
        }
        let amplitude = sums.iter().zip(&counts).zip(&chips.dither).map(|((sum, count), dither)| {
            let root = (*count as f64).sqrt();
            if *count == 0 {
                return 0.0;
            }
            let projection = *sum as f64 / 1_048_576.0 / root;
            let lattice = strength * (12.0 * *count as f64).sqrt();
            let target = lattice * ((projection / lattice + dither).round_ties_even() - dither);
            (target - projection) / root
        });
        Self { amplitude: amplitude.collect() }
    }
}

/// Change of a copy weight at strength 1: half of the energy uniform over the row, half proportional to the weight.
pub(super) fn copy_amplitude(weight: f64, scale: f64) -> f64 {
    (0.5 * scale * scale + 0.5 * weight * weight).sqrt()
}

/// Rounds to the nearest integer, halves to even, for magnitudes below 2^51, in two additions that every processor has.
fn round_ties_even(value: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52: its last bit is worth 1
    (value + SHIFT) - SHIFT
}

fn merkle_root(mut level: Vec<[u8; 32]>) -> [u8; 32] {
    while level.len() > 1 {
        let pair = |pair: &[[u8; 32]]| match pair {
            [left, right] => hash(&[b"node", left, right]),
            _ => pair[0], // an odd one is promoted
        };
        level = level.chunks(2).map(pair).collect();
    }
    level.first().copied().unwrap_or_default()
}

/// Whether storing in this type needs random words.
pub(super) fn is_rounded(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16)
}
