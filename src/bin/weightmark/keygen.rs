//! `keygen`: makes keys.

use serde_json::json;
use weightmark::keys::{Algorithm, OwnerKey, SigningKey, XWingIdentity, file::public_path};

use crate::cli::{KeyKind, Keygen};
use crate::output::{Failure, Outcome, print, shown};

pub(crate) fn run(args: &Keygen, json: bool) -> Outcome {
    let misplaced = match args.kind {
        KeyKind::Identity | KeyKind::Owner if args.ed25519 => Some("--ed25519 is for signing keys"),
        KeyKind::Identity | KeyKind::Signing => args.name.as_ref().map(|_| "--name is for owner keys"),
        KeyKind::Owner => args.name.as_deref().is_none_or(str::is_empty).then_some("an owner needs a --name"),
    };
    if let Some(problem) = misplaced {
        return Err(Failure::Usage(problem.to_owned()));
    }
    let (kind, id) = match args.kind {
        KeyKind::Identity => {
            let identity = XWingIdentity::generate()?;
            identity.save(&args.output)?;
            ("identity", identity.recipient().id())
        }
        KeyKind::Signing => {
            let algorithm = if args.ed25519 { Algorithm::Ed25519 } else { Algorithm::EcdsaP256 };
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
    let (secret, public) = (args.output.display().to_string(), public_path(&args.output).display().to_string());
    let text = format!(
        "{kind} {id}\nsecret  {}  (keep it to yourself, and a backup)\npublic  {}\n",
        shown(&args.output),
        shown(&public_path(&args.output))
    );
    print(json, "keygen", json!({"kind": kind, "id": id, "secret": secret, "public": public}), &text)
}
