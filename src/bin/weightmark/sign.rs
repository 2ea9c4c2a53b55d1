//! `sign`: writes an OMS signature.

use std::path::Path;

use serde_json::json;
use weightmark::io::atomic::refuse_existing;
use weightmark::io::tree;
use weightmark::signing::{HashType, Hashing, Manifest, signature_path};

use crate::cli::Sign;
use crate::keys;
use crate::output::{Failure, Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Sign, json: bool, bars: &Bars) -> Outcome {
    let key = keys::signing_key(&args.key, args.key_passphrase_file.as_deref())?;
    let signature = args.signature.clone().unwrap_or_else(|| signature_path(&args.model));
    refuse_existing(&signature)?;
    let inside = path_inside(&args.model, &signature);
    let model = tree::open(&args.model)?;
    let mut ignore = Vec::new();
    for path in args.ignore_paths.iter().map(|path| path.trim_end_matches('/')) {
        let beneath = format!("{path}/");
        if !model.entries().iter().any(|entry| entry.path == path || entry.path.starts_with(&beneath)) {
            return Err(Failure::Usage(format!("--ignore-paths {path}: there is no such path in the model")));
        }
        ignore.push(path);
    }
    ignore.extend(inside.as_deref());
    let hash = HashType::from_name(&args.hash).unwrap_or_default(); // the names are checked as arguments
    let hashing = Hashing { hash, shard_size: args.shard_size };
    let manifest = Manifest::of_tree(&*model, hashing, &ignore, bars)?;
    key.sign(&manifest)?.write(&signature)?;
    let (files, signer) = (manifest.files(), key.verifying_key().id());
    let place = signature.display().to_string();
    let text = format!("{}: {files} files signed by key {signer}\n", shown(&signature));
    print(json, "sign", json!({"signature": place, "files": files, "signer": {"key": signer}}), &text)
}

/// The path of the signature relative to the model, if it lies inside of it.
pub(crate) fn path_inside(model: &Path, signature: &Path) -> Option<String> {
    let folder = signature.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.canonicalize().ok()?.join(signature.file_name()?);
    Some(place.strip_prefix(model.canonicalize().ok()?).ok()?.to_str()?.to_owned())
}
