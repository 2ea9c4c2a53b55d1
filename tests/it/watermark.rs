//! The mark: found where it is, not found where it is not, whatever was done to the copy.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use weightmark::Model;
use weightmark::error::{Error, FormatError, WatermarkError};
use weightmark::format::safetensors::{TensorData, read, to_bytes};
use weightmark::io::{ReadAtExt, SliceAt};
use weightmark::keys::OwnerKey;
use weightmark::tensor::Dtype;
use weightmark::watermark::{Detector, Evidence, Watermark};

use super::support::{Home, Random, encode, python, safetensors, vector, weightmark};

const WEIGHTS: usize = 600_000;

/// A home with an original and a marked copy of it.
fn marked(dtype: Dtype) -> (Home, OwnerKey) {
    let home = Home::new();
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    home.write("original", safetensors(dtype, WEIGHTS));
    Watermark::new(&owner).copy("copy-3").embed(home.path("original"), home.path("marked")).unwrap();
    (home, owner)
}

fn detector<'a>(home: &Home, owner: &'a OwnerKey) -> Detector<'a> {
    Detector::new(owner, home.path("original")).copies((1..=10).map(|i| format!("copy-{i}")))
}

/// The suspect made of the marked copy by changing its weights.
fn attacked(home: &Home, owner: &OwnerKey, change: impl FnMut(f32) -> f32) -> Evidence {
    let model = Model::options().open(home.path("marked")).unwrap();
    let mut change = change;
    let mut data = Vec::new();
    for (_, info) in model.tensors() {
        let values = model.tensor(&info.name).unwrap().to_f32().unwrap();
        let bytes: Vec<u8> = values.into_iter().flat_map(|w| encode(info.dtype, f64::from(change(w)))).collect();
        data.push((info, bytes));
    }
    let tensors: Vec<_> =
        data.iter().map(|(i, bytes)| TensorData { name: &i.name, dtype: i.dtype, shape: &i.shape, bytes }).collect();
    home.write("suspect", to_bytes(&tensors, &BTreeMap::new()).unwrap());
    detector(home, owner).examine(home.path("suspect")).unwrap()
}

#[test]
fn every_float_type_carries_the_mark() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let (home, owner) = marked(dtype);
        let evidence = detector(&home, &owner).examine(home.path("marked")).unwrap();
        assert!(evidence.log10_p() < -1000.0, "{dtype}: {}", evidence.log10_p());
        assert_eq!(evidence.copy().unwrap().label, "copy-3", "{dtype}");
        assert_eq!((evidence.tensors_matched(), evidence.tensors()), (2, 2));
        let runner_up = &evidence.copies()[1];
        assert!(runner_up.log10_p > -6.0, "{dtype}: innocent {runner_up:?}");

        // same header, same untouched tensors
        let (original, marked) = (home.read("original"), home.read("marked"));
        let index = read(&SliceAt::new(&original)).unwrap();
        assert_eq!(read(&SliceAt::new(&marked)).unwrap(), index);
        let bias = index.tensor("b.bias").unwrap().span.clone();
        let span = |bytes: &[u8]| SliceAt::new(bytes.to_vec()).read_span(bias.clone()).unwrap();
        assert_eq!(span(&original), span(&marked));
    }
}

#[test]
fn the_mark_survives_what_thieves_do() {
    let (home, owner) = marked(Dtype::F32);
    let mut random = Random(1);
    let noise = attacked(&home, &owner, |w| w + 0.1 * 0.05 * random.normal() as f32);
    let pruned = attacked(&home, &owner, |w| if w.abs() < 0.034 { 0.0 } else { w });
    let int8 = attacked(&home, &owner, |w| (w / 0.2 * 127.0).round() / 127.0 * 0.2);
    let scaled = attacked(&home, &owner, |w| 3.5 * w);
    for (name, evidence) in [("10 % noise", noise), ("half pruned", pruned), ("8-bit", int8), ("scaled", scaled)] {
        assert!(evidence.is_detected(), "{name}: {}", evidence.log10_p());
        assert_eq!(evidence.copy().map(|copy| copy.label.as_str()), Some("copy-3"), "{name}");
    }
}

/// One row of enormous weights, which a model never looks at, must not drown the evidence of all others.
#[test]
fn a_row_of_enormous_weights_does_not_hide_the_mark() {
    let (home, owner) = marked(Dtype::F32);
    let model = Model::options().open(home.path("marked")).unwrap();
    for size in [1.7e308, 1e200, 3.4e38, f64::INFINITY, f64::NAN] {
        let data: Vec<_> = model
            .tensors()
            .map(|(_, info)| {
                let mut values: Vec<f64> =
                    model.tensor(&info.name).unwrap().to_f32().unwrap().into_iter().map(f64::from).collect();
                values[..64].iter_mut().for_each(|w| *w = size * w.signum());
                (info, values.into_iter().flat_map(f64::to_le_bytes).collect::<Vec<u8>>())
            })
            .collect();
        let tensors: Vec<_> = data
            .iter()
            .map(|(i, bytes)| TensorData { name: &i.name, dtype: Dtype::F64, shape: &i.shape, bytes })
            .collect();
        home.write("suspect", to_bytes(&tensors, &BTreeMap::new()).unwrap());
        let evidence = detector(&home, &owner).examine(home.path("suspect")).unwrap();
        assert!(evidence.log10_p() < -1000.0 && evidence.copy().is_some(), "{size}: {}", evidence.log10_p());
    }
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let (home, owner) = marked(Dtype::F32);
    let stranger = OwnerKey::generate("Acme Ltd").unwrap();
    for (name, evidence) in [
        ("another key", detector(&home, &stranger).examine(home.path("marked")).unwrap()),
        ("the original", detector(&home, &owner).examine(home.path("original")).unwrap()),
        ("another beacon", detector(&home, &owner).beacon("2").examine(home.path("marked")).unwrap()),
        ("another strength", detector(&home, &owner).strength(0.02).examine(home.path("marked")).unwrap()),
    ] {
        assert!(evidence.log10_p() > -6.0 && !evidence.is_detected(), "{name}: {}", evidence.log10_p());
        assert_eq!(evidence.copy(), None, "{name}");
    }
    home.write("other", {
        let tensors = [TensorData { name: "x", dtype: Dtype::F32, shape: &[1], bytes: &[0; 4] }];
        to_bytes(&tensors, &BTreeMap::new()).unwrap()
    });
    let evidence = detector(&home, &owner).examine(home.path("other")).unwrap();
    assert_eq!((evidence.tensors_matched(), evidence.log10_p(), evidence.z()), (0, 0.0, 0.0));
}

/// The p-value is a bound: over many wrong keys it must not be small more often than it says.
#[test]
fn p_values_of_wrong_keys_are_not_too_small() {
    let home = Home::new();
    home.write("original", safetensors(Dtype::F32, 20_000));
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    Watermark::new(&owner).embed(home.path("original"), home.path("marked")).unwrap();
    let (mut below, mut squares, keys) = (0, 0.0, 1000);
    for _ in 0..keys {
        let wrong = OwnerKey::generate("Acme Ltd").unwrap();
        let evidence = Detector::new(&wrong, home.path("original")).examine(home.path("marked")).unwrap();
        below += u32::from(evidence.log10_p() < -1.0);
        squares += evidence.readings()[0].z.powi(2);
    }
    // expected at most 100; one run in a million sees more than 147. z has variance 1, give or take 0.045.
    assert!(below <= 147, "{below} of {keys} below 0.1");
    let variance = squares / f64::from(keys);
    assert!((0.75..1.25).contains(&variance), "variance {variance}");
}

#[test]
fn embedding_is_reproducible_and_copies_differ() {
    let (home, owner) = marked(Dtype::BF16);
    let embed = |label: &str, to: &str| {
        let done = Watermark::new(&owner).copy(label).embed(home.path("original"), home.path(to)).unwrap();
        (done, home.read(to))
    };
    let (done, again) = embed("copy-3", "again");
    assert_eq!(again, home.read("marked"));
    assert!((done.relative_distortion / done.strength - 1.0).abs() < 0.1, "{done:?}");
    assert_ne!(embed("copy-4", "other").1, again);
    let innocent = detector(&home, &owner).examine(home.path("other")).unwrap();
    assert_eq!(innocent.copy().unwrap().label, "copy-4");
}

/// The mark of version 2, to the bit: a change of the scheme shows here first.
#[test]
fn the_mark_is_the_same_for_ever() {
    let home = Home::new();
    let text = std::fs::read_to_string(vector("watermark/owner.txt")).unwrap();
    let owner = OwnerKey::parse(text.lines().find(|line| !line.starts_with('#')).unwrap()).unwrap();
    let mut random = Random(3);
    for (dtype, root, digest) in [
        (
            Dtype::F32,
            "f9c292c050b922df45bf30fc2388b0c0b0b794f1e92b8d327c6dd2d8f12c5a48",
            "bc74dd19c3043c327ac92a2d8800c8e55961e4fbb98a0d1efb95d014a4252673",
        ),
        (
            Dtype::F16,
            "1ab4d0e09e25dab9997770fc51831730601041ab42db5e67f0ef165e3b195036",
            "57c2073ac4e1a469c3eb08b6d7db5fd4e6976048929327ca0615db6f1baf7bbc",
        ),
        (
            Dtype::BF16,
            "78987efb50b96ddc773b58e9e48f2326454df1dd47657c42abeb08f3389e9134",
            "22fef321ef73cc9a671b8c28f7e37e97eaf64319f3efa86e979883c02226a9a6",
        ),
    ] {
        // sums of uniforms rather than logarithms and cosines, which differ from one C library to the next
        let mut weight = || 0.05 * ((0..4).map(|_| random.uniform()).sum::<f64>() - 2.0);
        let bytes: Vec<u8> = (0..100 * 100).flat_map(|_| encode(dtype, weight())).collect();
        let tensor = TensorData { name: "w", dtype, shape: &[100, 100], bytes: &bytes };
        home.write("original", to_bytes(&[tensor], &BTreeMap::new()).unwrap());
        let to = dtype.to_string();
        let done =
            Watermark::new(&owner).copy("copy-3").beacon("1").embed(home.path("original"), home.path(&to)).unwrap();
        let marked: String = Sha256::digest(home.read(&to)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((done.original_root.as_str(), marked.as_str()), (root, digest), "{dtype}");
    }
}

#[test]
fn models_that_cannot_carry_a_mark_say_so() {
    let home = Home::new();
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    let cause = |bytes: Vec<u8>, strength: f64| {
        home.write("model", bytes);
        match Watermark::new(&owner).strength(strength).embed(home.path("model"), home.path("out")) {
            Err(Error::Watermark { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(cause(safetensors(Dtype::F32, 128), 0.01), WatermarkError::NoCarrier);
    assert_eq!(cause(safetensors(Dtype::F32, 20_000), 0.2), WatermarkError::Strength(0.2));
    let norm = TensorData { name: "norm.weight", dtype: Dtype::F32, shape: &[64, 64], bytes: &[0; 16384] };
    assert_eq!(cause(to_bytes(&[norm], &BTreeMap::new()).unwrap(), 0.01), WatermarkError::NoCarrier);
    for label in ["", " a", "a\nb", &"a".repeat(256)] {
        let labelled = Watermark::new(&owner).copy(label).embed(home.path("model"), home.path("out"));
        assert!(matches!(labelled, Err(Error::Watermark { cause: WatermarkError::Label(_), .. })), "{label:?}");
    }
    assert!(!home.path("out").exists());

    home.write("twice/one.safetensors", safetensors(Dtype::F32, 20_000));
    home.write("twice/two.safetensors", safetensors(Dtype::F32, 20_000));
    let twice = Watermark::new(&owner).embed(home.path("twice"), home.path("out"));
    assert!(matches!(twice, Err(Error::Watermark { cause: WatermarkError::AmbiguousTensor(_), .. })));
}

#[test]
fn sharded_directories_stay_sharded_directories() {
    let home = Home::new();
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    let whole = safetensors(Dtype::F32, WEIGHTS);
    let source = SliceAt::new(&whole);
    let mut map = BTreeMap::new();
    for (i, tensor) in read(&source).unwrap().tensors().iter().enumerate() {
        let bytes = source.read_span(tensor.span.clone()).unwrap();
        let data = TensorData { name: &tensor.name, dtype: tensor.dtype, shape: &tensor.shape, bytes: &bytes };
        let name = format!("model-{i}.safetensors");
        home.write(&format!("model/{name}"), to_bytes(&[data], &BTreeMap::new()).unwrap());
        map.insert(tensor.name.clone(), name);
    }
    home.write(
        "model/model.safetensors.index.json",
        serde_json::json!({"metadata": {}, "weight_map": map}).to_string(),
    );
    home.write("model/model.sig", "of the original: no longer true");
    Watermark::new(&owner).embed(home.path("model"), home.path("marked")).unwrap();
    assert!(!home.path("marked/model.sig").exists());
    assert_eq!(home.read("marked/model.safetensors.index.json"), home.read("model/model.safetensors.index.json"));
    let evidence = Detector::new(&owner, home.path("model")).examine(home.path("marked")).unwrap();
    assert_eq!((evidence.is_detected(), evidence.tensors_matched()), (true, 2));

    // the mark belongs to the weights, not to how they are cut into files
    home.write("whole.safetensors", &whole);
    let evidence = Detector::new(&owner, home.path("whole.safetensors")).examine(home.path("marked")).unwrap();
    assert!(evidence.is_detected());
}

/// Writes F32 matrices as a safetensors file.
fn write(home: &Home, name: &str, matrices: &[(&str, &[u64], Vec<f32>)]) {
    let data: Vec<Vec<u8>> =
        matrices.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let tensors: Vec<_> = matrices
        .iter()
        .zip(&data)
        .map(|((name, shape, _), bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes })
        .collect();
    home.write(name, to_bytes(&tensors, &BTreeMap::new()).unwrap());
}

fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..len).map(|_| random.normal() as f32).collect()
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..values.len()).map(|i| values[i % (values.len() / columns) * columns + i / (values.len() / columns)]).collect()
}

#[test]
fn the_mark_is_found_through_transposed_split_and_fused_tensors() {
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    let home = Home::new();
    let columns = 256;
    write(&home, "original", &[("c_attn", &[256, 768], noise(1, 256 * 768)), ("up", &[512, 256], noise(2, 512 * 256))]);
    Watermark::new(&owner).embed(home.path("original"), home.path("marked")).unwrap();
    let model = Model::options().open(home.path("marked")).unwrap();
    let values = |name: &str| model.tensor(name).unwrap().to_f32().unwrap();
    let turned = transposed(&values("c_attn"), 768); // [768, 256]
    let part = |i: usize| turned[i * 256 * columns..(i + 1) * 256 * columns].to_vec();
    let whole = Detector::new(&owner, home.path("original")).examine(home.path("marked")).unwrap();

    // split into Q, K and V, each transposed; and the other matrix transposed
    write(
        &home,
        "split",
        &[
            ("x.q", &[256, 256], part(0)),
            ("x.k", &[256, 256], part(1)),
            ("x.v", &[256, 256], part(2)),
            ("x.up", &[256, 512], transposed(&values("up"), 256)),
        ],
    );
    // fused with something else
    let fused = [noise(3, 100 * 256), values("up")].concat();
    write(&home, "fused", &[("y.a", &[768, 256], turned), ("y.b", &[612, 256], fused)]);
    for suspect in ["split", "fused"] {
        let evidence = Detector::new(&owner, home.path("original")).examine(home.path(suspect)).unwrap();
        assert_eq!(evidence.tensors_matched(), 2, "{suspect}");
        assert!((evidence.z() / whole.z() - 1.0).abs() < 1e-9, "{suspect}: {} {}", evidence.z(), whole.z());
    }
}

#[test]
fn a_column_of_more_weights_than_a_block_is_followed() {
    let (home, owner) = (Home::new(), OwnerKey::generate("Acme Ltd").unwrap());
    let rows = (1 << 20) + 4096;
    let (wide, deep) = (noise(1, rows as usize), noise(2, 512 * 256));
    write(&home, "original", &[("wide", &[rows, 1], wide), ("deep", &[1, 512, 256], deep)]);
    Watermark::new(&owner).embed(home.path("original"), home.path("marked")).unwrap();
    let evidence = Detector::new(&owner, home.path("original")).examine(home.path("marked")).unwrap();
    assert_eq!(evidence.tensors_matched(), 2);
    assert!(evidence.log10_p() < -50.0, "{}", evidence.log10_p());
}

#[test]
fn weights_that_could_not_be_read_are_no_answer() {
    let (home, owner) = marked(Dtype::F32);
    owner.save(home.path("owner.key")).unwrap();
    let mut newer = std::fs::read(vector("pytorch/legacy.pt")).unwrap();
    newer[18] += 1; // of the version
    home.write("suspect/pytorch_model.bin", newer);
    let evidence = detector(&home, &owner).examine(home.path("suspect")).unwrap();
    let [(path, FormatError::Unsupported(_))] = evidence.unread() else { panic!("{:?}", evidence.unread()) };
    assert_eq!(path, "pytorch_model.bin");
    let (original, key) = (home.at("original"), home.at("owner.key"));
    weightmark(["detect", &home.at("suspect"), "--original", &original, "--owner-key", &key])
        .fails(3, &["pytorch_model.bin", "version 1002"]);
}

#[test]
fn a_model_in_two_formats_is_examined_but_not_marked() {
    let (home, owner) = marked(Dtype::F32);
    std::fs::create_dir(home.path("both")).unwrap();
    std::fs::copy(home.path("original"), home.path("both/model.safetensors")).unwrap();
    let code = "import sys, numpy; from safetensors.numpy import load_file; \
                numpy.savez(sys.argv[2], **load_file(sys.argv[1]))";
    std::fs::copy(home.path("original"), home.path("a.safetensors")).unwrap();
    python(["-c", code, &home.at("a.safetensors"), &home.at("both/weights.npz")]).ok();
    let evidence = Detector::new(&owner, home.path("both")).examine(home.path("marked")).unwrap();
    assert!(evidence.is_detected());
    let refused = Watermark::new(&owner).embed(home.path("both"), home.path("new"));
    assert!(matches!(refused, Err(Error::Watermark { cause: WatermarkError::AmbiguousTensor(_), .. })));
    let refused = Watermark::new(&owner).embed(home.path("both/weights.npz"), home.path("new"));
    assert!(matches!(refused, Err(Error::Watermark { cause: WatermarkError::Archive(_), .. })));
}
