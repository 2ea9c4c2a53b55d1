//! Signatures by certificate: chains that hold, and chains that do not.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use weightmark::Error;
use weightmark::error::{CertificateError, KeyError, VerifyError};
use weightmark::keys::{Algorithm, SigningKey};
use weightmark::signing::{
    Bundle, CertificateAuthority, CertificateChain, Manifest, Policy, Rule, Signatory, Signatures,
    sign_with_certificate,
};

use super::support::{Home, python, script, weightmark};

struct Case(Value);

impl Case {
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap()
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_pem(self.text("key")).unwrap()
    }

    fn authority(&self) -> CertificateAuthority {
        let names = self.0["names"].as_array().unwrap().iter();
        let authority = CertificateAuthority::from_pem(self.text("anchors")).unwrap();
        names.fold(authority, |authority, name| authority.issued_to(name.as_str().unwrap()))
    }

    /// The bundle that this signer makes, with the chain as it is.
    fn bundle(&self, manifest: &Manifest, chain: &Value) -> Result<Bundle, VerifyError> {
        let mut bundle: Value = serde_json::from_str(self.key().sign(manifest).unwrap().to_json()).unwrap();
        let chain: Vec<Value> = chain.as_array().unwrap().iter().map(|der| json!({"rawBytes": der})).collect();
        bundle["verificationMaterial"] = json!({"x509CertificateChain": {"certificates": chain}, "tlogEntries": []});
        Bundle::parse(bundle.to_string().as_bytes())
    }
}

fn cases() -> Vec<Case> {
    let printed = python([script("certificates.py")]).json();
    printed.as_array().unwrap().iter().cloned().map(Case).collect()
}

/// A certificate from base64, as files hold it.
fn pem(der: &Value) -> String {
    let text = der.as_str().unwrap();
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn verify(home: &Home, policy: &Policy, bundle: Bundle) -> Result<Vec<Signatory>, VerifyError> {
    let tree = weightmark::io::tree::open(home.path("model")).unwrap();
    match policy.verify_tree(&*tree, &Signatures::new().and(None, bundle), &()) {
        Ok(verified) => Ok(verified.signatories().to_vec()),
        Err(Error::Verify { cause, .. }) => Err(cause),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn chains_hold_or_are_refused_each_for_its_cause() {
    let home = Home::new();
    home.model("model", 5_000);
    let manifest = Manifest::of(home.path("model")).unwrap();
    let cases = cases();
    assert!(cases.len() > 50);
    let mut wrong = Vec::new();
    for case in &cases {
        let policy = Policy::require(case.authority());
        let bundle = case.bundle(&manifest, &case.0["chain"]).unwrap();
        let found = match verify(&home, &policy, bundle) {
            Ok(signatories) => {
                let [Signatory::Certificate(certified)] = signatories.as_slice() else { panic!("{signatories:?}") };
                assert_eq!(*certified.key(), case.key().verifying_key());
                "ok"
            }
            Err(cause) => cause.word(),
        };
        if found != case.text("expected") {
            wrong.push(format!("{}: {found}, not {}", case.text("name"), case.text("expected")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_changed_certificate_is_never_another_ones() {
    let home = Home::new();
    home.model("model", 5_000);
    let manifest = Manifest::of(home.path("model")).unwrap();
    let case = &cases()[0];
    let policy = Policy::require(case.authority());
    let leaf = BASE64_STANDARD.decode(case.0["chain"][0].as_str().unwrap()).unwrap();
    for at in 0..leaf.len() {
        let mut changed = leaf.clone();
        changed[at] ^= 1;
        let chain = json!([BASE64_STANDARD.encode(changed), case.0["chain"][1]]);
        assert!(verify(&home, &policy, case.bundle(&manifest, &chain).unwrap()).is_err(), "byte {at}");
    }
    // another key than that of the certificate, and nine certificates
    let other = &cases()[1];
    let foreign = other.bundle(&manifest, &case.0["chain"]).unwrap();
    assert_eq!(verify(&home, &policy, foreign), Err(VerifyError::BadSignature));
    let nine = json!(vec![&case.0["chain"][0]; 9]);
    assert!(matches!(case.bundle(&manifest, &nine), Err(VerifyError::MalformedBundle(_))));
    for text in ["", "-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(CertificateAuthority::from_pem(text), Err(KeyError::Malformed { .. })), "{text:?}");
    }
}

#[test]
fn a_key_of_the_path_can_be_revoked_and_a_certificate_is_no_key() {
    let home = Home::new();
    home.model("model", 5_000);
    let manifest = Manifest::of(home.path("model")).unwrap();
    let case = &cases()[0];
    let bundle = || case.bundle(&manifest, &case.0["chain"]).unwrap();
    let policy = || Policy::require(case.authority());
    let signatories = verify(&home, &policy(), bundle()).unwrap();
    let [Signatory::Certificate(certified)] = signatories.as_slice() else { panic!("{signatories:?}") };
    assert_eq!(certified.names(), ["release@acme.example", "acme.example"]);
    assert_eq!((certified.key_ids().len(), certified.issuer()), (3, "CN=Middle"));
    for key in certified.key_ids() {
        let refused = verify(&home, &policy().revoke(key), bundle());
        assert_eq!(refused, Err(VerifyError::Revoked { key: key.clone() }));
    }
    // another rule knows the signer by a path on which nothing is revoked: that does not help under this one
    let cases = cases();
    let middle = cases.iter().find(|case| case.text("name") == "the middle as anchor").unwrap();
    let anchor = Rule::signed_by(middle.authority()).models(["other"]);
    let root = certified.key_ids().last().unwrap();
    let policy_of_two = Policy::from(anchor).and(Rule::signed_by(case.authority()));
    verify(&home, &policy_of_two, bundle()).unwrap();
    let refused = verify(&home, &policy_of_two.revoke(root), bundle());
    assert_eq!(refused, Err(VerifyError::Revoked { key: root.clone() }));
    let key = case.key().verifying_key();
    let refused = verify(&home, &Policy::require(key.clone()), bundle());
    assert_eq!(refused, Err(VerifyError::WrongMaterial { found: "a certificate" }));
    let plain = case.key().sign(&manifest).unwrap();
    assert_eq!(verify(&home, &policy(), plain.clone()), Err(VerifyError::WrongMaterial { found: "a key" }));
    verify(&home, &policy().or(key), plain).unwrap();
    // judged by another time than now
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 86_400);
    let refused = verify(&home, &policy().at(later), bundle());
    assert!(matches!(refused, Err(VerifyError::Certificate(CertificateError::Expired { .. }))), "{refused:?}");
}

#[test]
fn the_chain_of_a_signature_leads_up_from_the_signer_and_leaves_out_authorities() {
    let home = Home::new();
    home.model("model", 5_000);
    let manifest = Manifest::of(home.path("model")).unwrap();
    let cases = cases();
    let named = |name: &str| cases.iter().find(|case| case.text("name") == name).unwrap();
    for (name, length) in [("three", 2), ("the anchor too", 2), ("unordered, and one too many", 2), ("pinned", 1)] {
        let case = named(name);
        let chain = case.0["chain"].as_array().unwrap();
        home.write("leaf.pem", pem(&chain[0]));
        home.write("others.pem", chain.iter().map(pem).collect::<String>());
        let chain = CertificateChain::load(home.path("leaf.pem"), &[home.path("others.pem")]).unwrap();
        let bundle = sign_with_certificate(&manifest, &case.key(), &chain).unwrap();
        assert_eq!(bundle.to_json().matches("rawBytes").count(), length, "{name}");
        verify(&home, &Policy::require(case.authority()), bundle).unwrap();
        let stranger = named("two").key();
        assert!(matches!(sign_with_certificate(&manifest, &stranger, &chain), Err(Error::Key { .. })));
    }
}

#[test]
fn both_ways_with_the_reference_tool() {
    let home = Home::new();
    home.model("model", 5_000);
    let case = &cases()[0];
    super::support::secret(&home, "key.pem", case.text("key"));
    let (model, key) = (home.at("model"), home.at("key.pem"));
    let (leaf, middle) =
        (home.write("leaf.pem", pem(&case.0["chain"][0])), home.write("middle.pem", pem(&case.0["chain"][1])));
    let root = home.write("root.pem", case.text("anchors"));
    let (ours, theirs) = (home.at("ours.sig"), home.at("theirs.sig"));
    weightmark([
        "sign",
        &model,
        "--key",
        &key,
        "--certificate",
        &leaf,
        "--certificate-chain",
        &middle,
        "--signature",
        &ours,
    ])
    .ok();
    python([
        "-m",
        "model_signing",
        "verify",
        "certificate",
        &model,
        "--signature",
        &ours,
        "--certificate_chain",
        &root,
    ])
    .ok();
    python([
        "-m",
        "model_signing",
        "sign",
        "certificate",
        &model,
        "--signature",
        &theirs,
        "--private_key",
        &key,
        "--signing_certificate",
        &leaf,
        "--certificate_chain",
        &middle,
    ])
    .ok();
    for signature in [&ours, &theirs] {
        let verify = ["--json", "verify", &model, "--signature", signature, "--certificate-chain", &root];
        let verified = weightmark(verify).json();
        assert_eq!(verified["signer"]["kind"], "certificate");
        assert_eq!(verified["signer"]["names"][0], "release@acme.example");
        assert_eq!(verified["signer"]["time"]["basis"], "clock");
        weightmark(verify.into_iter().chain(["--certificate-identity", "release@acme.example"])).ok();
        weightmark(verify[1..].iter().copied().chain(["--certificate-identity", "x@acme.example"]))
            .fails(1, &["issued to release@acme.example"]);
    }
    let policy = home.write(
        "policy.toml",
        "[[rule]]\ncertificates = [{ authorities = [\"root.pem\"], issued-to = [\"acme.example\"] }]\n",
    );
    weightmark(["verify", &model, "--signature", &ours, "--policy", &policy]).ok();
    home.write(
        "policy.toml",
        "[[rule]]\ncertificates = [{ authorities = [\"root.pem\"], issued-to = [\"b.example\"] }]\n",
    );
    weightmark(["verify", &model, "--signature", &ours, "--policy", &policy])
        .fails(1, &["which the policy does not name"]);
    weightmark(["sign", &model, "--key", &key, "--certificate", &middle, "--signature", &home.at("x")])
        .fails(4, &["its certificate is not for signing"]);
    weightmark(["verify", &model, "--signature", &ours, "--certificate-chain", &key])
        .fails(4, &["a block of \"PRIVATE KEY\""]);
}

/// A home with the certificates of `tests/python/oms_certificates.py` in `pki`, and a model.
fn issued(curve: &str) -> Home {
    let home = Home::new();
    python([script("oms_certificates.py").to_str().unwrap(), &home.at("pki"), curve]).ok();
    home.model("model", 5_000);
    home
}

fn malformed(result: Result<impl Sized, Error>, why: &str) {
    match result {
        Err(Error::Key { cause: KeyError::Malformed { wanted: "certificate", problem }, .. }) => {
            assert!(problem.contains(why), "{problem}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn the_reference_tool_verifies_chains_that_we_write() {
    for curve in ["P-256", "P-384", "P-521"] {
        let home = issued(curve);
        let key = SigningKey::load(home.path("pki/leaf.key")).unwrap();
        let sign = |leaf: &str, issuers: &[&str]| {
            let issuers: Vec<_> = issuers.iter().map(|name| home.path("pki").join(name)).collect();
            let chain = CertificateChain::load(home.path("pki").join(leaf), &issuers).unwrap();
            chain.check(&key.verifying_key()).unwrap();
            let bundle = key.sign(&Manifest::of(home.path("model")).unwrap()).unwrap();
            let mut bundle: Value = serde_json::from_str(bundle.to_json()).unwrap();
            let certificates: Vec<_> =
                chain.certificates().map(|der| json!({"rawBytes": BASE64_STANDARD.encode(der)})).collect();
            let count = certificates.len();
            bundle["verificationMaterial"] =
                json!({"x509CertificateChain": {"certificates": certificates}, "tlogEntries": []});
            home.write("model.sig", bundle.to_string());
            count
        };
        let verify = |anchor: &str| {
            let (model, signature, anchor) =
                (home.at("model"), home.at("model.sig"), home.at(&format!("pki/{anchor}")));
            let args = ["verify", "certificate", &model, "--signature", &signature, "--certificate_chain", &anchor];
            python(["-m", "model_signing"].iter().chain(&args)).status
        };
        for leaf in ["leaf.pem", "authority.pem"] {
            assert_eq!(sign(leaf, &["intermediate.pem", "root.pem"]), 2);
            assert_eq!((verify("root.pem"), verify("foreign.pem")), (0, 1), "{curve} {leaf}");
        }
        assert_eq!(sign("self.pem", &["self.pem"]), 1);
        assert_eq!((verify("self.pem"), verify("root.pem")), (0, 1), "{curve}");
    }
}

#[test]
fn files_of_certificates_are_read_and_others_refused() {
    let home = issued("P-256");
    let pki = |name: &str| home.path("pki").join(name);
    let text = |name: &str| fs::read_to_string(pki(name)).unwrap();
    let none: [&str; 0] = [];
    CertificateAuthority::load(pki("root.pem")).unwrap().issued_to("ml@acme.example");
    CertificateAuthority::load_all([pki("root.pem"), pki("foreign.pem")]).unwrap();
    // text around certificates, other lines, as many tools write them
    let wide = text("root.pem").replace('\n', "\r\n");
    home.write("many.pem", format!("Acme root\n{}\n# and another\n{wide}", text("foreign.pem")));
    CertificateAuthority::load(home.path("many.pem")).unwrap();
    // all in one file
    home.write("full.pem", [text("leaf.pem"), text("intermediate.pem"), text("root.pem")].concat());
    let chain = CertificateChain::load(home.path("full.pem"), &none).unwrap();
    assert_eq!(chain.certificates().count(), 2);
    assert!(chain.check(&SigningKey::generate(Algorithm::EcdsaP256).unwrap().verifying_key()).is_err());

    malformed(CertificateAuthority::load_all(none), "no certificate");
    malformed(CertificateAuthority::load(home.path("model/config.json")), "no certificate");
    malformed(CertificateAuthority::load(pki("leaf.key")), "a block of \"PRIVATE KEY\"");
    malformed(CertificateAuthority::load(home.path("model/model.safetensors")), "");
    assert!(matches!(CertificateAuthority::load(home.path("missing")), Err(Error::Io { .. })));
    let spoiled = |from: &str, to: &str| home.write("spoiled.pem", text("root.pem").replacen(from, to, 1));
    malformed(CertificateAuthority::load(spoiled("-----END CERTIFICATE-----", "")), "does not end");
    malformed(CertificateAuthority::load(spoiled("M", "*")), "symbol");
    malformed(CertificateAuthority::load(spoiled("MII", "AII")), "");
    malformed(CertificateAuthority::load(home.write("large.pem", vec![b'\n'; (4 << 20) + 1])), "more than");
    malformed(CertificateAuthority::load(home.write("many.pem", text("root.pem").repeat(1025))), "more than 1024");
    CertificateAuthority::load(home.write("many.pem", text("root.pem").repeat(1024))).unwrap();
    malformed(CertificateAuthority::load_all([home.path("many.pem"), pki("root.pem")]), "more than 0");

    malformed(CertificateChain::load(pki("leaf.pem"), &[pki("tls.pem"), pki("intermediate.pem")]), "is not issued by");
    let tls = CertificateChain::load(pki("tls.pem"), &[pki("intermediate.pem")]);
    assert!(matches!(tls, Err(Error::Key { cause: KeyError::Unsupported(_), .. })), "{tls:?}");
    malformed(CertificateChain::load(home.write("nine.pem", text("leaf.pem").repeat(9)), &none), "more than 8");
}
