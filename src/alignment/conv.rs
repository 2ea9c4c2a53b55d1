//! Puts networks of convolutions straight, whose channels were permuted and scaled.
//!
//! No graph is needed. Where the order of the inputs of a tensor is known, its filters are told by their weights, and their
//! order is that of the inputs of whatever reads them; where the order of the filters is known, so are the inputs. So orders
//! spread from the first layer, whose inputs are what they were, through all tensors of fitting sizes. What no known order
//! explains is left out. Scales (of a folded batch norm, or moved through a ReLU) are fitted once an order is found.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::assign::normalise;
use super::basis::Basis;
use super::fit::{column_factors, row_factor};
use super::map::Map;
use super::neurons::{cosine, reciprocal};
use super::panel::{Panel, Stored, tensors};
use super::{Alignment, Step};
use crate::error::Result;
use crate::io::progress::{Progress, step};
use crate::linear::Matrix;
use crate::matching::Side;

/// Weights of both models that are held in memory; larger models are left alone.
const MAX_WEIGHTS: u64 = 1 << 29;
/// Tensors of a model that are looked at.
const MAX_TENSORS: usize = 2048;
/// Most channels of a layer.
const MAX_CHANNELS: usize = 1 << 14;
/// Orders of one number of channels that are tried.
const MAX_ORDERS: usize = 64;
/// Filters by which tensors are paired.
const SAMPLES: usize = 8;
/// Weights by which a filter of a single input is told from others.
const TELLING: usize = 64;
/// Share of channels that must be found.
const FOUND: f64 = 0.6;
/// How often scales are fitted and channels matched again.
const ROUNDS: usize = 2;
/// How often channels are paired among those that are left.
const PASSES: usize = 3;
/// Least mean cosine of depthwise filters.
const LIKE_DEPTHWISE: f32 = 0.9;

/// For each channel of the reference that of the suspect.
type Order = Vec<Option<usize>>;

/// A tensor as filters of inputs of a kernel.
struct Kernel {
    panel: Panel,
    inputs: usize,
    /// A row for each filter, and one for each input.
    wings: [Matrix; 2],
}

/// The two axes of channels.
const FILTERS: usize = 0;
const INPUTS: usize = 1;

impl Kernel {
    fn all(side: Side<'_>, left: &mut u64, progress: &dyn Progress) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for stored in tensors(side)?.iter().take(MAX_TENSORS) {
            let size = stored.info.elements();
            if let Some((panel, inputs)) = panel(stored).filter(|_| size <= *left) {
                *left -= size;
                let filters = panel.read()?;
                let turned = turned(&filters, inputs);
                all.push(Self { panel, inputs, wings: [filters, turned] });
                step(progress, stored.info.size())?;
            }
        }
        Ok(all)
    }

    /// Weights of a filter for one input.
    fn size(&self) -> usize {
        self.panel.columns / self.inputs.max(1)
    }

    /// Whether filters are too small to be told by themselves.
    fn is_depthwise(&self) -> bool {
        self.inputs == 1 && self.panel.columns < TELLING
    }

    fn channels(&self, axis: usize) -> usize {
        self.wings[axis].rows
    }
}

fn panel(stored: &Arc<Stored>) -> Option<(Panel, usize)> {
    let shape: Vec<usize> = stored.info.shape.iter().map(|dim| *dim as usize).collect();
    let [rows, inputs, kernel @ ..] = shape.as_slice() else { return None };
    let (rows, inputs, columns) = (*rows, *inputs, inputs * kernel.iter().product::<usize>());
    let fits = (2..=MAX_CHANNELS).contains(&rows) && (1..=MAX_CHANNELS).contains(&inputs);
    let panel = Panel { stored: Arc::clone(stored), rows, columns, first: 0, row_step: columns, column_step: 1 };
    fits.then_some((panel, inputs))
}

/// Filters and inputs exchanged.
fn turned(matrix: &Matrix, inputs: usize) -> Matrix {
    let size = matrix.columns / inputs.max(1);
    let mut out = Matrix::zeros(inputs, matrix.rows * size);
    for r in 0..matrix.rows {
        for (i, weights) in matrix.row(r).chunks_exact(size.max(1)).enumerate() {
            out.row_mut(i)[r * size..(r + 1) * size].copy_from_slice(weights);
        }
    }
    out
}

/// The columns in the reference's order, `size` of them for each channel.
fn ordered(matrix: &Matrix, order: &Order, size: usize) -> Matrix {
    let mut out = Matrix::zeros(matrix.rows, order.len() * size);
    out.values.par_chunks_mut(out.columns.max(1)).enumerate().for_each(|(r, row)| {
        for (to, from) in row.chunks_exact_mut(size.max(1)).zip(order) {
            if let Some(from) = from {
                to.copy_from_slice(&matrix.row(r)[from * size..(from + 1) * size]);
            }
        }
    });
    out
}

/// What is found of a tensor: the suspect's, and the orders of filters and inputs.
struct Found {
    theirs: usize,
    orders: [Order; 2],
}

/// A tensor of each model that may be the same, where channels along one axis are in an order of the pool.
struct Candidate {
    likeness: f32,
    ours: usize,
    theirs: usize,
    /// The axis whose order is known.
    known: usize,
    order: Order,
}

/// Finds how a network of convolutions is put together from the suspect's weights.
pub(super) fn align(reference: Side<'_>, suspect: Side<'_>, progress: &dyn Progress) -> Result<Alignment> {
    let mut left = MAX_WEIGHTS;
    let ours = Kernel::all(reference, &mut left, progress)?;
    if !ours.iter().any(|kernel| kernel.panel.stored.info.shape.len() > 2) {
        return Ok(Alignment::default());
    }
    let theirs = Kernel::all(suspect, &mut left, progress)?;
    let mut finder = Finder::new(&ours, &theirs);
    while finder.round() {
        step(progress, 0)?;
    }
    finder.depthwise();
    let mut alignment = Alignment::default();
    for (kernel, found) in ours.iter().zip(&finder.found) {
        if let Some(found) = found {
            add(&mut alignment, kernel, &theirs[found.theirs], found);
        }
    }
    Ok(alignment)
}

struct Finder<'a> {
    ours: &'a [Kernel],
    theirs: &'a [Kernel],
    found: Vec<Option<Found>>,
    is_taken: Vec<bool>,
    /// Orders of so many channels. Of each, the first is that of the reference.
    pool: BTreeMap<usize, Vec<Order>>,
    /// How many of them were tried, by tensors and axis.
    tried: BTreeMap<(usize, usize, usize), usize>,
}

impl<'a> Finder<'a> {
    fn new(ours: &'a [Kernel], theirs: &'a [Kernel]) -> Self {
        let mut pool = BTreeMap::new();
        for kernel in ours {
            for axis in [FILTERS, INPUTS] {
                let count = kernel.channels(axis);
                pool.entry(count).or_insert_with(|| vec![(0..count).map(Some).collect()]);
            }
        }
        let found = ours.iter().map(|_| None).collect();
        Self { ours, theirs, found, is_taken: vec![false; theirs.len()], pool, tried: BTreeMap::new() }
    }

    /// Tries what is new in the pool on all tensors that are left. Says whether any was found.
    fn round(&mut self) -> bool {
        let mut candidates = Vec::new();
        for (o, ours) in self.ours.iter().enumerate().filter(|(o, _)| self.found[*o].is_none()) {
            for (t, theirs) in self.theirs.iter().enumerate().filter(|(t, _)| !self.is_taken[*t]) {
                if ours.panel.stored.info.shape != theirs.panel.stored.info.shape || ours.is_depthwise() {
                    continue;
                }
                for known in [INPUTS, FILTERS].into_iter().filter(|known| ours.channels(1 - known) > 1) {
                    let orders = self.orders(ours, known);
                    let tried = self.tried.insert((o, t, known), orders.len()).unwrap_or(0);
                    let unknown = 1 - known;
                    let sample = Sample::new(&ours.wings[unknown], &theirs.wings[unknown], ours.size());
                    for order in orders.into_iter().skip(tried) {
                        let likeness = sample.likeness(&order);
                        if likeness >= least(&ours.wings[unknown]) {
                            candidates.push(Candidate { likeness, ours: o, theirs: t, known, order });
                        }
                    }
                }
            }
        }
        let key = |c: &Candidate| (-((c.likeness * 1e4) as i64), c.ours, c.theirs, FILTERS == c.known);
        candidates.sort_by_key(key);
        let mut any = false;
        for Candidate { ours: o, theirs: t, known, order, .. } in candidates {
            if self.found[o].is_some() || self.is_taken[t] {
                continue;
            }
            let Some(orders) = both(&self.ours[o], &self.theirs[t], known, order) else { continue };
            for order in &orders {
                let pool = self.pool.entry(order.len()).or_default();
                if !pool.contains(order) && pool.len() < MAX_ORDERS {
                    pool.push(order.clone());
                }
            }
            self.found[o] = Some(Found { theirs: t, orders });
            self.is_taken[t] = true;
            any = true;
        }
        any
    }

    /// Orders that an axis of a tensor may have; of the inputs of a matrix also those of a smaller number of channels, each of
    /// several inputs, one after the other or interleaved: what a flattened image has.
    fn orders(&self, kernel: &Kernel, axis: usize) -> Vec<Order> {
        let count = kernel.channels(axis);
        let mut orders = self.pool.get(&count).cloned().unwrap_or_default();
        if axis == INPUTS && kernel.size() == 1 {
            for (channels, some) in self.pool.range(2..count).filter(|(channels, _)| count.is_multiple_of(**channels)) {
                let each = count / channels;
                for order in some.iter().skip(1) {
                    orders.push((0..count).map(|i| Some(order[i / each]? * each + i % each)).collect());
                    orders.push((0..count).map(|i| Some(order[i % channels]? + i / channels * channels)).collect());
                }
            }
        }
        orders
    }

    /// Filters of a single input each have the order of what they read, if it explains them.
    fn depthwise(&mut self) {
        let mut candidates = Vec::new();
        for (o, ours) in self.ours.iter().enumerate().filter(|(o, ours)| ours.inputs == 1 && self.found[*o].is_none()) {
            for (t, theirs) in self.theirs.iter().enumerate().filter(|(t, _)| !self.is_taken[*t]) {
                if ours.panel.stored.info.shape != theirs.panel.stored.info.shape {
                    continue;
                }
                for order in self.pool.get(&ours.channels(FILTERS)).into_iter().flatten() {
                    let pairs = order.iter().enumerate().filter_map(|(i, from)| Some((i, (*from)?)));
                    let rows =
                        |(i, from): (usize, usize)| cosine(theirs.wings[FILTERS].row(from), ours.wings[FILTERS].row(i));
                    let likeness = pairs.map(rows).sum::<f32>() / order.len().max(1) as f32;
                    if likeness >= LIKE_DEPTHWISE {
                        candidates.push(Candidate {
                            likeness,
                            ours: o,
                            theirs: t,
                            known: FILTERS,
                            order: order.clone(),
                        });
                    }
                }
            }
        }
        candidates.sort_by_key(|c| (-((c.likeness * 1e4) as i64), c.ours, c.theirs));
        for Candidate { ours: o, theirs: t, order, .. } in candidates {
            if self.found[o].is_none() && !self.is_taken[t] {
                self.found[o] = Some(Found { theirs: t, orders: [order, vec![Some(0)]] });
                self.is_taken[t] = true;
            }
        }
    }
}

/// The least cosine that is none of chance: the largest of so many random directions has about `sqrt(2 ln n / d)`.
fn least(rows: &Matrix) -> f32 {
    let chance = (2.0 * (rows.rows.max(2) as f32).ln() / rows.columns.max(1) as f32).sqrt().min(1.0);
    0.5 + 0.5 * chance
}

/// Some rows of the reference, against all of the suspect.
struct Sample {
    ours: Matrix,
    theirs: Matrix,
    size: usize,
}

impl Sample {
    fn new(ours: &Matrix, theirs: &Matrix, size: usize) -> Self {
        let count = SAMPLES.min(ours.rows);
        let place = |r: usize| (2 * r + 1) * ours.rows / (2 * count.max(1));
        let values = (0..count).flat_map(|r| ours.row(place(r))).copied().collect();
        let mut sample =
            Self { ours: Matrix { rows: count, columns: ours.columns, values }, theirs: theirs.clone(), size };
        normalise(&mut sample.ours);
        normalise(&mut sample.theirs);
        sample
    }

    /// Mean of the best cosines, if columns are in this order.
    fn likeness(&self, order: &Order) -> f32 {
        let mut back = vec![None; self.theirs.columns / self.size.max(1)];
        for (i, from) in order.iter().enumerate() {
            if let Some(place) = from.and_then(|from| back.get_mut(from)) {
                *place = Some(i);
            }
        }
        let products = ordered(&self.ours, &back, self.size).times_transposed(&self.theirs);
        let best = |r: usize| products.row(r).iter().fold(0f32, |best, x| best.max(*x));
        (0..products.rows).map(best).sum::<f32>() / products.rows.max(1) as f32
    }
}

/// The orders of both axes, from that of one; which may be partly known, and then is completed from the other.
fn both(ours: &Kernel, theirs: &Kernel, known: usize, order: Order) -> Option<[Order; 2]> {
    let (unknown, size) = (1 - known, ours.size());
    let found = |order: &Order| order.iter().flatten().count();
    let find = |axis: usize, order: &Order| channels(&ours.wings[axis], &theirs.wings[axis], order, size);
    let mut new = find(unknown, &order)?;
    let mut order = order;
    if found(&order) < order.len()
        && let Some(fuller) = find(known, &new).filter(|fuller| found(fuller) > found(&order))
    {
        order = fuller;
        new = find(unknown, &order).filter(|again| found(again) > found(&new)).unwrap_or(new);
    }
    Some(if known == INPUTS { [new, order] } else { [order, new] })
}

/// The order of rows, if columns are in a known one; `None` if most are not found.
fn channels(ours: &Matrix, theirs: &Matrix, order: &Order, size: usize) -> Option<Order> {
    let mut straight = ordered(theirs, order, size);
    let mut rows = mutual(ours, &straight);
    for _ in 0..ROUNDS {
        let Some(factors) = scales(ours, &straight, &rows, size) else { break };
        super::family::scale_columns(&mut straight, &factors);
        rows = mutual(ours, &straight);
    }
    let there = (0..ours.rows).filter(|r| ours.row(*r).iter().any(|x| *x != 0.0)).count();
    let found = rows.iter().flatten().count();
    (found > 0 && found as f64 >= FOUND * there as f64).then_some(rows)
}

/// What the suspect's columns are multiplied by, the same for all of a channel, unless by 1.
fn scales(ours: &Matrix, straight: &Matrix, rows: &Order, size: usize) -> Option<Vec<f32>> {
    let (mut wanted, mut given) = (Matrix::zeros(ours.rows, ours.columns), Matrix::zeros(ours.rows, ours.columns));
    for (r, from) in rows.iter().enumerate() {
        let Some(from) = from else { continue };
        let factor = row_factor(straight.row(*from), ours.row(r));
        wanted.row_mut(r).iter_mut().zip(ours.row(r)).for_each(|(to, x)| *to = factor * x);
        given.row_mut(r).copy_from_slice(straight.row(*from));
    }
    let inputs = ours.columns / size.max(1);
    let by_channel = |matrix: &Matrix| turned(matrix, inputs).transposed();
    let factors = column_factors(&by_channel(&given), &by_channel(&wanted))?;
    Some(factors.iter().flat_map(|factor| std::iter::repeat_n(*factor, size)).collect())
}

/// For each row of ours the one of theirs that is most like it, if that is so the other way round; then among those
/// that are left.
fn mutual(ours: &Matrix, theirs: &Matrix) -> Order {
    let (mut a, mut b) = (ours.clone(), theirs.clone());
    normalise(&mut a);
    normalise(&mut b);
    let products = a.times_transposed(&b);
    let least = least(ours);
    let mut order = vec![None; a.rows];
    let mut is_taken = vec![false; b.rows];
    for _ in 0..PASSES {
        let (mut best, mut back) = (vec![(0f32, None); a.rows], vec![(0f32, None); b.rows]);
        for (r, best) in best.iter_mut().enumerate().filter(|(r, _)| order[*r].is_none()) {
            for (c, value) in products.row(r).iter().enumerate().filter(|(c, _)| !is_taken[*c]) {
                if *value > best.0 {
                    *best = (*value, Some(c));
                }
                if *value > back[c].0 {
                    back[c] = (*value, Some(r));
                }
            }
        }
        for (r, (value, c)) in best.into_iter().enumerate() {
            if let Some(c) = c.filter(|c| value >= least && back[*c].1 == Some(r)) {
                order[r] = Some(c);
                is_taken[c] = true;
            }
        }
    }
    order
}

/// Notes the map of a tensor, with the scales of its channels.
fn add(alignment: &mut Alignment, ours: &Kernel, theirs: &Kernel, found: &Found) {
    let ([filters, inputs], size) = (&found.orders, ours.size());
    let mut straight = ordered(&theirs.wings[FILTERS], inputs, size);
    let mut columns: Option<Vec<f32>> = None;
    for _ in 0..super::neurons::ROUNDS {
        let Some(factors) = scales(&ours.wings[FILTERS], &straight, filters, size).filter(|_| ours.inputs > 1) else {
            break;
        };
        super::family::scale_columns(&mut straight, &factors);
        columns = Some(match columns {
            None => factors,
            Some(columns) => columns.iter().zip(&factors).map(|(a, b)| a * b).collect(),
        });
    }
    let row = |(r, from): (usize, &Option<usize>)| {
        let factor = |from: usize| reciprocal(row_factor(straight.row(from), ours.wings[FILTERS].row(r)));
        from.map(|from| (from, factor(from))).filter(|(_, factor)| *factor != 0.0).into_iter().collect()
    };
    let rows: Vec<Vec<(usize, f32)>> = filters.iter().enumerate().map(row).collect();
    let place = |c: usize| Some((inputs[c / size.max(1)]? * size + c % size.max(1), 1.0));
    let basis = Arc::new(Basis::Permuted((0..ours.panel.columns).map(place).collect()));
    let is_permuted = [filters, inputs].iter().any(|order| order.iter().enumerate().any(|(i, from)| *from != Some(i)));
    let stored = &ours.panel.stored;
    let map = Map { ours: ours.panel.clone(), theirs: theirs.panel.clone(), basis, columns, rows };
    if !map.is_identity() {
        let (name, count, of) =
            (&stored.info.name, map.rows.iter().filter(|row| !row.is_empty()).count(), filters.len());
        let how = if is_permuted { "permuted" } else { "scaled" };
        alignment.steps.push(Step(format!("{name}: channels {how}, {count} of {of} found")));
    }
    alignment.maps.entry((stored.file.clone(), stored.info.name.clone())).or_default().push(map);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(rows: usize, columns: usize, seed: u64) -> Matrix {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        Matrix { rows, columns, values: (0..rows * columns).map(|_| next()).collect() }
    }

    #[test]
    fn filters_are_found_under_an_order_of_inputs_and_scales() {
        let (ours, size) = (noise(24, 16 * 9, 1), 9);
        let inputs: Order = (0..16).map(|i| Some(i * 5 % 16)).collect();
        let mut theirs = Matrix::zeros(24, 16 * 9);
        for r in 0..24 {
            for (i, from) in inputs.iter().enumerate() {
                for k in 0..size {
                    let scale = (1 + r) as f32 / (1.0 + 0.1 * i as f32);
                    theirs.row_mut(r * 7 % 24)[from.unwrap() * size + k] = scale * ours.row(r)[i * size + k];
                }
            }
        }
        let expected: Order = (0..24).map(|r| Some(r * 7 % 24)).collect();
        assert_eq!(channels(&ours, &theirs, &inputs, size), Some(expected.clone()));
        assert_eq!(channels(&turned(&ours, 16), &turned(&theirs, 16), &expected, size), Some(inputs));
        let identity = (0..16).map(Some).collect();
        assert_eq!(channels(&ours, &theirs, &identity, size), None);
        assert_eq!(channels(&ours, &noise(24, 16 * 9, 2), &identity, size), None);
        assert_eq!(channels(&ours, &Matrix::zeros(24, 16 * 9), &identity, size), None);
    }
}
