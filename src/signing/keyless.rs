//! Keyless signatures: a certificate of minutes that Fulcio issued to an identity, and a log or a timestamp that says
//! when it was used. Verified offline, against a trusted root that the caller has.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, Sha256Hash};
use sigstore_verify::{Error as Refusal, VerificationPolicy, Verifier};

use crate::error::{Cause, Result, VerifyError};
use crate::io::{FileAt, ReadAt, ReadAtExt};
use crate::json::{self, AtMost, Object, Strict, UniqueMap};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The public instance's is 7 KiB.
const MAX_TRUSTED_ROOT: u64 = 4 << 20;
/// All of a bundle but its payload. Real ones have 7 KiB.
const MAX_MATERIAL: usize = 1 << 20;
const MAX_ENTRIES: usize = 8;

/// The identity that must have signed, and the trusted root that says which authorities and logs to believe.
///
/// Nothing is fetched: a trusted root is as fresh as the file it was loaded from.
///
/// ```no_run
/// use weightmark::signing::Keyless;
///
/// let signer = Keyless::load("trusted_root.json", "release@example.com", "https://accounts.google.com")?;
/// assert_eq!(signer.identity(), "release@example.com");
/// # Ok::<(), weightmark::Error>(())
/// ```
#[derive(Clone)]
pub struct Keyless {
    identity: String,
    issuer: String,
    verifier: Arc<Verifier>,
}

/// Who signed, and when.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeylessSigner {
    /// The mail address or URI in the certificate.
    pub identity: String,
    /// The URL of the OpenID Connect provider that vouched for the identity.
    pub issuer: String,
    /// The earliest time that is proved for the signature; inside of the certificate's validity, as are all others.
    pub signed_at: SystemTime,
    /// What proves that time: `transparency log` or `timestamp` (RFC 3161).
    pub time_basis: &'static str,
}

impl Keyless {
    /// Requires a signature by `identity`, as `issuer` knew it; both are compared whole. The JSON is a sigstore
    /// `trusted_root.json`, or a client trust configuration that holds one; what it says is believed.
    ///
    /// [`VerifyError::Sigstore`] if it is malformed, or names no authority or no log to believe.
    pub fn new(
        trusted_root_json: &[u8],
        identity: impl Into<String>,
        issuer: impl Into<String>,
    ) -> Result<Self, VerifyError> {
        let (identity, issuer) = (identity.into(), issuer.into());
        if identity.is_empty() || issuer.is_empty() {
            return Err(VerifyError::Sigstore("no identity or no issuer to require".into()));
        }
        let malformed = |problem: String| VerifyError::Sigstore(format!("trusted root: {problem}"));
        if trusted_root_json.len() as u64 > MAX_TRUSTED_ROOT {
            return Err(malformed("too large".into()));
        }
        let Strict(mut json) = json::parse(trusted_root_json).map_err(malformed)?;
        if let Some(root) = json.get_mut("trustedRoot") {
            json = root.take();
        }
        if !json.get("mediaType").and_then(Value::as_str).is_some_and(is_trusted_root) {
            return Err(malformed("unknown media type".into()));
        }
        let root: TrustedRoot = serde_json::from_value(json).map_err(|e| malformed(e.to_string()))?;
        if root.certificate_authorities.is_empty() || root.tlogs.is_empty() || root.ctlogs.is_empty() {
            return Err(malformed("no certificate authority, transparency log or certificate log".into()));
        }
        let verifier = Verifier::new(&root).map_err(|e| malformed(reason(&e)))?;
        Ok(Self { identity, issuer, verifier: Arc::new(verifier) })
    }

    /// As [`new`](Self::new), from a file of at most 4 MiB.
    pub fn load(path: impl AsRef<Path>, identity: impl Into<String>, issuer: impl Into<String>) -> Result<Self> {
        let file = FileAt::open(path)?;
        Self::new(&file.read_all(MAX_TRUSTED_ROOT)?, identity, issuer).map_err(|cause| cause.on(file.name()))
    }

    /// The identity required.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The issuer required.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Verifies a bundle whose statement is about `root_digest`.
    ///
    /// The library that does it reads the statement into a tree before it has verified the signature: callers read it
    /// with their own, strict and frugal, parser first.
    pub(super) fn verify(&self, bundle_json: &str, root_digest: &[u8; 32]) -> Result<KeylessSigner, VerifyError> {
        let bundle: RawBundle = json::parse(bundle_json.as_bytes()).map_err(VerifyError::Sigstore)?;
        bundle.check(bundle_json.len()).map_err(|problem| VerifyError::Sigstore(problem.into()))?;
        self.check(bundle_json, root_digest)
    }

    /// What the library verifies, for bundles of any version and content.
    fn check(&self, bundle_json: &str, digest: &[u8; 32]) -> Result<KeylessSigner, VerifyError> {
        let refuse = |e: Refusal| VerifyError::Sigstore(reason(&e));
        let bundle = Bundle::from_json(bundle_json).map_err(|e| refuse(e.into()))?;
        let policy = VerificationPolicy::new(self.identity.as_str(), self.issuer.as_str());
        let verified = self.verifier.verify(Sha256Hash::new(*digest), &bundle, &policy).map_err(refuse)?;
        // the library says what it looked at: nothing of it is optional here
        let whole = verified.certificate_verified()
            && verified.sct_verified()
            && verified.tlog_verified()
            && verified.identity_policy_checked();
        let (true, Some(earliest)) = (whole, verified.verified_timestamps().iter().min()) else {
            return Err(VerifyError::Sigstore("not everything was verified".into()));
        };
        let logged = verified.integrated_time().as_ref() == Some(earliest);
        Ok(KeylessSigner {
            identity: self.identity.clone(),
            issuer: self.issuer.clone(),
            signed_at: SystemTime::from(*earliest),
            time_basis: if logged { "transparency log" } else { "timestamp" },
        })
    }
}

impl fmt::Debug for Keyless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyless")
            .field("identity", &self.identity)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

fn is_trusted_root(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
            | "application/vnd.dev.sigstore.trustedroot.v0.1+json"
            | "application/vnd.dev.sigstore.trustedroot.v0.2+json"
    )
}

/// The library's reason, less the name of the part of it that found it.
fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Types(e) => e.to_string(),
        Refusal::Crypto(e) => e.to_string(),
        Refusal::Bundle(e) => e.to_string(),
        Refusal::TrustRoot(e) => e.to_string(),
        e => e.to_string(),
    }
}

/// What a keyless bundle of OMS must be besides: the library overlooks unknown fields next to a certificate, or a second
/// certificate, takes messages for signed as well as statements, and is content if one of the entries has a proof.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBundle {
    media_type: String,
    verification_material: Object<Material>,
    dsse_envelope: Object<Envelope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    #[serde(rename = "certificate")]
    _certificate: UniqueMap<IgnoredAny>,
    tlog_entries: AtMost<Object<Entry>, MAX_ENTRIES>,
    #[serde(rename = "timestampVerificationData")]
    _timestamp_verification_data: Option<Object<Timestamps>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "inclusionProof")]
    _inclusion_proof: UniqueMap<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timestamps {
    #[serde(rename = "rfc3161Timestamps")]
    _rfc3161_timestamps: Option<AtMost<UniqueMap<IgnoredAny>, MAX_ENTRIES>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    _payload_type: IgnoredAny,
    #[serde(rename = "signatures")]
    _signatures: AtMost<UniqueMap<IgnoredAny>, 1>,
}

impl RawBundle {
    fn check(&self, length: usize) -> Result<(), &'static str> {
        if self.media_type != MEDIA_TYPE {
            return Err("not a bundle of version 0.3");
        }
        if self.verification_material.0.tlog_entries.0.is_empty() {
            return Err("no transparency log entry");
        }
        if length.saturating_sub(self.dsse_envelope.0.payload.len()) > MAX_MATERIAL {
            return Err("the verification material is too large");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use base64::prelude::{BASE64_STANDARD, Engine};
    use serde_json::json;

    use super::*;

    const RELEASER: [&str; 2] = ["stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2"];
    const BEACON: [&str; 2] = [
        "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/\
         extremely-dangerous-oidc-beacon.yml@refs/heads/main",
        "https://token.actions.githubusercontent.com",
    ];

    fn vectors() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/signing/keyless")
    }

    fn keyless(root: &str, [identity, issuer]: [&str; 2]) -> Keyless {
        Keyless::load(vectors().join(root), identity, issuer).unwrap()
    }

    /// A bundle, and the digest of its first subject.
    fn bundle(name: &str) -> (Value, [u8; 32]) {
        let bundle: Value = serde_json::from_slice(&std::fs::read(vectors().join(name)).unwrap()).unwrap();
        let digest = subject(&bundle).unwrap();
        (bundle, digest)
    }

    fn subject(bundle: &Value) -> Option<[u8; 32]> {
        let payload = BASE64_STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str()?).ok()?;
        let statement: Value = serde_json::from_slice(&payload).ok()?;
        let hex = statement["subject"][0]["digest"]["sha256"].as_str()?;
        Some(*Sha256Hash::from_hex(hex).ok()?.as_bytes())
    }

    #[test]
    fn real_signatures_verify_with_identity_issuer_and_time() {
        for (root, who, name, signed_at, time_basis) in [
            ("trusted_root.json", RELEASER, "v0.3.1.sig", 1_746_234_602, "transparency log"),
            ("trusted_root.json", RELEASER, "v1.0.0.sig", 1_746_236_086, "transparency log"),
            ("trusted_root.json", RELEASER, "v1.1.0.sig", 1_760_062_340, "transparency log"),
            ("rekor2_root.json", BEACON, "rekor2.sig", 1_778_700_213, "timestamp"),
        ] {
            let (bundle, digest) = bundle(name);
            let found = keyless(root, who).verify(&bundle.to_string(), &digest).unwrap();
            let expected = KeylessSigner {
                identity: who[0].into(),
                issuer: who[1].into(),
                signed_at: SystemTime::UNIX_EPOCH + Duration::from_secs(signed_at),
                time_basis,
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_signed_so_is_refused_each_for_its_cause() {
        let (good, digest) = bundle("v1.1.0.sig");
        let (other, _) = bundle("v1.0.0.sig");
        let signer = keyless("trusted_root.json", RELEASER);
        let refused = |signer: &Keyless, text: &str, digest: &[u8; 32]| match signer.verify(text, digest) {
            Err(VerifyError::Sigstore(reason)) => reason,
            other => panic!("{other:?}"),
        };
        let text = good.to_string();
        for (signer, expected) in [
            (keyless("rekor2_root.json", RELEASER), "invalid RFC 3161 timestamp: "),
            (
                keyless("trusted_root.json", ["stefanb@us.ibm.co", RELEASER[1]]),
                "identity mismatch: expected stefanb@us.ibm.co, ",
            ),
            (keyless("trusted_root.json", [".*", RELEASER[1]]), "identity mismatch: expected .*, "),
            (keyless("trusted_root.json", [RELEASER[0], BEACON[1]]), "issuer mismatch: expected https://token."),
        ] {
            let reason = refused(&signer, &text, &digest);
            assert!(reason.starts_with(expected), "{expected}: {reason}");
        }
        let reason = refused(&signer, &text, &[0; 32]);
        assert!(reason.starts_with("artifact mismatch: "), "{reason}");

        let (entries, stamps) =
            ("/verificationMaterial/tlogEntries", "/verificationMaterial/timestampVerificationData");
        let entry = &|field: &str| format!("{entries}/0/{field}");
        // of another envelope, and without the time that would say so
        let mut foreign = other.pointer(entries).unwrap()[0].clone();
        foreign.as_object_mut().unwrap().remove("inclusionPromise");
        let again = json!([good.pointer(entries).unwrap()[0], foreign]);
        let nine = Value::from(vec![good.pointer(entries).unwrap()[0].clone(); MAX_ENTRIES + 1]);
        let signature = &good["dsseEnvelope"]["signatures"][0];
        for (at, value, expected) in [
            (entries.into(), json!([]), "no transparency log entry"),
            (entries.into(), other.pointer(entries).unwrap().clone(), "certificate chain is invalid: "),
            (entries.into(), json!([foreign]), "log entry does not match the bundle: "),
            (entries.into(), again, "log entry does not match the bundle: "),
            (entries.into(), nine, "invalid length 9, expected a list of at most 8"),
            (entry("inclusionProof"), Value::Null, "invalid type: null, expected an object"),
            (
                entry("inclusionProof/rootHash"),
                json!(BASE64_STANDARD.encode([0; 32])),
                "inclusion proof root hash does not",
            ),
            (entry("inclusionProof/logIndex"), json!("476246823"), "invalid inclusion proof: "),
            (entry("inclusionPromise"), Value::Null, ""),
            (entry("integratedTime"), json!("1760062341"), "invalid inclusion promise: "),
            (entry("canonicalizedBody"), json!("e30="), "invalid inclusion promise: "),
            (stamps.into(), Value::Null, ""),
            (
                stamps.into(),
                json!({"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]}),
                "invalid RFC 3161 timestamp: ",
            ),
            ("/dsseEnvelope/payload".into(), other["dsseEnvelope"]["payload"].clone(), "invalid signature: "),
            ("/dsseEnvelope/payloadType".into(), json!("text/plain"), "unsupported bundle: "),
            ("/dsseEnvelope/signatures".into(), json!([]), "DSSE envelope must contain exactly one signature, found 0"),
            (
                "/dsseEnvelope/signatures".into(),
                json!([signature, signature]),
                "invalid length 2, expected a list of at most 1",
            ),
            (
                "/dsseEnvelope/signatures/0/sig".into(),
                other["dsseEnvelope"]["signatures"][0]["sig"].clone(),
                "invalid RFC 3161",
            ),
            (
                "/verificationMaterial/certificate".into(),
                other["verificationMaterial"]["certificate"].clone(),
                "certificate ",
            ),
            (
                "/mediaType".into(),
                json!("application/vnd.dev.sigstore.bundle+json;version=0.2"),
                "not a bundle of version 0.3",
            ),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(&at).unwrap() = value;
            match expected {
                // what the remaining evidence proves, it proves
                "" => drop(signer.verify(&bad.to_string(), &digest).unwrap()),
                _ => {
                    let reason = refused(&signer, &bad.to_string(), &digest);
                    assert!(reason.contains(expected), "{at}: {reason}");
                }
            }
        }
        // without either there is no time at all
        let mut bad = good.clone();
        *bad.pointer_mut(stamps).unwrap() = Value::Null;
        *bad.pointer_mut(&entry("inclusionPromise")).unwrap() = Value::Null;
        let reason = refused(&signer, &bad.to_string(), &digest);
        assert!(reason.starts_with("no verified timestamp: "), "{reason}");

        // what the library alone overlooks
        for (before, member, expected) in [
            (",\"timestampVerificationData\":", "\"certificate\":{}", "duplicate field `certificate`"),
            (",\"timestampVerificationData\":", "\"publicKey\":{}", "unknown field `publicKey`"),
            (",\"timestampVerificationData\":", "\"x509CertificateChain\":{}", "unknown field `x509CertificateChain`"),
            (",\"mediaType\":", "\"messageSignature\":{}", "unknown field `messageSignature`"),
        ] {
            let bad = text.replacen(before, &format!(",{member}{before}"), 1);
            assert_eq!(signer.check(&bad, &digest), signer.check(&text, &digest), "{member}");
            let reason = refused(&signer, &bad, &digest);
            assert!(bad != text && reason.starts_with(expected), "{reason}");
        }
        let mut bad = good.clone();
        foreign = good.pointer(entries).unwrap()[0].clone();
        foreign.as_object_mut().unwrap().retain(|field, _| !field.starts_with("inclusion"));
        bad.pointer_mut(entries).unwrap().as_array_mut().unwrap().push(foreign);
        assert_eq!(signer.check(&bad.to_string(), &digest), signer.check(&text, &digest));
        assert!(refused(&signer, &bad.to_string(), &digest).starts_with("missing field `inclusionProof`"));

        let large = text.replacen("{\"certificate\":", &format!("{}{{\"certificate\":", " ".repeat(MAX_MATERIAL)), 1);
        assert_eq!(refused(&signer, &large, &digest), "the verification material is too large");
    }

    /// Every case of a checkout of github.com/sigstore/sigstore-conformance: see `tests/conformance/sigstore`.
    #[test]
    #[ignore = "needs SIGSTORE_CONFORMANCE, the path of a checkout of the suite"]
    fn the_cases_of_sigstore_conformance() {
        let suite = PathBuf::from(std::env::var_os("SIGSTORE_CONFORMANCE").expect("SIGSTORE_CONFORMANCE is not set"));
        let cases = suite.join("test/assets/bundle-verify");
        let (mut passed, mut keyed, mut shaped, mut failed) = (0, 0, 0, Vec::new());
        let mut names: Vec<_> = std::fs::read_dir(&cases).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.is_dir());
        names.sort();
        for case in &names {
            let name = case.file_name().unwrap().to_str().unwrap();
            let read = |file: &str| std::fs::read_to_string(case.join(file)).ok();
            let text = read("bundle.sigstore.json").unwrap();
            let artifact =
                std::fs::read(case.join("artifact")).or_else(|_| std::fs::read(cases.join("a.txt"))).unwrap();
            let digest = crate::crypto::sha256(&[&artifact]);
            let identity = read("identity").unwrap_or(BEACON[0].into());
            let issuer = read("issuer").unwrap_or(BEACON[1].into());
            let root = match read("trusted_root.json") {
                Some(root) => Keyless::new(root.as_bytes(), identity.trim(), issuer.trim()),
                None => Ok(keyless("trusted_root.json", [identity.trim(), issuer.trim()])),
            };
            let found = root.as_ref().map_err(Clone::clone).and_then(|root| root.check(&text, &digest));
            let strict = root.as_ref().map_err(Clone::clone).and_then(|root| root.verify(&text, &digest));
            let expected = !name.ends_with("_fail");
            println!("{name}: {found:?}; {strict:?}");
            assert!(strict.is_err() || found.is_ok(), "{name}: the stricter of the two is laxer");
            shaped += usize::from(strict.is_ok());
            match found.is_ok() == expected {
                true => passed += 1,
                false if read("key.pub").is_some() => keyed += 1,
                false => failed.push(name.to_owned()),
            }
        }
        println!(
            "{} cases: {passed} passed, {keyed} of managed keys, {shaped} accepted as bundles of OMS",
            names.len()
        );
        assert_eq!(failed, Vec::<String>::new());
        assert!(passed > 0);
    }
}
