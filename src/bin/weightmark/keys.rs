//! Keys as users name them: files, texts, passphrases.

use std::path::{Path, PathBuf};

use weightmark::encryption::{Decryptor, Encryptor};
use weightmark::error::KeyError;
use weightmark::io::Tree;
use weightmark::keys::{
    Identity, Passphrase, Recipient, SigningKey, VerifyingKey, file, load_identity, load_recipient,
};
use weightmark::model::OpenOptions;
use weightmark::signing::{Authority, CertificateAuthority, Policy, Rule};
use weightmark::{Error, Model, Result};
use zeroize::Zeroizing;

use crate::cli::{Opening, Recipients, Trust};
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

/// The policy that the user has put together, if any.
pub(crate) fn policy(args: &Trust) -> Result<Option<Policy>> {
    let Some(mut policy) = signers(args)? else { return Ok(None) };
    if let Some(name) = &args.name {
        policy = policy.expect_name(name);
    }
    if let Some(version) = args.minimum_version {
        policy = policy.minimum_version(version);
    }
    if let Some(file) = &args.high_water {
        policy = policy.high_water(file);
    }
    Ok(Some(policy))
}

/// Who may sign, whatever is to be expected of one model.
pub(crate) fn signers(args: &Trust) -> Result<Option<Policy>> {
    let policy = match &args.policy {
        Some(path) => Some(Policy::load(path)?),
        None => any_of(authorities(args)?).map(Policy::from),
    };
    Ok(policy.map(|policy| args.revoked.iter().fold(policy, Policy::revoke)))
}

/// Everybody whom the user names one by one.
fn authorities(args: &Trust) -> Result<Vec<Authority>> {
    let mut authorities = load_keys(&args.keys)?;
    #[cfg(feature = "sigstore")]
    let is_keyless = args.trusted_root.is_some();
    #[cfg(not(feature = "sigstore"))]
    let is_keyless = false;
    if !args.issued_to.is_empty() && args.authorities.is_empty() && !is_keyless {
        return Err(Error::ApiMisuse("--certificate-identity needs --certificate-chain: a key has no name"));
    }
    if !args.authorities.is_empty() {
        let authority = CertificateAuthority::load_all(&args.authorities)?;
        authorities.push(args.issued_to.iter().fold(authority, CertificateAuthority::issued_to).into());
    }
    #[cfg(feature = "sigstore")]
    if let (Some(root), Some(issuer)) = (&args.trusted_root, &args.oidc_issuer) {
        for identity in &args.issued_to {
            authorities.push(weightmark::signing::Keyless::load(root, identity, issuer)?.into());
        }
    }
    Ok(authorities)
}

/// Public keys, as those whose signature counts.
pub(crate) fn load_keys(paths: &[PathBuf]) -> Result<Vec<Authority>> {
    paths.iter().map(|path| Ok(VerifyingKey::load(path)?.into())).collect()
}

/// A rule that takes a signature by any one of them.
pub(crate) fn any_of(authorities: Vec<Authority>) -> Option<Rule> {
    let mut authorities = authorities.into_iter();
    let first = authorities.next().map(Rule::signed_by)?;
    Some(authorities.fold(first, Rule::or))
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
