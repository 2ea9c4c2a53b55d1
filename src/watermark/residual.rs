//! What is left of a row of the suspect when the original is taken away. Never sees a key.

use super::keystream::RUN;
use super::lanes::{self, F};

/// Residuals beyond this many standard deviations are clipped.
const CLIP: f32 = 4.0;
/// With fewer weights of a class, the class takes the variance of the whole row.
const MIN_CLASS: u32 = 16;

/// How the residuals of one row are made of the suspect's weights `x` and the original's `w`: `x - (1 + excess) w`, in
/// units of the original, over their deviation, which is another where `x` is zero.
#[derive(Clone, Copy, Default)]
pub(super) struct Residual {
    excess: f32,
    inverse: f32,
    kept: f32,
    erased: f32,
}

impl Residual {
    /// For a row, whose original has the root mean square `scale`: scaled to fit where the suspect is not zero.
    #[inline(always)]
    pub(super) fn new(x: &[f32], w: &[f32], scale: f32) -> Self {
        let [ee, ek, kk, erased] = lanes::sums::<Deviations, 4>(x, w);
        let excess = ek / kk.max(1e-30);
        let fit = 1.0 + excess;
        let unit = if fit.abs() > 1e-6 { 1.0 / fit } else { 1.0 };
        let kept = (ee - excess * ek).max(0.0) * unit * unit;
        let mut zeros = 0;
        if erased > 0.0 {
            for x in x {
                zeros += u32::from(*x == 0.0);
            }
        }
        let count = x.len() as u32;
        let floor = 1e-6 * f64::from(scale) * f64::from(scale) + 1e-30;
        let (kept, erased) = (
            inverse_deviation((kept, count - zeros), (kept + erased, count), floor),
            inverse_deviation((erased, zeros), (kept + erased, count), floor),
        );
        Self { excess: excess as f32, inverse: unit as f32, kept, erased }
    }

    /// The differences of a run in standard deviations, clipped, over the deviation again: their optimal weight.
    #[inline(always)]
    pub(super) fn run(self, x: &[f32; RUN], w: &[f32; RUN]) -> [f32; RUN] {
        let mut out = [0.0; RUN];
        for i in 0..RUN {
            let difference = ((x[i] - w[i]) - self.excess * w[i]) * self.inverse;
            let inverse = if x[i] == 0.0 { self.erased } else { self.kept };
            out[i] = lanes::clip(difference * inverse, CLIP) * inverse;
        }
        out
    }
}

/// Of a class of weights, given the sum of its squares and its number, and those of the whole row.
#[inline(always)]
fn inverse_deviation(class: (f64, u32), row: (f64, u32), floor: f64) -> f32 {
    let (sum, count) = if class.1 > MIN_CLASS { class } else { row };
    (1.0 / (sum / f64::from(count.max(1))).max(floor).sqrt()) as f32
}

/// Sums of what deviates, rather than of `x`: no digits cancel where a suspect is close to the original.
struct Deviations;

impl lanes::Terms<4> for Deviations {
    #[inline(always)]
    fn of(x: F, w: F) -> [F; 4] {
        let kept = lanes::where_not_zero(x, w, lanes::splat(0.0));
        let gone = lanes::subtract(w, kept);
        let e = lanes::subtract(x, kept);
        [lanes::times(e, e), lanes::times(e, kept), lanes::times(kept, kept), lanes::times(gone, gone)]
    }
}
