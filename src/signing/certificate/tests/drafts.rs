//! Certificates made for tests, byte by byte, so that they can be wrong in every way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::der::oid::ObjectIdentifier;

use super::super::{CertificateAuthority, Certified};
use crate::error::CertificateError;
use crate::keys::{Algorithm, SigningKey, VerifyingKey};

/// 2026-06-01, in the middle of what is valid here.
pub(super) const NOW: u64 = 1_780_272_000;
pub(super) const DAY: u64 = 86_400;

pub(super) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = value.len().to_be_bytes();
    let length = match value.len() {
        0..128 => vec![length[7]],
        128..256 => vec![0x81, length[7]],
        256..65536 => vec![0x82, length[6], length[7]],
        _ => vec![0x83, length[5], length[6], length[7]],
    };
    [&[tag][..], &length, &value].concat()
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(super) fn oid(text: &str) -> Vec<u8> {
    tlv(6, &[ObjectIdentifier::new(text).unwrap().as_bytes()])
}

pub(super) fn attribute(kind: &str, tag: u8, value: &[u8]) -> Vec<u8> {
    tlv(0x31, &[&sequence(&[&oid(kind), &tlv(tag, &[value])])])
}

/// A distinguished name of one common name.
pub(super) fn cn(name: &str) -> Vec<u8> {
    sequence(&[&attribute("2.5.4.3", 12, name.as_bytes())])
}

pub(super) type Extension = (&'static str, bool, Vec<u8>);

pub(super) fn authority(path_length: Option<u8>) -> Extension {
    let length = path_length.map(|length| tlv(2, &[&[length]])).unwrap_or_default();
    ("2.5.29.19", true, sequence(&[&[1, 1, 0xff], &length]))
}

/// 0 is digitalSignature, 5 keyCertSign, 6 cRLSign.
pub(super) fn usage(bits: &[u8]) -> Extension {
    let byte = bits.iter().fold(0u8, |byte, bit| byte | 0x80 >> bit);
    ("2.5.29.15", true, tlv(3, &[&[byte.trailing_zeros() as u8, byte]]))
}

pub(super) const CODE: &str = "1.3.6.1.5.5.7.3.3";
pub(super) const TLS: &str = "1.3.6.1.5.5.7.3.1";
pub(super) const ANY: &str = "2.5.29.37.0";

pub(super) fn purposes(all: &[&str]) -> Extension {
    let all: Vec<_> = all.iter().map(|purpose| oid(purpose)).collect();
    ("2.5.29.37", false, sequence(&[&all.concat()]))
}

pub(super) const EMAIL: u8 = 0x81;
pub(super) const DNS: u8 = 0x82;
pub(super) const DIRECTORY: u8 = 0xa4;
pub(super) const URI: u8 = 0x86;
pub(super) const IP: u8 = 0x87;

pub(super) fn alternative(names: &[(u8, &[u8])]) -> Extension {
    let names: Vec<_> = names.iter().map(|(tag, name)| tlv(*tag, &[name])).collect();
    ("2.5.29.17", false, sequence(&[&names.concat()]))
}

pub(super) fn constraints(permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) -> Extension {
    let subtrees = |tag: u8, names: &[(u8, &[u8])]| -> Vec<u8> {
        let names: Vec<_> = names.iter().map(|(tag, name)| sequence(&[&tlv(*tag, &[name])])).collect();
        if names.is_empty() { Vec::new() } else { tlv(tag, &[&names.concat()]) }
    };
    ("2.5.29.30", true, sequence(&[&subtrees(0xa0, permitted), &subtrees(0xa1, excluded)]))
}

/// A certificate to be made.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) subject: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) key: VerifyingKey,
    pub(super) serial: u8,
    pub(super) version: u8,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) extensions: Vec<Extension>,
}

impl Draft {
    pub(super) fn new(subject: &str, key: &SigningKey, issuer: &str, extensions: &[Extension]) -> Self {
        Self {
            subject: cn(subject),
            issuer: cn(issuer),
            key: key.verifying_key(),
            serial: 1,
            version: 2,
            from: "260101000000Z",
            to: "270101000000Z",
            extensions: extensions.to_vec(),
        }
    }

    pub(super) fn signed(&self, by: &SigningKey) -> Vec<u8> {
        let algorithm = match by.verifying_key().algorithm() {
            Algorithm::EcdsaP256 => "1.2.840.10045.4.3.2",
            Algorithm::EcdsaP384 => "1.2.840.10045.4.3.3",
            Algorithm::EcdsaP521 => "1.2.840.10045.4.3.4",
            Algorithm::Ed25519 => "1.3.101.112",
        };
        self.signed_as(by, &sequence(&[&oid(algorithm)]), &sequence(&[&oid(algorithm)]))
    }

    pub(super) fn signed_as(&self, by: &SigningKey, inner: &[u8], outer: &[u8]) -> Vec<u8> {
        let (_, spki) = pkcs8::Document::from_pem(&self.key.to_pem()).unwrap();
        let extensions = self.extensions.iter().map(|(kind, critical, value)| {
            let critical: &[u8] = if *critical { &[1, 1, 0xff] } else { &[] };
            sequence(&[&oid(kind), critical, &tlv(4, &[value])])
        });
        let extensions: Vec<_> = extensions.collect();
        let extensions =
            if extensions.is_empty() { Vec::new() } else { tlv(0xa3, &[&sequence(&[&extensions.concat()])]) };
        let version = if self.version == 0 { Vec::new() } else { tlv(0xa0, &[&[2, 1, self.version]]) };
        let validity = sequence(&[&tlv(0x17, &[self.from.as_bytes()]), &tlv(0x17, &[self.to.as_bytes()])]);
        let serial = tlv(2, &[&[self.serial]]);
        let tbs =
            sequence(&[&version, &serial, inner, &self.issuer, &validity, &self.subject, spki.as_bytes(), &extensions]);
        sequence(&[&tbs, outer, &tlv(3, &[&[0], &by.sign_bytes(&tbs)])])
    }
}

pub(super) fn pem(der: &[u8]) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine};
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
}

pub(super) fn trust(anchors: &[&[u8]]) -> CertificateAuthority {
    CertificateAuthority::from_pem(&anchors.iter().map(|der| pem(der)).collect::<String>()).unwrap()
}

/// A root, an intermediate and a leaf, that are fine unless they are changed.
pub(super) struct Chain {
    pub(super) keys: [SigningKey; 3],
    pub(super) root: Draft,
    pub(super) intermediate: Draft,
    pub(super) leaf: Draft,
}

impl Chain {
    pub(super) fn new() -> Self {
        let keys = [(); 3].map(|()| SigningKey::generate(Algorithm::EcdsaP256).unwrap());
        let issues = [authority(None), usage(&[5])];
        Self {
            root: Draft::new("root", &keys[0], "root", &issues),
            intermediate: Draft::new("intermediate", &keys[1], "root", &issues),
            leaf: Draft::new(
                "leaf",
                &keys[2],
                "intermediate",
                &[usage(&[0]), purposes(&[CODE]), alternative(&[(EMAIL, b"ml@acme.example")])],
            ),
            keys,
        }
    }

    pub(super) fn ders(&self) -> [Vec<u8>; 3] {
        let [root, intermediate, _] = &self.keys;
        [self.leaf.signed(intermediate), self.intermediate.signed(root), self.root.signed(root)]
    }

    pub(super) fn verify(&self) -> Result<Certified, CertificateError> {
        let [leaf, intermediate, root] = self.ders();
        trust(&[&root]).verify(&[leaf, intermediate], at(NOW))
    }

    /// The cause of refusal once one thing is changed.
    pub(super) fn but(change: impl FnOnce(&mut Self)) -> CertificateError {
        let mut chain = Self::new();
        chain.verify().unwrap();
        change(&mut chain);
        chain.verify().unwrap_err()
    }

    /// As [`but`](Self::but), where the change is fine.
    pub(super) fn with(change: impl FnOnce(&mut Self)) -> Certified {
        let mut chain = Self::new();
        change(&mut chain);
        chain.verify().unwrap()
    }
}

pub(super) fn set(extensions: &mut Vec<Extension>, new: Extension) {
    extensions.retain(|(kind, ..)| *kind != new.0);
    extensions.push(new);
}

pub(super) fn drop(extensions: &mut Vec<Extension>, kind: &str) {
    extensions.retain(|(known, ..)| *known != kind);
}
