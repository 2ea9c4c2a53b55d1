//! `detect`: is the owner's mark in a suspect, and whose copy is it?

use std::fmt::Write;

use serde_json::{Value, json};
use weightmark::Error;
use weightmark::error::Printable;
use weightmark::io::{FileAt, ReadAtExt};
use weightmark::keys::OwnerKey;
use weightmark::watermark::{Detector, Evidence};

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
    if let Some(path) = &args.copies {
        let bytes = FileAt::open(path)?.read_all(MAX_COPIES_FILE)?;
        let text = String::from_utf8(bytes).map_err(|e| Error::Io {
            op: "read",
            name: path.display().to_string(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
        })?;
        detector = detector.copies(text.lines().map(str::trim).filter(|label| !label.is_empty()));
    }
    let suspect = keys::open(&args.suspect, &args.opening)?;
    let evidence = detector.examine_tree(&*suspect, bars)?;
    let reported = report(&evidence, json);
    // whether anyone reads it or not, the answer stays the same
    match evidence.unread().first() {
        _ if evidence.is_detected() => reported,
        Some((path, cause)) if evidence.tensors_matched() == 0 => {
            let name = if path.is_empty() { suspect.name().to_owned() } else { path.clone() };
            Err(Error::Format { name, cause: cause.clone() }.into()) // no weights were seen: that is no answer
        }
        _ => Err(Failure::No),
    }
}

fn report(evidence: &Evidence, json: bool) -> Outcome {
    let verdict = if evidence.is_detected() { "detected" } else { "not detected" };
    let mut text = format!(
        "owner mark {verdict}: log10 p = {:.1} (z = {:.1}), {} of {} tensors compared\n",
        evidence.log10_p(),
        evidence.z(),
        evidence.tensors_matched(),
        evidence.tensors()
    );
    // a String takes everything that is written to it
    let _ = match (evidence.copy(), evidence.copies().first()) {
        (Some(copy), _) => writeln!(text, "copy {:?}: log10 p = {:.1}", copy.label, copy.log10_p),
        (None, Some(_)) => writeln!(text, "none of the {} copies listed stands out", evidence.copies().len()),
        (None, None) => Ok(()),
    };
    for (path, cause) in evidence.unread() {
        let _ = writeln!(text, "not looked at: {}: {}", Printable(path), Printable(&cause.to_string()));
    }
    let unread = evidence.unread().iter().map(|(path, cause)| json!({"path": path, "code": cause.word()}));
    let copy = evidence.copy().map(|copy| json!({"label": copy.label, "log10_p": copy.log10_p}));
    let object = json!({
        "detected": evidence.is_detected(),
        "log10_p": evidence.log10_p(),
        "z": evidence.z(),
        "copy": copy,
        "tensors_matched": evidence.tensors_matched(),
        "tensors": evidence.tensors(),
        "unread": unread.collect::<Value>(),
        "alignment": [],
    });
    print(json, "detect", object, &text)
}
