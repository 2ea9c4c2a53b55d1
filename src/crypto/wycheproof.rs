//! The primitives, and those under HPKE, against Wycheproof: published cases of what implementations get wrong.

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::{FromSeed, MlKem768};
use ring::hkdf::{HKDF_SHA256, HKDF_SHA512, Salt};
use wycheproof::{TestResult, aead, hkdf, mac, mlkem, xdh};
use x25519_dalek::{PublicKey, StaticSecret};

use super::aead::{Aead, TAG};

type EncapsulationKey = ml_kem::EncapsulationKey<MlKem768>;
type Ciphertext = ml_kem::Ciphertext<MlKem768>;

/// 256-bit keys, 96-bit nonces, nothing but the message authenticated: what is used here.
#[test]
fn aes_256_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    let groups = set.test_groups.into_iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128));
    for case in groups.flat_map(|group| group.tests).filter(|case| case.aad.is_empty()) {
        let key = Aead::new(case.key.as_slice().try_into().unwrap());
        let nonce: [u8; 12] = case.nonce.as_slice().try_into().unwrap();
        let tag: [u8; TAG] = case.tag.as_slice().try_into().unwrap();
        let mut data = case.ct.to_vec();
        let opened = key.open(nonce, &mut data, tag);
        if case.result.must_fail() {
            assert!(opened.is_err() && data.iter().all(|byte| *byte == 0), "case {}", case.tc_id);
            invalid += 1;
            continue;
        }
        assert!(opened.is_ok() && data == case.pt.as_slice(), "case {}", case.tc_id);
        assert_eq!(key.seal(nonce, &mut data), tag, "case {}", case.tc_id);
        assert_eq!(data, case.ct.as_slice(), "case {}", case.tc_id);
        valid += 1;
    }
    assert!(valid >= 21 && invalid >= 27, "{valid} valid, {invalid} invalid");
}

/// `$of::<N>$args` for the `N` that is `$size`, as a vector.
macro_rules! sized {
    ($size:expr, [$($n:literal)*], $of:ident $args:tt) => {
        match $size {
            $($n => $of::<$n>$args.to_vec(),)*
            other => panic!("{other} bytes of output"),
        }
    };
}

#[test]
fn hkdf() {
    use super::{fill, hkdf_sha256};
    let (mut ours, mut all) = (0, 0);
    for (name, hash) in [(hkdf::TestName::HkdfSha256, HKDF_SHA256), (hkdf::TestName::HkdfSha512, HKDF_SHA512)] {
        let set = hkdf::TestSet::load(name).unwrap();
        // what must fail asks for more than HKDF can give: sizes are constants here, and smaller
        for case in set.test_groups.into_iter().flat_map(|g| g.tests).filter(|case| !case.result.must_fail()) {
            let prk = Salt::new(hash, &case.salt).extract(&case.ikm);
            let okm = sized!(case.size, [20 32 42 56 64 80 82 120 128 256 8160 16320], fill(&prk, &[&case.info]));
            assert_eq!(okm, case.okm.as_slice(), "{name:?}, case {}", case.tc_id);
            all += 1;
            let key = <&[u8; 32]>::try_from(case.ikm.as_slice());
            if let (hkdf::TestName::HkdfSha256, true, Ok(key)) = (name, case.salt.is_empty(), key) {
                let okm = sized!(case.size, [20 32 42 64 80], hkdf_sha256(key, &case.info));
                assert_eq!(okm, case.okm.as_slice(), "case {}", case.tc_id);
                ours += 1;
            }
        }
    }
    assert!(ours >= 8 && all >= 160, "{ours} of {all}");
}

/// Keys of 32 bytes, and shorter ones, which HMAC pads with zeros.
#[test]
fn hmac_sha256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for case in set.test_groups.into_iter().flat_map(|group| group.tests).filter(|case| case.key.len() <= 32) {
        let mut key = [0; 32];
        key[..case.key.len()].copy_from_slice(&case.key);
        let (front, back) = case.msg.split_at(case.msg.len() / 2);
        let mac = super::hmac_sha256(&key, &[front, back]);
        let equal = super::equal(&mac[..case.tag.len()], &case.tag); // some tags are half of one
        assert_eq!(equal, !case.result.must_fail(), "case {}", case.tc_id);
        *(if equal { &mut valid } else { &mut invalid }) += 1;
    }
    assert!(valid >= 60 && invalid >= 108, "{valid} valid, {invalid} invalid");
}

/// The X25519 under HPKE, which refuses the secrets that are zero.
#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut contributory, mut zero) = (0, 0);
    for case in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let bytes = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap();
        let private = StaticSecret::from(bytes(&case.private_key));
        let shared = private.diffie_hellman(&PublicKey::from(bytes(&case.public_key)));
        assert!(!case.result.must_fail());
        assert_eq!(shared.as_bytes(), case.shared_secret.as_slice(), "case {}", case.tc_id);
        let is_zero = case.flags.contains(&xdh::TestFlag::ZeroSharedSecret);
        assert_eq!(shared.was_contributory(), !is_zero, "case {}", case.tc_id);
        *(if is_zero { &mut zero } else { &mut contributory }) += 1;
    }
    assert!(contributory >= 487 && zero >= 31, "{contributory} and {zero} zero");
}

/// The ML-KEM-768 under X-Wing, whose keys are seeds.
#[test]
fn ml_kem_768() {
    use mlkem::TestName::{MlKem768 as Decaps, MlKem768Encaps, MlKem768KeyGenSeed, MlKem768SemiExpandedDecaps};
    let (mut valid, mut invalid) = ([0; 4], [0; 4]);
    for (i, name) in [Decaps, MlKem768KeyGenSeed, MlKem768Encaps, MlKem768SemiExpandedDecaps].into_iter().enumerate() {
        let set = mlkem::TestSet::load(name).unwrap();
        for case in set.test_groups.into_iter().flat_map(|group| group.tests) {
            let shared = match name {
                Decaps => decapsulated(&case),
                MlKem768KeyGenSeed => generated(&case),
                MlKem768Encaps => encapsulated(&case),
                _ => decapsulated_by_expanded_key(&case),
            };
            assert_eq!(shared.is_some(), case.result == TestResult::Valid, "{name:?}, case {}", case.tc_id);
            let Some(shared) = shared else {
                invalid[i] += 1;
                continue;
            };
            let expected = if name == MlKem768KeyGenSeed { case.encaps_key } else { case.shared_secret };
            assert_eq!(shared, expected.unwrap().as_slice(), "{name:?}, case {}", case.tc_id);
            valid[i] += 1;
        }
    }
    assert!(valid.iter().zip([153, 100, 133, 3]).all(|(ran, least)| *ran >= least), "{valid:?}");
    assert!(invalid.iter().zip([1, 0, 112, 6]).all(|(ran, least)| *ran >= least), "{invalid:?}");
}

/// The secret in a ciphertext, if the lengths are right; the ciphertext alone cannot be wrong.
fn decapsulated(case: &mlkem::Test) -> Option<Vec<u8>> {
    let (key, public) = MlKem768::from_seed(&case.seed.as_deref()?.try_into().ok()?);
    let shared = key.decapsulate(&Ciphertext::try_from(case.ct.as_deref()?).ok()?);
    assert_eq!(public.to_bytes().as_slice(), case.encaps_key.as_ref()?.as_slice(), "case {}", case.tc_id);
    Some(shared.to_vec())
}

/// The public key of a seed.
fn generated(case: &mlkem::Test) -> Option<Vec<u8>> {
    let (_, public) = MlKem768::from_seed(&case.seed.as_deref()?.try_into().ok()?);
    Some(public.to_bytes().to_vec())
}

/// The secret that a public key and these random bytes make, unless the key is none.
fn encapsulated(case: &mlkem::Test) -> Option<Vec<u8>> {
    let key = EncapsulationKey::new(&case.encaps_key.as_deref()?.try_into().ok()?).ok()?;
    let (ciphertext, shared) = key.encapsulate_deterministic(&case.msg.as_deref()?.try_into().ok()?);
    assert_eq!(ciphertext.as_slice(), case.ct.as_ref()?.as_slice(), "case {}", case.tc_id);
    Some(shared.to_vec())
}

/// As [`decapsulated`], for keys in the long form, which is not used here but has cases of its own.
#[allow(deprecated)]
fn decapsulated_by_expanded_key(case: &mlkem::Test) -> Option<Vec<u8>> {
    let key: Result<ml_kem::ExpandedDecapsulationKey<MlKem768>, _> = case.decaps_key.as_deref()?.try_into();
    let key = ml_kem::DecapsulationKey::<MlKem768>::from_expanded(&key.ok()?).ok()?;
    Some(key.decapsulate(&Ciphertext::try_from(case.ct.as_deref()?).ok()?).to_vec())
}
