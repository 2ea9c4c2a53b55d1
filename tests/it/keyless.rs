//! Trusted roots of keyless signatures, as files that are read from disk.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use weightmark::error::{Error, VerifyError};
use weightmark::signing::Keyless;

use super::support::weightmark;

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/signing/keyless").join(name)
}

fn new(json: &str) -> Result<Keyless, VerifyError> {
    Keyless::new(json.as_bytes(), "a@example.com", "https://issuer.example.com")
}

#[test]
fn a_trusted_root_is_read_alone_or_in_a_client_configuration() {
    let keyless = Keyless::load(vector("trusted_root.json"), "a@example.com", "https://issuer.example.com").unwrap();
    assert_eq!((keyless.identity(), keyless.issuer()), ("a@example.com", "https://issuer.example.com"));

    let root = fs::read_to_string(vector("trusted_root.json")).unwrap();
    let media_type = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json";
    new(&format!(r#"{{"mediaType":"{media_type}","trustedRoot":{root},"signingConfig":{{}}}}"#)).unwrap();
}

#[test]
fn what_is_no_trusted_root_is_refused_each_for_its_cause() {
    let root = fs::read_to_string(vector("trusted_root.json")).unwrap();
    let without = |list: &str| root.replacen(&format!("\"{list}\""), "\"unknown\"", 1);
    let nothing = "no certificate authority, transparency log or certificate log";
    for (json, expected) in [
        (String::new(), "EOF while parsing a value"),
        ("[]".into(), "expected an object"),
        ("{}".into(), "unknown media type"),
        (root.replacen("trustedroot+json;version=0.1", "trustedroot+json;version=9", 1), "unknown media type"),
        (root.replacen('{', "{\"tlogs\":[],", 1), "duplicate key \"tlogs\""),
        (without("tlogs"), nothing),
        (without("certificateAuthorities"), nothing),
        (without("ctlogs"), nothing),
        (root.replacen("\"rawBytes\": \"M", "\"rawBytes\": \"N", 1), ""),
        (format!("{root}{}", " ".repeat(4 << 20)), "too large"),
    ] {
        assert_ne!(json, root, "{expected}");
        match new(&json) {
            Err(VerifyError::Sigstore(reason)) => {
                assert!(reason.starts_with("trusted root: ") && reason.contains(expected), "{expected}: {reason}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    let required = |identity: &str, issuer: &str| Keyless::new(root.as_bytes(), identity, issuer).err();
    let nobody = Some(VerifyError::Sigstore("no identity or no issuer to require".into()));
    assert_eq!(required("", "https://issuer.example.com"), nobody);
    assert_eq!(required("a@example.com", ""), nobody);
}

#[test]
fn a_trusted_root_that_cannot_be_read_is_named() {
    let load = |path: &Path| Keyless::load(path, "a@example.com", "https://issuer.example.com").unwrap_err();
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("root.json");
    assert!(matches!(load(&missing), Error::Io { op: "open", .. }));
    fs::write(&missing, "{}").unwrap();
    match load(&missing) {
        Error::Verify { name, cause: VerifyError::Sigstore(_) } => assert_eq!(Path::new(&name), missing),
        other => panic!("{other:?}"),
    }
    let large = fs::File::create(&missing).unwrap();
    large.set_len((4 << 20) + 1).unwrap();
    assert!(matches!(load(&missing), Error::Io { op: "read", .. }));
}

/// Real signatures of the reference tool, from its versions 0.3.1, 1.0.0 and 1.1.0, of one model.
#[test]
fn the_command_line_verifies_real_ones_offline() {
    let (model, root) = (vector("model"), vector("trusted_root.json"));
    let verify = |signature: &str, identity: &str, issuer: &str| {
        let signature = vector(signature);
        let trust = ["--certificate-identity", identity, "--certificate-oidc-issuer", issuer, "--trusted-root"];
        let line = ["--json", "verify"].map(OsStr::new).into_iter().chain([model.as_os_str()]);
        let line = line.chain(trust.map(OsStr::new)).chain([root.as_os_str(), OsStr::new("--signature")]);
        weightmark(line.chain([signature.as_os_str(), OsStr::new("--ignore-paths"), OsStr::new("ignore-me")]))
    };
    let (identity, issuer) = ("stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2");
    for signature in ["v0.3.1.sig", "v1.0.0.sig", "v1.1.0.sig"] {
        let verified = verify(signature, identity, issuer).json();
        assert_eq!((&verified["signer"]["kind"], &verified["files"]), (&"keyless".into(), &2.into()), "{signature}");
        assert_eq!(verified["signer"]["identity"], identity);
        assert!(verified["signer"]["time"]["at"].as_str().unwrap().starts_with("2025-"), "{verified}");
        for (identity, issuer) in [("stefanb@us.ibm.co", issuer), (identity, "https://sigstore.verify.ibm.com/oauth3")]
        {
            let refused = verify(signature, identity, issuer);
            assert!(refused.stdout.contains("\"code\":\"sigstore\""), "{}", refused.stdout);
            refused.fails(1, &["keyless signature"]);
        }
    }
}
