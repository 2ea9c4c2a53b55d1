//! `keygen`: makes keys.

use serde_json::json;
use weightmark::keys::file::public_path;
use weightmark::keys::{Algorithm, OwnerKey, SigningKey, SymmetricKey, X25519Identity, XWingIdentity};

use crate::cli::{KeyKind, Keygen, SigningAlgorithm};
use crate::output::{Failure, Outcome, print, shown};

pub(crate) fn run(args: &Keygen, json: bool) -> Outcome {
    let misplaced = match args.kind {
        KeyKind::Identity | KeyKind::Owner | KeyKind::Symmetric if args.algorithm.is_some() => {
            Some("--algorithm is for signing keys")
        }
        KeyKind::Owner | KeyKind::Signing | KeyKind::Symmetric if args.x25519 => Some("--x25519 is for identities"),
        KeyKind::Identity | KeyKind::Signing | KeyKind::Symmetric => {
            args.name.as_ref().map(|_| "--name is for owner keys")
        }
        KeyKind::Owner => args.name.as_deref().is_none_or(str::is_empty).then_some("an owner needs a --name"),
    };
    if let Some(problem) = misplaced {
        return Err(Failure::Usage(problem.to_owned()));
    }
    let (kind, id) = match args.kind {
        KeyKind::Symmetric => {
            let key = SymmetricKey::generate()?;
            key.save(&args.output)?;
            ("symmetric key", key.id())
        }
        KeyKind::Identity if args.x25519 => {
            let identity = X25519Identity::generate()?;
            identity.save(&args.output)?;
            ("identity", identity.recipient().id())
        }
        KeyKind::Identity => {
            let identity = XWingIdentity::generate()?;
            identity.save(&args.output)?;
            ("identity", identity.recipient().id())
        }
        KeyKind::Signing => {
            let algorithm = match args.algorithm {
                None | Some(SigningAlgorithm::P256) => Algorithm::EcdsaP256,
                Some(SigningAlgorithm::P384) => Algorithm::EcdsaP384,
                Some(SigningAlgorithm::P521) => Algorithm::EcdsaP521,
                Some(SigningAlgorithm::Ed25519) => Algorithm::Ed25519,
            };
            let key = SigningKey::generate(algorithm)?;
            key.save(&args.output)?;
            ("signing key", key.verifying_key().id())
        }
        KeyKind::Owner => {
            let key = OwnerKey::generate(args.name.as_deref().unwrap_or_default())?;
            key.save(&args.output)?;
            ("owner key", key.id().to_string())
        }
    };
    let public = (!matches!(args.kind, KeyKind::Symmetric)).then(|| public_path(&args.output));
    let mut text = format!("{kind} {id}\nsecret  {}  (keep it to yourself, and a backup)\n", shown(&args.output));
    if let Some(public) = &public {
        text.push_str(&format!("public  {}\n", shown(public)));
    }
    let (secret, public) = (args.output.display().to_string(), public.map(|path| path.display().to_string()));
    print(json, "keygen", json!({"kind": kind, "id": id, "secret": secret, "public": public}), &text)
}
