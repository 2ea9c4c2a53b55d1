//! `protect`: the main job.

use std::path::PathBuf;

use serde_json::json;
use weightmark::encryption::KEYS_FILE;
use weightmark::io::atomic::{Access, AtomicFile, refuse_inside};
use weightmark::keys::OwnerKey;
use weightmark::model::Protector;

use crate::cli::Protect;
use crate::embed::describe;
use crate::keys;
use crate::output::{Outcome, print, recipient, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Protect, json: bool, bars: &Bars) -> Outcome {
    let owner = OwnerKey::load(&args.owner_key)?;
    let key = keys::signing_key(&args.signing_key, args.key_passphrase_file.as_deref())?;
    let recipients = keys::recipients(&args.recipients)?;
    let mut protector = Protector::new(&owner, &key, recipients).context(&args.context).beacon(&args.marking.beacon);
    if let Some(label) = &args.copy {
        protector = protector.copy(label);
    }
    if let Some(strength) = args.marking.strength {
        protector = protector.strength(strength);
    }
    let place = args.record.clone().unwrap_or_else(|| beside(&args.output));
    refuse_inside(&args.model, &place)?;
    let record_file = AtomicFile::create(&place, Access::Shared)?; // fails now rather than after the work
    let done = protector.protect_with(&args.model, &args.output, bars)?;
    let mut record = json!(done);
    if let Some(fields) = record.as_object_mut() {
        fields.insert("beacon".into(), json!(args.marking.beacon));
        fields.insert("schema".into(), json!("weightmark/record/1"));
    }
    record_file.write_at(0, format!("{record:#}\n").as_bytes())?;
    record_file.commit()?;
    let output = shown(&args.output);
    let ids: Vec<_> = done.recipients.iter().map(recipient).collect();
    let text = format!(
        "{}\nsigned: {} files by key {}\nencrypted: {output}/ to {}; envelope in {KEYS_FILE}\nrecord: {}\n",
        describe(&done.mark),
        done.files,
        done.signer,
        ids.join(", "),
        shown(&place)
    );
    let mut object = json!(done);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("output".into(), json!(args.output.display().to_string()));
        fields.insert("record".into(), json!(place.display().to_string()));
    }
    print(json, "protect", object, &text)
}

/// Where the record lies unless the user says otherwise: not inside of what is given away.
fn beside(output: &std::path::Path) -> PathBuf {
    let mut name = output.components().as_path().as_os_str().to_owned(); // without a slash at the end
    name.push(".record.json");
    name.into()
}
