//! Keys of any kind, told by what is in their file: for programs that take whatever their user has.

use std::path::Path;
use std::str::FromStr;

use super::envelope::{Identity, Recipient};
use super::file;
use super::hpke::{X25519Identity, X25519Recipient, XWingIdentity, XWingRecipient};
use super::symmetric::SymmetricKey;
use crate::error::{Cause, KeyError, Result};

/// Reads an identity file of any kind; one that others may read is refused.
pub fn load_identity(path: impl AsRef<Path>) -> Result<Box<dyn Identity>> {
    let bytes = file::read_secret_bytes(&path)?;
    Ok(match &*prefix_of(&bytes) {
        "wmidentity-x25519" => Box::new(X25519Identity::load(path)?),
        "wmkey" | RAW => Box::new(SymmetricKey::load(path)?),
        _ => Box::new(XWingIdentity::load(path)?), // whose complaint is the right one for what is no key at all
    })
}

/// Reads a recipient of any kind: its text, or the file that holds it. A symmetric key, being secret, comes from its file
/// only. What is the text of a recipient is not looked for in a file of that name.
pub fn load_recipient(text_or_path: &str) -> Result<Box<dyn Recipient>> {
    match &*prefix_of(text_or_path.as_bytes()) {
        "wmrecipient" => Ok(Box::new(parse::<XWingRecipient>(text_or_path)?)),
        "wmrecipient-x25519" => Ok(Box::new(parse::<X25519Recipient>(text_or_path)?)),
        _ => Ok(match &*prefix_of(&file::read_public_bytes(text_or_path)?) {
            "wmrecipient-x25519" => Box::new(X25519Recipient::load(text_or_path)?),
            "wmkey" | RAW => Box::new(SymmetricKey::load(text_or_path)?),
            _ => Box::new(XWingRecipient::load(text_or_path)?),
        }),
    }
}

fn parse<R: FromStr<Err = KeyError>>(text: &str) -> Result<R> {
    text.parse().map_err(|cause: KeyError| cause.on("recipient"))
}

/// Stands for 32 bytes that are no text.
const RAW: &str = "raw";

/// The prefix of the key text in a file, empty if there is none.
fn prefix_of(bytes: &[u8]) -> String {
    let line = file::as_text(bytes).and_then(|text| file::key_line(text, "key"));
    let prefix = line.ok().and_then(|line| line.rsplit_once('1')).map_or("", |(prefix, _)| prefix);
    if bytes.len() == 32 { RAW.into() } else { prefix.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::keys::InputKey;

    #[test]
    fn each_kind_is_told_by_its_text() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        let (x_wing, x25519) = (XWingIdentity::generate().unwrap(), X25519Identity::generate().unwrap());
        x_wing.save(path("x-wing")).unwrap();
        x25519.save(path("x25519")).unwrap();
        SymmetricKey::generate().unwrap().save(path("key")).unwrap();
        file::write_secret(path("raw"), &"\u{1}".repeat(32)).unwrap();
        let pairs = [
            ("x-wing", path("x-wing.pub")),
            ("x-wing", x_wing.recipient().to_string()),
            ("x25519", path("x25519.pub")),
            ("x25519", x25519.recipient().to_string()),
            ("key", path("key")),
            ("raw", path("raw")),
        ];
        let key = InputKey::generate().unwrap();
        for (identity, recipient) in pairs {
            let stanza = load_recipient(&recipient).unwrap().wrap(&key).unwrap();
            let opened = load_identity(path(identity)).unwrap().unwrap(&stanza).unwrap().unwrap();
            assert_eq!(opened.expose(), key.expose(), "{identity}");
        }
        file::write_secret(path("none"), "no key\n").unwrap();
        assert!(matches!(load_identity(path("none")), Err(Error::Key { cause: KeyError::Malformed { .. }, .. })));
        assert!(matches!(
            load_recipient("wmrecipient1qqqq"),
            Err(Error::Key { cause: KeyError::Malformed { .. }, .. })
        ));
    }
}
