//! `rewrap`: other recipients, same payload.

use std::fmt::Write;

use serde_json::json;
use weightmark::encryption;
use weightmark::keys::Identity;

use crate::cli::Rewrap;
use crate::keys;
use crate::output::{Failure, Outcome, print, recipient, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Rewrap, json: bool, bars: &Bars) -> Outcome {
    if args.opening.partial {
        return Err(Failure::Usage("--partial is for reading: name the group to change with --group".into()));
    }
    let identities = keys::identities(&args.opening)?;
    let identities: Vec<&dyn Identity> = identities.iter().map(|identity| &**identity).collect();
    let (change, path) = (&args.change, args.group.trim_end_matches('/'));
    let mut rewrap = encryption::Rewrap::new().group(path).also(keys::recipients(&change.add)?);
    if !change.only.is_empty() {
        rewrap = rewrap.only(keys::recipients(&change.only)?);
    }
    if let Some(context) = &args.opening.context {
        rewrap = rewrap.expect_context(context);
    }
    for id in &change.remove {
        rewrap = rewrap.remove(id);
    }
    let seen = rewrap.apply_with(&args.artifact, &identities, bars)?;
    let mut text = format!("{}: rewrapped\n", shown(&args.artifact));
    for named in seen.groups.iter().filter(|group| group.path == path).flat_map(|group| &group.recipients) {
        let _ = writeln!(text, "recipient  {}", recipient(named)); // a String takes everything
    }
    if !change.remove.is_empty() || !change.only.is_empty() {
        text.push_str("note: whoever could open it before may have kept its key; `rekey` encrypts anew\n");
    }
    print(json, "rewrap", json!({"artifact": args.artifact.display().to_string(), "envelope": seen}), &text)
}
