//! What several licensees can make of their copies.

use std::path::PathBuf;

use rayon::prelude::*;
use weightmark::Model;

use crate::Result;
use crate::model::{Tensor, Weights};
use crate::random::Random;

/// How one weight is made of those of all copies.
#[derive(Clone, Copy)]
pub(crate) enum Strategy {
    /// Their mean.
    Mean,
    /// One of them, drawn anew for each weight.
    Random,
    /// What most have.
    Majority,
    /// What fewest have.
    Minority,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Half-way between these.
    Midpoint,
}

impl Strategy {
    /// All of them, with their names.
    pub(crate) const ALL: [(&str, Self); 7] = [
        ("mean", Self::Mean),
        ("random", Self::Random),
        ("majority", Self::Majority),
        ("minority", Self::Minority),
        ("min", Self::Min),
        ("max", Self::Max),
        ("midpoint", Self::Midpoint),
    ];

    fn choose(self, copies: &[f32], random: &mut Random) -> f32 {
        let low = copies.iter().copied().fold(f32::INFINITY, f32::min);
        let high = copies.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let middle = low + (high - low) / 2.0;
        let most_are_high = 2 * copies.iter().filter(|w| **w > middle).count() > copies.len();
        match self {
            Self::Mean => (copies.iter().map(|w| f64::from(*w)).sum::<f64>() / copies.len() as f64) as f32,
            Self::Random => copies[random.below(copies.len())],
            Self::Majority => {
                if most_are_high {
                    high
                } else {
                    low
                }
            }
            Self::Minority => {
                if most_are_high {
                    low
                } else {
                    high
                }
            }
            Self::Min => low,
            Self::Max => high,
            Self::Midpoint => middle,
        }
    }
}

/// Colludes, tensor by tensor: copies may be many.
pub(crate) fn collude(copies: &[PathBuf], strategy: Strategy) -> Result<Weights> {
    let open = |path: &PathBuf| Model::options().danger_accept_plaintext().danger_accept_unsigned().open(path);
    let models = copies.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<_> = models[0].tensors().map(|(_, info)| (info.name.clone(), info.shape.clone())).collect();
    let merged = names.into_par_iter().map(|(name, shape)| {
        let read = |model: &Model| model.tensor(&name)?.to_f32();
        let tensors = models.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut random = Random::new(3, &name);
        let mut here = vec![0.0; tensors.len()];
        let values = (0..tensors[0].len()).map(|i| {
            here.iter_mut().zip(&tensors).for_each(|(here, tensor)| *here = tensor[i]);
            strategy.choose(&here, &mut random)
        });
        let values = values.collect();
        Ok((name, Tensor { shape, values }))
    });
    merged.collect()
}
