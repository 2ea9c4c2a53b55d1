//! ONNX models against the `onnx` package: every data type in every form, and real models.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use weightmark::format::{Format, ModelIndex, detect, load};
use weightmark::io::tree::{self, Tree};

use super::support::{Home, python, script};

/// Models inside of installed packages.
const PACKAGED: &[&str] = &[
    "magika/models/standard_v3_3/model.onnx",
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "silero_vad/data/silero_vad.onnx",
    "silero_vad/data/silero_vad_16k_op15.onnx",
    "silero_vad/data/silero_vad_16k_sequence.onnx",
    "silero_vad/data/silero_vad_half.onnx",
    "silero_vad/data/silero_vad_op18_ifless.onnx",
    "silero_vad/data/silero_vad_openvino_16k.onnx",
];

/// Type, shape and digest of each tensor.
type Values = BTreeMap<String, (String, Vec<u64>, String)>;

fn values(tree: &dyn Tree) -> Values {
    let index = ModelIndex::read(tree).unwrap();
    let tensors = index.tensors().map(|(file, tensor)| {
        let bytes = load(&*tree.open(file).unwrap(), tensor).unwrap();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (tensor.name.clone(), (tensor.dtype.to_string(), tensor.shape.clone(), digest))
    });
    tensors.collect()
}

#[test]
fn every_tensor_is_what_the_reference_reads() {
    let home = Home::new();
    let script = script("onnx_values.py");
    let arguments = [script.to_str().unwrap(), &home.at("models")];
    let expected = python(arguments.iter().chain(PACKAGED)).json();
    let expected: BTreeMap<String, Values> = serde_json::from_value(expected).unwrap();
    assert!(expected.len() > PACKAGED.len());
    for (path, expected) in expected {
        let path = Path::new(&path);
        let is_ours = path.starts_with(home.path("models")); // alone with its data in a directory
        let tree = tree::open(if is_ours { path.parent().unwrap() } else { path }).unwrap();
        let found = values(&*tree);
        assert!(!expected.is_empty(), "{path:?}");
        for (name, expected) in &expected {
            assert_eq!(found.get(name), Some(expected), "{name} of {path:?}");
        }
        assert_eq!(found.len(), expected.len(), "{path:?}");
        let model = tree.open(if is_ours { "model.onnx" } else { "" }).unwrap();
        assert_eq!(detect(&*model).unwrap(), Some(Format::Onnx), "{path:?}");
    }
}
