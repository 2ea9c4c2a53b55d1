//! Keys as users name them: files, texts, passphrases.

use std::path::{Path, PathBuf};

use weightmark::encryption::{Decryptor, Encryptor};
use weightmark::error::KeyError;
use weightmark::io::Tree;
use weightmark::keys::{
    Identity, Passphrase, Recipient, SigningKey, VerifyingKey, file, load_identity, load_recipient,
};
use weightmark::model::OpenOptions;
use weightmark::signing::Policy;
use weightmark::{Error, Model, Result};
use zeroize::Zeroizing;

use crate::cli::{Opening, Recipients};
use crate::output::{Failure, shown};

/// Encrypts to whom the user names.
pub(crate) fn encryptor(args: &Recipients) -> Result<Encryptor, Failure> {
    if let Some(path) = &args.passphrase_file {
        return Ok(Encryptor::to([Passphrase::load(path)?]));
    }
    if args.passphrase {
        let text = ask("passphrase: ")?;
        if *ask("again: ")? != *text {
            return Err(Failure::Usage("the two passphrases differ".into()));
        }
        return Ok(Encryptor::to([Passphrase::new(&text)?]));
    }
    to(&args.recipients, &args.groups)
}

/// Encrypts to recipients, and groups of files (`PATH=RECIPIENT`) to their own.
pub(crate) fn to(main: &[String], groups: &[String]) -> Result<Encryptor, Failure> {
    let mut encryptor = Encryptor::to(recipients(main)?);
    let mut by_path: Vec<(&str, Vec<Box<dyn Recipient>>)> = Vec::new();
    for group in groups {
        let Some((path, recipient)) = group.split_once('=') else {
            return Err(Failure::Usage(format!("--group {group}: it takes PATH=RECIPIENT")));
        };
        let (path, recipient) = (path.trim_end_matches('/'), load_recipient(recipient)?);
        match by_path.iter_mut().find(|(known, _)| *known == path) {
            Some((_, recipients)) => recipients.push(recipient),
            None => by_path.push((path, vec![recipient])),
        }
    }
    for (path, recipients) in by_path {
        encryptor = encryptor.group(path, recipients);
    }
    Ok(encryptor)
}

/// Recipients by their text, or by the file that holds it.
pub(crate) fn recipients(args: &[String]) -> Result<Vec<Box<dyn Recipient>>> {
    args.iter().map(|arg| load_recipient(arg)).collect()
}

/// All that the user has given to open something with.
pub(crate) fn identities(args: &Opening) -> Result<Vec<Box<dyn Identity>>> {
    let mut identities = args.identities.iter().map(load_identity).collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.passphrase_file {
        identities.push(Box::new(Passphrase::load(path)?));
    }
    if args.passphrase {
        identities.push(Box::new(Passphrase::new(&ask("passphrase: ")?)?));
    }
    Ok(identities)
}

/// Decrypts with these identities, as the user expects.
pub(crate) fn decryptor<'a>(args: &'a Opening, identities: &'a [&'a dyn Identity]) -> Decryptor<'a> {
    let mut decryptor = Decryptor::new(identities);
    if let Some(context) = &args.context {
        decryptor = decryptor.expect_context(context);
    }
    if args.partial { decryptor.accept_closed() } else { decryptor }
}

/// What the user expects of a model, and has to open it with.
pub(crate) fn options(args: &Opening) -> Result<OpenOptions> {
    let mut options = Model::options();
    for identity in identities(args)? {
        options = options.identity(identity);
    }
    if args.partial {
        options = options.accept_closed();
    }
    Ok(match &args.context {
        Some(context) => options.expect_context(context),
        None => options,
    })
}

/// A policy that takes a signature by any one of these public keys.
pub(crate) fn policy(paths: &[PathBuf]) -> Result<Option<Policy>> {
    let mut keys = paths.iter().map(VerifyingKey::load);
    let first = keys.next().transpose()?.map(Policy::require);
    first.map(|first| keys.try_fold(first, |policy, key| Ok(policy.or(key?)))).transpose()
}

/// The files of a model, decrypted as they are read if it is encrypted.
pub(crate) fn open(path: &Path, args: &Opening) -> Result<Box<dyn Tree>> {
    options(args)?.tree(path)
}

/// The signing key of a file. If it is encrypted, its passphrase is in another file, or asked for.
pub(crate) fn signing_key(path: &Path, passphrase: Option<&Path>) -> Result<SigningKey> {
    if let Some(passphrase) = passphrase {
        return SigningKey::load_encrypted(path, &file::read_passphrase(passphrase)?);
    }
    match SigningKey::load(path) {
        Err(locked @ Error::Key { cause: KeyError::Locked, .. }) => {
            let Ok(passphrase) = ask(&format!("passphrase of {}: ", shown(path))) else {
                return Err(locked); // there is nobody to ask
            };
            SigningKey::load_encrypted(path, &passphrase)
        }
        loaded => loaded,
    }
}

/// Asks on the terminal, without showing the answer.
fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    let answer = rpassword::prompt_password(prompt).map(Zeroizing::new);
    answer.map_err(|source| Error::Io { op: "read the passphrase from", name: "the terminal".into(), source })
}
