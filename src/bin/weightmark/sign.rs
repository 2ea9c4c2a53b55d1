//! `sign`: writes an OMS signature, and a release beside it if there is one.

use weightmark::signing::release::{Relation, name_and_version, time_of};
use weightmark::signing::{CertificateChain, HashType, Hashing, Policy, Publisher};

use crate::cli::Sign;
use crate::keys;
use crate::output::{Failure, Outcome, print, shown};
use crate::progress::Bars;

pub(crate) fn run(args: &Sign, json: bool, bars: &Bars) -> Outcome {
    let key = keys::signing_key(&args.key, args.key_passphrase_file.as_deref())?;
    let certificate = args.certificate.as_ref();
    let chain = certificate.map(|signer| CertificateChain::load(signer, &args.certificate_chain)).transpose()?;
    let hash = HashType::from_name(&args.hash).unwrap_or_default(); // the names are checked as arguments
    let mut publisher = Publisher::new(&key).hashing(Hashing { hash, shard_size: args.shard_size });
    if let Some(chain) = &chain {
        publisher = publisher.certified(chain);
    }
    if args.outboard {
        publisher = publisher.outboard();
    }
    if let Some(place) = &args.signature {
        publisher = publisher.signature(place);
    }
    publisher = args.ignore_paths.iter().fold(publisher, Publisher::ignore);
    publisher = args.allow_code.iter().fold(publisher, Publisher::danger_allow_code);
    if let Some(text) = &args.release {
        publisher = release(publisher, text, args)?;
    }
    let signed = publisher.publish(&args.model, bars)?;
    let mut text = format!("{}: {} files signed by key {}\n", shown(&signed.signature), signed.files, signed.signer);
    if let Some((name, version, place)) = &signed.release {
        text += &format!("{}: released as {name} version {version}\n", shown(place));
    }
    print(json, "sign", signed.to_json(), &text)
}

/// What the user says of a release, found out before the model is hashed.
fn release<'a>(publisher: Publisher<'a>, text: &str, args: &Sign) -> Result<Publisher<'a>, Failure> {
    let (name, version) = name_and_version(text)
        .ok_or_else(|| Failure::Usage(format!("--release {text}: it takes NAME@VERSION, the version a number")))?;
    let mut publisher = publisher.release(name, version);
    if let Some(text) = &args.expires {
        let time = time_of(text).ok_or_else(|| {
            Failure::Usage(format!("--expires {text}: neither a time (2027-01-31T00:00:00Z) nor how long (90days)"))
        })?;
        publisher = publisher.expires_at(time);
    }
    let policy = keys::any_of(keys::load_keys(&args.parent_keys)?).map(Policy::from);
    for parent in &args.parents {
        let found = parent.split_once('=').and_then(|(word, model)| Some((relation(word)?, model)));
        let (Some((relation, model)), Some(policy)) = (found, &policy) else {
            let words = Relation::ALL.map(Relation::word).join(", ");
            return Err(Failure::Usage(format!(
                "--parent {parent}: it takes RELATION=MODEL, the relation one of {words}"
            )));
        };
        let verified = policy.verify(model)?;
        publisher = publisher.made_from(relation, verified.name(), *verified.root_digest());
    }
    Ok(publisher)
}

fn relation(word: &str) -> Option<Relation> {
    Relation::ALL.into_iter().find(|relation| relation.word() == word)
}
