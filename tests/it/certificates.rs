//! Chains of certificates that go into signatures, and who is trusted to issue them: files, and the reference tool.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use weightmark::Error;
use weightmark::error::KeyError;
use weightmark::keys::{Algorithm, SigningKey};
use weightmark::signing::{CertificateAuthority, CertificateChain, Manifest};

use super::support::{Home, python, script};

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
