//! Whether weights that are stored as floating point lie on the grid of a quantiser that they came from.
//!
//! Whoever puts such weights back on that grid takes most of a floating-point mark away, at no loss. Never sees a key.

use std::sync::Arc;

use super::carrier::{Carrier, Original};
use crate::error::Result;
use crate::format::Elements;
use crate::tensor::lanes;

/// Successive weights that share a step in all common quantisers.
const GROUP: usize = 32;
/// Groups looked at in a tensor.
const SAMPLES: u64 = 64;
/// Most steps between the least and the greatest weight of a group: of 8 bits.
const MOST: f32 = 255.0;
/// How far from a whole number of steps a weight may be, for having been rounded to a narrow type.
const TOLERANCE: f32 = 0.1;

/// The names of carriers that are floating point on a grid.
pub(super) fn on_grid(original: &Original) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // a type of one byte is a grid of its own, on which its mark is made
    let wide = |carrier: &&Carrier| lanes::is_float(carrier.tensor.dtype) && carrier.tensor.dtype.block().1 > 1;
    for carrier in original.carriers().iter().filter(wide) {
        if is_on_grid(original, carrier)? {
            found.push(carrier.tensor.name.clone());
        }
    }
    Ok(found)
}

/// Whether at least half of the sampled groups lie on grids.
fn is_on_grid(original: &Original, carrier: &Carrier) -> Result<bool> {
    let elements = Elements::open(Arc::clone(original.source(carrier)), &carrier.tensor)?;
    let groups = carrier.tensor.elements() / GROUP as u64;
    let mut values = [0.0; GROUP];
    let (mut hits, mut told) = (0, 0);
    for sample in 0..SAMPLES.min(groups) {
        let start = sample * groups / SAMPLES.min(groups) * GROUP as u64;
        elements.read_f32(start..start + GROUP as u64, &mut values)?;
        let Some(regular) = is_regular(values) else { continue };
        told += 1;
        hits += u64::from(regular);
    }
    Ok(told > 0 && 2 * hits >= told)
}

/// Whether all distances are whole multiples of the least one. `None` where too few differ to tell.
fn is_regular(mut values: [f32; GROUP]) -> Option<bool> {
    values.sort_by(f32::total_cmp);
    let span = values[GROUP - 1] - values[0];
    let gaps = values.windows(2).map(|pair| pair[1] - pair[0]);
    // numbers that are equal but for their rounding are further apart than this for no quantiser
    let distinct: Vec<f32> = gaps.filter(|gap| *gap * 2.0 * MOST > span).collect();
    let step = distinct.iter().copied().fold(f32::INFINITY, f32::min);
    if distinct.len() < 4 || !step.is_finite() {
        return Some(false).filter(|_| span > 0.0);
    }
    let steps = values.map(|value| (value - values[0]) / step);
    Some(span <= MOST * step * (1.0 + TOLERANCE) && steps.iter().all(|x| (x - x.round()).abs() <= TOLERANCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_told_from_noise() {
        let mut seed = 3u64;
        let mut next = || {
            let mut sum = 0.0;
            for _ in 0..6 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (seed >> 40) as f32 / 8_388_608.0 - 1.0;
            }
            sum
        };
        let (mut free, mut four, mut eight, mut brain) = (0, 0, 0, 0);
        for _ in 0..1000 {
            let values: [f32; GROUP] = std::array::from_fn(|_| next());
            let most = values.iter().fold(0f32, |most, w| most.max(w.abs()));
            let on = |steps: f32| values.map(|w| (w / most * steps).round() * most / steps);
            free += u32::from(is_regular(values) == Some(true));
            four += u32::from(is_regular(on(7.0)) == Some(true));
            eight += u32::from(is_regular(on(127.0)) == Some(true));
            brain += u32::from(is_regular(values.map(|w| half::bf16::from_f32(w).to_f32())) == Some(true));
            assert!(is_regular(on(7.0).map(|w| half::bf16::from_f32(w + most).to_f32())).is_some());
        }
        assert!(free == 0 && brain == 0 && four > 990 && eight > 600, "{free} {brain} {four} {eight}");
        assert_eq!(is_regular([0.0; GROUP]), None);
    }
}
