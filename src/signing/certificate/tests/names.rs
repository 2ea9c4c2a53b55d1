//! Whom certificates are issued to, and whom issuers may issue to.

use super::drafts::*;
use super::{malformed_as, untrusted};
use crate::error::CertificateError::*;

#[test]
fn names_are_who_it_was_issued_to_and_nothing_near() {
    let named = |extension: Extension| Chain::with(|chain| set(&mut chain.leaf.extensions, extension)).names;
    let names: [(u8, &[u8]); 5] = [
        (EMAIL, b"ml@acme.example"),
        (URI, b"https://acme.example/ml?a=b#c"),
        (DNS, b"*.acme.example"),
        (IP, &[127, 0, 0, 1]),
        (EMAIL, b"ml@acme.example"),
    ];
    let texts = ["ml@acme.example", "https://acme.example/ml?a=b#c", "*.acme.example", "ml@acme.example"];
    assert_eq!(named(alternative(&names)), texts);
    assert_eq!(named(alternative(&[(IP, &[127, 0, 0, 1])])), ["leaf"]);

    let chain = Chain::new();
    let [leaf, intermediate, root] = chain.ders();
    let issued = |to: &[&str]| {
        let authority = to.iter().fold(trust(&[&root]), |authority, name| authority.issued_to(*name));
        authority.verify(&[leaf.clone(), intermediate.clone()], at(NOW)).map(|_| ())
    };
    assert_eq!(issued(&["ml@acme.example"]), Ok(()));
    assert_eq!(issued(&["someone@acme.example", "ml@acme.example"]), Ok(()));
    let wrong = Err(Identity { found: "ml@acme.example".into() });
    for near in ["", "leaf", "ML@acme.example", "ml@acme.example ", "ml@acme.exampl", "acme.example", "CN=leaf"] {
        assert_eq!(issued(&[near]), wrong, "{near:?}");
    }

    // a common name, whole, and only where it stands alone
    let common = |subject: Vec<u8>, wanted: &str| {
        let mut chain = Chain::new();
        chain.leaf.extensions = vec![usage(&[0])];
        chain.leaf.subject = subject;
        let [leaf, intermediate, root] = chain.ders();
        trust(&[&root]).issued_to(wanted).verify(&[leaf, intermediate], at(NOW)).map(|certified| certified.names)
    };
    assert_eq!(common(cn("Acme ML"), "Acme ML"), Ok(vec!["Acme ML".to_owned()]));
    let printable = sequence(&[&attribute("2.5.4.10", 12, b"Acme"), &attribute("2.5.4.3", 19, b"ML")]);
    assert_eq!(common(printable, "ML"), Ok(vec!["ML".to_owned()]));
    for (hostile, found) in [
        (cn("Acme ML\0.evil.example"), "Acme ML\0.evil.example"),
        (cn("Acme ML\u{202e}"), "Acme ML\u{202e}"),
        (cn(""), "CN="),
        (sequence(&[&attribute("2.5.4.3", 12, b"Acme ML"), &attribute("2.5.4.3", 12, b"Evil")]), "CN=Evil,CN=Acme ML"),
        (sequence(&[]), ""),
        (sequence(&[&attribute("2.5.4.11", 12, b"Acme ML")]), "OU=Acme ML"),
    ] {
        assert_eq!(common(hostile, "Acme ML"), Err(Identity { found: found.into() }));
    }
    // texts of one kind that look like another
    for (kind, text) in [
        (DNS, "ml@acme.example"),
        (DNS, "https://acme.example/"),
        (DNS, "acme.example\0.evil.example"),
        (DNS, ""),
        (EMAIL, "acme.example"),
        (EMAIL, "mailto:ml@acme.example"),
        (EMAIL, "a@b@acme.example"),
        (EMAIL, "ml@acme.example\0"),
        (EMAIL, "@acme.example"),
        (URI, "ml@acme.example"),
        (URI, "acme.example"),
        (URI, "ml@acme.example:"),
        (URI, "https:"),
        (URI, "https://acme.example/ x"),
    ] {
        let cause = Chain::but(|chain| set(&mut chain.leaf.extensions, alternative(&[(kind, text.as_bytes())])));
        malformed_as(cause, "alternative name");
    }
}

#[test]
fn constraints_on_names_hold_for_all_below() {
    type Names<'a> = &'a [(u8, &'a [u8])];
    let holds = |permitted: Names<'_>, excluded: Names<'_>, names: Names<'_>| {
        let verdicts: Vec<_> = [true, false]
            .map(|root| {
                let mut chain = Chain::new();
                let issuer = if root { &mut chain.root } else { &mut chain.intermediate };
                issuer.extensions.push(constraints(permitted, excluded));
                set(&mut chain.leaf.extensions, alternative(names));
                chain.verify()
            })
            .into();
        for verdict in &verdicts {
            match verdict {
                Ok(_) => {}
                Err(UntrustedIssuer(why)) => assert!(why.contains("a name that its issuer"), "{why}"),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(verdicts[0].is_ok(), verdicts[1].is_ok());
        verdicts[0].is_ok()
    };
    for (kind, base, inside, outside) in [
        (
            EMAIL,
            "acme.example",
            &["ml@acme.example", "ml@ACME.example"][..],
            &["ml@a.acme.example", "ml@evil.example", "ml@evilacme.example"][..],
        ),
        (EMAIL, ".acme.example", &["ml@a.acme.example"], &["ml@acme.example", "ml@evilacme.example"]),
        (EMAIL, "ml@acme.example", &["ml@acme.example", "ml@Acme.example"], &["ML@acme.example", "x@acme.example"]),
        (EMAIL, "", &["ml@acme.example"], &[]),
        (
            DNS,
            "acme.example",
            &["acme.example", "a.acme.example", "a.b.ACME.example"],
            &["evilacme.example", "example", "acme.example.evil"],
        ),
        (DNS, ".acme.example", &["a.acme.example"], &["acme.example"]),
        (DNS, "", &["anything"], &[]),
        (
            URI,
            "acme.example",
            &["https://acme.example/", "https://u@acme.example:8443/x", "x://Acme.Example"],
            &[
                "https://a.acme.example",
                "https://evil.example/acme.example",
                "https://acme.example@evil.example/",
                "https://evil.example?://acme.example",
            ],
        ),
        (
            URI,
            ".acme.example",
            &["https://a.acme.example#x"],
            &["https://acme.example", "https://evil.example#.acme.example"],
        ),
    ] {
        let base = [(kind, base.as_bytes())];
        for name in inside {
            assert!(holds(&base, &[], &[(kind, name.as_bytes())]), "{base:?} {name}");
            assert!(!holds(&[], &base, &[(kind, name.as_bytes())]), "{base:?} {name}");
        }
        for name in outside {
            assert!(!holds(&base, &[], &[(kind, name.as_bytes())]), "{base:?} {name}");
            assert!(holds(&[], &base, &[(kind, name.as_bytes())]), "{base:?} {name}");
            assert!(!holds(&base, &[], &[(kind, inside[0].as_bytes()), (kind, name.as_bytes())]), "{base:?} {name}");
        }
    }
    // names for which it cannot be told are refused, of other kinds are not concerned
    for unclear in [&b"urn:acme:ml"[..], b"https://127.0.0.1/", b"https://[::1]/", b"https:///x"] {
        assert!(!holds(&[(URI, b"acme.example")], &[], &[(URI, unclear)]));
        assert!(!holds(&[], &[(URI, b"acme.example")], &[(URI, unclear)]));
        assert!(holds(&[(DNS, b"acme.example")], &[], &[(URI, unclear)]));
    }
    assert!(!holds(&[(IP, &[127, 0, 0, 0, 255, 0, 0, 0])], &[], &[(IP, &[127, 0, 0, 1])]));
    assert!(holds(&[(IP, &[127, 0, 0, 0, 255, 0, 0, 0])], &[], &[(DNS, b"a")]));

    // subjects, of intermediates too
    let acme = attribute("2.5.4.10", 12, b"Acme");
    let (base, of_acme) =
        (sequence(&[&acme]), |name: &str| sequence(&[&acme, &attribute("2.5.4.3", 12, name.as_bytes())]));
    let limited = |chain: &mut Chain| chain.root.extensions.push(constraints(&[(DIRECTORY, &base)], &[]));
    untrusted(Chain::but(limited), "not permitted");
    let mut chain = Chain::new();
    limited(&mut chain);
    chain.intermediate.subject = of_acme("intermediate");
    chain.leaf.issuer = of_acme("intermediate");
    untrusted(chain.verify().unwrap_err(), "not permitted");
    chain.leaf.subject = of_acme("leaf");
    chain.verify().unwrap();
    // addresses in the subject count, and a common name that no constraint reaches does not
    chain.intermediate.extensions.push(constraints(&[(EMAIL, b"acme.example")], &[]));
    drop(&mut chain.leaf.extensions, "2.5.29.17");
    assert_eq!(chain.verify().unwrap().names(), [""; 0]);
    chain.leaf.subject = sequence(&[&acme, &attribute("1.2.840.113549.1.9.1", 22, b"ml@evil.example")]);
    untrusted(chain.verify().unwrap_err(), "not permitted");
    chain.leaf.subject = sequence(&[&acme, &attribute("1.2.840.113549.1.9.1", 22, b"ml@acme.example")]);
    chain.verify().unwrap();
}
