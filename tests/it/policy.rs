//! Who may sign what, in which version: policies, releases, rollback, and what changed.

use std::time::{Duration, SystemTime};

use weightmark::Error;
use weightmark::error::VerifyError;
use weightmark::io::tree;
use weightmark::keys::{Algorithm, SigningKey};
use weightmark::signing::release::{Relation, from_text, to_text};
use weightmark::signing::{Bundle, Hashing, Manifest, Policy, Release, Rule, Scope, Signatures, components};

use super::signing::cause;
use super::support::{Home, weightmark};

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EcdsaP256).unwrap()
}

/// A model directory called `model`, signed into `model.sig` or another file at its root.
fn sign(home: &Home, key: &SigningKey, name: &str) -> Manifest {
    let scope = extra(home).into_iter().fold(Scope::default(), Scope::ignore);
    let manifest = Manifest::of_tree(&*tree::open(home.path("model")).unwrap(), Hashing::default(), &scope, &());
    let manifest = manifest.unwrap();
    key.sign(&manifest).unwrap().write(home.path("model").join(name)).unwrap();
    manifest
}

/// Signatures of others, which a signer must leave out.
fn extra(home: &Home) -> Vec<&'static str> {
    ["model.alice.sig", "model.bob.sig"].into_iter().filter(|name| home.path("model").join(name).exists()).collect()
}

fn release(home: &Home, manifest: &Manifest, version: u64) -> Release {
    Release::of(&*tree::open(home.path("model")).unwrap(), manifest, "acme/small", version).unwrap()
}

fn publish(home: &Home, key: &SigningKey, release: &Release) {
    let place = home.path("model/model.release.sig");
    let _ = std::fs::remove_file(&place);
    release.sign(key).unwrap().write(place).unwrap();
}

#[test]
fn two_of_three() {
    use VerifyError::*;
    let home = Home::new();
    home.model("model", 5_000);
    let (alice, bob, carol, mallory) = (key(), key(), key(), key());
    let rule = Rule::signed_by(alice.verifying_key()).or(bob.verifying_key()).or(carol.verifying_key()).threshold(2);
    let policy = Policy::from(rule);
    let verify = || policy.verify(home.path("model"));
    sign(&home, &alice, "model.sig");
    assert_eq!(cause(verify()), Threshold { found: 1, required: 2 });
    // the same signer twice is one
    sign(&home, &alice, "model.alice.sig");
    assert_eq!(cause(verify()), Threshold { found: 1, required: 2 });
    sign(&home, &bob, "model.bob.sig");
    let verified = verify().unwrap();
    assert_eq!((verified.signatories().len(), verified.files()), (2, 3));
    // a key that is named twice is still one signer
    let twice = Rule::signed_by(alice.verifying_key()).or(alice.verifying_key()).threshold(2);
    std::fs::remove_file(home.path("model/model.bob.sig")).unwrap();
    assert_eq!(cause(Policy::from(twice).verify(home.path("model"))), Threshold { found: 1, required: 2 });
    // nobody's signature is tolerated, however many others there are
    sign(&home, &bob, "model.bob.sig");
    let found = mallory.verifying_key().id();
    mallory
        .sign(&Manifest::of(home.path("model/tokenizer")).unwrap())
        .unwrap()
        .write(home.path("model/model.m.sig"))
        .unwrap();
    assert_eq!(cause(verify()), UntrustedKey { found });
    std::fs::remove_file(home.path("model/model.m.sig")).unwrap();
    // two who signed different files do not make two
    home.write("model/config.json", "changed");
    std::fs::remove_file(home.path("model/model.bob.sig")).unwrap();
    sign(&home, &bob, "model.bob.sig");
    assert_eq!(cause(verify()), Disagreement);
}

#[test]
fn nobody_signs_under_the_name_of_another() {
    use VerifyError::*;
    let home = Home::new();
    home.model("model", 5_000);
    let (alice, mallory) = (key(), key());
    let rules = Policy::from(Rule::signed_by(alice.verifying_key()).models(["model"]));
    let policy = rules.and(Rule::signed_by(mallory.verifying_key()).models(["tiny"]));
    sign(&home, &alice, "model.sig");
    assert_eq!(policy.verify(home.path("model")).unwrap().name(), "model");
    // the same files under another name, in a file that comes first
    let moved = std::process::Command::new("cp").args(["-r", &home.at("model"), &home.at("big")]).status().unwrap();
    assert!(moved.success());
    let renamed = Manifest::of(home.path("big")).unwrap();
    mallory.sign(&renamed).unwrap().write(home.path("model/model.a.sig")).unwrap();
    assert_eq!(cause(policy.clone().expect_name("big").verify(home.path("model"))), Disagreement);
    std::fs::remove_file(home.path("model/model.a.sig")).unwrap();
    // fewer files under the same name
    let scope = Scope::default().ignore("config.json");
    let less = Manifest::of_tree(&*tree::open(home.path("model")).unwrap(), Hashing::default(), &scope, &()).unwrap();
    mallory.sign(&less).unwrap().write(home.path("model/model.a.sig")).unwrap();
    assert_eq!(cause(policy.verify(home.path("model"))), Disagreement);
}

#[test]
fn without_its_release_a_model_does_not_come_under_an_easier_rule() {
    use VerifyError::*;
    let home = Home::new();
    home.model("model", 5_000);
    let (alice, bob) = (key(), key());
    let strict = Rule::signed_by(alice.verifying_key()).or(bob.verifying_key()).threshold(2).models(["acme/*"]);
    let policy = Policy::from(strict).and(Rule::signed_by(alice.verifying_key()));
    let manifest = sign(&home, &alice, "model.sig");
    publish(&home, &alice, &release(&home, &manifest, 1));
    assert_eq!(cause(policy.verify(home.path("model"))), Threshold { found: 1, required: 2 });
    std::fs::remove_file(home.path("model/model.release.sig")).unwrap();
    assert_eq!(cause(policy.verify(home.path("model"))), NoRelease);
    // two who sign for themselves, with no word to each other
    let (model, keys) = (home.at("model"), [alice, bob].map(|key| (key.verifying_key().to_pem(), key)));
    std::fs::remove_file(home.path("model/model.sig")).unwrap();
    for (i, (public, key)) in keys.iter().enumerate() {
        home.write(&format!("{i}.pub"), public);
        key.save(home.path(&format!("{i}.pem"))).unwrap();
        let signature = home.at(&format!("model/model.{i}.sig"));
        let key = home.at(&format!("{i}.pem"));
        weightmark(["sign", &model, "--key", &key, "--release", "acme/small@7", "--signature", &signature]).ok();
    }
    let verified = policy.verify(home.path("model")).unwrap();
    assert_eq!((verified.signatories().len(), verified.release().unwrap().version()), (2, 7));
}

#[test]
fn many_signatures_are_not_looked_at() {
    let home = Home::new();
    home.model("model", 5_000);
    let key = key();
    sign(&home, &key, "model.sig");
    for i in 1..17 {
        std::fs::hard_link(home.path("model/model.sig"), home.path(&format!("model/model.{i}.sig"))).unwrap();
        let found = Policy::require(key.verifying_key()).verify(home.path("model"));
        if i < 16 {
            assert_eq!(found.unwrap().signatories().len(), 1);
        } else {
            assert!(matches!(cause(found), VerifyError::Unsupported(_)));
        }
    }
}

#[test]
fn the_record_of_versions_is_the_same_by_whatever_path() {
    let home = Home::new();
    home.model("model", 5_000);
    let key = key();
    let manifest = sign(&home, &key, "model.sig");
    let policy = |record: &str| Policy::require(key.verifying_key()).high_water(home.path(record));
    publish(&home, &key, &release(&home, &manifest, 1));
    policy("seen.json").verify(home.path("model")).unwrap();
    std::os::unix::fs::symlink("seen.json", home.path("link.json")).unwrap();
    publish(&home, &key, &release(&home, &manifest, 2));
    policy("link.json").verify(home.path("model")).unwrap();
    publish(&home, &key, &release(&home, &manifest, 1));
    for record in ["seen.json", "link.json"] {
        assert!(matches!(cause(policy(record).verify(home.path("model"))), VerifyError::Rollback { .. }), "{record}");
    }
    // a lock that is no file is not waited for
    std::fs::remove_file(home.path("seen.json.lock")).unwrap();
    std::os::unix::fs::symlink("/dev/null", home.path("seen.json.lock")).unwrap();
    publish(&home, &key, &release(&home, &manifest, 3));
    assert!(matches!(policy("seen.json").verify(home.path("model")), Err(Error::Io { .. })));
}

#[test]
fn each_key_signs_for_the_models_that_it_may() {
    use VerifyError::*;
    let home = Home::new();
    home.model("model", 5_000);
    let (large, small) = (key(), key());
    let rules = || Policy::from(Rule::signed_by(large.verifying_key()).models(["acme/large*"]));
    let policy = rules().and(Rule::signed_by(small.verifying_key()).models(["acme/small", "model"]));
    let manifest = sign(&home, &small, "model.sig");
    assert_eq!(policy.verify(home.path("model")).unwrap().name(), "model");
    publish(&home, &small, &release(&home, &manifest, 1));
    assert_eq!(policy.verify(home.path("model")).unwrap().name(), "acme/small");
    // the key of the small ones cannot pass one off as a large one
    let tree = tree::open(home.path("model")).unwrap();
    publish(&home, &small, &Release::of(&*tree, &manifest, "acme/large-70b", 1).unwrap());
    assert_eq!(cause(policy.verify(home.path("model"))), UntrustedKey { found: small.verifying_key().id() });
    publish(&home, &small, &Release::of(&*tree, &manifest, "other/model", 1).unwrap());
    assert_eq!(cause(policy.verify(home.path("model"))), NoRule { name: "other/model".into() });
    // and whoever takes the release away does not get around what a rule asks of it
    let strict = Rule::signed_by(small.verifying_key()).models(["acme/small"]).minimum_version(2);
    let strict = Policy::from(strict).and(Rule::signed_by(small.verifying_key()));
    publish(&home, &small, &release(&home, &manifest, 1));
    assert_eq!(cause(strict.verify(home.path("model"))), Version { found: 1, required: 2 });
    std::fs::remove_file(home.path("model/model.release.sig")).unwrap();
    assert_eq!(cause(strict.verify(home.path("model"))), NoRelease);
    // nor can a model be served as another than the one that was asked for
    publish(&home, &small, &release(&home, &manifest, 1));
    let (found, expected) = ("acme/small".to_owned(), "acme/large".to_owned());
    assert_eq!(
        cause(policy.clone().expect_name("acme/large").verify(home.path("model"))),
        WrongName { found, expected }
    );
    policy.clone().expect_name("acme/small").verify(home.path("model")).unwrap();
    let revoked = policy.revoke(small.verifying_key().id());
    assert_eq!(cause(revoked.verify(home.path("model"))), Revoked { key: small.verifying_key().id() });
}

#[test]
fn a_release_is_new_enough_not_over_and_of_this_model() {
    use VerifyError::*;
    let home = Home::new();
    home.model("model", 5_000);
    let key = key();
    let manifest = sign(&home, &key, "model.sig");
    let policy = || Policy::require(key.verifying_key());
    let verify = |policy: Policy| policy.verify(home.path("model"));
    let rule = || Rule::signed_by(key.verifying_key());
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    for needs in
        [policy().minimum_version(1), rule().minimum_version(1).into(), rule().not_older_than(now - day).into()]
    {
        assert_eq!(cause(verify(needs)), NoRelease);
    }
    let three = release(&home, &manifest, 3).expires_at(now + day);
    publish(&home, &key, &three);
    assert_eq!(verify(policy()).unwrap().release(), Some(&three));
    verify(policy().minimum_version(3)).unwrap();
    assert_eq!(cause(verify(policy().minimum_version(4))), Version { found: 3, required: 4 });
    assert_eq!(cause(verify(rule().minimum_version(4).into())), Version { found: 3, required: 4 });
    verify(rule().not_older_than(three.issued()).into()).unwrap();
    let issued = to_text(three.issued());
    assert_eq!(cause(verify(rule().not_older_than(three.issued() + day).into())), TooOld { issued });
    let at = to_text(three.expires().unwrap());
    assert_eq!(cause(verify(policy().at(now + 2 * day))), Expired { at });

    // one of another model, or by another signer, is none
    home.write("other/config.json", "{}");
    let other = Manifest::of(home.path("other")).unwrap();
    publish(&home, &key, &Release::of(&*tree::open(home.path("other")).unwrap(), &other, "acme/small", 4).unwrap());
    assert_eq!(cause(verify(policy())), ForeignRelease);
    let stranger = self::key();
    publish(&home, &stranger, &three);
    assert_eq!(cause(verify(policy())), UntrustedKey { found: stranger.verifying_key().id() });
    home.write("model/model.release.sig", "{}");
    assert!(matches!(cause(verify(policy())), MalformedBundle(_)));
    // a signature cannot stand in for a release, nor a release for a signature
    std::fs::copy(home.path("model/model.sig"), home.path("model/model.release.sig")).unwrap();
    assert_eq!(cause(verify(policy().minimum_version(1))), NoRelease);
    publish(&home, &key, &three);
    std::fs::remove_file(home.path("model/model.sig")).unwrap();
    assert_eq!(cause(verify(policy())), NoSignature { path: "model.sig".into() });
}

#[test]
fn an_older_version_is_not_taken_once_a_newer_one_was_seen() {
    use VerifyError::*;
    let home = Home::new();
    home.model("model", 5_000);
    let key = key();
    let policy = || Policy::require(key.verifying_key()).high_water(home.path("seen.json"));
    let old = sign(&home, &key, "model.sig");
    assert_eq!(cause(policy().verify(home.path("model"))), NoRelease);
    let second = release(&home, &old, 2);
    publish(&home, &key, &second);
    policy().verify(home.path("model")).unwrap();
    policy().verify(home.path("model")).unwrap(); // again, and nothing changes
    let copy = std::process::Command::new("cp").args(["-r", &home.at("model"), &home.at("old")]).status().unwrap();
    assert!(copy.success());

    home.write("model/config.json", "{\"v\": 3}");
    std::fs::remove_file(home.path("model/model.sig")).unwrap();
    let new = sign(&home, &key, "model.sig");
    // the same number for other files is as bad as a lower one
    publish(&home, &key, &release(&home, &new, 2));
    let rollback = |found, seen| Rollback { name: "acme/small".into(), found, seen };
    assert_eq!(cause(policy().verify(home.path("model"))), rollback(2, 2));
    publish(&home, &key, &release(&home, &new, 3));
    policy().verify(home.path("model")).unwrap();
    assert_eq!(cause(policy().verify(home.path("old"))), rollback(2, 3));
    Policy::require(key.verifying_key()).verify(home.path("old")).unwrap();
    // what does not verify raises nothing
    home.write("model/config.json", "{}");
    publish(&home, &key, &release(&home, &new, 9));
    assert!(matches!(cause(policy().verify(home.path("model"))), DigestMismatch { .. }));
    let seen = String::from_utf8(home.read("seen.json")).unwrap();
    assert!(seen.contains("\"version\":3}"), "{seen}");
    home.write("model/config.json", "{\"v\": 3}");
    // a damaged record is not an empty one
    for damaged in ["", "{}", "{\"schema\":\"weightmark/high-water/2\",\"models\":{}}", &seen[1..]] {
        home.write("seen.json", damaged);
        assert!(matches!(policy().verify(home.path("model")), Err(Error::Io { .. })), "{damaged}");
    }
}

#[test]
fn an_adapter_belongs_to_its_base() {
    let home = Home::new();
    home.model("model", 5_000);
    let key = key();
    let manifest = sign(&home, &key, "model.sig");
    let (base, other) = ([7; 32], [8; 32]);
    let adapter = release(&home, &manifest, 1).made_from(Relation::Base, "acme/base", base);
    publish(&home, &key, &adapter);
    let policy = || Policy::require(key.verifying_key());
    let verified = policy().expect_parent(base).verify(home.path("model")).unwrap();
    assert_eq!(verified.release().unwrap().parents()[0].relation, Relation::Base);
    assert_eq!(
        cause(policy().expect_parent(other).verify(home.path("model"))),
        VerifyError::Parent { digest: "08".repeat(32) }
    );
}

#[test]
fn chat_template_tokenizer_and_code_are_named() {
    use components::Kind::*;
    let home = Home::new();
    home.model("model", 5_000);
    home.write("model/modeling.py", "import os");
    home.write("model/tokenizer.json", "{}");
    home.write("model/tokenizer_config.json", r#"{"chat_template": "{{ messages }}"}"#);
    home.write("model/chat_template.jinja", "{{ messages }}");
    let key = key();
    let manifest = sign(&home, &key, "model.sig");
    let release = release(&home, &manifest, 1);
    let named: Vec<_> = release.components().iter().map(|part| (part.kind, part.name.as_str())).collect();
    let expected = [
        (ChatTemplate, "chat_template.jinja"),
        (ChatTemplate, "tokenizer_config.json#chat_template"),
        (Code, "modeling.py"),
        (Tokenizer, "tokenizer.json"),
        (Tokenizer, "tokenizer/vocab.txt"),
        (Tokenizer, "tokenizer_config.json"),
    ];
    assert_eq!(named, expected);
    assert_eq!(release.components()[0].digest, release.components()[1].digest);
    publish(&home, &key, &release);
    let policy = Policy::require(key.verifying_key());
    policy.verify(home.path("model")).unwrap();
    // a publisher who hides a change of the template is found out
    let text = String::from_utf8(home.read("model/model.release.sig")).unwrap();
    let forged = release_with(&text, |statement| {
        let components = statement["predicate"]["components"].as_array_mut().unwrap();
        components.remove(1);
    });
    resign(&home, &key, &forged);
    let path = "tokenizer_config.json#chat_template".to_owned();
    assert_eq!(cause(policy.verify(home.path("model"))), VerifyError::Component { path });
    for (field, value) in [
        ("version", serde_json::json!(-1)),
        ("issued", serde_json::json!("2026-11-26 10:00:00Z")),
        ("expires", serde_json::json!("2026-11-26T10:00:00.5Z")),
        ("expires", serde_json::json!("2026-11-26T10:00:00+01:00")),
        ("unknown", serde_json::json!(1)),
        ("code", serde_json::json!(["../x"])),
        ("parents", serde_json::json!([{"relation": "uncle", "name": "x", "digest": {"sha256": "00".repeat(32)}}])),
        ("parents", serde_json::json!([{"relation": "base", "name": "x", "digest": {"sha512": "00".repeat(32)}}])),
        ("components", serde_json::json!([[]])),
    ] {
        let forged = release_with(&text, |statement| statement["predicate"][field] = value.clone());
        resign(&home, &key, &forged);
        assert!(
            matches!(cause(policy.verify(home.path("model"))), VerifyError::MalformedStatement(_)),
            "{field} {value}"
        );
    }
}

/// The statement in a bundle, changed.
fn release_with(bundle: &str, change: impl Fn(&mut serde_json::Value)) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let bundle: serde_json::Value = serde_json::from_str(bundle).unwrap();
    let payload = BASE64_STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    let mut statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    change(&mut statement);
    statement.to_string()
}

/// Signs a statement of any content into the file of the release.
fn resign(home: &Home, key: &SigningKey, payload: &str) {
    home.write("model/model.release.sig", super::signing::bundle(key, payload));
}

#[test]
fn times_have_one_form() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_000_000);
    assert_eq!(from_text(&to_text(time)), Some(time));
    let (past, future) =
        (SystemTime::UNIX_EPOCH - Duration::from_secs(1), time + Duration::from_secs(9_000 * 365 * 86_400));
    assert_eq!((to_text(past).as_str(), to_text(future).as_str()), ("1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"));
    for text in ["2026-11-26", "2026-11-26T10:00:00", "2026-11-26T10:00:00.0Z", "2026-13-26T10:00:00Z", ""] {
        assert_eq!(from_text(text), None, "{text}");
    }
}

#[test]
fn a_policy_in_a_file() {
    let home = Home::new();
    home.model("model", 5_000);
    let (release_key, other) = (key(), key());
    home.write("policy/release.pem", release_key.verifying_key().to_pem());
    home.write("policy/other.pem", other.verifying_key().to_pem());
    let manifest = sign(&home, &release_key, "model.sig");
    publish(&home, &release_key, &release(&home, &manifest, 3));
    let policy = |text: &str| Policy::load(home.write("policy/policy.toml", text));
    let verify = |text: &str| policy(text).unwrap().verify(home.path("model"));
    let rule = "[[rule]]\nkeys = [\"release.pem\"]\n";
    assert_eq!(verify(rule).unwrap().release().unwrap().version(), 3);
    let all = "high-water = \"seen.json\"\n[[rule]]\nmodels = [\"other/*\"]\nkeys = [\"other.pem\"]\n\
               [[rule]]\nmodels = [\"acme/*\"]\nkeys = [\"other.pem\", \"release.pem\"]\nthreshold = 1\n\
               minimum-version = 3\nnot-older-than = 2026-01-01T00:00:00Z\n";
    verify(all).unwrap();
    assert!(home.path("policy/seen.json").exists());
    let cause_of = |text: &str| cause(verify(text));
    assert_eq!(cause_of(&format!("{rule}models = [\"other/*\"]")), VerifyError::NoRule { name: "acme/small".into() });
    assert_eq!(
        cause_of(&all.replace("threshold = 1", "threshold = 2")),
        VerifyError::Threshold { found: 1, required: 2 }
    );
    assert_eq!(cause_of(&all.replace("version = 3", "version = 4")), VerifyError::Version { found: 3, required: 4 });
    assert!(matches!(cause_of(&all.replace("2026-01", "2126-01")), VerifyError::TooOld { .. }));
    let id = release_key.verifying_key().id();
    assert_eq!(cause_of(&format!("revoked = [\"{id}\"]\n{rule}")), VerifyError::Revoked { key: id });
    for bad in [
        "",
        "rule = []",
        "[[rule]]",
        "[[rule]]\nkeys = []",
        "[[rule]]\nkeys = [\"release.pem\"]\nthreshold = 2",
        "[[rule]]\nkeys = [\"release.pem\"]\nthreshold = 0",
        "[[rule]]\nkeys = [\"release.pem\"]\nmodels = []",
        "[[rule]]\nkeys = [\"release.pem\"]\nmodel = [\"x\"]",
        "[[rule]]\nkeys = [\"release.pem\"]\nkeys = [\"release.pem\"]",
        "[[rule]]\nkeys = [\"release.pem\"]\nnot-older-than = 2026-01-01",
        "[[rule]]\nkeys = [\"release.pem\"]\nminimum-version = -1",
        "revoke = []\n[[rule]]\nkeys = [\"release.pem\"]",
        "revoked = [\"nonsense\"]\n[[rule]]\nkeys = [\"release.pem\"]",
    ] {
        assert!(matches!(policy(bad), Err(Error::Io { .. })), "{bad}");
    }
    assert!(matches!(policy("[[rule]]\nkeys = [\"gone.pem\"]"), Err(Error::Io { .. })));
    assert!(matches!(policy("[[rule]]\nkeys = [\"policy.toml\"]"), Err(Error::Key { .. })));
}

#[test]
fn signatures_alone_say_what_was_released() {
    let home = Home::new();
    home.model("model", 5_000);
    let key = key();
    let manifest = sign(&home, &key, "model.sig");
    publish(&home, &key, &release(&home, &manifest, 5));
    let read = |name: &str| Bundle::read(home.path("model").join(name)).unwrap();
    let both = Signatures::new().and(None, read("model.sig")).and(None, read("model.release.sig"));
    let policy = Policy::require(key.verifying_key());
    let (found, released) = policy.verify_signatures(&both).unwrap();
    assert_eq!((found.root_digest(), released.unwrap().version()), (manifest.root_digest(), 5));
    let nobody = Policy::require(self::key().verifying_key());
    assert!(matches!(cause(nobody.verify_signatures(&both)), VerifyError::UntrustedKey { .. }));
    both.danger_unverified().unwrap();
}

#[test]
fn from_the_command_line() {
    let home = Home::with_keys();
    home.model("base", 5_000);
    home.model("model", 6_000);
    home.write("model/chat_template.jinja", "{{ messages }}");
    let (key, public) = (home.at("release.pem"), home.at("release.pem.pub"));
    weightmark(["sign", &home.at("base"), "--key", &key]).ok();
    let parent = format!("base={}", home.at("base"));
    let (model, newer) = (home.at("model"), home.at("newer"));
    weightmark([
        "sign",
        &model,
        "--key",
        &key,
        "--release",
        "acme/tiny@2",
        "--expires",
        "30days",
        "--parent",
        &parent,
        "--parent-key",
        &public,
    ])
    .ok();
    assert!(std::process::Command::new("cp").args(["-r", &model, &newer]).status().unwrap().success());
    for sig in ["newer/model.sig", "newer/model.release.sig"] {
        std::fs::remove_file(home.path(sig)).unwrap();
    }
    home.write("newer/chat_template.jinja", "{{ evil }}");
    home.write("newer/notes.txt", "new");
    std::fs::remove_file(home.path("newer/config.json")).unwrap();
    weightmark(["sign", &newer, "--key", &key, "--release", "acme/tiny@3"]).ok();

    let verified =
        weightmark(["--json", "verify", &model, "--key", &public, "--name", "acme/tiny", "--parent", &home.at("base")]);
    let verified = verified.json();
    assert_eq!((&verified["release"]["version"], &verified["name"]), (&2.into(), &"acme/tiny".into()));
    assert_eq!(verified["release"]["parents"][0]["relation"], "base");
    assert_eq!(verified["signers"][0]["kind"], "key");
    let no_parent = ["verify", &newer, "--key", &public, "--parent", &home.at("base")];
    weightmark(no_parent).fails(1, &["does not name the model", "as its parent"]);
    weightmark(["verify", &model, "--key", &public, "--minimum-version", "3"])
        .fails(1, &["version 2 is below the version 3"]);
    weightmark(["verify", &model, "--key", &public, "--name", "acme/huge"]).fails(1, &["acme/tiny", "acme/huge"]);
    let seen = home.at("seen.json");
    weightmark(["verify", &newer, "--key", &public, "--high-water", &seen]).ok();
    let old = weightmark(["--json", "verify", &model, "--key", &public, "--high-water", &seen]);
    assert_eq!(old.status, 1);
    assert!(old.stdout.contains("\"code\":\"rollback\""), "{}", old.stdout);

    let text = weightmark(["diff", &model, &newer, "--key", &public]).ok();
    for line in [
        "from acme/tiny version 2",
        "+ notes.txt",
        "- config.json",
        "~ chat_template.jinja",
        "! chat-template: chat_template.jinja",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
    let json = weightmark(["--json", "diff", &home.at("model/model.sig"), &home.at("newer/model.sig")]).json();
    assert_eq!((&json["verified"], &json["difference"]["added"][0]), (&false.into(), &"notes.txt".into()));
    let shown = weightmark(["inspect", &model]).ok();
    assert!(shown.contains("release \"acme/tiny\" version 2, by key"), "{shown}");
    weightmark(["verify", &model]).fails(2, &["nobody whose signature counts"]);
    weightmark(["sign", &newer, "--key", &key, "--release", "acme/tiny", "--signature", &home.at("x")])
        .fails(2, &["NAME@VERSION"]);
}
