//! `claim`: ownership, claimed before release and opened in a dispute.

use serde_json::json;
use weightmark::error::Printable;
use weightmark::io::atomic::refuse_existing;
use weightmark::keys::OwnerKey;
use weightmark::model::Claim;
use weightmark::watermark::{Draw, Opening, Record};

use crate::cli::{self, ClaimCommand, MakeClaim, OpenClaim};
use crate::keys;
use crate::output::{Failure, Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &cli::Claim, json: bool, bars: &Bars) -> Outcome {
    match &args.open {
        Some(ClaimCommand::Open(args)) => open(args, json, bars),
        None => make(&args.make, json, bars),
    }
}

fn make(args: &MakeClaim, json: bool, bars: &Bars) -> Outcome {
    let (Some(original), Some(owner), Some(signing_key), Some(output)) =
        (&args.original, &args.owner_key, &args.signing_key, &args.output)
    else {
        return Err(Failure::Usage("a claim takes ORIGINAL, --owner-key, --signing-key and --output".into()));
    };
    let owner = OwnerKey::load(owner)?;
    let key = keys::signing_key(signing_key, args.key_passphrase_file.as_deref())?;
    refuse_existing(output)?;
    let record = Record::new(&owner, original, args.marking.strength, &args.marking.beacon, bars)?;
    let claim = Claim::sign(&record, &key)?;
    claim.write(output)?;
    let (place, digest, signer) = (shown(output), claim.digest(), key.verifying_key().id());
    let text = format!(
        "{place}: {} claims the model with root {}, {} tensors in {} blocks; signed by key {signer}\nto be published now: {digest}\n",
        Printable(owner.name()),
        record.root(),
        record.tensors(),
        record.blocks(),
    );
    let object = json!({
        "claim": output.display().to_string(),
        "digest": digest,
        "owner": record.owner().to_string(),
        "original_root": record.root(),
        "beacon": record.beacon(),
        "strength": record.strength(),
        "tensors": record.tensors(),
        "blocks": record.blocks(),
        "signer": signer,
    });
    print(json, "claim", object, &text)
}

fn open(args: &OpenClaim, json: bool, bars: &Bars) -> Outcome {
    let owner = OwnerKey::load(&args.owner_key)?;
    let claim = Claim::read(&args.claim)?;
    refuse_existing(&args.output)?;
    let (opening, parts) = match (args.blocks, &args.draw) {
        (Some(blocks), Some(value)) => {
            let parts = args.blocks_output.clone().unwrap_or_else(|| args.output.with_extension("safetensors"));
            let draw = Draw { value, blocks, code: args.code };
            (Opening::blocks(claim.claimed(), &owner, &args.original, &draw, &parts, bars)?, Some(parts))
        }
        _ => (Opening::whole(claim.claimed(), &owner, &args.original, bars)?, None),
    };
    opening.write(&args.output).inspect_err(|_| {
        parts.iter().for_each(|parts| _ = std::fs::remove_file(parts)); // of no use without it
    })?;
    let place = shown(&args.output);
    let text = match &parts {
        Some(parts) => format!(
            "{place}: {} blocks opened; {}: those of the original\n",
            args.blocks.unwrap_or_default(),
            shown(parts)
        ),
        None => format!(
            "{place}: the mark opened whole: whoever has it and the original can find the mark, and remove it\n"
        ),
    };
    let object = json!({
        "opening": args.output.display().to_string(),
        "claim_digest": claim.digest(),
        "whole": opening.is_whole(),
        "blocks": args.blocks,
        "blocks_of_original": parts.map(|parts| parts.display().to_string()),
    });
    print(json, "claim-open", object, &text)
}
