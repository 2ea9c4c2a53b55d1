//! What carries a mark: which tensors, cut into which blocks, under which parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::choice::{Choice, Skipped};
use super::keystream::{Chips, Key, hash};
use super::merkle;
use super::store::is_coded;
use super::terms::{Outline, Terms};
use super::weights::Weights;
use crate::error::{Cause, Result, WatermarkError};
use crate::format::ModelIndex;
use crate::io::progress::{Progress, step};
use crate::io::{ReadAt, ReadAtExt, Tree};
use crate::tensor::TensorInfo;

/// Weights of a block, rounded down to whole rows: the unit of keys, of Merkle leaves and of memory.
pub(super) const BLOCK: u64 = 1 << 20;
/// Defaults of the strength, for floating-point weights and for codes, and the least and most of both.
const FLOAT_DEFAULT: f64 = 6.6;
const CODE_DEFAULT: f64 = 1500.0;
const DEFAULTS: [f64; 2] = [0.0005, 0.01];

/// Everything that a mark depends on besides the keys. All of it goes into the key derivation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameters {
    /// Relative distortion of owner and copy weights: change over root mean square of the row.
    pub(super) strength: f64,
    /// Owner weights of a group, about.
    pub(super) group: u64,
}

impl Parameters {
    /// Unless told otherwise, five times the strength that is found for certain: after 4-bit quantisation where most weights are
    /// floating point, and in the file itself where most are codes of four bits, which the mark moves by whole steps. Within
    /// sensible limits.
    pub(super) fn for_weights(owner_weights: u64, coded: bool, strength: Option<f64>) -> Result<Self, WatermarkError> {
        let n = owner_weights as f64;
        let [least, most] = DEFAULTS;
        let default = if coded { CODE_DEFAULT / n } else { FLOAT_DEFAULT / n.sqrt() };
        let strength = strength.unwrap_or(default.clamp(least, most));
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
    /// Where the model holds these weights, this tensor first: file and first byte.
    pub(super) places: Vec<(String, u64)>,
}

impl Carrier {
    pub(super) fn new(file: &str, tensor: &TensorInfo) -> Self {
        let (rows, columns) = tensor.matrix();
        let places = vec![(file.to_owned(), tensor.span.start)];
        Self { file: file.to_owned(), tensor: tensor.clone(), rows, columns, places }
    }

    fn rows_per_block(&self) -> u64 {
        rows_per_block(self.columns)
    }

    fn blocks(&self) -> u64 {
        self.rows.div_ceil(self.rows_per_block())
    }
}

/// Rows of a block of a carrier with so many columns.
pub(super) fn rows_per_block(columns: u64) -> u64 {
    (BLOCK / columns.max(1)).max(1)
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
    pub(super) skipped: Vec<Skipped>,
}

impl Original {
    /// Finds the carriers of a model; `strength` overrides the default.
    pub(super) fn new(tree: &dyn Tree, index: &ModelIndex, strength: Option<f64>) -> Result<Self> {
        let fail = |cause: WatermarkError| cause.on(tree.name());
        let Choice { carriers, skipped, twin, sources } = Choice::new(tree, index)?;
        if carriers.is_empty() {
            return Err(fail(WatermarkError::NoCarrier));
        }
        let weights = |carriers: &mut dyn Iterator<Item = &Carrier>| -> u64 {
            carriers.map(|carrier| carrier.tensor.elements()).sum()
        };
        let total = weights(&mut carriers.iter());
        let coded = weights(&mut carriers.iter().filter(|carrier| is_coded(carrier.tensor.dtype)));
        let parameters = Parameters::for_weights(total / 2, coded > total / 2, strength).map_err(fail)?;
        Ok(Self { twin, skipped, ..Self::over(sources, carriers, parameters) })
    }

    /// The blocks of an original that were opened, each a tensor of its own.
    pub(super) fn of_opened<'a>(
        tree: &dyn Tree,
        blocks: impl IntoIterator<Item = (&'a str, &'a TensorInfo)>,
        parameters: Parameters,
    ) -> Result<Self> {
        let carriers: Vec<_> = blocks.into_iter().map(|(file, tensor)| Carrier::new(file, tensor)).collect();
        let mut sources = BTreeMap::new();
        for carrier in &carriers {
            if !sources.contains_key(&carrier.file) {
                sources.insert(carrier.file.clone(), tree.open(&carrier.file)?);
            }
        }
        Ok(Self::over(sources, carriers, parameters))
    }

    fn over(sources: BTreeMap<String, Arc<dyn ReadAt>>, carriers: Vec<Carrier>, parameters: Parameters) -> Self {
        let blocks = carriers.iter().enumerate().flat_map(|(c, carrier)| {
            (0..carrier.blocks()).map(move |number| {
                let first_row = number * carrier.rows_per_block();
                Block { carrier: c, number, first_row, rows: carrier.rows_per_block().min(carrier.rows - first_row) }
            })
        });
        Self { blocks: blocks.collect(), sources, carriers, parameters, twin: None, skipped: Vec::new() }
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
        if !weights.are_weights() {
            return Err(WatermarkError::NotFinite(carrier.tensor.name.clone()).on(source.name()));
        }
        Ok(weights)
    }

    /// The file that holds a carrier.
    pub(super) fn source(&self, carrier: &Carrier) -> &Arc<dyn ReadAt> {
        &self.sources[&carrier.file]
    }

    /// The leaves of the Merkle tree of the blocks, in order.
    pub(super) fn leaves(&self, progress: &dyn Progress) -> Result<Vec<[u8; 32]>> {
        progress.begin("digest", self.size());
        let leaf = |block: &Block| {
            let bytes = self.bytes(block)?;
            step(progress, bytes.len() as u64)?;
            Ok(leaf(&self.carrier(block).tensor.name, block.number, &bytes))
        };
        self.blocks.par_iter().map(leaf).collect()
    }

    /// The Merkle root of the blocks: what binds a mark to exactly these weights.
    pub(super) fn root(&self, progress: &dyn Progress) -> Result<[u8; 32]> {
        Ok(merkle::root(&self.leaves(progress)?))
    }

    /// A block as it is stored.
    pub(super) fn bytes(&self, block: &Block) -> Result<Vec<u8>> {
        let carrier = self.carrier(block);
        self.sources[&carrier.file].read_span(block.span(&carrier.tensor))
    }

    /// What marks of this owner in these weights are bound to.
    pub(super) fn terms(&self, owner: &str, root: &[u8; 32], beacon: &str) -> Terms {
        let outline = |carrier: &Carrier| {
            let tensor = &carrier.tensor;
            Outline { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() }
        };
        Terms {
            owner: owner.to_owned(),
            root: *root,
            beacon: beacon.to_owned(),
            parameters: self.parameters,
            carriers: self.carriers.iter().map(outline).collect(),
        }
    }

    /// What a key of streams says of a block.
    pub(super) fn chips(&self, key: &Key, block: &Block) -> Chips {
        let weights = block.rows * self.carrier(block).columns;
        let group = self.parameters.group;
        let groups = ((weights + group) / (2 * group)).max(1); // half of the weights are the owner's
        Chips::new(key, weights as usize, groups as usize)
    }
}

/// The leaf of a block: its name, number and bytes.
pub(super) fn leaf(tensor: &str, number: u64, bytes: &[u8]) -> [u8; 32] {
    hash(&[b"leaf", tensor.as_bytes(), number.to_string().as_bytes(), bytes])
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
        let (elements, bytes) = tensor.dtype.block();
        let row = tensor.matrix().1 / elements * bytes; // rows are whole blocks
        let start = tensor.span.start + self.first_row * row;
        start..start + self.rows * row
    }
}
