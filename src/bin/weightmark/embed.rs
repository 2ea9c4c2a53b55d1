//! `embed`: marks the weights.

use std::fmt::Write;

use serde_json::json;
use weightmark::keys::OwnerKey;
use weightmark::watermark::{Embedded, Survival, Watermark};

use crate::cli::Embed;
use crate::output::{Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Embed, json: bool, bars: &Bars) -> Outcome {
    let owner = OwnerKey::load(&args.owner_key)?;
    let mut watermark = Watermark::new(&owner).beacon(&args.marking.beacon);
    if let Some(label) = &args.copy {
        watermark = watermark.copy(label);
    }
    if let Some(payload) = args.payload {
        watermark = watermark.payload(payload);
    }
    if let Some(strength) = args.marking.strength {
        watermark = watermark.strength(strength);
    }
    let done = watermark.embed_with(&args.original, &args.output, bars)?;
    let survived = watermark.survive(&args.original, &args.output, &args.survive, bars)?;
    let mut text = format!("{}: {}\n", shown(&args.output), describe(&done));
    let _ = write!(text, "{}{}", outlook(&done), outcome(&survived)); // to a string: cannot fail
    let mut object = json!(done);
    if let Some(fields) = object.as_object_mut().filter(|_| !survived.is_empty()) {
        fields.insert("survive".into(), json!(survived));
    }
    print(json, "embed", object, &text)
}

/// What was marked, in one line.
pub(crate) fn describe(done: &Embedded) -> String {
    let copy = done.copy.as_ref().map_or(String::new(), |label| format!(" as copy {label:?}"));
    format!(
        "marked{copy}: {} weights in {} tensors, relative distortion {:.5} ({:.1} dB)",
        done.weights, done.tensors, done.relative_distortion, done.distortion_db
    )
}

/// What carries no mark, and what theory says of the rest.
fn outlook(done: &Embedded) -> String {
    let mut text = String::new();
    let mut names: Vec<_> = done.skipped.iter().map(|skipped| (&skipped.reason, &skipped.tensor)).collect();
    names.sort();
    for same in names.chunk_by(|a, b| a.0 == b.0) {
        let more = if same.len() > 1 { format!(" and {} more", same.len() - 1) } else { String::new() };
        let _ = writeln!(text, "skipped: {:?}{more}: {}", same[0].1, same[0].0);
    }
    if let Some(name) = done.on_grid.first() {
        let count = done.on_grid.len();
        let _ = writeln!(
            text,
            "warning: {count} tensors ({name:?}, ..) lie on the grid of a quantiser: quantised again, they lose \
             most of their mark; mark the quantised model instead"
        );
    }
    let predicted = done.predicted.iter().map(|p| format!("{} {:.0}", p.attack, p.log10_p));
    let _ = writeln!(text, "predicted log10 p: {}", predicted.collect::<Vec<_>>().join(", "));
    text
}

/// What simulated attacks have left.
fn outcome(survived: &[Survival]) -> String {
    let line = |s: &Survival| {
        let copy = s.copy_log10_p.map_or(String::new(), |p| format!(", of the copy {p:.1}"));
        format!("after {}: log10 p {:.1}{copy}\n", s.attack, s.log10_p)
    };
    survived.iter().map(line).collect()
}
