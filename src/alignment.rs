//! Undoes what changes the weights of a model but not what it computes.
//!
//! The order of hidden dimensions, neurons, heads, experts and layers is arbitrary, and so are rotations of the hidden
//! dimensions and of what is within a head, the scale of a neuron, and where the gain of a norm is kept. A thief may scramble all
//! of them. [`align`] compares a suspect with the reference it may come from and says how the reference's weights are put together
//! from the suspect's.
//!
//! Only the two models are seen, never a key or a marked copy, so that every p-value stays exact. What is found are maps:
//! whatever is not explained by one is left out, so that an unrelated model yields nothing. Families of models are known by
//! the names of the reference (`family`); those of the suspect play no part. Findings do not depend on the number of threads.

mod assign;
mod basis;
mod conv;
mod family;
mod fit;
mod heads;
mod map;
mod neurons;
mod panel;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::io::progress::{Progress, step};
use crate::matching::Side;
use assign::Place;
use basis::Basis;
use family::{Part, Role, Transformer};
use heads::Mixing;
use map::{Map, Rows, straight};
use neurons::Weights;

/// How the weights of a reference are put together from those of a suspect.
#[derive(Default)]
pub struct Alignment {
    steps: Vec<Step>,
    /// By file and name of the tensor of the reference.
    maps: BTreeMap<(String, String), Vec<Map>>,
}

/// Something that was found, and is undone. Shown in words.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Step(String);

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where single rows and columns of a tensor's matrix stand in a tensor of the suspect.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Monomial {
    /// The file of the suspect.
    pub file: String,
    /// The tensor in it.
    pub tensor: String,
    /// For each row of the reference's matrix that of the suspect, and by what it is multiplied.
    pub rows: Vec<Option<(usize, f32)>>,
    /// The same for columns.
    pub columns: Vec<Option<(usize, f32)>>,
    /// Whether the suspect's matrix has to be transposed first.
    pub transposed: bool,
}

impl Alignment {
    /// What was found, for people.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether nothing was found that had to be undone.
    pub fn is_identity(&self) -> bool {
        self.maps.values().flatten().all(Map::is_identity)
    }

    /// Whether anything of a tensor of the reference was found.
    pub fn finds(&self, file: &str, name: &str) -> bool {
        self.maps.get(&(file.to_owned(), name.to_owned())).is_some_and(|maps| !maps.is_empty())
    }

    /// The suspect's weights for a tensor of the reference, in its order, as many as it has; 0 where the suspect has none.
    /// `None` if it has nothing of it.
    pub fn tensor(&self, file: &str, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(maps) = self.maps.get(&(file.to_owned(), name.to_owned())) else { return Ok(None) };
        let Some(first) = maps.first() else { return Ok(None) };
        let mut values = vec![0.0; first.ours.stored.info.elements() as usize];
        for map in maps {
            map.ours.place(&map.read()?, &mut values);
        }
        Ok(Some(values))
    }

    /// Where single rows and columns of a matrix of the reference stand in the suspect: for what lies on a grid of the
    /// suspect's. `None` where rows or columns were mixed, or the tensor is put together from several.
    pub fn monomial(&self, file: &str, name: &str) -> Option<Monomial> {
        let [map] = &self.maps.get(&(file.to_owned(), name.to_owned()))?[..] else { return None };
        let (ours, theirs) = (&map.ours, &map.theirs);
        if ours.stored.info.shape.len() != 2 || theirs.stored.info.shape.len() != 2 {
            return None;
        }
        let first = theirs.first / theirs.row_step.max(1);
        let inner = map.single_rows()?.into_iter().map(|row| row.map(|(r, factor)| (first + r, factor))).collect();
        let hidden = map.single_columns()?;
        let is_turned = ours.column_step != 1;
        let (rows, columns) = if is_turned { (hidden, inner) } else { (inner, hidden) };
        let transposed = is_turned != (theirs.column_step != 1);
        Some(Monomial {
            file: theirs.stored.file.clone(),
            tensor: theirs.stored.info.name.clone(),
            rows,
            columns,
            transposed,
        })
    }
}

/// Finds how `reference`, a transformer of a known family or a network of convolutions, is put together from `suspect`. Nothing
/// is found in other models, or in a suspect that has nothing to do with the reference.
pub fn align(reference: Side<'_>, suspect: Side<'_>, progress: &dyn Progress) -> Result<Alignment> {
    let Some(ours) = Transformer::recognise(reference)? else { return conv::align(reference, suspect, progress) };
    let theirs = panel::tensors(suspect)?;
    progress.begin("align", theirs.iter().map(|stored| stored.info.size()).sum());
    let basis = Arc::new(basis::find(&ours, &theirs)?.unwrap_or_else(|| Basis::identity(ours.hidden)));
    let columns = match &*basis {
        Basis::Permuted(columns) => columns.iter().flatten().map(|(i, _)| i + 1).max().unwrap_or(0).max(ours.hidden),
        Basis::Rotated(matrix) => matrix.rows,
    };
    let places = assign::find(&ours, &theirs, &basis, columns)?;
    let mut alignment = Alignment::default();
    alignment.steps.extend(basis.describe().map(|words| Step(words.into())));
    let mut units: BTreeMap<Unit, Vec<(&Part, &Place)>> = BTreeMap::new();
    for (part, place) in ours.parts.iter().zip(&places) {
        let Some(place) = place else { continue };
        if part.role == Role::Table {
            let rows = (0..part.panel.rows).map(|r| if r < place.panel.rows { vec![(r, 1.0)] } else { Vec::new() });
            let gain = part.gain.as_deref().filter(|_| place.folded);
            alignment.add(part, place, &basis, (rows.collect(), neurons::combined(None, gain.map(Vec::as_slice))));
        } else {
            units.entry((part.unit.0, part.unit.1, part.role.is_head())).or_default().push((part, place));
        }
    }
    for ((layer, expert, is_attention), unit) in units {
        let mut weights = Vec::new();
        for (part, place) in &unit {
            step(progress, place.panel.stored.info.size())?;
            let gain = part.gain.as_ref().filter(|_| place.folded).map(|gain| gain.to_vec());
            let (ours, theirs) = (part.panel.read()?, straight(&place.panel, &basis, None)?);
            weights.push(Weights { role: part.role, ours, theirs, gain });
        }
        let maps = if is_attention {
            let Some(size) = heads::size(&weights, &ours.head_sizes()) else { continue };
            let found = heads::align(weights, size);
            alignment.steps.extend(attention_steps(layer, &found));
            found.maps
        } else {
            let count = weights.iter().map(|weights| weights.theirs.rows).max().unwrap_or(0);
            if weights.iter().any(|weights| weights.theirs.rows != count) {
                continue;
            }
            let of = weights.first().map_or(0, |weights| weights.ours.rows);
            let found = neurons::align(weights);
            let is_plain = found.maps.iter().all(|(rows, columns)| columns.is_none() && is_identity(rows));
            if !is_plain || count != of {
                let name =
                    if expert == 0 { format!("layer {layer}") } else { format!("layer {layer}, expert {expert}") };
                let extra = if count == of { String::new() } else { format!(" among {count}") };
                alignment.steps.push(Step(format!("{name}: {} of {of} neurons found{extra}", found.found)));
            }
            found.maps
        };
        for ((part, place), map) in unit.iter().zip(maps) {
            alignment.add(part, place, &basis, map);
        }
    }
    Ok(alignment)
}

/// Layer, expert, and whether it is attention.
type Unit = (u64, u64, bool);

/// Whether rows are as they were.
fn is_identity(rows: &Rows) -> bool {
    rows.iter().enumerate().all(|(i, row)| matches!(row[..], [(r, factor)] if r == i && factor == 1.0))
}

/// What is to say about the attention of a layer.
fn attention_steps(layer: u64, found: &heads::Attention) -> Option<Step> {
    let mut what = Vec::new();
    if found.found < found.of {
        what.push(format!("{} of {} heads found", found.found, found.of));
    }
    if found.is_permuted {
        what.push("heads permuted".into());
    }
    if found.mixings.iter().any(|mixing| *mixing == Mixing::Any || *mixing == Mixing::Permuted) {
        what.push("dimensions of heads mixed".into());
    }
    if found.mixings.iter().any(|mixing| matches!(mixing, Mixing::Turned(_))) {
        what.push("rotary pairs turned or reordered".into());
    }
    (!what.is_empty()).then(|| Step(format!("layer {layer}: {}", what.join(", "))))
}

impl Alignment {
    fn add(&mut self, part: &Part, place: &Place, basis: &Arc<Basis>, (rows, columns): (Rows, Option<Vec<f32>>)) {
        if rows.iter().all(Vec::is_empty) {
            return;
        }
        let stored = &part.panel.stored;
        let key = (stored.file.clone(), stored.info.name.clone());
        let map =
            Map { ours: part.panel.clone(), theirs: place.panel.clone(), basis: Arc::clone(basis), columns, rows };
        self.maps.entry(key).or_default().push(map);
    }
}
