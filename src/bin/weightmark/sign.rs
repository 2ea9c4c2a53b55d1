//! `sign`: writes an OMS signature, and a release beside it if there is one.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;
use weightmark::io::atomic::refuse_existing;
use weightmark::io::{Tree, tree};
use weightmark::signing::release::{Relation, from_text};
use weightmark::signing::{
    CertificateChain, HashType, Hashing, Manifest, Policy, Release, Scope, outboard_path, release_path,
    sign_with_certificate, signature_path,
};

use crate::cli::Sign;
use crate::keys;
use crate::output::{Failure, Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Sign, json: bool, bars: &Bars) -> Outcome {
    let key = keys::signing_key(&args.key, args.key_passphrase_file.as_deref())?;
    let certificate = args.certificate.as_ref();
    let chain = certificate.map(|signer| CertificateChain::load(signer, &args.certificate_chain)).transpose()?;
    let signature = args.signature.clone().unwrap_or_else(|| signature_path(&args.model));
    refuse_existing(&signature)?;
    if args.outboard {
        refuse_existing(&outboard_path(&args.model))?;
    }
    let inside = path_inside(&args.model, &signature);
    let model = tree::open(&args.model)?;
    let mut scope = Scope::default();
    for path in args.ignore_paths.iter().map(|path| path.trim_end_matches('/')) {
        let beneath = format!("{path}/");
        if !model.entries().iter().any(|entry| entry.path == path || entry.path.starts_with(&beneath)) {
            return Err(Failure::Usage(format!("--ignore-paths {path}: there is no such path in the model")));
        }
        scope = scope.ignore(path);
    }
    scope = inside.into_iter().fold(scope, Scope::ignore);
    scope = args.allow_code.iter().fold(scope, Scope::danger_allow_code);
    let draft = args.release.as_deref().map(|text| Draft::new(text, args)).transpose()?;
    let hash = HashType::from_name(&args.hash).unwrap_or_default(); // the names are checked as arguments
    let hashing = Hashing { hash, shard_size: args.shard_size };
    let (manifest, outboard) = if args.outboard {
        let (manifest, outboard) = Manifest::with_outboard(&*model, &scope, bars)?;
        (manifest, Some(outboard))
    } else {
        (Manifest::of_tree(&*model, hashing, &scope, bars)?, None)
    };
    let release = draft.as_ref().map(|draft| draft.release(&*model, &manifest)).transpose()?;
    let (signed, release) = match &chain {
        None => (key.sign(&manifest)?, release.map(|release| release.sign(&key)).transpose()?),
        Some(chain) => (
            sign_with_certificate(&manifest, &key, chain)?,
            release.map(|release| release.sign_with_certificate(&key, chain)).transpose()?,
        ),
    };
    let outboard = outboard.map(|outboard| (outboard_path(&args.model), outboard));
    if let Some((place, outboard)) = &outboard {
        outboard.write(place)?;
    }
    signed.write(&signature).inspect_err(|_| {
        outboard.iter().for_each(|(place, _)| _ = std::fs::remove_file(place)); // of no use without it
    })?;
    if let (Some(draft), Some(release)) = (&draft, &release) {
        release.write(&draft.place)?;
    }
    let (files, signer) = (manifest.files(), key.verifying_key().id());
    let place = signature.display().to_string();
    let mut text = format!("{}: {files} files signed by key {signer}\n", shown(&signature));
    if let Some(draft) = &draft {
        text += &format!("{}: released as {} version {}\n", shown(&draft.place), draft.name, draft.version);
    }
    let release = draft.map(|draft| json!({"name": draft.name, "version": draft.version, "path": draft.place}));
    let object = json!({"signature": place, "files": files, "signer": {"key": signer}, "release": release});
    print(json, "sign", object, &text)
}

/// What the user says of a release, before the model is hashed.
struct Draft {
    name: String,
    version: u64,
    expires: Option<SystemTime>,
    parents: Vec<(Relation, String, [u8; 32])>,
    place: PathBuf,
}

impl Draft {
    fn new(text: &str, args: &Sign) -> Result<Self, Failure> {
        let parts = text.rsplit_once('@').and_then(|(name, version)| Some((name.to_owned(), version.parse().ok()?)));
        let (name, version) = parts
            .ok_or_else(|| Failure::Usage(format!("--release {text}: it takes NAME@VERSION, the version a number")))?;
        let place = args.signature.as_deref().map_or_else(|| release_path(&args.model), beside);
        refuse_existing(&place)?;
        let expires = args.expires.as_deref().map(time).transpose()?;
        let policy = keys::any_of(keys::load_keys(&args.parent_keys)?).map(Policy::from);
        let mut parents = Vec::new();
        for parent in &args.parents {
            let found = parent.split_once('=').and_then(|(word, model)| Some((relation(word)?, model)));
            let (Some((relation, model)), Some(policy)) = (found, &policy) else {
                let words = Relation::ALL.map(Relation::word).join(", ");
                return Err(Failure::Usage(format!(
                    "--parent {parent}: it takes RELATION=MODEL, the relation one of {words}"
                )));
            };
            let verified = policy.verify(model)?;
            parents.push((relation, verified.name().to_owned(), *verified.root_digest()));
        }
        Ok(Self { name, version, expires, parents, place })
    }

    fn release(&self, model: &dyn Tree, manifest: &Manifest) -> weightmark::Result<Release> {
        let mut release = Release::of(model, manifest, &self.name, self.version)?;
        if let Some(time) = self.expires {
            release = release.expires_at(time);
        }
        let parents = self.parents.iter();
        Ok(parents.fold(release, |release, (relation, name, root)| release.made_from(*relation, name, *root)))
    }
}

fn relation(word: &str) -> Option<Relation> {
    Relation::ALL.into_iter().find(|relation| relation.word() == word)
}

/// Where the release goes with a signature: `x.release.sig` beside `x.sig`.
fn beside(signature: &Path) -> PathBuf {
    signature.with_extension("release.sig")
}

/// A time, or how long from now.
fn time(text: &str) -> Result<SystemTime, Failure> {
    let later = || SystemTime::now().checked_add(humantime::parse_duration(text).ok()?);
    let usage =
        || Failure::Usage(format!("--expires {text}: neither a time (2027-01-31T00:00:00Z) nor how long (90days)"));
    from_text(text).or_else(later).ok_or_else(usage)
}

/// The path of the signature relative to the model, if it lies inside of it.
pub(crate) fn path_inside(model: &Path, signature: &Path) -> Option<String> {
    let folder = signature.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.canonicalize().ok()?.join(signature.file_name()?);
    Some(place.strip_prefix(model.canonicalize().ok()?).ok()?.to_str()?.to_owned())
}
