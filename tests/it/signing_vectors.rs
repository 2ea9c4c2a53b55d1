//! The vectors of signed models: what must verify, and what must be refused, for which cause.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};
use weightmark::error::Error;
use weightmark::io::tree;
use weightmark::keys::VerifyingKey;
use weightmark::signing::release::from_text;
use weightmark::signing::{Bundle, Policy, Rule, Signatures, Verified};

use super::support::{Home, Run, python, script, vector};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    policy: PlainPolicy,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(rename = "comment")]
    _comment: String,
    model: String,
    #[serde(default)]
    changes: BTreeMap<String, Change>,
    bundles: BTreeMap<String, String>,
    #[serde(default)]
    outside: Vec<String>,
    #[serde(default)]
    policy: PlainPolicy,
    high_water: Option<Value>,
    high_water_after: Option<Value>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Change {
    Content(String),
    Fifo { fifo: bool },
    Link { link: String },
    Remove(()),
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PlainPolicy {
    rules: Vec<PlainRule>,
    at: Option<String>,
    name: Option<String>,
    parent: Option<String>,
    revoked: Vec<String>,
    ignore: Vec<String>,
    ignore_unsigned: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainRule {
    keys: Vec<String>,
    #[serde(default = "one")]
    threshold: usize,
    models: Option<Vec<String>>,
    minimum_version: Option<u64>,
    not_older_than: Option<String>,
}

fn one() -> usize {
    1
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Expect {
    Found { files: usize, root: Option<String>, version: Option<u64>, name: String },
    Refused(String),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time(text: &str) -> SystemTime {
    from_text(text).unwrap()
}

fn key(name: &str) -> VerifyingKey {
    VerifyingKey::load(vector(&format!("signing/keys/{name}.pem"))).unwrap()
}

fn rule(plain: &PlainRule) -> Rule {
    let (first, others) = plain.keys.split_first().unwrap();
    let rule = others.iter().fold(Rule::signed_by(key(first)), |rule, name| rule.or(key(name)));
    let rule = rule.threshold(plain.threshold);
    let rule = match &plain.models {
        Some(models) => rule.models(models),
        None => rule,
    };
    let rule = plain.minimum_version.into_iter().fold(rule, Rule::minimum_version);
    plain.not_older_than.iter().fold(rule, |rule, since| rule.not_older_than(time(since)))
}

/// The policy of a case; what it does not say is as usual.
fn policy(plain: &PlainPolicy, usual: &PlainPolicy) -> Policy {
    let rules = if plain.rules.is_empty() { &usual.rules } else { &plain.rules };
    let (first, others) = rules.split_first().unwrap();
    let policy = others.iter().map(rule).fold(Policy::from(rule(first)), Policy::and);
    let policy = plain.at.iter().chain(&usual.at).take(1).fold(policy, |policy, at| policy.at(time(at)));
    let policy = plain.name.iter().fold(policy, Policy::expect_name);
    let policy = plain.revoked.iter().fold(policy, |policy, name| policy.revoke(key(name).id()));
    let policy = plain.ignore.iter().fold(policy, Policy::danger_ignore_path);
    let policy = plain.parent.iter().fold(policy, |policy, root| {
        let digits = |at: usize| u8::from_str_radix(&root[2 * at..2 * at + 2], 16).unwrap();
        policy.expect_parent(std::array::from_fn(digits))
    });
    if plain.ignore_unsigned { policy.danger_ignore_unsigned_files() } else { policy }
}

/// Copies the model, changes what is to be changed, and puts the signatures where they belong.
fn lay_out(home: &Home, case: &Case) -> PathBuf {
    let source = vector(&format!("signing/models/{}", case.model));
    let model = home.path(&case.name).join(&case.model);
    fs::create_dir(home.path(&case.name)).unwrap();
    Run::of(Command::new("cp").arg("-r").arg(source).arg(&model)).ok();
    let place = |path: PathBuf| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for (name, change) in &case.changes {
        let path = if name == "." { model.clone() } else { model.join(name) };
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        }
        match change {
            Change::Content(text) => fs::write(place(path), text).unwrap(),
            Change::Fifo { fifo } => assert!(*fifo && Command::new("mkfifo").arg(path).status().unwrap().success()),
            Change::Link { link } => {
                let _ = fs::remove_file(&path);
                symlink(link, place(path)).unwrap();
            }
            Change::Remove(()) => fs::remove_file(path).unwrap(),
        }
    }
    let beside = if model.is_dir() { model.clone() } else { home.path(&case.name) };
    for (name, bundle) in &case.bundles {
        fs::copy(stored(bundle), place(beside.join(name))).unwrap();
    }
    model
}

fn stored(bundle: &str) -> PathBuf {
    vector(&format!("signing/bundles/{bundle}.sig"))
}

fn verify(policy: &Policy, model: &Path, case: &Case) -> Result<Verified, Error> {
    if case.outside.is_empty() {
        return policy.verify(model);
    }
    let tree = tree::open(model)?;
    let mut signatures = if case.bundles.is_empty() { Signatures::new() } else { Signatures::find(model, &*tree)? };
    for bundle in &case.outside {
        signatures = signatures.and(None, Bundle::read(stored(bundle))?);
    }
    policy.verify_tree(&*tree, &signatures, &())
}

/// What was found, as far as the case says it, or the cause of the refusal.
fn outcome(result: Result<Verified, Error>, expect: &Expect) -> Expect {
    let verified = match result {
        Ok(verified) => verified,
        Err(Error::Verify { cause, .. }) => return Expect::Refused(cause.word().into()),
        // what cannot be read as a model has no cause of its own yet
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::InvalidInput => {
            return Expect::Refused("not-a-file".into());
        }
        Err(other) => return Expect::Refused(format!("{other:?}")),
    };
    let has_root = !matches!(expect, Expect::Found { root: None, .. });
    Expect::Found {
        files: verified.files(),
        root: has_root.then(|| hex(verified.root_digest())),
        version: verified.release().map(|release| release.version()),
        name: verified.name().to_owned(),
    }
}

#[test]
fn every_signed_model_verifies_or_is_refused_for_its_cause() {
    let home = Home::new();
    let index: Index = serde_json::from_slice(&fs::read(vector("signing/cases.json")).unwrap()).unwrap();
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in &index.cases {
        let model = lay_out(&home, case);
        let state = home.path(&case.name).join("seen.json");
        let mut policy = policy(&case.policy, &index.policy);
        if let Some(models) = &case.high_water {
            let text = json!({"schema": "weightmark/high-water/1", "models": models}).to_string();
            fs::write(&state, text).unwrap();
            policy = policy.high_water(&state);
        }
        let found = outcome(verify(&policy, &model, case), &case.expect);
        if found != case.expect {
            wrong.push(format!("{}: {found:?}, not {:?}", case.name, case.expect));
        }
        if let Some(after) = &case.high_water_after {
            let seen: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
            assert_eq!(&seen["models"], after, "{}", case.name);
        }
        let count = if matches!(found, Expect::Refused(_)) { &mut refused } else { &mut accepted };
        *count += 1;
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(accepted >= 60 && refused >= 350, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_second_verifier_agrees_on_every_signed_model_and_the_vectors_are_made_again() {
    let home = Home::new();
    let vectors = vector("signing").to_str().unwrap().to_owned();
    let counts = python([script("check_signing.py").to_str().unwrap(), &vectors]).json();
    assert!(counts["ok"].as_u64() >= Some(60) && counts["refused"].as_u64() >= Some(350), "{counts}");
    Run::of(Command::new("cp").args(["-r", &vectors, &home.at("again")])).ok();
    python([home.at("again/generate.py")]).ok();
    let difference = ["-r", "--exclude=__pycache__", &vectors, &home.at("again")];
    Run::of(Command::new("diff").args(difference)).ok();
}
