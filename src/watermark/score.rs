//! Keyed sums over the residuals of a suspect: one pass over its blocks, and the same result in every order.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::blind::Phases;
use super::carrier::{Block, Original};
use super::cleaning::{self, Cleaned, clean};
use super::fingerprint::CODE_LEN;
use super::keystream::{Chips, RUN, Role};
use super::lanes::{self, vectorised};
use super::lattice::{Projections, copy_amplitude, units};
use super::residual::Residual;
use super::secrets::BlockKeys;
use super::suspect::Suspect;
use super::weights::{Weights, row_pieces, row_scale, run};
use crate::alignment::Alignment;
use crate::error::Result;
use crate::io::progress::{Progress, step};

/// Blocks scored between two merges of their results: bounds memory, keeps the order of sums.
const WAVE: usize = 32;

/// Keyed sums over a suspect.
pub(super) struct Sums {
    pub(super) signal: f64,
    pub(super) variance: f64,
    /// Signal and variance at each position of the code.
    pub(super) copy: Vec<(f64, f64)>,
    /// Where the suspect lies in the lattice of the owner mark.
    pub(super) phases: Phases,
    pub(super) cleaned: Counts,
}

/// Blocks that were cleaned, and of what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) blocks: usize,
    /// Of the noise of quantisation.
    pub(super) grid: usize,
    /// Of low-rank drift.
    pub(super) drift: usize,
    /// Of the partner of a merge.
    pub(super) merged: usize,
}

/// The sums of one block: of the owner mark, and of each run of the copy mark at its position.
#[derive(Default)]
pub(super) struct BlockSums {
    signal: f64,
    variance: f64,
    copy: Vec<(usize, f32, f32)>,
    phases: Phases,
    cleaned: Counts,
}

/// What a block of the suspect is compared with.
#[derive(Clone, Copy)]
pub(super) enum Reference<'a> {
    /// The original, scaled row by row to fit.
    Scaled,
    /// Anything: these are the residuals, at their optimal weight.
    Given(&'a Weights),
}

/// Scores a suspect block by block.
pub(super) struct Scorer<'a> {
    pub(super) original: &'a Original,
    pub(super) keys: &'a dyn BlockKeys,
    pub(super) suspect: &'a Suspect,
}

impl Scorer<'_> {
    /// Against the original as it is.
    pub(super) fn direct(&self, progress: &dyn Progress) -> Result<Sums> {
        progress.begin("detect", self.original.size());
        self.sum(
            |_| Ok(()),
            |(), block, chips, strength| {
                self.step(block, progress)?;
                let Some(x) = self.suspect.read(block, self.original.carrier(block))? else { return Ok(None) };
                let w = self.original.read(block)?;
                Ok(Some(BlockSums::new(&x, &w, Reference::Scaled, chips, strength)))
            },
        )
    }

    /// Put straight by `alignment` where that says more, and cleaned of all that is not a mark. The lattice is looked at as well.
    pub(super) fn thorough(
        &self,
        alignment: &Alignment,
        partner: Option<&Suspect>,
        progress: &dyn Progress,
    ) -> Result<Sums> {
        progress.begin("clean", self.original.size());
        let straighten = |wave: &[Block]| {
            let carriers: BTreeSet<usize> = wave.iter().map(|block| block.carrier).collect();
            let straight = carriers.into_par_iter().map(|c| {
                let carrier = &self.original.carriers()[c];
                Ok((c, alignment.tensor(&carrier.file, &carrier.tensor.name)?))
            });
            straight.collect::<Result<BTreeMap<usize, Option<Vec<f32>>>>>()
        };
        self.sum(straighten, |straight, block, chips, strength| {
            self.step(block, progress)?;
            let carrier = self.original.carrier(block);
            let matched = self.suspect.read(block, carrier)?;
            let aligned = straight.get(&block.carrier).and_then(Option::as_ref);
            let aligned = aligned.map(|values| Weights::part(values, carrier.columns, block));
            if matched.is_none() && aligned.is_none() {
                return Ok(None);
            }
            let w = self.original.read(block)?;
            let scales = w.row_scales();
            let partner = partner.map(|partner| partner.read(block, carrier)).transpose()?.flatten();
            let grid = self.suspect.grid(block, carrier)?;
            let matched = matched.map(|x| {
                let cleaned = clean(&x, &w, &scales, grid.as_ref(), partner.as_ref());
                (x, cleaned)
            });
            let aligned = aligned.map(|x| {
                let cleaned = clean(&x, &w, &scales, None, partner.as_ref());
                (x, cleaned)
            });
            let is_better = |(_, a): &(Weights, Cleaned), b: &Option<(Weights, Cleaned)>| {
                b.as_ref().is_none_or(|(_, b)| a.information > b.information)
            };
            let best = aligned.filter(|aligned| is_better(aligned, &matched)).or(matched);
            Ok(best.map(|(x, cleaned)| {
                let phases = Phases::of_block(&x, chips, strength);
                BlockSums {
                    phases,
                    cleaned: Counts::of(&cleaned),
                    ..BlockSums::new(&x, &w, Reference::Given(&cleaned.residual), chips, strength)
                }
            }))
        })
    }

    fn step(&self, block: &Block, progress: &dyn Progress) -> Result<()> {
        let span = block.span(&self.original.carrier(block).tensor);
        step(progress, span.end - span.start)
    }

    /// Sums over all blocks whose keys are known; `prepare` gets ready what the blocks of a wave share.
    fn sum<P: Sync>(
        &self,
        prepare: impl Fn(&[Block]) -> Result<P>,
        score: impl Fn(&P, &Block, &Chips, f64) -> Result<Option<BlockSums>> + Sync,
    ) -> Result<Sums> {
        let mut sums = Sums {
            signal: 0.0,
            variance: 0.0,
            copy: vec![(0.0, 0.0); CODE_LEN],
            phases: Phases::default(),
            cleaned: Counts::default(),
        };
        let strength = self.original.parameters.strength;
        for wave in self.original.blocks().chunks(WAVE) {
            let prepared = prepare(wave)?;
            let scored = wave.par_iter().map(|block| {
                let name = &self.original.carrier(block).tensor.name;
                let Some(key) = self.keys.stream_key(name, block.number) else { return Ok(None) };
                score(&prepared, block, &self.original.chips(&key, block), strength)
            });
            for block in scored.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                sums.add(block);
            }
        }
        Ok(sums)
    }
}

impl Counts {
    fn of(block: &Cleaned) -> Self {
        let is = |reference| usize::from(block.reference == reference);
        let drift = usize::from(block.spikes > 0);
        Self { blocks: 1, grid: is(cleaning::Reference::Grid), drift, merged: is(cleaning::Reference::Merged) }
    }

    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.grid += other.grid;
        self.drift += other.drift;
        self.merged += other.merged;
    }

    /// In words, what was found.
    pub(super) fn describe(&self) -> impl Iterator<Item = String> + use<> {
        let Self { blocks, grid, drift, merged } = *self;
        let found = [(grid, "quantisation"), (drift, "low-rank drift"), (merged, "the partner")];
        found
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(move |(count, what)| format!("{what}, in {count} of {blocks} blocks"))
    }
}

impl Sums {
    /// The normalised correlation with the owner mark; 0 where there is nothing.
    pub(super) fn z(&self) -> f64 {
        if self.variance > 0.0 { self.signal / self.variance.sqrt() } else { 0.0 }
    }

    fn add(&mut self, block: BlockSums) {
        self.signal += block.signal;
        self.variance += block.variance;
        self.phases.extend(block.phases);
        self.cleaned.add(block.cleaned);
        for (position, signal, variance) in block.copy {
            let (s, v) = &mut self.copy[position];
            *s += f64::from(signal);
            *v += f64::from(variance);
        }
    }
}

impl BlockSums {
    /// Correlates a block of the suspect, as compared with `reference`, with what the key says.
    pub(super) fn new(x: &Weights, w: &Weights, reference: Reference<'_>, chips: &Chips, strength: f64) -> Self {
        correlate(x, w, reference, chips, strength)
    }
}

vectorised! {
    fn correlate(x: &'a Weights, w: &'a Weights, reference: Reference<'a>, chips: &'a Chips, strength: f64) -> BlockSums {
        let groups = chips.dither.len();
        let mut projections = vec![0; groups];
        let mut owner = vec![(0.0, 0.0); groups];
        let mut sums = BlockSums { copy: Vec::with_capacity(w.values.len() / RUN), ..BlockSums::default() };
        let (mut x_pad, mut w_pad) = ([0.0; RUN], [0.0; RUN]);
        for row in 0..w.values.len() / w.columns {
            let scale = row_scale(w.row(row));
            let residual = match reference {
                Reference::Scaled => Residual::new(x.row(row), w.row(row), scale),
                Reference::Given(_) => Residual::default(), // not asked
            };
            for piece in row_pieces(row, w.columns) {
                let (x, w) = (run(&x.values, piece, &mut x_pad), run(&w.values, piece, &mut w_pad));
                let d = match reference {
                    Reference::Scaled => residual.run(x, w),
                    Reference::Given(residuals) => *run(&residuals.values, piece, &mut [0.0; RUN]),
                };
                let bits = lanes::sign_bits(chips.signs(piece.run));
                let mut u = [0.0; RUN];
                match chips.role(piece.run, CODE_LEN) {
                    Role::Owner(group) => {
                        for i in 0..RUN {
                            u[i] = d[i] * scale;
                        }
                        let (signal, variance) = signal_and_variance(&u, &bits);
                        projections[group] += units(w, scale, &bits);
                        owner[group].0 += f64::from(signal);
                        owner[group].1 += f64::from(variance);
                    }
                    Role::Copy(position) => {
                        for i in 0..RUN {
                            u[i] = d[i] * copy_amplitude(w[i], scale);
                        }
                        let (signal, variance) = signal_and_variance(&u, &bits);
                        sums.copy.push((position, signal, variance));
                    }
                }
            }
        }
        let projections = Projections::of(&projections, chips.group_sizes(w.values.len()));
        for (amplitude, (signal, variance)) in projections.displacements(&chips.dither, strength).iter().zip(owner) {
            sums.signal += amplitude * signal;
            sums.variance += amplitude * amplitude * variance;
        }
        sums
    }
}

/// Sums of chip times evidence, and of its squares.
#[inline(always)]
fn signal_and_variance(u: &[f32; RUN], sign_bits: &[u32; RUN]) -> (f32, f32) {
    let (mut signed, mut squares) = ([0.0; RUN], [0.0; RUN]);
    for i in 0..RUN {
        signed[i] = f32::from_bits(u[i].to_bits() ^ sign_bits[i]);
        squares[i] = u[i] * u[i];
    }
    (lanes::sum(&signed), lanes::sum(&squares))
}
