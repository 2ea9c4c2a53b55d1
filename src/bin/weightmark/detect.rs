//! `detect`: is the owner's mark in a suspect, and whose copy is it?

use std::fmt::Write;
use std::path::Path;

use weightmark::Error;
use weightmark::error::Printable;
use weightmark::io::{FileAt, ReadAtExt};
use weightmark::keys::OwnerKey;
use weightmark::watermark::{Detector, Evidence, Method};

use crate::cli::Detect;
use crate::keys;
use crate::output::{Failure, Outcome, print};
use crate::progress::Bars;

/// More labels than anyone has licensees.
const MAX_COPIES_FILE: u64 = 256 << 20;

pub(crate) fn run(args: &Detect, json: bool, bars: &Bars) -> Outcome {
    let owner = OwnerKey::load(&args.owner_key)?;
    let mut detector = Detector::new(&owner, &args.original).beacon(&args.marking.beacon);
    if let Some(strength) = args.marking.strength {
        detector = detector.strength(strength);
    }
    if let Some(partner) = &args.partner {
        detector = detector.partner(partner);
    }
    if args.exhaustive {
        detector = detector.exhaustive();
    }
    if let Some(path) = &args.copies {
        detector = detector.copies(labels(path)?);
    }
    let suspect = keys::open(&args.suspect, &args.opening)?;
    let evidence = detector.examine_tree(&*suspect, bars)?;
    let reported = report(&evidence, json);
    // whether anyone reads it or not, the answer stays the same
    if evidence.verdict(suspect.name())? { reported } else { Err(Failure::No) }
}

/// The labels in a file, one a line.
pub(crate) fn labels(path: &Path) -> Result<Vec<String>, Error> {
    let bytes = FileAt::open(path)?.read_all(MAX_COPIES_FILE)?;
    let text = String::from_utf8(bytes).map_err(|e| Error::Io {
        op: "read",
        name: path.display().to_string(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
    })?;
    Ok(text.lines().map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect())
}

fn report(evidence: &Evidence, json: bool) -> Outcome {
    let verdict = if evidence.is_detected() { "detected" } else { "not detected" };
    let text = format!(
        "owner mark {verdict}: log10 p = {:.1} (z = {:.1}), {} of {} tensors compared\n{}",
        evidence.log10_p(),
        evidence.z(),
        evidence.tensors_matched(),
        evidence.tensors(),
        details(evidence)
    );
    print(json, "detect", evidence.to_json(), &text)
}

/// What was found besides, a line each.
fn details(evidence: &Evidence) -> String {
    let mut text = String::new();
    // a String takes everything that is written to it
    for reading in evidence.readings().iter().filter(|_| evidence.readings().len() > 1) {
        let how = match reading.method {
            Method::Direct => "against the original as it is",
            Method::Cleaned => "put straight and cleaned",
            Method::Blind => "without the original",
            _ => "otherwise",
        };
        let _ = writeln!(text, "  {how}: log10 p = {:.1}, z = {:.1}", reading.log10_p, reading.z);
    }
    for step in evidence.alignment() {
        let _ = writeln!(text, "undone: {}", Printable(step));
    }
    for copy in evidence.named() {
        let _ = writeln!(text, "copy {:?}: log10 p = {:.1}", copy.label, copy.log10_p);
    }
    if evidence.copy().is_none() && !evidence.copies().is_empty() {
        let _ = writeln!(text, "none of the {} copies listed stands out", evidence.copies().len());
    }
    if let Some(payload) = evidence.payload().payload.filter(|_| evidence.copy().is_none() && evidence.is_detected()) {
        let _ = writeln!(text, "payload {payload:016x}, {} bits turned over to read it", evidence.payload().turned);
    }
    for (path, cause) in evidence.unread() {
        let _ = writeln!(text, "not looked at: {}: {}", Printable(path), Printable(&cause.to_string()));
    }
    text
}
