//! `embed`: marks the weights.

use serde_json::json;
use weightmark::keys::OwnerKey;
use weightmark::watermark::{Embedded, Watermark};

use crate::cli::Embed;
use crate::output::{Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Embed, json: bool, bars: &Bars) -> Outcome {
    let owner = OwnerKey::load(&args.owner_key)?;
    let mut watermark = Watermark::new(&owner).beacon(&args.marking.beacon);
    if let Some(label) = &args.copy {
        watermark = watermark.copy(label);
    }
    if let Some(strength) = args.marking.strength {
        watermark = watermark.strength(strength);
    }
    let done = watermark.embed_with(&args.original, &args.output, bars)?;
    let text = format!("{}: {}\n", shown(&args.output), describe(&done));
    print(json, "embed", json!(done), &text)
}

/// What was marked, in one line.
pub(crate) fn describe(done: &Embedded) -> String {
    let copy = done.copy.as_ref().map_or(String::new(), |label| format!(" as copy {label:?}"));
    let decibel = 20.0 * done.relative_distortion.log10();
    format!(
        "marked{copy}: {} weights in {} tensors, relative distortion {:.5} ({decibel:.1} dB)",
        done.weights, done.tensors, done.relative_distortion
    )
}
