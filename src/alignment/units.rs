//! Hidden units of two models, each a row of a matrix, for those who compare models unit by unit.
//!
//! Which tensor is for what is told by the names of one model; where the other has something like it, only by content.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::assign::normalise;
use super::basis::{self, Basis};
use super::family::{Role, Transformer};
use super::map::straight;
use super::panel::{Panel, Stored, tensors};
use crate::error::Result;
use crate::linear::{Matrix, dot};
use crate::matching::Side;

/// Rows of token embeddings that tell hidden dimensions.
const TOKENS: usize = 8192;
/// Fewer tokens than this many per hidden dimension tell nothing.
const TOKENS_PER_DIMENSION: usize = 2;
/// Filters of fewer weights tell nothing.
const MIN_WEIGHTS: usize = 8;
/// The layers of larger numbers of filters are left out.
const MAX_FILTERS: usize = 1 << 16;

/// The units of a tensor.
#[derive(Clone)]
pub(crate) struct Units {
    panel: Panel,
    view: View,
}

/// What of a tensor tells a unit.
#[derive(Clone)]
enum View {
    /// A row over the hidden dimensions, which become those of the reference.
    Row(Option<Arc<Basis>>),
    /// A column, or the first elements of it, less their mean.
    Column(usize),
    /// A filter whose inputs may be the units of its own layer: its weights in the order of their size.
    Sorted(usize),
}

impl Units {
    /// The name of the tensor.
    pub(crate) fn tensor(&self) -> &str {
        &self.panel.stored.info.name
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        if matches!(self.view, View::Column(_)) { self.panel.columns } else { self.panel.rows }
    }

    /// What the tensor takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.panel.stored.info.size()
    }

    /// A row for each unit, of length 1, or 0 where it has no weights.
    pub(crate) fn read(&self) -> Result<Matrix> {
        let mut matrix = match &self.view {
            View::Row(None) => self.panel.read()?,
            View::Row(Some(basis)) => straight(&self.panel, basis, None)?,
            View::Column(len) => centred(self.panel.part(0, *len).read()?.transposed()),
            View::Sorted(kernel) => sorted(self.panel.read()?, *kernel),
        };
        normalise(&mut matrix);
        Ok(matrix)
    }
}

/// A layer of one model, and what of the other may be the same.
pub(crate) struct Layer {
    pub(crate) name: String,
    /// The units by their incoming weights: several matrices if they are gated.
    pub(crate) incoming: Vec<Units>,
    /// The units by their outgoing weights.
    pub(crate) outgoing: Vec<Units>,
}

/// What two models have to compare.
pub(crate) struct Comparable {
    pub(crate) layers: Vec<Layer>,
    /// Matrices of the suspect, of any layer.
    pub(crate) theirs: Vec<Units>,
}

/// The hidden dimensions of a transformer, told by their token embeddings; and its neurons, over those hidden dimensions.
/// `None` if the reference is of no known family.
pub(crate) fn of_transformer(reference: Side<'_>, suspect: Side<'_>) -> Result<Option<[Comparable; 2]>> {
    let Some(ours) = Transformer::recognise(reference)? else { return Ok(None) };
    let theirs = tensors(suspect)?;
    let tells = |panel: &Panel| panel.rows >= TOKENS_PER_DIMENSION * panel.columns;
    let table = ours.tables().map(|(_, part)| &part.panel).find(|panel| tells(panel));
    let mut tables: Vec<Panel> = theirs.iter().flat_map(|stored| Panel::of(stored, ours.hidden, false)).collect();
    tables.retain(tells);
    let tokens = tables.iter().chain(table).map(|panel| panel.rows).min().unwrap_or(0).min(TOKENS);
    let column = |panel: &Panel| Units { panel: panel.clone(), view: View::Column(tokens) };
    let hidden = |panel: &Panel| {
        let (name, incoming) = ("hidden dimensions".into(), vec![column(panel)]);
        Layer { name, incoming, outgoing: Vec::new() }
    };
    let dimensions =
        Comparable { layers: table.map(hidden).into_iter().collect(), theirs: tables.iter().map(column).collect() };

    let basis = basis::find(&ours, &theirs)?;
    let columns = match &basis {
        Some(Basis::Rotated(matrix)) => matrix.rows,
        _ => ours.hidden,
    };
    let basis = basis.filter(|basis| !basis.is_identity()).map(Arc::new);
    let mut layers: BTreeMap<(u64, u64), Layer> = BTreeMap::new();
    for part in ours.parts.iter().filter(|part| part.role.is_neural()) {
        let units = Units { panel: part.panel.clone(), view: View::Row(None) };
        let (layer, expert) = part.unit;
        let name = if expert == 0 { format!("layer {layer}") } else { format!("layer {layer}, expert {expert}") };
        let layer = layers.entry(part.unit).or_insert(Layer { name, incoming: Vec::new(), outgoing: Vec::new() });
        if part.role == Role::Down { layer.outgoing.push(units) } else { layer.incoming.push(units) }
    }
    let mut panels = Vec::new();
    for stored in &theirs {
        panels.extend([false, true].iter().flat_map(|transposed| Panel::of(stored, columns, *transposed)));
    }
    let units = |panel| Units { panel, view: View::Row(basis.clone()) };
    let neurons =
        Comparable { layers: layers.into_values().collect(), theirs: panels.into_iter().map(units).collect() };
    Ok(Some([dimensions, neurons]))
}

/// The filters of each convolution whose outputs are hidden: some other tensor takes as many inputs. Of each, what the
/// suspect has of the same shape.
pub(crate) fn of_convolutions(reference: Side<'_>, suspect: Side<'_>) -> Result<Vec<Comparable>> {
    let (ours, theirs) = (tensors(reference)?, tensors(suspect)?);
    let takes = |stored: &Arc<Stored>, count: u64| match *stored.info.shape.as_slice() {
        [a, b] => a == count || b == count,
        [_, inputs, _, ..] => inputs == count,
        _ => false,
    };
    let mut all = Vec::new();
    for stored in &ours {
        let is_taken = |count| ours.iter().any(|other| !Arc::ptr_eq(other, stored) && takes(other, count));
        let Some(units) = filters(stored).filter(|units| is_taken(units.count() as u64)) else { continue };
        let is_same = |other: &&Arc<Stored>| other.info.shape == stored.info.shape;
        let theirs: Vec<Units> = theirs.iter().filter(is_same).filter_map(filters).collect();
        if !theirs.is_empty() {
            let layer = Layer { name: stored.info.name.clone(), incoming: vec![units], outgoing: Vec::new() };
            all.push(Comparable { layers: vec![layer], theirs });
        }
    }
    Ok(all)
}

/// The filters of a convolution.
fn filters(stored: &Arc<Stored>) -> Option<Units> {
    let shape: Vec<usize> = stored.info.shape.iter().map(|dim| *dim as usize).collect();
    let [rows, inputs, kernel @ ..] = shape.as_slice() else { return None };
    let (rows, inputs, kernel) = (*rows, *inputs, kernel.iter().product::<usize>());
    let columns = inputs * kernel;
    let fits = shape.len() > 2 && (2..=MAX_FILTERS).contains(&rows) && columns >= MIN_WEIGHTS;
    let view = if rows == inputs { View::Sorted(kernel) } else { View::Row(None) };
    let panel = Panel { stored: Arc::clone(stored), rows, columns, first: 0, row_step: columns, column_step: 1 };
    fits.then_some(Units { panel, view })
}

/// The rows, less their means.
fn centred(mut matrix: Matrix) -> Matrix {
    for row in matrix.values.chunks_exact_mut(matrix.columns.max(1)) {
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64;
        row.iter_mut().for_each(|x| *x -= mean as f32);
    }
    matrix
}

/// For each place of the kernel the weights of all inputs, ascending, less what all filters share.
fn sorted(matrix: Matrix, kernel: usize) -> Matrix {
    let mut out = Matrix::zeros(matrix.rows, matrix.columns);
    let inputs = matrix.columns / kernel.max(1);
    for r in 0..matrix.rows {
        for k in 0..kernel {
            let mut values: Vec<f32> = matrix.row(r).iter().skip(k).step_by(kernel).copied().collect();
            values.sort_by(f32::total_cmp);
            let length = dot(matrix.row(r), matrix.row(r)).sqrt();
            let factor = if length > 0.0 { length.recip() } else { 0.0 };
            values.iter_mut().for_each(|value| *value *= factor);
            out.row_mut(r)[k * inputs..(k + 1) * inputs].copy_from_slice(&values);
        }
    }
    centred(out.transposed()).transposed()
}
