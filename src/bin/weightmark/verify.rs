//! `verify`: is the model exactly what was signed?

use std::fmt::Write;

use serde_json::{Value, json};
use weightmark::error::{Code, Printable};
use weightmark::model::signatures;
use weightmark::signing::Verified;
use weightmark::{Error, Result};

use crate::cli::Verify;
use crate::keys;
use crate::output::{Outcome, print};
use crate::progress::Bars;

pub(crate) fn run(args: &Verify, json: bool, bars: &Bars) -> Outcome {
    match verify(args, bars) {
        Ok(verified) => report(&verified, json),
        Err(error) => {
            if json {
                // whether anyone reads it or not, the answer stays no
                let _ = print(true, "verify", json!({"verified": false, "error": describe(&error)}), "");
            }
            Err(error.into())
        }
    }
}

fn verify(args: &Verify, bars: &Bars) -> Result<Verified> {
    let signers = keys::signers(&args.trust)?;
    let (Some(mut policy), Some(signers)) = (keys::policy(&args.trust)?, signers) else {
        return Err(Error::ApiMisuse("nobody whose signature counts: name them with --key or --policy"));
    };
    for parent in &args.parents {
        let root = *signers.verify(parent)?.root_digest();
        policy = policy.expect_parent(root);
    }
    for path in args.ignore_paths.iter().map(|path| path.trim_end_matches('/')) {
        if path.is_empty() {
            return Err(Error::ApiMisuse("--ignore-paths of nothing: to tolerate all that was not signed, say so"));
        }
        policy = policy.danger_ignore_path(path);
    }
    if args.ignore_unsigned_files {
        policy = policy.danger_ignore_unsigned_files();
    }
    let tree = keys::open(&args.model, &args.opening)?;
    policy.verify_tree(&*tree, &signatures(&args.model, &*tree, &args.signatures)?, bars)
}

fn report(verified: &Verified, json: bool) -> Outcome {
    let names: Vec<String> = verified.signatories().iter().map(|by| by.to_string()).collect();
    let mut text =
        format!("verified: {} files are exactly what {} signed\n", verified.files(), Printable(&names.join(" and ")));
    if let Some(release) = verified.release() {
        let _ = writeln!(text, "released as {} version {}", Printable(release.name()), release.version());
    }
    for path in verified.ignored() {
        let _ = writeln!(text, "not covered by the signature: {}", Printable(path)); // a String takes everything
    }
    print(json, "verify", verified.to_json(), &text)
}

fn describe(error: &Error) -> Value {
    match error {
        Error::Verify { cause, .. } => json!({"code": cause.word(), "path": cause.path()}),
        other => {
            let code = match other.code() {
                Code::Refused => "tampered",
                Code::Key => "key",
                Code::Cancelled => "cancelled",
                _ => "input",
            };
            json!({"code": code, "path": null})
        }
    }
}
