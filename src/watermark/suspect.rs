//! Where a suspect holds the weights of each carrier.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::carrier::{Block, Carrier, Original};
use super::cleaning::Grid;
use super::weights::Weights;
use crate::error::{FormatError, Result};
use crate::format::{Bound, Elements, ModelIndex};
use crate::io::{ReadAt, Tree};
use crate::matching::{self, Pair, Side, View, correspond};
use crate::tensor::{Storage, lanes};

/// The weights of a suspect, put where the original has them. No key is involved.
pub(super) struct Suspect {
    /// For each carrier the parts of it that the suspect has.
    parts: Vec<Vec<Part>>,
}

/// A rectangle of a carrier, and where the suspect has it.
struct Part {
    elements: Arc<Elements>,
    /// Columns of the two matrices, as [`matching::shape`] takes them.
    columns: u64,
    their_columns: u64,
    /// The rectangle in the carrier.
    ours: (Range<u64>, Range<u64>),
    /// The first row and the first column in the suspect.
    theirs: (u64, u64),
    view: View,
}

impl Suspect {
    /// Finds the carriers of the original, the model `side`, in a suspect: by content, and what is not found so, by name
    /// and shape.
    pub(super) fn find(original: &Original, side: Side<'_>, suspect: Side<'_>) -> Result<Self> {
        let Side { tree, index } = suspect;
        let matching = correspond(side, suspect)?;
        let mut by_carrier: HashMap<(&str, &str), Vec<&Pair>> = HashMap::new();
        for pair in &matching.pairs {
            by_carrier.entry((&pair.reference.file, &pair.reference.tensor)).or_default().push(pair);
        }
        let free: HashSet<(&str, &str)> = matching.extra.iter().map(|(file, name)| (&**file, &**name)).collect();
        let mut opened = Opened { tree, index, sources: HashMap::new(), elements: HashMap::new() };
        let mut parts = Vec::new();
        for carrier in original.carriers() {
            let mut found = Vec::new();
            for pair in by_carrier.get(&(&*carrier.file, &*carrier.tensor.name)).into_iter().flatten() {
                let (ours, theirs) = (&pair.reference, &pair.suspect);
                if let Some(elements) = opened.elements(&theirs.file, &theirs.tensor)? {
                    let ours = (ours.rows.clone(), ours.columns.clone());
                    let theirs = (theirs.rows.start, theirs.columns.start);
                    found.push(Part::new(carrier, elements, ours, theirs, pair.view));
                }
            }
            let namesake = namesake(carrier, index).filter(|file| free.contains(&(*file, &*carrier.tensor.name)));
            if let (true, Some(file)) = (found.is_empty(), namesake)
                && let Some(elements) = opened.elements(file, &carrier.tensor.name)?
            {
                let (rows, columns) = matching::shape(&carrier.tensor.shape);
                found.push(Part::new(carrier, elements, (0..rows, 0..columns), (0, 0), View::default()));
            }
            parts.push(found);
        }
        Ok(Self { parts })
    }

    /// How many carriers the suspect has, in whole or in part.
    pub(super) fn carriers(&self) -> usize {
        self.parts.iter().filter(|parts| !parts.is_empty()).count()
    }

    /// How many of `carriers` it has, or are found otherwise.
    pub(super) fn carriers_or(&self, carriers: &[Carrier], is_found: impl Fn(&Carrier) -> bool) -> usize {
        self.parts.iter().zip(carriers).filter(|(parts, carrier)| !parts.is_empty() || is_found(carrier)).count()
    }

    /// The suspect's weights of a block, zero where it has none or what cannot be a weight; `None` if it has none at all.
    pub(super) fn read(&self, block: &Block, carrier: &Carrier) -> Result<Option<Weights>> {
        let mut weights = Weights::zeroed(carrier.columns as usize, block.rows() as usize);
        let start = block.first_row() * carrier.columns;
        let mut any = false;
        for part in &self.parts[block.carrier] {
            any |= part.read(start, &mut weights.values, |from, out| part.elements.read_f32(from, out))?;
        }
        weights.clear_oddities();
        Ok(any.then_some(weights))
    }

    /// The cells of the block's weights in the suspect, as far as the types of its tensors say them; `None` if they say
    /// nothing.
    pub(super) fn grid(&self, block: &Block, carrier: &Carrier) -> Result<Option<Grid>> {
        let parts = || self.parts[block.carrier].iter().filter(|part| part.elements.has_cells());
        if parts().next().is_none() {
            return Ok(None);
        }
        let mut grid = Grid::unknown(carrier.columns as usize, block.rows() as usize);
        let start = block.first_row() * carrier.columns;
        let mut any = false;
        for part in parts() {
            let elements = &part.elements;
            any |= part.read(start, &mut grid.low.values, |from, out| elements.read_bound(from, Bound::Low, out))?;
            part.read(start, &mut grid.high.values, |from, out| elements.read_bound(from, Bound::High, out))?;
        }
        Ok(any.then_some(grid))
    }
}

impl Part {
    fn new(
        carrier: &Carrier,
        elements: Arc<Elements>,
        ours: (Range<u64>, Range<u64>),
        theirs: (u64, u64),
        view: View,
    ) -> Self {
        let (_, columns) = matching::shape(&carrier.tensor.shape);
        let (_, their_columns) = matching::shape(&elements.info().shape);
        Self { elements, columns, their_columns, ours, theirs, view }
    }

    /// Fills in, by `fill`, what the part has of the carrier's elements that `out` is to hold, which are those from `start`
    /// on. They are whole rows, or lie in one. Says whether it has any.
    fn read(&self, start: u64, out: &mut [f32], fill: impl Fn(Range<u64>, &mut [f32]) -> Result<()>) -> Result<bool> {
        let (end, columns) = (start + out.len() as u64, self.columns);
        let meet = |a: Range<u64>, b: &Range<u64>| a.start.max(b.start)..a.end.min(b.end);
        let rows = meet(start / columns..end.div_ceil(columns), &self.ours.0);
        let first_row = start / columns * columns;
        let is_one_row = end <= first_row + columns;
        let within = if is_one_row { start - first_row..end - first_row } else { 0..columns };
        let within = meet(within, &self.ours.1);
        if rows.is_empty() || within.is_empty() {
            return Ok(false);
        }
        let (row, column) = (rows.start - self.ours.0.start, within.start - self.ours.1.start);
        let place = |r: u64, c: u64| (r * columns + c - start) as usize;
        let (count, width) = (rows.end - rows.start, within.end - within.start);
        if self.view.transposed {
            let mut run = vec![0.0; count as usize];
            for c in within.clone() {
                let their_row = self.theirs.0 + c - self.ours.1.start;
                let from = their_row * self.their_columns + self.theirs.1 + row;
                fill(from..from + count, &mut run)?;
                for (r, value) in rows.clone().zip(&run) {
                    out[place(r, c)] = *value;
                }
            }
            return Ok(true);
        }
        if self.view.reordered.is_none() && width == columns && width == self.their_columns {
            let from = (self.theirs.0 + row) * width;
            let out = &mut out[place(rows.start, 0)..place(rows.end, 0)];
            fill(from..from + count * width, out)?;
            return Ok(true);
        }
        for r in rows {
            let inside = r - self.ours.0.start;
            let inside = self.view.reordered.map_or(inside, |reordered| reordered.row(inside));
            let from = (self.theirs.0 + inside) * self.their_columns + self.theirs.1 + column;
            let out = &mut out[place(r, within.start)..][..width as usize];
            fill(from..from + width, out)?;
        }
        Ok(true)
    }
}

/// Tensors of the suspect, each opened once.
struct Opened<'a> {
    tree: &'a dyn Tree,
    index: &'a ModelIndex,
    sources: HashMap<String, Arc<dyn ReadAt>>,
    elements: HashMap<(String, String), Arc<Elements>>,
}

impl Opened<'_> {
    fn elements(&mut self, file: &str, name: &str) -> Result<Option<Arc<Elements>>> {
        let key = (file.to_owned(), name.to_owned());
        if let Some(elements) = self.elements.get(&key) {
            return Ok(Some(Arc::clone(elements)));
        }
        let Some(info) = self.index.file(file).and_then(|file| file.index.tensor(name)) else { return Ok(None) };
        let source = match self.sources.get(file) {
            Some(source) => Arc::clone(source),
            None => Arc::clone(self.sources.entry(file.to_owned()).or_insert(self.tree.open(file)?)),
        };
        let elements = Arc::new(Elements::open(source, info)?);
        self.elements.insert(key, Arc::clone(&elements));
        Ok(Some(elements))
    }
}

/// The file of the suspect that has a tensor of the carrier's name and shape.
fn namesake<'a>(carrier: &Carrier, index: &'a ModelIndex) -> Option<&'a str> {
    let (file, tensor) = index.tensor(&carrier.tensor.name)?;
    (tensor.shape == carrier.tensor.shape && lanes::is_number(tensor.dtype)).then_some(file)
}

/// Files of a suspect that may hold weights, and were not looked at, each with the reason.
pub(super) fn unread(index: &ModelIndex) -> Vec<(String, FormatError)> {
    let elsewhere = index.tensors().filter_map(|(file, tensor)| match &tensor.storage {
        Storage::External(path) => {
            let (tensor, path) = (tensor.name.clone(), path.clone());
            let cause = FormatError::External { tensor, path, problem: "is not here: give the directory" };
            Some((file.to_owned(), cause))
        }
        _ => None,
    });
    index.refused().iter().cloned().chain(elsewhere.take(1)).collect()
}
