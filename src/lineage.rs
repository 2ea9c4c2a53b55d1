//! Whether two models have a common origin, told without any mark.
//!
//! The order of hidden units (neurons, hidden dimensions, filters of convolutions) is set by random initialisation and kept by
//! training, pruning and rounding. So units of one model are matched to those of the other by their weights, and the
//! *fixed points* counted: units that are matched to the one of the same number. If the order of the units of either model is
//! exchangeable, as it is where they were initialised independently of each other, at least `m` fixed points in `L` layers
//! have a probability of at most `L^m / m!`: the factorial moments of fixed points of a random permutation are at most 1, for
//! partial matchings, too. That is the p-value given, and it is exact under that one assumption. The matching must not depend
//! on the order of units, and does not: layers are paired by their largest rows, and what is equally like two units is matched
//! to none.
//!
//! Networks that share units between layers in a way that is not known (convolutions) are not summed over: there the largest
//! layer counts, times the number of layers.
//!
//! Whoever permutes the units leaves no fixed points. What stays is *agreement*: units that are matched to the same one by
//! their incoming and by their outgoing weights. It is no p-value, since independent models have some neurons in common: about
//! 3 % after their hidden dimensions were aligned. It is a heuristic, to be read beside the agreement of two layers of one model.
//!
//! No key is involved.

mod units;

use serde_json::{Value, json};

use crate::alignment::units::{Comparable, Layer, Units, of_convolutions, of_transformer};
use crate::error::{Cause, Result};
use crate::format::ModelIndex;
use crate::io::Tree;
use crate::io::progress::{Progress, step};
use crate::matching::Side;
use units::{agreeing, likeness, mutual, samples};

/// From this p-value on the exact test says that models are related: `2^-128`.
const PROVED: f64 = -128.0 * std::f64::consts::LOG10_2;
/// Share of units that must agree, and in how many layers, for the heuristic to say so.
const AGREEING: f64 = 0.25;
const AGREEING_LAYERS: usize = 2;

/// What two models have in common.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Lineage {
    layers: Vec<Compared>,
    log10_p: f64,
}

/// A layer of the first model beside the one of the second that is most like it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Compared {
    /// What it is called.
    pub name: String,
    /// The tensor of the second model that was taken for it.
    pub tensor: String,
    /// Its units.
    pub units: usize,
    /// How many of them have a counterpart: each the other's best.
    pub matched: usize,
    /// How many of those have the same number in both models.
    pub fixed: usize,
    /// How many are matched to the same unit by incoming and by outgoing weights.
    pub agreeing: Option<usize>,
    /// The same of two neighbouring layers of the first model.
    pub control: Option<usize>,
}

impl Compared {
    /// The share of units that agree. Not a probability of anything.
    pub fn agreement(&self) -> f64 {
        self.agreeing.unwrap_or(0) as f64 / self.units.max(1) as f64
    }
}

impl Lineage {
    /// The layers that were compared. None if the models have nothing that could be.
    pub fn layers(&self) -> &[Compared] {
        &self.layers
    }

    /// Decimal logarithm of the p-value of the fixed points.
    pub fn log10_p(&self) -> f64 {
        self.log10_p
    }

    /// Fixed points of all layers.
    pub fn fixed(&self) -> usize {
        self.layers.iter().map(|layer| layer.fixed).sum()
    }

    /// Whether fixed points prove that the order of units is not independent: `p <= 2^-128`.
    pub fn is_proved(&self) -> bool {
        self.log10_p <= PROVED
    }

    /// Whether a quarter of the units agree in two layers or more, and more than in the control. A heuristic.
    pub fn agrees(&self) -> bool {
        let agrees = |layer: &&Compared| layer.agreement() >= AGREEING && layer.agreeing > layer.control;
        self.layers.iter().filter(agrees).count() >= AGREEING_LAYERS
    }

    /// Whether the models are related by one or the other.
    pub fn is_related(&self) -> bool {
        self.is_proved() || self.agrees()
    }

    /// The same for machines, as the command line prints it.
    pub fn to_json(&self) -> Value {
        let layer = |layer: &Compared| {
            json!({
                "name": layer.name,
                "tensor": layer.tensor,
                "units": layer.units,
                "matched": layer.matched,
                "fixed": layer.fixed,
                "agreeing": layer.agreeing,
                "control": layer.control,
            })
        };
        json!({
            "related": self.is_related(),
            "fixed_points": {"log10_p": self.log10_p, "fixed": self.fixed(), "proved": self.is_proved()},
            "agreement": {"is_p_value": false, "agrees": self.agrees()},
            "layers": self.layers.iter().map(layer).collect::<Value>(),
        })
    }
}

/// Compares two models by their files. Fails if nothing can be compared because weights of one could not be read: that is
/// no answer.
pub fn compare_trees(first: &dyn Tree, second: &dyn Tree, progress: &dyn Progress) -> Result<Lineage> {
    let (a, b) = (ModelIndex::read(first)?, ModelIndex::read(second)?);
    let found = compare(Side::new(first, &a), Side::new(second, &b), progress)?;
    for (index, tree) in [(&a, first), (&b, second)].into_iter().filter(|_| found.layers.is_empty()) {
        if let (None, Some((path, cause))) = (index.tensors().next(), index.refused().first()) {
            return Err(cause.clone().on(if path.is_empty() { tree.name() } else { path }));
        }
    }
    Ok(found)
}

/// Compares two models. Their names may differ; of one, they must tell what its tensors are for, if it is a transformer.
pub fn compare(first: Side<'_>, second: Side<'_>, progress: &dyn Progress) -> Result<Lineage> {
    let known = match of_transformer(first, second)? {
        None => of_transformer(second, first)?,
        known => known,
    };
    if let Some(known) = known {
        let layers = all(&known, progress)?;
        let log10_p = summed(&layers);
        return Ok(Lineage { layers, log10_p });
    }
    let layers = all(&of_convolutions(first, second)?, progress)?;
    let log10_p = largest(&layers);
    Ok(Lineage { layers, log10_p })
}

fn all(parts: &[Comparable], progress: &dyn Progress) -> Result<Vec<Compared>> {
    progress.begin("compare", parts.iter().flat_map(|part| &part.theirs).map(Units::bytes).sum());
    let layers = parts.iter().map(|part| compared(part, progress)).collect::<Result<Vec<_>>>()?;
    Ok(layers.into_iter().flatten().collect())
}

/// Pairs each layer with what is most like it, and matches their units.
fn compared(Comparable { layers, theirs }: &Comparable, progress: &dyn Progress) -> Result<Vec<Compared>> {
    let parts: Vec<&Units> = layers.iter().flat_map(|layer| layer.incoming.iter().chain(&layer.outgoing)).collect();
    let probes = parts.iter().map(|units| Ok(samples(&units.read()?))).collect::<Result<Vec<_>>>()?;
    let mut best: Vec<Option<(f32, &Units)>> = vec![None; parts.len()];
    for candidate in theirs {
        step(progress, candidate.bytes())?;
        let fits = |units: &Units| (units.count() / 2..=4 * units.count()).contains(&candidate.count());
        if !parts.iter().any(|units| fits(units)) {
            continue;
        }
        let matrix = candidate.read()?;
        for ((units, probe), best) in parts.iter().zip(&probes).zip(&mut best) {
            let found = if fits(units) { likeness(probe, &matrix) } else { 0.0 };
            if found > best.map_or(0.0, |(likeness, _)| likeness) {
                *best = Some((found, candidate));
            }
        }
    }
    let mut best = best.into_iter();
    let mut out = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let mut pairs = |of: &[Units]| -> Vec<(Units, Units)> {
            let pair = |units: &Units| Some((units.clone(), best.next().flatten()?.1.clone()));
            of.iter().filter_map(pair).collect()
        };
        let (incoming, outgoing) = (pairs(&layer.incoming), pairs(&layer.outgoing));
        let Some((units, tensor)) =
            incoming.first().or(outgoing.first()).map(|(ours, theirs)| (ours.count(), theirs.tensor().to_owned()))
        else {
            continue;
        };
        let matches = mutual(&[&incoming[..], &outgoing].concat())?;
        let agreeing = agreeing(&incoming, &outgoing)?;
        let control = match (agreeing, layers.get(i + 1).or(i.checked_sub(1).and_then(|i| layers.get(i)))) {
            (Some(_), Some(other)) => within(layer, other)?,
            _ => None,
        };
        let fixed = matches.iter().enumerate().filter(|(i, unit)| **unit == Some(*i)).count();
        let matched = matches.iter().flatten().count();
        if matched == 0 {
            continue; // in no order of its units has it fixed points
        }
        out.push(Compared { name: layer.name.clone(), tensor, units, matched, fixed, agreeing, control });
    }
    Ok(out)
}

/// Units that agree between two layers of one model.
fn within(layer: &Layer, other: &Layer) -> Result<Option<usize>> {
    let pairs = |a: &[Units], b: &[Units]| a.iter().cloned().zip(b.iter().cloned()).collect::<Vec<_>>();
    agreeing(&pairs(&layer.incoming, &other.incoming), &pairs(&layer.outgoing, &other.outgoing))
}

/// The p-value of fixed points in layers whose units are ordered independently of each other.
fn summed(layers: &[Compared]) -> f64 {
    let fixed = layers.iter().map(|layer| layer.fixed).sum::<usize>() as f64;
    (fixed * (layers.len().max(1) as f64).log10() - log10_factorial(fixed)).min(0.0)
}

/// The p-value of fixed points in layers that may have units in common.
fn largest(layers: &[Compared]) -> f64 {
    let fixed = layers.iter().map(|layer| layer.fixed).max().unwrap_or(0) as f64;
    ((layers.len().max(1) as f64).log10() - log10_factorial(fixed)).min(0.0)
}

fn log10_factorial(n: f64) -> f64 {
    libm::lgamma(n + 1.0) / std::f64::consts::LN_10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(units: usize, fixed: usize, agreeing: usize, control: usize) -> Compared {
        let (name, tensor) = (String::new(), String::new());
        Compared { name, tensor, units, matched: units, fixed, agreeing: Some(agreeing), control: Some(control) }
    }

    #[test]
    fn fixed_points_have_the_probability_of_a_factorial() {
        assert_eq!(summed(&[]), 0.0);
        assert_eq!(summed(&[layer(1536, 1, 0, 0)]), 0.0);
        assert!((summed(&[layer(10, 3, 0, 0)]) + 6f64.log10()).abs() < 1e-12);
        assert!((summed(&vec![layer(1536, 1536, 0, 0); 6]) + 25366.0).abs() < 1.0);
        assert_eq!(summed(&vec![layer(1536, 1, 0, 0); 6]), 0.0);
        assert!((largest(&[layer(9, 5, 0, 0), layer(9, 4, 0, 0)]) - (2f64 / 120.0).log10()).abs() < 1e-12);
    }

    #[test]
    fn agreement_counts_in_two_layers_and_above_the_control() {
        let of = |layers: &[Compared]| Lineage { layers: layers.to_vec(), log10_p: 0.0 }.is_related();
        assert!(of(&[layer(100, 0, 25, 5), layer(100, 0, 90, 5)]));
        assert!(!of(&[layer(100, 0, 99, 5), layer(100, 0, 24, 5)]));
        assert!(!of(&[layer(100, 0, 30, 40), layer(100, 0, 90, 5)]));
        assert!(!of(&[]));
    }
}
