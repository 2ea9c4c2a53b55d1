//! `verify`: is the model exactly what was signed?

use std::fmt::Write;

use serde_json::json;
use weightmark::encryption::DecryptedTree;
use weightmark::error::{Code, Printable};
use weightmark::io::{Tree, tree};
use weightmark::signing::{Bundle, Policy, SIGNATURE_FILE, Verified, signature_path};
use weightmark::{Error, Result};

use crate::cli::Verify;
use crate::keys;
use crate::output::{Outcome, print};
use crate::progress::Bars;
use crate::sign::path_inside;

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
    let mut policy = keys::policy(&args.keys)?.ok_or(Error::ApiMisuse("no key to verify with"))?;
    for path in &args.ignore_paths {
        policy = policy.danger_ignore_path(path);
    }
    if args.ignore_unsigned_files {
        policy = policy.danger_ignore_unsigned_files();
    }
    let tree = keys::open(&args.model, &args.opening)?;
    let (bundle, inside) = signature(args, &*tree)?;
    policy.verify_tree(&*tree, &bundle, inside.as_deref(), bars)
}

/// The signature, and its path in the model if it lies there: the one named, or the one in its usual place, where it
/// may be encrypted like the rest.
fn signature(args: &Verify, tree: &dyn Tree) -> Result<(Bundle, Option<String>)> {
    match &args.signature {
        None if !tree.is_single_file() => Ok((Policy::find(tree)?, Some(SIGNATURE_FILE.to_owned()))),
        named => {
            let place = named.clone().unwrap_or_else(|| signature_path(&args.model));
            // a file beside encrypted ones is not one of the model, whatever its name
            let is_plain = !DecryptedTree::recognises(&*tree::open(&args.model)?);
            Ok((Bundle::read(&place)?, path_inside(&args.model, &place).filter(|_| is_plain)))
        }
    }
}

fn report(verified: &Verified, json: bool) -> Outcome {
    let (signer, algorithm) = (verified.signer().id(), format!("{:?}", verified.signer().algorithm()));
    let mut text = format!("verified: {} files are exactly what key {signer} signed\n", verified.files());
    for path in verified.ignored() {
        let _ = writeln!(text, "not covered by the signature: {}", Printable(path)); // a String takes everything
    }
    let object = json!({
        "verified": true,
        "signer": {"key": signer, "algorithm": algorithm},
        "name": verified.name(),
        "root_digest": verified.root_digest(),
        "files": verified.files(),
        "ignored": verified.ignored(),
    });
    print(json, "verify", object, &text)
}

fn describe(error: &Error) -> serde_json::Value {
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
