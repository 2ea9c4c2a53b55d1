//! The mark of a network of convolutions whose channels were permuted and scaled.

use std::collections::BTreeMap;

use weightmark::Model;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::keys::OwnerKey;
use weightmark::tensor::Dtype;
use weightmark::watermark::{Detector, Evidence, Method, Watermark};

use super::support::{Home, Random};

/// Outputs, inputs and weights of a kernel, layer by layer.
const LAYERS: [[usize; 3]; 4] = [[32, 3, 9], [64, 32, 9], [64, 64, 9], [20, 64, 1]];

fn save(home: &Home, name: &str, layers: &[Vec<f32>]) {
    let bytes: Vec<Vec<u8>> = layers.iter().map(|layer| layer.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let shapes = LAYERS.map(|[outputs, inputs, size]| {
        let side = if size == 9 { 3 } else { 1 };
        [outputs as u64, inputs as u64, side, side]
    });
    let names: Vec<String> = (0..LAYERS.len()).map(|i| format!("{name}{i}.weight")).collect();
    let tensor = |i: usize| TensorData { name: &names[i], dtype: Dtype::F32, shape: &shapes[i], bytes: &bytes[i] };
    let tensors: Vec<_> = (0..LAYERS.len()).map(tensor).collect();
    home.write(&format!("{name}.safetensors"), to_bytes(&tensors, &BTreeMap::new()).unwrap());
}

/// Permutes and scales the outputs of each layer but the last, and the inputs of the next likewise.
fn scrambled(layers: &[Vec<f32>], random: &mut Random) -> Vec<Vec<f32>> {
    let (mut order, mut scales): (Vec<usize>, Vec<f32>) = ((0..3).collect(), vec![1.0; 3]);
    let mut out = Vec::new();
    for (i, (layer, [outputs, inputs, size])) in layers.iter().zip(LAYERS).enumerate() {
        let is_last = i + 1 == LAYERS.len();
        let mut next: Vec<usize> = (0..outputs).collect();
        if !is_last {
            next.sort_by_cached_key(|_| random.bits());
        }
        let factors: Vec<f32> =
            (0..outputs).map(|_| if is_last { 1.0 } else { (0.5 * random.normal()).exp() as f32 }).collect();
        let mut changed = Vec::new();
        for (r, factor) in next.iter().zip(&factors) {
            for (c, scale) in order.iter().zip(&scales) {
                let kernel = &layer[(r * inputs + c) * size..][..size];
                changed.extend(kernel.iter().map(|x| x * factor / scale));
            }
        }
        out.push(changed);
        (order, scales) = (next, factors);
    }
    out
}

#[test]
fn channels_are_put_straight() {
    let (home, mut random) = (Home::new(), Random(5));
    let mut noise = |count: usize| (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>();
    let layers = LAYERS.map(|[outputs, inputs, size]| noise(outputs * inputs * size));
    save(&home, "a", &layers);
    let owner = OwnerKey::generate("Acme Ltd").unwrap();
    Watermark::new(&owner).embed(home.path("a.safetensors"), home.path("m.safetensors")).unwrap();
    let model = Model::options().open(home.path("m.safetensors")).unwrap();
    let values = |i: usize| -> Vec<f32> {
        let tensor = model.tensor(&format!("a{i}.weight")).unwrap();
        tensor.bytes().chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
    };
    let marked: Vec<Vec<f32>> = (0..LAYERS.len()).map(values).collect();
    save(&home, "t", &scrambled(&marked, &mut Random(6)));

    let detector = Detector::new(&owner, home.path("a.safetensors")).exhaustive();
    let whole = detector.examine(home.path("m.safetensors")).unwrap();
    let found = detector.examine(home.path("t.safetensors")).unwrap();
    let of = |evidence: &Evidence, method| {
        evidence.readings().iter().find(|reading| reading.method == method).unwrap().log10_p
    };
    assert!(of(&found, Method::Direct) > -20.0, "{:?}", found.readings());
    let (most, left) = (of(&whole, Method::Direct), of(&found, Method::Cleaned));
    assert!(left < 0.2 * most, "{left} of {most}");
    let undone = |evidence: &Evidence| evidence.alignment().iter().filter(|step| step.contains(": channels ")).count();
    assert_eq!(undone(&found), LAYERS.len());

    save(&home, "u", &LAYERS.map(|[outputs, inputs, size]| noise(outputs * inputs * size)));
    let other = detector.examine(home.path("u.safetensors")).unwrap();
    assert!(!other.is_detected() && undone(&other) == 0, "{:?}", other.alignment());
}
