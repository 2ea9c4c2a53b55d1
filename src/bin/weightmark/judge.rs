//! `judge`: was a suspect made from what was claimed?

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use weightmark::Error;
use weightmark::error::Printable;
use weightmark::keys::VerifyingKey;
use weightmark::model::{Claim, digest};
use weightmark::watermark::{Case, Opening, Order, Verdict};

use crate::cli::Judge;
use crate::detect::labels;
use crate::keys;
use crate::output::{Failure, Outcome, print};
use crate::progress::Bars;

pub(crate) fn run(args: &Judge, json: bool, bars: &Bars) -> Outcome {
    let labels = args.copies.as_deref().map(labels).transpose()?.unwrap_or_default();
    let claim = Claim::read(&args.claim)?;
    let claim_digest = claim.digest();
    let case = Case::new(
        claim.verify(&VerifyingKey::load(&args.public_key)?)?,
        Opening::read(&args.opened)?,
        &args.original,
        args.draw.as_deref(),
        bars,
    )?;
    let counter = counter(args, bars)?;
    let suspect = keys::open(&args.suspect, &args.opening)?;
    let suspect_digest = digest(&*suspect, bars)?;
    let verdict = case.examine(&*suspect, &labels, bars)?;
    let dispute = counter.as_ref().map(|other| case.against(other, bars)).transpose()?;
    let order = dispute.as_ref().map(|(.., order)| *order);
    let proved = verdict.is_proved() && !matches!(order, Some(Order::Second | Order::Both));

    let record = case.record();
    let shown = match case.opened() {
        Some(blocks) => format!("{blocks} of {} blocks", record.blocks()),
        None => "whole".into(),
    };
    let mut text = format!(
        "claim {claim_digest} of {}, opened {shown}, signed and as committed\nsuspect {suspect_digest}\n{}: log10 p = {:.1} (z = {:.1})\n",
        Printable(record.owner().name()),
        if verdict.is_proved() {
            "proved: the suspect was made from a marked copy of the original"
        } else {
            "not proved"
        },
        verdict.log10_p(),
        verdict.evidence().z(),
    );
    // a String takes everything that is written to it
    let _ = match (verdict.evidence().copy(), labels.len()) {
        (Some(copy), _) => writeln!(text, "copy {:?}: log10 p = {:.1}", copy.label, copy.log10_p),
        (None, 0) => Ok(()),
        (None, count) => writeln!(text, "none of the {count} copies listed stands out"),
    };
    if let (Some((first, second, order)), Some(other)) = (&dispute, &counter) {
        let _ = text.write_str(&sentence(*order, case.record().owner().name(), other.record().owner().name()));
        let _ = writeln!(
            text,
            "their mark in the other's original: log10 p = {:.1}, {:.1}",
            first.log10_p(),
            second.log10_p()
        );
    }
    let dispute = dispute.map(|(first, second, order)| {
        json!({"order": word(order), "ours_in_theirs": describe(&first), "theirs_in_ours": describe(&second)})
    });
    let copy = verdict.evidence().copy().map(|copy| json!({"label": copy.label, "log10_p": copy.log10_p}));
    let mut object = json!({
        "proved": proved,
        "claim": claim_digest,
        "owner": record.owner().to_string(),
        "suspect": suspect_digest,
        "original_root": record.root(),
        "blocks_opened": case.opened(),
        "blocks": record.blocks(),
        "copy": copy,
        "against": dispute,
    });
    if let (Some(fields), Value::Object(found)) = (object.as_object_mut(), describe(&verdict)) {
        fields.extend(found);
    }
    let reported = print(json, "judge", object, &text);
    // whether anyone reads it or not, the answer stays the same
    match verdict.evidence().unread().first() {
        _ if proved => reported,
        Some((path, cause)) if verdict.evidence().tensors_matched() == 0 => {
            let name = if path.is_empty() { suspect.name().to_owned() } else { path.clone() };
            Err(Error::Format { name, cause: cause.clone() }.into()) // no weights were seen: that is no answer
        }
        _ => Err(Failure::No),
    }
}

/// The claim that stands against this one, if there is one.
fn counter(args: &Judge, bars: &Bars) -> Result<Option<Case>, Failure> {
    let (Some(claim), Some(opened), Some(original), Some(key)) =
        (&args.against, &args.against_opened, &args.against_original, &args.against_public_key)
    else {
        return Ok(None);
    };
    let claimed = Claim::read(claim)?.verify(&VerifyingKey::load(key)?)?;
    let original: &Path = original;
    Ok(Some(Case::new(claimed, Opening::read(opened)?, original, args.draw.as_deref(), bars)?))
}

fn sentence(order: Order, ours: &str, theirs: &str) -> String {
    let (ours, theirs) = (Printable(ours), Printable(theirs));
    match order {
        Order::First => {
            format!("{ours} was first: the original of {theirs} carries the mark of {ours}, not the other way round\n")
        }
        Order::Second => format!(
            "{theirs} was first: the original of {ours} carries the mark of {theirs}, not the other way round\n"
        ),
        Order::Neither => "neither original carries the mark of the other: they say nothing about each other\n".into(),
        Order::Both => "each original carries the mark of the other: that decides nothing\n".into(),
    }
}

fn word(order: Order) -> &'static str {
    match order {
        Order::First => "first",
        Order::Second => "second",
        Order::Neither => "neither",
        Order::Both => "both",
    }
}

fn describe(verdict: &Verdict) -> Value {
    let evidence = verdict.evidence();
    json!({
        "log10_p": verdict.log10_p(),
        "z": evidence.z(),
        "tensors_matched": evidence.tensors_matched(),
        "tensors": evidence.tensors(),
    })
}
