//! The signature file: a sigstore bundle v0.3 around a DSSE envelope.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::certificate::CertificateChain;
use super::statement::Statement;
use crate::crypto;
use crate::error::{Cause, Error, Result, VerifyError};
use crate::io::atomic::{Access, AtomicFile};
use crate::io::{FileAt, ReadAt, ReadAtExt};
use crate::json::{self, AtMost, Object};
use crate::keys::{Signer, VerifyingKey};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// About 200,000 files.
const MAX_BUNDLE: u64 = 64 << 20;
/// Most certificates of a chain.
const MAX_CERTIFICATES: usize = 8;

/// A signature as it is stored. Nothing in it is believed before a [`Policy`](super::Policy) has verified it.
#[derive(Clone, Debug)]
pub struct Bundle {
    material: Material,
    payload: Vec<u8>,
    signature: Vec<u8>,
    text: String,
}

/// By what the signature is to be verified: never more than one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Material {
    /// A key that the verifier has, named by its id or not at all.
    Key { hint: String },
    /// Certificates in DER, the signer's first.
    Chain(Vec<Vec<u8>>),
    /// A certificate of an hour, with what proves when it was used, for the library of sigstore.
    Keyless,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBundle {
    media_type: String,
    verification_material: Object<RawMaterial>,
    dsse_envelope: Object<Envelope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMaterial {
    public_key: Option<Object<KeyHint>>,
    certificate: Option<Object<RawCertificate>>,
    #[serde(rename = "x509CertificateChain")]
    certificate_chain: Option<Object<RawChain>>,
    // of certificates without long-lived keys: what reads those parses it again
    #[serde(default, rename = "tlogEntries")]
    _tlog_entries: Vec<IgnoredAny>,
    #[serde(rename = "timestampVerificationData")]
    _timestamp_verification_data: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeyHint {
    #[serde(default)]
    hint: String,
    // written by tools from before OMS 1.0, of no use: a verifier has its key
    #[serde(rename = "rawBytes")]
    _raw_bytes: Option<IgnoredAny>,
    #[serde(rename = "keyDetails")]
    _key_details: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    certificates: AtMost<Object<RawCertificate>, MAX_CERTIFICATES>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCertificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: AtMost<Object<Signature>, 1>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    #[serde(rename = "keyid")]
    _keyid: Option<String>,
}

impl Bundle {
    /// Signs a payload. What the signer returns is not believed to be a signature either.
    pub(crate) fn seal(signer: &dyn Signer, chain: Option<&CertificateChain>, payload: &[u8]) -> Result<Self> {
        let (key, message) = (signer.verifying_key(), pre_authentication_encoding(PAYLOAD_TYPE, payload));
        let signature = signer.sign(&message)?;
        if !key.verify_bytes(&message, &signature) {
            return Err(VerifyError::BadSignature.on(format!("signer of key {key}")));
        }
        let material = match chain {
            None => json!({"publicKey": {"hint": key.id()}, "tlogEntries": []}),
            Some(chain) => {
                chain.check(&key).map_err(|cause| cause.on("certificate"))?;
                let raw = chain.certificates().map(|der| json!({"rawBytes": BASE64_STANDARD.encode(der)}));
                json!({"x509CertificateChain": {"certificates": raw.collect::<Vec<_>>()}, "tlogEntries": []})
            }
        };
        let bundle = json!({
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": material,
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

    /// Parses a bundle, strictly: no unknown or duplicate field, every object an object, one kind of material, one
    /// signature over an in-toto statement, padded base64. Log entries and timestamps are not looked into here.
    pub fn parse(bytes: &[u8]) -> Result<Self, VerifyError> {
        let malformed = |problem: &str| VerifyError::MalformedBundle(problem.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|e| VerifyError::MalformedBundle(e.to_string()))?;
        let RawBundle { media_type, verification_material: Object(material), dsse_envelope: Object(envelope) } =
            json::parse(bytes).map_err(VerifyError::MalformedBundle)?;
        if media_type != MEDIA_TYPE {
            return Err(VerifyError::MalformedBundle(format!("unknown media type {media_type:?}")));
        }
        let material = match (material.public_key, material.certificate, material.certificate_chain) {
            (Some(Object(key)), None, None) => Material::Key { hint: key.hint },
            (None, Some(_), None) => Material::Keyless,
            (None, None, Some(Object(chain))) => {
                let certificates =
                    chain.certificates.0.iter().map(|Object(certificate)| decode(&certificate.raw_bytes));
                Material::Chain(certificates.collect::<Result<_, _>>()?)
            }
            (None, None, None) => return Err(malformed("no verification material")),
            _ => return Err(malformed("more than one kind of verification material")),
        };
        let [Object(signature)] = envelope.signatures.0.as_slice() else {
            return Err(malformed("not exactly one signature"));
        };
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(malformed("the payload is not an in-toto statement"));
        }
        let (payload, signature) = (decode(&envelope.payload)?, decode(&signature.sig)?);
        Ok(Self { material, payload, signature, text: text.to_owned() })
    }

    /// The id of the key that the bundle claims to be signed by, if it is signed by a key and names it.
    pub fn key_hint(&self) -> Option<&str> {
        match &self.material {
            Material::Key { hint } => Some(hint),
            _ => None,
        }
    }

    /// What the bundle claims to be, for people: who signed what. Nothing of it is verified.
    pub fn claims(&self) -> String {
        let by = match &self.material {
            Material::Key { hint } if hint.is_empty() => "by a key without a name".into(),
            Material::Key { hint } => format!("by key {hint}"),
            Material::Chain(chain) => format!("by a certificate, in a chain of {}", chain.len()),
            Material::Keyless => "by an identity without a key of its own".into(),
        };
        match Statement::parse(&self.payload) {
            Ok(Statement::Model(model)) => format!("{} files of {:?}, {by}", model.files(), model.name()),
            Ok(Statement::Release(release)) => {
                format!("release {:?} version {}, {by}", release.name(), release.version())
            }
            Err(cause) => format!("{cause}, {by}"),
        }
    }

    /// The bundle as it stands in its file.
    pub fn to_json(&self) -> &str {
        &self.text
    }

    /// Writes the bundle to a new file.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        AtomicFile::write(path, Access::Shared, self.to_json().as_bytes())
    }

    /// By what to verify it.
    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    /// Whether the signature is one by `key` over the payload.
    pub(crate) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.verify_bytes(&pre_authentication_encoding(PAYLOAD_TYPE, &self.payload), &self.signature)
            || self.is_signed_before_v1_by(key)
    }

    /// The same, for what `model_signing` 0.2 signed: another encoding by mistake, with SHA-256 whatever the curve.
    fn is_signed_before_v1_by(&self, key: &VerifyingKey) -> bool {
        let message = format!("DSSEV1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), self.payload.len());
        let message = message + &python_literal(&self.payload);
        let is_before_v1 = || Statement::is_before_v1(&self.payload);
        key.verify_digest(&crypto::sha256(&[message.as_bytes()]), &self.signature) && is_before_v1()
    }

    /// What is signed, if the signature verifies: whoever reads it has verified that.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Bytes as Python writes them in a program.
fn python_literal(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let escaped = bytes.iter().map(|byte| match byte {
        b'\t' => "\\t".into(),
        b'\n' => "\\n".into(),
        b'\r' => "\\r".into(),
        b'\\' => "\\\\".into(),
        b'\'' if quote == '\'' => "\\'".into(),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    format!("b{quote}{}{quote}", escaped.collect::<String>())
}

/// Base64 in its one form: padded, without blanks.
fn decode(text: &str) -> Result<Vec<u8>, VerifyError> {
    BASE64_STANDARD.decode(text).map_err(|e| VerifyError::MalformedBundle(e.to_string()))
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
        let hint = key.verifying_key().id();
        let text = Bundle::seal(&key, None, b"{}").unwrap().to_json().to_owned();
        let open = |text: &str| {
            let bundle = Bundle::parse(text.as_bytes())?;
            if bundle.is_signed_by(&key.verifying_key()) { Ok(()) } else { Err(BadSignature) }
        };
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            open(&text.replacen(from, to, 1)).unwrap_err()
        };
        open(&text).unwrap();
        // as written by the Go producer and by tools from before OMS 1.0
        open(&text.replace(",\"keyid\":\"\"", "").replace(",\"tlogEntries\":[]", "")).unwrap();
        open(&text.replace("\"keyid\":\"\"", "\"keyid\":null")).unwrap();
        open(&text.replace(&format!("\"hint\":\"{hint}\""), "\"rawBytes\":\"AA==\",\"keyDetails\":\"X\"")).unwrap();

        assert_eq!(
            with("\"payload\":\"e30=\"", "\"payload\":\"e31=\""),
            MalformedBundle("Invalid last symbol 49, offset 2.".into())
        );
        assert_eq!(with("\"payload\":\"e30=\"", "\"payload\":\"e3t9\""), BadSignature);
        let key_hint = |text: &str| Bundle::parse(text.as_bytes()).unwrap().key_hint().map(str::to_owned);
        assert_eq!(key_hint(&text), Some(hint.clone()));
        let material = format!("\"publicKey\":{{\"hint\":\"{hint}\"}}");
        let keyless = text.replace(&material, "\"certificate\":{\"rawBytes\":\"AA==\"}");
        assert_eq!(*Bundle::parse(keyless.as_bytes()).unwrap().material(), Material::Keyless);
        let chain = |count: usize| {
            let certificates = vec![r#"{"rawBytes":"AA=="}"#; count].join(",");
            text.replace(&material, &format!("\"x509CertificateChain\":{{\"certificates\":[{certificates}]}}"))
        };
        assert_eq!(*Bundle::parse(chain(2).as_bytes()).unwrap().material(), Material::Chain(vec![vec![0]; 2]));
        assert!(matches!(open(&chain(MAX_CERTIFICATES + 1)), Err(MalformedBundle(_))));
        for (from, to) in [
            ("v0.3", "v0.4"),
            ("\"payload\":\"e30=\"", "\"payload\":\"e30\""),
            ("\"payload\":\"e30=\"", "\"payload\":\"e 30=\""),
            ("\"payload\":\"e30=\"", "\"payload\":\"e30=\",\"payload\":\"e30=\""),
            ("in-toto", "not-toto"),
            ("\"signatures\":[", "\"signatures\":[{\"sig\":\"AA==\"},"),
            ("\"mediaType\"", "\"unknown\":1,\"mediaType\""),
            ("\"publicKey\":{", "\"publicKey\":{\"extra\":1,"),
            ("\"publicKey\"", "\"certificate\":{\"rawBytes\":\"AA==\"},\"publicKey\""),
            (&material, "\"x509CertificateChain\":{\"certificates\":[{\"rawBytes\":\"AA\"}]}"),
            (&format!("{material},"), ""),
        ] {
            assert!(matches!(with(from, to), MalformedBundle(_)), "{from} -> {to}");
        }
    }
}
