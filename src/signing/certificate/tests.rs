//! Chains made to be accepted, and each of them spoiled in one place.

#![allow(clippy::cloned_ref_to_slice_refs)] // a chain of one is a chain

mod drafts;
mod names;
mod openssl;

use std::time::{Duration, Instant, UNIX_EPOCH};

use self::drafts::*;
use self::openssl::openssl;
use super::*;
use crate::error::CertificateError::*;
use crate::keys::{Algorithm, SigningKey};

#[track_caller]
fn untrusted(cause: CertificateError, why: &str) {
    assert!(matches!(&cause, UntrustedIssuer(text) if text.contains(why)), "{cause:?}");
}

#[track_caller]
fn malformed_as(cause: CertificateError, why: &str) {
    assert!(matches!(&cause, Malformed(text) if text.contains(why)), "{cause:?}");
}

#[test]
fn a_chain_to_a_trusted_certificate_is_accepted() {
    let chain = Chain::new();
    let [leaf, intermediate, root] = chain.ders();
    let certified = chain.verify().unwrap();
    assert_eq!(certified.key(), &chain.keys[2].verifying_key());
    let ids: Vec<_> = [2, 1, 0].map(|i: usize| chain.keys[i].verifying_key().id()).into();
    assert_eq!(certified.key_ids(), ids);
    assert_eq!(certified.names(), ["ml@acme.example"]);
    assert_eq!((certified.subject(), certified.issuer()), ("CN=leaf", "CN=intermediate"));
    assert_eq!(certified.not_after(), at(1_798_761_600));

    // the trusted one enclosed too, in any order, twice, or trusted among others; or the intermediate is what is trusted
    let foreign = Chain::new().ders();
    let authority = trust(&[&foreign[2], &foreign[1], &root]);
    for enclosed in [
        vec![&leaf, &intermediate, &root],
        vec![&leaf, &root, &intermediate],
        vec![&leaf, &foreign[1], &foreign[2], &intermediate, &intermediate, &leaf],
    ] {
        let enclosed: Vec<_> = enclosed.into_iter().cloned().collect();
        assert_eq!(authority.verify(&enclosed, at(NOW)).unwrap().key_ids(), ids);
    }
    assert_eq!(trust(&[&intermediate]).verify(&[leaf.clone()], at(NOW)).unwrap().key_ids(), &ids[..2]);
    // another tool says the same
    let home = tempfile::tempdir().unwrap();
    for (name, der) in [("leaf", &leaf), ("intermediate", &intermediate), ("root", &root)] {
        std::fs::write(home.path().join(name), pem(der)).unwrap();
    }
    openssl(home.path(), &format!("verify -attime {NOW} -CAfile root -untrusted intermediate leaf"));
}

#[test]
fn only_what_the_caller_trusts_counts() {
    let [leaf, intermediate, root] = Chain::new().ders();
    let other = Chain::new().ders();
    let whole = [leaf.clone(), intermediate.clone(), root.clone()];
    untrusted(trust(&[&other[2]]).verify(&whole, at(NOW)).unwrap_err(), "none is known");
    untrusted(trust(&[&root]).verify(&[leaf.clone()], at(NOW)).unwrap_err(), "none is known");
    untrusted(trust(&[&root]).verify(&[leaf, other[1].clone()], at(NOW)).unwrap_err(), "none is known");
    malformed_as(trust(&[&root]).verify(&[], at(NOW)).unwrap_err(), "no certificate");
}

#[test]
fn a_certificate_that_issues_only_does_not_sign() {
    let [leaf, intermediate, root] = Chain::new().ders();
    let cause = trust(&[&root]).verify(&[intermediate, leaf], at(NOW)).unwrap_err();
    assert_eq!(cause, Purpose("its key usage does not allow digital signatures"));
    // but one that may do both does, also below one of the same name, as in published signatures
    Chain::with(|chain| chain.leaf.extensions.push(authority(None)));
    Chain::with(|chain| {
        chain.leaf.extensions.push(authority(None));
        set(&mut chain.leaf.extensions, usage(&[0, 5]));
        chain.leaf.subject = cn("intermediate");
    });
}

#[test]
fn usages_are_those_of_signing() {
    const TLS_ONLY: CertificateError = Purpose("its extended key usage does not allow code signing");
    let purpose =
        |all: &'static [&'static str]| move |chain: &mut Chain| set(&mut chain.leaf.extensions, purposes(all));
    assert_eq!(Chain::but(purpose(&[TLS])), TLS_ONLY);
    assert!(matches!(Chain::but(purpose(&[])), Purpose(_)));
    Chain::with(purpose(&[TLS, CODE]));
    Chain::with(purpose(&[ANY]));
    let no_signatures = Purpose("its key usage does not allow digital signatures");
    for bits in [&[5][..], &[1], &[2, 3, 4], &[5, 6]] {
        assert_eq!(Chain::but(|chain| set(&mut chain.leaf.extensions, usage(bits))), no_signatures, "{bits:?}");
    }
    Chain::with(|chain| drop(&mut chain.leaf.extensions, "2.5.29.37"));
    Chain::with(|chain| drop(&mut chain.leaf.extensions, "2.5.29.15"));
    let neither = |chain: &mut Chain| {
        drop(&mut chain.leaf.extensions, "2.5.29.15");
        drop(&mut chain.leaf.extensions, "2.5.29.37");
    };
    assert_eq!(Chain::but(neither), Purpose("it names no usage"));
    let any_only = |chain: &mut Chain| {
        drop(&mut chain.leaf.extensions, "2.5.29.15");
        set(&mut chain.leaf.extensions, purposes(&[ANY]));
    };
    assert_eq!(Chain::but(any_only), Purpose("it names no usage"));
}

#[test]
fn every_certificate_of_the_path_is_valid_at_the_time() {
    let over = Expired { since: "2026-05-31T23:59:59Z".into() };
    let early = NotYetValid { until: "2026-06-01T00:00:01Z".into() };
    let pick: [fn(&mut Chain) -> &mut Draft; 3] = [|c| &mut c.leaf, |c| &mut c.intermediate, |c| &mut c.root];
    for part in pick {
        assert_eq!(Chain::but(|chain| part(chain).to = "260531235959Z"), over);
        assert_eq!(Chain::but(|chain| part(chain).from = "260601000001Z"), early);
        Chain::with(|chain| part(chain).to = "260601000000Z"); // to the second
        let ends = Chain::with(|chain| part(chain).to = "260701000000Z").not_after();
        assert_eq!(ends, at(NOW + 30 * DAY));
        Chain::with(|chain| part(chain).from = "260601000000Z");
    }
    let chain = Chain::new();
    let [leaf, intermediate, root] = chain.ders();
    let verify = |time| trust(&[&root]).verify(&[leaf.clone(), intermediate.clone()], time).map(|_| ());
    assert_eq!(verify(UNIX_EPOCH), Err(NotYetValid { until: "2026-01-01T00:00:00Z".into() }));
    assert_eq!(verify(UNIX_EPOCH - Duration::from_secs(1 << 40)), verify(UNIX_EPOCH));
    assert_eq!(verify(at(1 << 40)), Err(Expired { since: "2027-01-01T00:00:00Z".into() }));
    assert_eq!(verify(at(1_798_761_600) + Duration::from_millis(999)), Ok(()));
}

#[test]
fn issuers_may_issue() {
    let pick: [fn(&mut Chain) -> &mut Draft; 2] = [|c| &mut c.intermediate, |c| &mut c.root];
    for part in pick {
        let no_authority = Chain::but(|chain| drop(&mut part(chain).extensions, "2.5.29.19"));
        untrusted(no_authority, "is no certificate authority");
        let denied = ("2.5.29.19", true, sequence(&[]));
        untrusted(Chain::but(|chain| set(&mut part(chain).extensions, denied)), "is no certificate authority");
        untrusted(Chain::but(|chain| set(&mut part(chain).extensions, usage(&[0, 6]))), "may not sign certificates");
        untrusted(Chain::but(|chain| part(chain).extensions.push(purposes(&[TLS]))), "may not issue for code signing");
        Chain::with(|chain| part(chain).extensions.push(purposes(&[CODE])));
        Chain::with(|chain| drop(&mut part(chain).extensions, "2.5.29.15"));
    }
    Chain::with(|chain| set(&mut chain.intermediate.extensions, authority(Some(0))));
    Chain::with(|chain| set(&mut chain.root.extensions, authority(Some(1))));
    let short = Chain::but(|chain| set(&mut chain.root.extensions, authority(Some(0))));
    untrusted(short, "may not issue for a path as long as this");
    // a leaf under a leaf
    let chain = Chain::new();
    let [leaf, intermediate, root] = chain.ders();
    let draft = Draft::new("evil", &chain.keys[0], "leaf", &[usage(&[0])]);
    let evil = draft.signed(&chain.keys[2]);
    let cause = trust(&[&root]).verify(&[evil, leaf, intermediate], at(NOW)).unwrap_err();
    untrusted(cause, "is no certificate authority");
}

#[test]
fn what_is_not_known_and_critical_is_refused() {
    let pick: [fn(&mut Chain) -> &mut Draft; 2] = [|c| &mut c.leaf, |c| &mut c.intermediate];
    for part in pick {
        let unknown = |critical| ("1.2.3.4", critical, vec![5, 0]);
        malformed_as(Chain::but(|chain| part(chain).extensions.push(unknown(true))), "1.2.3.4");
        Chain::with(|chain| part(chain).extensions.push(unknown(false)));
        let twice = |chain: &mut Chain| {
            let again = part(chain).extensions[0].clone();
            part(chain).extensions.push(again);
        };
        malformed_as(Chain::but(twice), "twice");
        malformed_as(Chain::but(|chain| part(chain).version = 1), "version");
        malformed_as(Chain::but(|chain| part(chain).version = 0), "version");
        malformed_as(
            Chain::but(|chain| set(&mut part(chain).extensions, ("2.5.29.15", true, vec![5, 0]))),
            "2.5.29.15",
        );
    }
    let many = (0..257).map(|i| format!("{i}.acme.example").into_bytes()).collect::<Vec<_>>();
    let many: Vec<_> = many.iter().map(|name| (DNS, &name[..])).collect();
    malformed_as(Chain::but(|chain| set(&mut chain.leaf.extensions, alternative(&many))), "names");
    malformed_as(Chain::but(|chain| chain.intermediate.extensions.push(constraints(&many, &[]))), "names");
    let long = (0..300).map(|i| ["1.2.3.4", "1.2.3.5"][i % 2]).map(|kind| (kind, false, vec![5, 0]));
    malformed_as(Chain::but(|chain| chain.leaf.extensions.extend(long)), "twice, or too many");
}

#[test]
fn a_pinned_certificate_needs_no_issuer_and_is_held_to_the_rest() {
    let key = SigningKey::generate(Algorithm::EcdsaP384).unwrap();
    let mut draft = Draft::new("me", &key, "me", &[authority(None), usage(&[0])]);
    let pinned = draft.signed(&key);
    let authority_of = |der: &[u8]| trust(&[der]);
    let certified = authority_of(&pinned).verify(&[pinned.clone()], at(NOW)).unwrap();
    assert_eq!((certified.key_ids(), certified.names()), (&[key.verifying_key().id()][..], &["me".to_owned()][..]));
    // itself once more, as tools that enclose roots write it
    authority_of(&pinned).verify(&[pinned.clone(), pinned.clone()], at(NOW)).unwrap();
    let late = authority_of(&pinned).verify(&[pinned.clone()], at(NOW + 365 * DAY)).unwrap_err();
    assert_eq!(late, Expired { since: "2027-01-01T00:00:00Z".into() });
    let early = authority_of(&pinned).verify(&[pinned.clone()], at(NOW - 365 * DAY)).unwrap_err();
    assert_eq!(early, NotYetValid { until: "2026-01-01T00:00:00Z".into() });

    // the same key and name in another certificate is another certificate
    draft.serial = 2;
    let other = draft.signed(&key);
    untrusted(authority_of(&pinned).verify(&[other.clone()], at(NOW)).unwrap_err(), "may not sign certificates");
    draft.extensions = vec![usage(&[0])];
    let leaf_only = draft.signed(&key);
    authority_of(&leaf_only).verify(&[leaf_only.clone()], at(NOW)).unwrap();
    untrusted(authority_of(&leaf_only).verify(&[other], at(NOW)).unwrap_err(), "is no certificate authority");

    draft.extensions = vec![authority(None), usage(&[5])];
    let issues_only = draft.signed(&key);
    let cause = authority_of(&issues_only).verify(&[issues_only.clone()], at(NOW)).unwrap_err();
    assert_eq!(cause, Purpose("its key usage does not allow digital signatures"));
    draft.extensions = vec![usage(&[0]), purposes(&[TLS])];
    let tls = draft.signed(&key);
    assert!(matches!(authority_of(&tls).verify(&[tls.clone()], at(NOW)), Err(Purpose(_))));
    // and of a chain whose leaf is pinned, only that
    let [leaf, ..] = Chain::new().ders();
    assert_eq!(authority_of(&leaf).verify(&[leaf.clone()], at(NOW)).unwrap().key_ids().len(), 1);
}

#[test]
fn ways_through_other_issuers_are_found_and_loops_end() {
    // an intermediate that two roots have certified, one of which nobody trusts any more
    let (chain, other) = (Chain::new(), Chain::new());
    let [leaf, intermediate, old] = chain.ders();
    let mut renamed = other.root.clone();
    (renamed.subject, renamed.issuer) = (cn("new root"), cn("new root"));
    let mut cross = chain.intermediate.clone();
    cross.issuer = cn("new root");
    let (cross, new) = (cross.signed(&other.keys[0]), renamed.signed(&other.keys[0]));
    for enclosed in [[&intermediate, &cross, &old], [&cross, &old, &intermediate], [&old, &intermediate, &cross]] {
        let enclosed: Vec<_> = [&leaf].into_iter().chain(enclosed).cloned().collect();
        assert_eq!(trust(&[&new]).verify(&enclosed, at(NOW)).unwrap().key_ids().len(), 3);
    }
    // one way that is over does not spoil another
    let mut stale = chain.intermediate.clone();
    (stale.to, stale.serial) = ("260401000000Z", 9);
    let stale = stale.signed(&chain.keys[0]);
    trust(&[&old]).verify(&[leaf.clone(), stale.clone(), intermediate.clone()], at(NOW)).unwrap();
    let cause = trust(&[&old]).verify(&[leaf.clone(), stale], at(NOW)).unwrap_err();
    assert_eq!(cause, Expired { since: "2026-04-01T00:00:00Z".into() });

    // two that have certified one another
    let issues = [authority(None), usage(&[5])];
    let a = Draft::new("intermediate", &chain.keys[1], "b", &issues).signed(&chain.keys[0]);
    let b = Draft::new("b", &chain.keys[0], "intermediate", &issues).signed(&chain.keys[1]);
    let around = [leaf.clone(), a, b];
    untrusted(trust(&[&new]).verify(&around, at(NOW)).unwrap_err(), "none is known");

    // seven of one name and one key: every one issues every other
    let mut same = chain.intermediate.clone();
    same.issuer = cn("intermediate");
    let mut all = vec![leaf];
    all.extend((1..8).map(|serial| Draft { serial, ..same.clone() }.signed(&chain.keys[1])));
    let begun = Instant::now();
    untrusted(trust(&[&new]).verify(&all, at(NOW)).unwrap_err(), "too many ways");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn paths_and_certificates_have_a_limit() {
    let keys: Vec<_> = (0..9).map(|_| SigningKey::generate(Algorithm::EcdsaP256).unwrap()).collect();
    let name = |i: usize| format!("issuer {i}");
    let issues = [authority(None), usage(&[5])];
    // issuer 0 is the root, `between` others issue down to the leaf
    let path = |between: usize| {
        let leaf = Draft::new("leaf", &keys[8], &name(between), &[usage(&[0])]).signed(&keys[between]);
        let issuers = (1..=between).rev();
        let issuers = issuers.map(|i| Draft::new(&name(i), &keys[i], &name(i - 1), &issues).signed(&keys[i - 1]));
        [leaf].into_iter().chain(issuers).collect::<Vec<_>>()
    };
    let root = Draft::new(&name(0), &keys[0], &name(0), &issues).signed(&keys[0]);
    for between in 0..=6 {
        let certified = trust(&[&root]).verify(&path(between), at(NOW)).unwrap();
        assert_eq!(certified.key_ids().len(), between + 2);
    }
    untrusted(trust(&[&root]).verify(&path(7), at(NOW)).unwrap_err(), "none is known");
    let mut nine = path(6);
    nine.extend([root.clone(), root.clone()]);
    malformed_as(trust(&[&root]).verify(&nine, at(NOW)).unwrap_err(), "more than 8");

    let huge =
        |bytes: usize| Chain::new().leaf.extensions.into_iter().chain([("1.2.3.4", false, vec![0; bytes])]).collect();
    Chain::with(|chain| chain.leaf.extensions = huge(60_000));
    malformed_as(Chain::but(|chain| chain.leaf.extensions = huge(66_000)), "more than 65536 bytes");
    malformed_as(trust(&[&root]).verify(&[vec![0x30; 1 << 24]], at(NOW)).unwrap_err(), "more than 65536 bytes");
}

#[test]
fn every_changed_bit_and_every_cut_is_refused() {
    let [leaf, intermediate, root] = Chain::new().ders();
    let authority = trust(&[&root]);
    let mut seen = [0; 2];
    for bit in 0..leaf.len() * 8 {
        let mut changed = leaf.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        match authority.verify(&[changed, intermediate.clone()], at(NOW)) {
            Err(Malformed(_)) => seen[0] += 1,
            Err(_) => seen[1] += 1,
            Ok(accepted) => panic!("bit {bit}: {accepted:?}"),
        }
    }
    assert!(seen[0] > 100 && seen[1] > 100, "{seen:?}");
    for bit in 0..intermediate.len() * 8 {
        let mut changed = intermediate.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(authority.verify(&[leaf.clone(), changed], at(NOW)).is_err(), "bit {bit}");
    }
    for end in 0..leaf.len() {
        assert!(matches!(authority.verify(&[leaf[..end].to_vec(), intermediate.clone()], at(NOW)), Err(Malformed(_))));
    }
    for garbage in [
        &b"garbage"[..],
        &[],
        &[0x30, 0x80, 0, 0],
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        &[leaf.as_slice(), b"x"].concat(),
    ] {
        assert!(matches!(authority.verify(&[garbage.to_vec()], at(NOW)), Err(Malformed(_))));
        // also where it is not needed
        let enclosed = [leaf.clone(), intermediate.clone(), garbage.to_vec()];
        assert!(matches!(authority.verify(&enclosed, at(NOW)), Err(Malformed(_))));
    }
}

#[test]
fn algorithms_are_named_once_and_strong() {
    let chain = Chain::new();
    let [_, intermediate, root] = chain.ders();
    let named = |inner: &str, outer: &str| {
        let (inner, outer) = (sequence(&[&oid(inner)]), sequence(&[&oid(outer)]));
        let leaf = chain.leaf.signed_as(&chain.keys[1], &inner, &outer);
        trust(&[&root]).verify(&[leaf, intermediate.clone()], at(NOW)).map(|_| ())
    };
    let (sha256, sha512, sha1) = ("1.2.840.10045.4.3.2", "1.2.840.10045.4.3.4", "1.2.840.10045.4.1");
    assert_eq!(named(sha256, sha256), Ok(()));
    malformed_as(named(sha256, sha512).unwrap_err(), "two signature algorithms");
    untrusted(named(sha512, sha512).unwrap_err(), "none is known");
    untrusted(named("1.3.101.112", "1.3.101.112").unwrap_err(), "none is known");
    untrusted(named(sha1, sha1).unwrap_err(), "1.2.840.10045.4.1 is not accepted");
    let with_null = sequence(&[&oid(sha256), &[5, 0]]);
    let leaf = chain.leaf.signed_as(&chain.keys[1], &with_null, &with_null);
    untrusted(trust(&[&root]).verify(&[leaf, intermediate.clone()], at(NOW)).unwrap_err(), "with parameters");
}

#[test]
fn a_chain_to_sign_with_is_in_order_and_without_its_root() {
    let chain = Chain::new();
    let [leaf, intermediate, root] = chain.ders();
    let given = |ders: &[&[u8]]| CertificateChain::from_pem(&ders.iter().map(|der| pem(der)).collect::<String>());
    let inside = |ders: &[&[u8]]| given(ders).unwrap().certificates().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let expected = [leaf.clone(), intermediate.clone()];
    assert_eq!(inside(&[&leaf, &intermediate, &root]), expected);
    assert_eq!(inside(&[&leaf, &intermediate]), expected);
    assert_eq!(inside(&[&leaf, &leaf, &intermediate, &root, &intermediate]), expected);
    let whole = given(&[&leaf, &intermediate, &root]).unwrap();
    whole.check(&chain.keys[2].verifying_key()).unwrap();
    for key in &chain.keys[..2] {
        assert!(matches!(whole.check(&key.verifying_key()), Err(KeyError::Malformed { wanted: "certificate", .. })));
    }
    let other = Chain::new().ders();
    for wrong in [&[&leaf[..], &root, &other[1]][..], &[&leaf, &other[1]], &[&leaf, &other[1], &intermediate]] {
        let cause = given(wrong).map(|_| ()).unwrap_err();
        assert!(
            matches!(&cause, KeyError::Malformed { problem, .. } if problem.contains("is not issued by")),
            "{cause}"
        );
    }
    assert!(matches!(given(&[&intermediate, &leaf]), Err(KeyError::Malformed { .. })));
    assert!(matches!(given(&[&intermediate, &root]), Err(KeyError::Unsupported(_))));

    let key = &chain.keys[0];
    let alone = Draft::new("me", key, "me", &[authority(None), usage(&[0])]).signed(key);
    assert_eq!(inside(&[&alone, &alone]), [alone.clone()]);
    // what it is to be verified with says the same
    trust(&[&alone]).verify(&inside(&[&alone, &alone]), at(NOW)).unwrap();
}
