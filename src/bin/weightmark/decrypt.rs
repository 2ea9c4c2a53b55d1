//! `decrypt`: back to plaintext, and the opening of encrypted inputs for other verbs.

use serde_json::json;
use weightmark::encryption;
use weightmark::io::Tree;
use weightmark::keys::{Identity, XWingIdentity};
use weightmark::{Model, Result};

use crate::cli::{Decrypt, Opening};
use crate::output::{Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Decrypt, json: bool, bars: &Bars) -> Outcome {
    let identities = args.opening.identities.iter().map(XWingIdentity::load).collect::<Result<Vec<_>>>()?;
    let identities: Vec<&dyn Identity> = identities.iter().map(|identity| identity as &dyn Identity).collect();
    encryption::decrypt(&args.input, &args.output, &identities, args.opening.context.as_deref(), bars)?;
    let output = args.output.display().to_string();
    print(json, "decrypt", json!({"output": output}), &format!("{}: decrypted\n", shown(&args.output)))
}

/// The files of a model, decrypted as they are read if it is encrypted.
pub(crate) fn open(path: &std::path::Path, opening: &Opening) -> Result<Box<dyn Tree>> {
    let mut options = Model::options();
    for file in &opening.identities {
        options = options.identity(XWingIdentity::load(file)?);
    }
    if let Some(context) = &opening.context {
        options = options.expect_context(context);
    }
    options.tree(path)
}
