//! Private keys in PEM, encrypted or not, and certificates.

use base64::prelude::{BASE64_STANDARD, Engine};
use pkcs8::pkcs5::{self, EncryptionScheme, pbes2::Kdf};
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};

use crate::error::KeyError;

/// Several times what is customary; some seconds.
const MAX_ITERATIONS: u32 = 4_000_000;
/// Memory in KiB, and that times passes, as for the passphrases of encryption.
const MAX_MEMORY: u64 = 1 << 20;
const MAX_WORK: u64 = 4 << 20;

/// A private key in DER.
pub(super) enum Private {
    /// `ECPrivateKey` (RFC 5915).
    Sec1(SecretDocument),
    /// `PrivateKeyInfo` (RFC 5958).
    Pkcs8(SecretDocument),
}

/// The first private key of a text.
pub(super) fn private_key(text: &str) -> Result<Private, KeyError> {
    match decode(private_block(text)?)? {
        ("EC PRIVATE KEY", der) => Ok(Private::Sec1(der)),
        ("PRIVATE KEY", der) => Ok(Private::Pkcs8(der)),
        ("ENCRYPTED PRIVATE KEY", _) => Err(KeyError::Locked),
        (label, _) => Err(malformed(format!("a block of {label:?}"))),
    }
}

/// The first private key of a text, which is encrypted (PKCS#8, PBES2).
pub(super) fn encrypted_private_key(text: &str, passphrase: &str) -> Result<Private, KeyError> {
    let ("ENCRYPTED PRIVATE KEY", der) = decode(private_block(text)?)? else {
        return Err(malformed("not encrypted, and a passphrase was given"));
    };
    let unsupported = |e: &dyn std::fmt::Display| {
        let hint = "encrypt it with PBES2, AES, and scrypt or PBKDF2, for example with openssl pkcs8 -topk8";
        KeyError::Unsupported(format!("{e}; {hint}"))
    };
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der.as_bytes()).map_err(|e| unsupported(&e))?;
    match &encrypted.encryption_algorithm {
        EncryptionScheme::Pbes2(parameters) => affordable(&parameters.kdf)?,
        other => return Err(unsupported(&other.oid())),
    }
    match encrypted.decrypt(passphrase) {
        Ok(der) => Ok(Private::Pkcs8(der)),
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed) | pkcs8::Error::Asn1(_)) => {
            Err(KeyError::WrongPassphrase) // one in 256 passes for padded, and then is no DER
        }
        Err(e) => Err(unsupported(&e)),
    }
}

/// The certificates of a text in DER, at least one and at most `max`. Text around them is skipped, blocks of another kind
/// are refused.
pub(crate) fn certificates(text: &str, max: usize) -> Result<Vec<Vec<u8>>, KeyError> {
    let malformed = |problem: String| KeyError::Malformed { wanted: "certificate", problem };
    let (mut certificates, mut rest) = (Vec::new(), text);
    while let Some((_, block)) = rest.split_once("-----BEGIN ") {
        let Some(block) = block.strip_prefix("CERTIFICATE-----") else {
            let label = block.split_once("-----").map_or("", |(label, _)| label);
            return Err(malformed(format!("a block of {:?}", label.chars().take(64).collect::<String>())));
        };
        let (base64, after) = block
            .split_once("-----END CERTIFICATE-----")
            .ok_or_else(|| malformed("a certificate that does not end".into()))?;
        if certificates.len() == max {
            return Err(malformed(format!("more than {max} certificates")));
        }
        let base64: String = base64.split_ascii_whitespace().collect();
        certificates.push(BASE64_STANDARD.decode(base64).map_err(|e| malformed(e.to_string()))?);
        rest = after;
    }
    if certificates.is_empty() { Err(malformed("no certificate in PEM".into())) } else { Ok(certificates) }
}

/// Refuses what would take too long or too much memory, before it does, and what makes no sense.
fn affordable(kdf: &Kdf) -> Result<(), KeyError> {
    let (memory, passes, lanes, affordable) = match kdf {
        Kdf::Pbkdf2(pbkdf2) => (0, pbkdf2.iteration_count.into(), 1, pbkdf2.iteration_count <= MAX_ITERATIONS),
        Kdf::Scrypt(scrypt) => {
            let (cost, block, lanes) = (scrypt.cost_parameter, scrypt.block_size.into(), scrypt.parallelization.into());
            if cost < 2 || !cost.is_power_of_two() {
                return Err(malformed("a cost that scrypt does not know"));
            }
            let memory = cost.saturating_mul(block).div_ceil(8); // 128 bytes each
            (memory, 1, lanes, memory <= MAX_MEMORY && memory.saturating_mul(lanes) <= MAX_WORK)
        }
        _ => return Err(KeyError::Unsupported("encrypted under an unknown key derivation".into())),
    };
    if affordable { Ok(()) } else { Err(KeyError::ExcessiveWork { memory, passes, lanes }) }
}

/// The first block that is a private key. Other blocks (`EC PARAMETERS`) may precede.
fn private_block(text: &str) -> Result<&str, KeyError> {
    let missing = || malformed("no private key in PEM");
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let block = &rest[start..];
        let label = block["-----BEGIN ".len()..].split_once("-----").ok_or_else(missing)?.0;
        let end = format!("-----END {label}-----");
        let stop = block.find(&end).ok_or_else(missing)? + end.len();
        if label.ends_with("PRIVATE KEY") {
            return Ok(&block[..stop]);
        }
        rest = &block[stop..];
    }
    Err(missing())
}

fn decode(block: &str) -> Result<(&str, SecretDocument), KeyError> {
    if block.contains("Proc-Type: 4,ENCRYPTED") {
        let hint = "convert it with openssl pkcs8 -topk8".to_owned();
        return Err(KeyError::Unsupported(format!("encrypted in the way of old, which is easily guessed; {hint}")));
    }
    SecretDocument::from_pem(block).map_err(|e| malformed(e.to_string()))
}

fn malformed(problem: impl Into<String>) -> KeyError {
    KeyError::Malformed { wanted: "signing key", problem: problem.into() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Algorithm, SigningKey};
    use super::*;
    use pkcs8::EncryptedPrivateKeyInfoOwned;

    /// What OpenSSL's command line writes.
    pub(in super::super) fn openssl(args: &[&str], input: &str) -> String {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn encrypt(key: &str, options: &[&str]) -> String {
        openssl(&[&["pkcs8", "-topk8", "-passout", "pass:right"], options].concat(), key)
    }

    fn cause(pem: &str, passphrase: &str) -> KeyError {
        SigningKey::from_encrypted_pem(pem, passphrase).map(|_| ()).unwrap_err()
    }

    #[test]
    fn every_way_openssl_encrypts_a_key_is_read() {
        for (name, algorithm) in [
            ("P-256", Algorithm::EcdsaP256),
            ("P-384", Algorithm::EcdsaP384),
            ("P-521", Algorithm::EcdsaP521),
            ("ed25519", Algorithm::Ed25519),
        ] {
            let key = match algorithm {
                Algorithm::Ed25519 => openssl(&["genpkey", "-algorithm", name], ""),
                _ => openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{name}")], ""),
            };
            let public = SigningKey::from_pem(&key).unwrap().verifying_key();
            assert_eq!(public.algorithm(), algorithm);
            for options in [
                &[][..],
                &["-v2", "aes256"],
                &["-v2", "aes128", "-v2prf", "hmacWithSHA512"],
                &["-v2", "aes-192-cbc", "-iter", "600000"],
                &["-scrypt"],
                &["-scrypt", "-scrypt_N", "1024", "-scrypt_r", "16", "-scrypt_p", "2"],
            ] {
                let locked = encrypt(&key, options);
                assert_eq!(SigningKey::from_encrypted_pem(&locked, "right").unwrap().verifying_key(), public);
                assert_eq!(cause(&locked, "wrong"), KeyError::WrongPassphrase, "{options:?}");
                assert_eq!(SigningKey::from_pem(&locked).map(|_| ()), Err(KeyError::Locked));
            }
            assert!(matches!(cause(&key, "right"), KeyError::Malformed { .. }));
        }
    }

    /// One in 256 decrypts to what looks padded.
    #[test]
    fn wrong_passphrases_are_just_that() {
        let key = openssl(&["genpkey", "-algorithm", "ed25519"], "");
        let locked = encrypt(&key, &["-iter", "1"]);
        for i in 0..2000 {
            assert_eq!(cause(&locked, &i.to_string()), KeyError::WrongPassphrase);
        }
    }

    #[test]
    fn what_is_weak_or_unknown_says_so() {
        let key = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], "");
        let old = openssl(&["ec", "-aes256", "-passout", "pass:right"], &key);
        assert!(matches!(SigningKey::from_pem(&old).map(|_| ()), Err(KeyError::Unsupported(_))));
        for options in [&["-v2", "des3"][..], &["-v1", "PBE-SHA1-3DES"], &["-v2prf", "hmacWithSHA1"]] {
            assert!(matches!(cause(&encrypt(&key, options), "right"), KeyError::Unsupported(_)), "{options:?}");
        }
    }

    #[test]
    fn absurd_work_is_refused_before_it_is_done() {
        let key = openssl(&["genpkey", "-algorithm", "ed25519"], "");
        let with = |options: &[&str], change: &dyn Fn(&mut Kdf)| {
            let (_, der) = SecretDocument::from_pem(&encrypt(&key, options)).unwrap();
            let mut encrypted = EncryptedPrivateKeyInfoOwned::try_from(der.as_bytes()).unwrap();
            let EncryptionScheme::Pbes2(parameters) = &mut encrypted.encryption_algorithm else { unreachable!() };
            change(&mut parameters.kdf);
            let der = SecretDocument::try_from(&encrypted).unwrap();
            cause(&der.to_pem("ENCRYPTED PRIVATE KEY", pkcs8::LineEnding::LF).unwrap(), "right")
        };
        let begun = std::time::Instant::now();
        for iterations in [MAX_ITERATIONS + 1, u32::MAX] {
            let cause = with(&[], &|kdf| {
                let Kdf::Pbkdf2(pbkdf2) = kdf else { unreachable!() };
                pbkdf2.iteration_count = iterations;
            });
            assert_eq!(cause, KeyError::ExcessiveWork { memory: 0, passes: iterations.into(), lanes: 1 });
        }
        let scrypt = |cost, block, lanes| {
            with(&["-scrypt"], &|kdf| {
                let Kdf::Scrypt(scrypt) = kdf else { unreachable!() };
                (scrypt.cost_parameter, scrypt.block_size, scrypt.parallelization) = (cost, block, lanes);
            })
        };
        for (cost, block, lanes) in
            [(1 << 21, 8, 1), (1 << 63, u16::MAX, u16::MAX), (1 << 20, 8, 5), (2, u16::MAX, 300)]
        {
            let cause = scrypt(cost, block, lanes);
            assert!(matches!(cause, KeyError::ExcessiveWork { .. }), "{cost} {block} {lanes}: {cause:?}");
        }
        for (cost, block, lanes) in [(0, 8, 1), (1, 8, 1), (3, 8, 1), (u64::MAX, 8, 1), (1024, 0, 1), (1024, 8, 0)] {
            let cause = scrypt(cost, block, lanes);
            let refused = matches!(cause, KeyError::Malformed { .. } | KeyError::Unsupported(_));
            assert!(refused, "{cost} {block} {lanes}: {cause:?}");
        }
        assert!(begun.elapsed().as_secs() < 5);
    }
}
