//! `diff`: what changed between two signed versions?

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use weightmark::Result;
use weightmark::error::Printable;
use weightmark::io::tree;
use weightmark::signing::{Bundle, Difference, Manifest, Policy, Release, Signatures};

use crate::cli::Diff;
use crate::keys;
use crate::output::{Outcome, hex, print};

pub(crate) fn run(args: &Diff, json: bool) -> Outcome {
    let policy = keys::policy(&args.trust)?;
    let (from, to) = (read(&args.from, policy.as_ref())?, read(&args.to, policy.as_ref())?);
    let found = Difference::between((&from.0, from.1.as_ref()), (&to.0, to.1.as_ref()));
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| _ = writeln!(text, "{line}"); // a String takes everything
    line(format_args!("from {}", Printable(&title(&from))));
    line(format_args!("to   {}", Printable(&title(&to))));
    if policy.is_none() {
        line(format_args!("(signatures not verified: name who must have signed with --key or --policy)"));
    }
    for (mark, paths) in
        [('+', &found.added), ('-', &found.removed), ('~', found.changed.as_ref().unwrap_or(&Vec::new()))]
    {
        paths.iter().for_each(|path| line(format_args!("{mark} {}", Printable(path))));
    }
    match &found.changed {
        Some(_) => line(format_args!("  {} files are the same", found.unchanged)),
        None => line(format_args!("? hashed in different ways: what changed within files cannot be told")),
    }
    for (kind, name) in &found.components {
        line(format_args!("! {kind}: {}", Printable(name)));
    }
    let object = json!({
        "verified": policy.is_some(),
        "from": describe(&from),
        "to": describe(&to),
        "difference": found,
    });
    print(json, "diff", object, &text)
}

/// What is signed at a path: a model with its signatures, or one signature file.
fn read(path: &Path, policy: Option<&Policy>) -> Result<(Manifest, Option<Release>)> {
    let is_signature = path.extension().is_some_and(|extension| extension == "sig");
    let signatures = if is_signature && path.is_file() {
        Signatures::new().and(None, Bundle::read(path)?)
    } else {
        Signatures::find(path, &*tree::open(path)?)?
    };
    match policy {
        Some(policy) => policy.verify_signatures(&signatures),
        None => signatures.danger_unverified(),
    }
}

fn title((manifest, release): &(Manifest, Option<Release>)) -> String {
    match release {
        Some(release) => format!("{} version {}", release.name(), release.version()),
        None => format!("{} ({})", manifest.name(), &hex(&manifest.root_digest())[..16]),
    }
}

fn describe((manifest, release): &(Manifest, Option<Release>)) -> Value {
    json!({
        "name": release.as_ref().map_or(manifest.name(), Release::name),
        "root_digest": hex(&manifest.root_digest()),
        "release": release.as_ref().map(Release::predicate),
    })
}
