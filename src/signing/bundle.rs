//! The signature file: a sigstore bundle v0.3 around a DSSE envelope.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::error::{Cause, Error, Result, VerifyError};
use crate::io::atomic::{Access, AtomicFile};
use crate::io::{FileAt, ReadAt, ReadAtExt};
use crate::json::{self, AtMost, Object};
use crate::keys::{Signer, VerifyingKey};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// About 200,000 files.
const MAX_BUNDLE: u64 = 64 << 20;

/// A signature as it is stored. Nothing in it is believed before [`Policy`](super::Policy) has verified it.
#[derive(Clone, Debug)]
pub struct Bundle {
    raw: RawBundle,
    text: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBundle {
    media_type: String,
    verification_material: Object<Material>,
    dsse_envelope: Object<Envelope>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    public_key: Option<Object<KeyHint>>,
    certificate: Option<IgnoredAny>,
    #[serde(rename = "x509CertificateChain")]
    certificate_chain: Option<IgnoredAny>,
    // of certificates without long-lived keys, of no use to a verifier that pins its key
    #[serde(default, rename = "tlogEntries")]
    _tlog_entries: Vec<IgnoredAny>,
    #[serde(rename = "timestampVerificationData")]
    _timestamp_verification_data: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeyHint {
    #[serde(default)]
    hint: String,
    // written by tools from before OMS 1.0, of no use either
    #[serde(rename = "rawBytes")]
    _raw_bytes: Option<IgnoredAny>,
    #[serde(rename = "keyDetails")]
    _key_details: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: AtMost<Object<Signature>, 1>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    #[serde(rename = "keyid")]
    _keyid: Option<String>,
}

impl Bundle {
    /// Signs a payload. What the signer returns is not believed to be a signature either.
    pub(super) fn seal(signer: &dyn Signer, payload: &[u8]) -> Result<Self> {
        let (key, message) = (signer.verifying_key(), pre_authentication_encoding(PAYLOAD_TYPE, payload));
        let signature = signer.sign(&message)?;
        if !key.verify_bytes(&message, &signature) {
            return Err(VerifyError::BadSignature.on(format!("signer of key {key}")));
        }
        let bundle = json!({
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key.id()}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": BASE64_STANDARD.encode(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": BASE64_STANDARD.encode(signature), "keyid": ""}],
            },
        });
        Self::parse(bundle.to_string().as_bytes()).map_err(|cause| cause.on("signature"))
    }

    /// Reads a signature file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match FileAt::open(path) {
            Err(Error::Io { source, name, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(VerifyError::NoSignature { path: name.clone() }.on(name))
            }
            source => Self::read_from(&source?),
        }
    }

    /// Reads a signature from any source.
    pub fn read_from(source: &dyn ReadAt) -> Result<Self> {
        Self::parse(&source.read_all(MAX_BUNDLE)?).map_err(|cause| cause.on(source.name()))
    }

    /// Parses a bundle, strictly: no unknown or duplicate field, every object an object. Certificates, log entries and
    /// timestamps, which this version refuses or does not use, are not looked into.
    pub fn parse(bytes: &[u8]) -> Result<Self, VerifyError> {
        let raw = json::parse(bytes).map_err(VerifyError::MalformedBundle)?;
        let text = std::str::from_utf8(bytes).map_err(|e| VerifyError::MalformedBundle(e.to_string()))?;
        Ok(Self { raw, text: text.to_owned() })
    }

    /// The id of the key that the bundle claims to be signed by, if it names one.
    pub fn key_hint(&self) -> Option<&str> {
        self.raw.verification_material.0.public_key.as_ref().map(|Object(key)| key.hint.as_str())
    }

    /// The bundle as it stands in its file.
    pub fn to_json(&self) -> &str {
        &self.text
    }

    /// Writes the bundle to a new file.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        AtomicFile::write(path, Access::Shared, self.to_json().as_bytes())
    }

    /// The payload, if the bundle is signed by one of `keys`; and that key.
    pub(super) fn open<'a>(&self, keys: &'a [VerifyingKey]) -> Result<(&'a VerifyingKey, Vec<u8>), VerifyError> {
        let malformed = |problem: &str| VerifyError::MalformedBundle(problem.to_owned());
        let RawBundle { media_type, verification_material: Object(material), dsse_envelope: Object(envelope) } =
            &self.raw;
        if media_type != MEDIA_TYPE {
            return Err(VerifyError::MalformedBundle(format!("unknown media type {media_type:?}")));
        }
        if material.certificate.is_some() || material.certificate_chain.is_some() {
            return Err(VerifyError::Unsupported("a certificate where a key is required".into()));
        }
        let Some(Object(public_key)) = &material.public_key else {
            return Err(malformed("no verification material"));
        };
        let [Object(signature)] = envelope.signatures.0.as_slice() else {
            return Err(malformed("not exactly one signature"));
        };
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(malformed("the payload is not an in-toto statement"));
        }
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|e| VerifyError::MalformedBundle(e.to_string()));
        let (payload, signature) = (decode(&envelope.payload)?, decode(&signature.sig)?);
        let message = pre_authentication_encoding(&envelope.payload_type, &payload);
        let hinted: Vec<_> =
            keys.iter().filter(|key| public_key.hint.is_empty() || public_key.hint == key.id()).collect();
        if hinted.is_empty() {
            return Err(VerifyError::UntrustedKey { found: public_key.hint.chars().take(64).collect() });
        }
        let signer = hinted.into_iter().find(|key| key.verify_bytes(&message, &signature));
        signer.map(|key| (key, payload)).ok_or(VerifyError::BadSignature)
    }
}

/// DSSE v1 PAE: what is signed, with type and length in front, so that it can be taken for nothing else.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Algorithm, SigningKey};

    #[test]
    fn pae_matches_the_dsse_specification() {
        let pae = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(pae, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn malformed_bundles_are_refused_each_for_its_cause() {
        use VerifyError::*;
        let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
        let keys = [key.verifying_key()];
        let text = Bundle::seal(&key, b"{}").unwrap().to_json().to_owned();
        let open = |text: &str| Bundle::parse(text.as_bytes()).and_then(|bundle| bundle.open(&keys).map(|_| ()));
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            open(&text.replacen(from, to, 1)).unwrap_err()
        };
        open(&text).unwrap();
        // as written by the Go producer and by tools from before OMS 1.0
        open(&text.replace(",\"keyid\":\"\"", "").replace(",\"tlogEntries\":[]", "")).unwrap();
        open(&text.replace("\"keyid\":\"\"", "\"keyid\":null")).unwrap();
        open(&text.replace(&format!("\"hint\":\"{}\"", keys[0].id()), "\"rawBytes\":\"AA==\",\"keyDetails\":\"X\""))
            .unwrap();

        assert_eq!(
            with("\"payload\":\"e30=\"", "\"payload\":\"e31=\""),
            MalformedBundle("Invalid last symbol 49, offset 2.".into())
        );
        assert_eq!(with("\"payload\":\"e30=\"", "\"payload\":\"e3t9\""), BadSignature);
        assert!(matches!(with("\"hint\":\"", "\"hint\":\"0"), UntrustedKey { .. }));
        assert!(matches!(with("\"publicKey\"", "\"certificate\":{},\"publicKey\""), Unsupported(_)));
        for (from, to) in [
            ("v0.3", "v0.4"),
            ("\"payload\":\"e30=\"", "\"payload\":\"e30\""),
            ("\"payload\":\"e30=\"", "\"payload\":\"e 30=\""),
            ("\"payload\":\"e30=\"", "\"payload\":\"e30=\",\"payload\":\"e30=\""),
            ("in-toto", "not-toto"),
            ("\"signatures\":[", "\"signatures\":[{\"sig\":\"AA==\"},"),
            ("\"mediaType\"", "\"unknown\":1,\"mediaType\""),
            ("\"publicKey\":{", "\"publicKey\":{\"extra\":1,"),
        ] {
            assert!(matches!(with(from, to), MalformedBundle(_)), "{from} -> {to}");
        }
    }
}
