//! Which matrix of the suspect is which of the reference: by their rows, or, where attention mixes them, by what the rows of a
//! head span. Names only break ties.

use std::sync::Arc;

use rayon::prelude::*;

use super::basis::Basis;
use super::family::{Part, Role, Transformer, scale_columns};
use super::map::straight;
use super::neurons::cosine;
use super::panel::{Panel, Stored};
use crate::error::Result;
use crate::linear::{Matrix, dot, orthonormalise};

/// Rows of each matrix of the reference that are looked for.
const SAMPLES: usize = 8;
/// Dimensions to which rows are projected before they are compared (Johnson and Lindenstrauss 1984).
const SKETCH: usize = 128;
/// Least mean likeness of the samples.
const LIKE: f32 = 0.45;
/// Rows of attention must be this much alike, or else what they span is compared.
const LIKE_HEADS: f32 = 0.6;
/// A matrix of the suspect may have so many times the reference's rows: whoever adds neurons pays for them.
const MAX_GROWTH: usize = 4;
/// By how much a matrix of twice the rows must be more alike.
const SPARE: f32 = 0.02;
/// Row numbers at which tables are compared.
const TABLE_ROWS: usize = 256;

/// Where the suspect has a matrix of the reference.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) panel: Panel,
    /// Whether the suspect's columns carry the gain of the norm before them.
    pub(super) folded: bool,
}

/// Finds each part of the reference.
pub(super) fn find(
    ours: &Transformer,
    theirs: &[Arc<Stored>],
    basis: &Basis,
    columns: usize,
) -> Result<Vec<Option<Place>>> {
    let mut finder = Finder::new(ours, theirs, basis, columns)?;
    finder.tables()?;
    finder.by_rows()?;
    for size in ours.head_sizes() {
        finder.by_heads(size)?;
    }
    Ok(finder.places)
}

/// A row or more of a part, in a suspect's terms: with the gain folded into it or not.
struct Probe {
    part: usize,
    folded: bool,
    rows: Matrix,
}

/// A pair of a probe and a panel, and how much they are alike.
struct Candidate {
    likeness: f32,
    probe: usize,
    panel: usize,
}

struct Finder<'a> {
    ours: &'a Transformer,
    basis: &'a Basis,
    panels: Vec<Panel>,
    probes: Vec<Probe>,
    places: Vec<Option<Place>>,
}

impl<'a> Finder<'a> {
    fn new(ours: &'a Transformer, theirs: &[Arc<Stored>], basis: &'a Basis, columns: usize) -> Result<Self> {
        let mut panels = Vec::new();
        for stored in theirs {
            for transposed in [false, true] {
                panels.extend(Panel::of(stored, columns, transposed));
            }
        }
        let parts = ours.parts.par_iter().enumerate();
        let probes = parts.map(|(i, part)| probes(i, part)).collect::<Result<Vec<_>>>()?.into_iter().flatten();
        Ok(Self { ours, basis, panels, probes: probes.collect(), places: vec![None; ours.parts.len()] })
    }

    /// Tables: row by row.
    fn tables(&mut self) -> Result<()> {
        let mut found = Vec::new();
        for (p, probe) in self.probes.iter().enumerate() {
            let part = &self.ours.parts[probe.part];
            if part.role != Role::Table {
                continue;
            }
            for (i, panel) in self.panels.iter().enumerate() {
                let rows = part.panel.rows.min(panel.rows);
                if 2 * rows < part.panel.rows.min(TABLE_ROWS) || panel.rows > MAX_GROWTH * part.panel.rows {
                    continue;
                }
                let theirs = straight(&panel.part(0, rows.min(TABLE_ROWS)), self.basis, None)?;
                let cosines = (0..theirs.rows.min(probe.rows.rows)).map(|r| cosine(theirs.row(r), probe.rows.row(r)));
                let likeness = cosines.sum::<f32>() / theirs.rows.max(1) as f32;
                found.push(Candidate { likeness, probe: p, panel: i });
            }
        }
        self.take(found, LIKE_HEADS);
        Ok(())
    }

    /// Rows of anything but tables: each sample of the reference against all rows of a matrix.
    fn by_rows(&mut self) -> Result<()> {
        let lens = projection(self.ours.hidden, SKETCH);
        let rows: Vec<usize> = (0..self.probes.len()).filter(|p| self.part(*p).role != Role::Table).collect();
        let mut samples = Matrix::zeros(0, self.ours.hidden);
        for p in &rows {
            samples.values.extend_from_slice(&self.probes[*p].rows.values);
        }
        samples.rows = samples.values.len() / samples.columns.max(1);
        let mut sketch = samples.times(&lens);
        normalise(&mut sketch);
        let their_lens = match self.basis {
            Basis::Rotated(matrix) => matrix.times(&lens),
            Basis::Permuted(columns) => {
                let mut out = Matrix::zeros(self.panels.first().map_or(0, |panel| panel.columns), lens.columns);
                for (c, from) in columns.iter().enumerate() {
                    if let Some((r, sign)) = from {
                        out.row_mut(*r).iter_mut().zip(lens.row(c)).for_each(|(to, from)| *to = sign * from);
                    }
                }
                out
            }
        };
        let largest = rows.iter().map(|p| self.part(*p).panel.rows).max().unwrap_or(0);
        let mut found = Vec::new();
        let taken: Vec<Panel> = self.places.iter().flatten().map(|place| place.panel.clone()).collect();
        let panels = std::mem::take(&mut self.panels);
        let mut cut = Vec::new();
        for panel in panels {
            let is_free = taken.iter().all(|other| !other.meets(&panel));
            if !is_free || panel.rows > MAX_GROWTH * largest {
                continue;
            }
            let mut theirs = panel.read()?.times(&their_lens);
            normalise(&mut theirs);
            for part in self.cuts(&panel) {
                let (start, len) = ((part.first - panel.first) / panel.row_step.max(1), part.rows);
                let values = theirs.values[start * theirs.columns..(start + len) * theirs.columns].to_vec();
                let theirs = Matrix { rows: len, columns: theirs.columns, values };
                let likeness = sketch.times_transposed(&theirs);
                let mut first = 0;
                for p in &rows {
                    let count = self.probes[*p].rows.rows;
                    let best = (first..first + count).map(|r| likeness.row(r).iter().fold(0f32, |m, x| m.max(x.abs())));
                    let likeness = best.sum::<f32>() / count.max(1) as f32;
                    first += count;
                    if self.fits(*p, &part) {
                        found.push(Candidate { likeness, probe: *p, panel: cut.len() });
                    }
                }
                cut.push(part);
            }
        }
        self.panels = cut;
        let (neural, heads) = found.into_iter().partition(|candidate| self.part(candidate.probe).role.is_neural());
        self.take(neural, LIKE);
        self.take(heads, LIKE_HEADS);
        Ok(())
    }

    /// What is left of attention: samples of the reference against what the rows of each head span.
    fn by_heads(&mut self, size: usize) -> Result<()> {
        let open = |p: &usize| self.part(*p).role.is_head() && self.places[self.probes[*p].part].is_none();
        let open: Vec<usize> = (0..self.probes.len()).filter(open).collect();
        let taken: Vec<Panel> = self.places.iter().flatten().map(|place| place.panel.clone()).collect();
        let chance = size as f32 / self.ours.hidden as f32;
        let mut found = Vec::new();
        for (i, panel) in self.panels.iter().enumerate() {
            let is_free = taken.iter().all(|other| !other.meets(panel));
            if !is_free || !open.iter().any(|p| self.fits(*p, panel)) {
                continue;
            }
            let mut theirs = straight(panel, self.basis, None)?;
            orthonormalise(&mut theirs, size);
            for p in open.iter().filter(|p| self.fits(**p, panel)) {
                let along = self.probes[*p].rows.times_transposed(&theirs);
                let share = |r: usize| {
                    let energies = along.row(r).chunks(size).map(|head| dot(head, head));
                    let row = self.probes[*p].rows.row(r);
                    energies.fold(0f32, f32::max) / dot(row, row).max(f32::MIN_POSITIVE)
                };
                let likeness = (0..along.rows).map(share).sum::<f32>() / along.rows.max(1) as f32;
                found.push(Candidate { likeness, probe: *p, panel: i });
            }
        }
        self.take(found, (0.5 + chance / 2.0).max(LIKE_HEADS));
        Ok(())
    }

    fn part(&self, probe: usize) -> &Part {
        &self.ours.parts[self.probes[probe].part]
    }

    /// Whether a panel has rows that could be the probe's.
    fn fits(&self, probe: usize, panel: &Panel) -> bool {
        let part = self.part(probe);
        let whole_heads = self.ours.heads.is_none_or(|heads| panel.rows.is_multiple_of(heads.size));
        let is_small = panel.rows <= MAX_GROWTH * part.panel.rows;
        match part.role {
            Role::Table => false,
            role if role.is_head() => is_small && (whole_heads || panel.rows == part.panel.rows),
            _ => is_small,
        }
    }

    /// The panel, and the runs of rows that were fused into it if it has as many as the matrices of a layer together.
    fn cuts(&self, panel: &Panel) -> Vec<Panel> {
        let rows = |role: Role| self.ours.parts.iter().find(|part| part.role == role).map(|part| part.panel.rows);
        let mut cuts = vec![panel.clone()];
        if let (Some(q), Some(k), Some(v)) = (rows(Role::Query), rows(Role::Key), rows(Role::Value))
            && panel.rows == q + k + v
        {
            cuts.extend([panel.part(0, q), panel.part(q, k), panel.part(q + k, v)]);
        }
        if let (Some(gate), Some(up)) = (rows(Role::Gate), rows(Role::Up))
            && panel.rows >= gate + up
            && panel.rows.is_multiple_of(2)
        {
            let half = panel.rows / 2;
            cuts.extend([panel.part(0, half), panel.part(half, half)]);
        }
        cuts
    }

    /// Takes pairs, best first, where both sides are still free.
    fn take(&mut self, mut found: Vec<Candidate>, least: f32) {
        found.retain(|candidate| candidate.likeness >= least);
        let order = |c: &Candidate| {
            let folded = self.probes[c.probe].folded;
            // a matrix that others were fused into is as much like each of them as the part of it that is
            let growth = self.panels[c.panel].rows as f32 / self.part(c.probe).panel.rows as f32;
            let likeness = c.likeness - SPARE * growth.max(1.0).log2();
            let is_renamed = self.part(c.probe).panel.stored.info.name != self.panels[c.panel].stored.info.name;
            (-((likeness * 1e3).round() as i64), is_renamed, folded, self.probes[c.probe].part, c.panel)
        };
        found.sort_by_key(order);
        let mut taken: Vec<Panel> = self.places.iter().flatten().map(|place| place.panel.clone()).collect();
        for Candidate { probe, panel, .. } in found {
            let (Probe { part, folded, .. }, panel) = (&self.probes[probe], &self.panels[panel]);
            if self.places[*part].is_none() && taken.iter().all(|other| !other.meets(panel)) {
                taken.push(panel.clone());
                self.places[*part] = Some(Place { panel: panel.clone(), folded: *folded });
            }
        }
    }
}

/// Samples of a part, as they are and, where a norm multiplies its inputs, with that in them.
fn probes(i: usize, part: &Part) -> Result<Vec<Probe>> {
    let rows = match part.role {
        Role::Table => part.panel.part(0, part.panel.rows.min(TABLE_ROWS)).read()?,
        _ => {
            let whole = part.panel.read()?;
            let count = SAMPLES.min(whole.rows);
            let mut rows = Matrix::zeros(count, whole.columns);
            for r in 0..count {
                let place = (2 * r + 1) * whole.rows / (2 * count);
                rows.row_mut(r).copy_from_slice(whole.row(place));
            }
            rows
        }
    };
    let mut probes = Vec::new();
    if let Some(gain) = &part.gain {
        let mut rows = rows.clone();
        scale_columns(&mut rows, gain);
        probes.push(Probe { part: i, folded: true, rows });
    }
    probes.push(Probe { part: i, folded: false, rows });
    Ok(probes)
}

/// Cuts each row to length 1; rows of zeros stay.
pub(super) fn normalise(matrix: &mut Matrix) {
    matrix.values.par_chunks_mut(matrix.columns.max(1)).for_each(|row| {
        let length = dot(row, row).sqrt();
        let factor = if length > 0.0 && length.is_finite() { length.recip() } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    });
}

/// A matrix of random signs, the same on every run, that keeps scalar products, about (Johnson and Lindenstrauss 1984).
pub(super) fn projection(hidden: usize, dimensions: usize) -> Matrix {
    let mut out = Matrix::zeros(hidden, dimensions);
    let mut state = 0u64;
    for value in &mut out.values {
        // SplitMix64 (Steele, Lea and Flood 2014)
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *value = if (z >> 63) == 0 { 1.0 } else { -1.0 };
    }
    out
}
