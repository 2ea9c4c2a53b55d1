//! Chains that OpenSSL makes.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use super::drafts::trust;
use super::{malformed_as, untrusted};
use crate::error::CertificateError;
use crate::keys::{SigningKey, pem};
use crate::signing::certificate::Certified;

/// Runs a command line of OpenSSL in a directory.
#[track_caller]
pub(super) fn openssl(home: &Path, line: &str) {
    let output = Command::new("openssl").args(line.split(' ')).current_dir(home).output().unwrap();
    assert!(output.status.success(), "openssl {line}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The verdict on a chain of two that OpenSSL makes: what the issuer's key is, how it signs, and what the leaf's key is.
fn of_openssl(home: &Path, issuer: &str, how: &str, leaf: &str) -> Result<Certified, CertificateError> {
    std::fs::write(home.join("cnf"), "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
    let request = "req -config cnf -x509 -noenc -days 9";
    let ca = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
    openssl(home, &format!("{request} {ca} -newkey {issuer} -keyout ca.key -subj /CN=ca -out ca.pem"));
    let usage = "-addext keyUsage=critical,digitalSignature -CA ca.pem -CAkey ca.key";
    openssl(home, &format!("{request} {usage} -newkey {leaf} {how} -keyout leaf.key -subj /CN=leaf -out leaf.pem"));
    let der = |name: &str| pem::certificates(&std::fs::read_to_string(home.join(name)).unwrap(), 1).unwrap().remove(0);
    let certified = trust(&[&der("ca.pem")]).verify(&[der("leaf.pem")], SystemTime::now())?;
    let key = SigningKey::from_pem(&std::fs::read_to_string(home.join("leaf.key")).unwrap()).unwrap();
    assert_eq!(certified.key(), &key.verifying_key());
    Ok(certified)
}

#[test]
fn chains_of_openssl_are_accepted_with_every_key_and_hash() {
    let home = tempfile::tempdir().unwrap();
    let curve = |name: &str| format!("ec -pkeyopt ec_paramgen_curve:{name}");
    let leaf = |leaf: usize| [curve("P-256"), curve("P-384"), curve("P-521"), "ed25519".into()][leaf].clone();
    for (i, issuer) in ["P-256", "P-384", "P-521"].into_iter().enumerate() {
        for (j, hash) in ["-sha256", "-sha384", "-sha512"].into_iter().enumerate() {
            of_openssl(home.path(), &curve(issuer), hash, &leaf((i + j) % 4)).unwrap();
        }
    }
    of_openssl(home.path(), "ed25519", "-sha256", &leaf(3)).unwrap();
    for hash in ["-sha256", "-sha384", "-sha512"] {
        let certified = of_openssl(home.path(), "rsa:2048", hash, &leaf(0)).unwrap();
        // the same id as of any key: SHA-256 of its PEM text
        openssl(home.path(), "x509 -in ca.pem -noout -pubkey -out ca.pub");
        let text = std::fs::read(home.path().join("ca.pub")).unwrap();
        assert_eq!(certified.key_ids()[1], crate::crypto::hex(&crate::crypto::sha256(&[&text])));
    }
    let cause = |issuer: &str, how: &str| of_openssl(home.path(), issuer, how, &leaf(0)).unwrap_err();
    untrusted(cause("rsa:2048", "-sha1"), "1.2.840.113549.1.1.5 is not accepted");
    untrusted(cause("rsa:2048", "-sha256 -sigopt rsa_padding_mode:pss"), "1.2.840.113549.1.1.10 is not accepted");
    untrusted(cause("rsa:1024", "-sha256"), "less than 2048 bits");
    untrusted(cause(&curve("P-256"), "-sha1"), "1.2.840.10045.4.1 is not accepted");
    untrusted(cause(&curve("secp256k1"), "-sha256"), "none is known");
    let of_rsa = of_openssl(home.path(), &curve("P-256"), "-sha256", "rsa:2048").unwrap_err();
    malformed_as(of_rsa, "not a public key of P-256, P-384, P-521 or Ed25519");
}
