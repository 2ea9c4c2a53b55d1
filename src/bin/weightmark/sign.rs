//! `sign`: writes an OMS signature.

use std::path::Path;

use serde_json::json;
use weightmark::io::tree;
use weightmark::keys::SigningKey;
use weightmark::signing::{Manifest, signature_path};

use crate::cli::Sign;
use crate::output::{Outcome, print};
use crate::progress::Bars;

pub(crate) fn run(args: &Sign, json: bool, bars: &Bars) -> Outcome {
    let key = SigningKey::load(&args.key)?;
    let signature = args.signature.clone().unwrap_or_else(|| signature_path(&args.model));
    let inside = path_inside(&args.model, &signature);
    let ignore: Vec<&str> = args.ignore_paths.iter().map(String::as_str).chain(inside.as_deref()).collect();
    let manifest = Manifest::of_tree(&*tree::open(&args.model)?, &ignore, bars)?;
    key.sign(&manifest)?.write(&signature)?;
    let (files, signer) = (manifest.resources().len(), key.verifying_key().id());
    let place = signature.display().to_string();
    let text = format!("{place}: {files} files signed by key {signer}\n");
    print(json, "sign", json!({"signature": place, "files": files, "signer": {"key": signer}}), &text)
}

/// The path of the signature relative to the model, if it lies inside of it.
pub(crate) fn path_inside(model: &Path, signature: &Path) -> Option<String> {
    let folder = signature.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.canonicalize().ok()?.join(signature.file_name()?);
    Some(place.strip_prefix(model.canonicalize().ok()?).ok()?.to_str()?.to_owned())
}
