//! Which tensor is which, told by content: renamed, reordered, transposed, fused, pruned and rounded models.

use std::collections::BTreeMap;

use weightmark::format::ModelIndex;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::io::tree;
use weightmark::matching::{Matching, Reordered, Side, correspond};
use weightmark::tensor::Dtype;

use super::support::{Home, Random};

const HIDDEN: usize = 64;
const HEAD: usize = 32;
const LAYERS: usize = 6;

/// Named matrices of `f32`.
type Weights = Vec<(String, Vec<usize>, Vec<f32>)>;

/// A decoder with grouped queries, every weight of it random.
fn decoder(seed: u64) -> Weights {
    let mut random = Random(seed);
    let mut weights = Vec::new();
    let mut add = |name: String, shape: &[usize], scale: f64, mean: f64| {
        let values = (0..shape.iter().product()).map(|_| (mean + scale * random.normal()) as f32).collect();
        weights.push((name, shape.to_vec(), values));
    };
    add("model.embed_tokens.weight".into(), &[500, HIDDEN], 0.02, 0.0);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        add(name("input_layernorm"), &[HIDDEN], 0.1, 1.0);
        add(name("self_attn.q_proj"), &[2 * HIDDEN, HIDDEN], 0.05, 0.0);
        add(name("self_attn.k_proj"), &[HIDDEN, HIDDEN], 0.05, 0.0);
        add(name("self_attn.v_proj"), &[HIDDEN, HIDDEN], 0.05, 0.0);
        add(name("self_attn.o_proj"), &[HIDDEN, 2 * HIDDEN], 0.05, 0.0);
        add(name("mlp.gate_proj"), &[160, HIDDEN], 0.05, 0.0);
        add(name("mlp.up_proj"), &[160, HIDDEN], 0.05, 0.0);
        add(name("mlp.down_proj"), &[HIDDEN, 160], 0.05, 0.0);
    }
    weights
}

/// The same weights as a thief would show them: other names, in another order.
fn renamed(mut weights: Weights) -> Weights {
    for (name, ..) in &mut weights {
        *name = format!("t{:08x}", name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(byte)));
    }
    weights.sort_by(|a, b| a.0.cmp(&b.0));
    weights
}

fn transposed((name, shape, values): (String, Vec<usize>, Vec<f32>)) -> (String, Vec<usize>, Vec<f32>) {
    let [rows, columns] = shape[..] else { return (name, shape, values) };
    let turned = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
    (name, vec![columns, rows], turned)
}

/// Rows in the order that `llama.cpp` wants for heads of `HEAD` rows.
fn interleaved(rows: &[f32], columns: usize) -> Vec<f32> {
    let source = |row: usize| row / HEAD * HEAD + row % HEAD % 2 * (HEAD / 2) + row % HEAD / 2;
    (0..rows.len() / columns).flat_map(|row| rows[source(row) * columns..][..columns].to_vec()).collect()
}

fn compare(reference: &Weights, suspect: &Weights) -> Matching {
    let home = Home::new();
    for (name, weights) in [("ours", reference), ("theirs", suspect)] {
        let data: Vec<_> = weights
            .iter()
            .map(|(name, shape, values)| {
                let shape: Vec<u64> = shape.iter().map(|dim| *dim as u64).collect();
                (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
            })
            .collect();
        let tensors: Vec<_> =
            data.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes }).collect();
        home.write(&format!("{name}/model.safetensors"), to_bytes(&tensors, &BTreeMap::new()).unwrap());
    }
    let (ours, theirs) = (tree::open(home.path("ours")).unwrap(), tree::open(home.path("theirs")).unwrap());
    let (our_index, their_index) = (ModelIndex::read(&*ours).unwrap(), ModelIndex::read(&*theirs).unwrap());
    correspond(Side::new(&*ours, &our_index), Side::new(&*theirs, &their_index)).unwrap()
}

/// Asserts that every tensor found its own counterpart, by the hash that `renamed` made of its name.
fn all_found(reference: &Weights, matching: &Matching) {
    assert_eq!((&matching.missing[..], &matching.extra[..]), (&[][..], &[][..]));
    assert_eq!(matching.pairs.len(), reference.len());
    for pair in &matching.pairs {
        let name = renamed(vec![(pair.reference.tensor.clone(), Vec::new(), Vec::new())]).remove(0).0;
        assert_eq!(pair.suspect.tensor, name, "{} at {}", pair.reference.tensor, pair.similarity);
    }
}

#[test]
fn names_do_not_matter() {
    let reference = decoder(1);
    let matching = compare(&reference, &renamed(reference.clone()));
    all_found(&reference, &matching);
    assert!(matching.pairs.iter().all(|pair| pair.similarity > 0.999 && pair.view == Default::default()));
}

#[test]
fn rounding_pruning_and_noise_do_not_matter() {
    let reference = decoder(2);
    let mut random = Random(3);
    let mut suspect = renamed(reference.clone());
    for (_, _, values) in &mut suspect {
        let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
        for value in values.iter_mut() {
            let noise = 0.3 * 0.05 * random.normal() as f32;
            *value = ((*value + noise) / largest * 7.0).round() * largest / 7.0; // 4 bits
            if random.uniform() < 0.5 {
                *value = 0.0;
            }
        }
    }
    suspect.retain(|(_, shape, _)| shape.len() == 2); // half of a norm at zero is no norm any more
    let mut reference = reference;
    reference.retain(|(_, shape, _)| shape.len() == 2);
    all_found(&reference, &compare(&reference, &suspect));
}

#[test]
fn transposed_matrices_are_seen_as_such() {
    let reference = decoder(4);
    let suspect = renamed(reference.clone()).into_iter().map(transposed).collect();
    let matching = compare(&reference, &suspect);
    all_found(&reference, &matching);
    for pair in &matching.pairs {
        assert_eq!(pair.view.transposed, !pair.reference.tensor.contains("layernorm"), "{}", pair.reference.tensor);
    }
}

#[test]
fn heads_reordered_for_rotary_embeddings_are_seen_both_ways() {
    let reference = decoder(5);
    let mut reordered = reference.clone();
    for (name, _, values) in &mut reordered {
        if name.contains("q_proj") || name.contains("k_proj") {
            *values = interleaved(values, HIDDEN);
        }
    }
    let there = compare(&reference, &renamed(reordered.clone()));
    all_found(&reference, &there);
    let back = compare(&reordered, &renamed(reference.clone()));
    all_found(&reference, &back);
    for (matching, expected) in
        [(there, Reordered::Interleaved(HEAD as u64)), (back, Reordered::Separated(HEAD as u64))]
    {
        for pair in matching.pairs {
            let is_reordered = pair.reference.tensor.contains("q_proj") || pair.reference.tensor.contains("k_proj");
            assert_eq!(pair.view.reordered, is_reordered.then_some(expected), "{}", pair.reference.tensor);
            assert!(pair.similarity > 0.999, "{}", pair.similarity);
        }
    }
}

#[test]
fn fused_tensors_are_found_in_their_parts_both_ways() {
    let reference = decoder(6);
    let find = |layer: usize, part: &str| {
        let name = format!("model.layers.{layer}.{part}.weight");
        reference.iter().find(|(other, ..)| *other == name).unwrap().2.clone()
    };
    let mut fused: Weights = reference
        .iter()
        .filter(|(name, ..)| !name.contains("_proj") || name.contains("o_proj") || name.contains("down"))
        .cloned()
        .collect();
    for layer in 0..LAYERS {
        let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(|part| find(layer, part)).concat();
        fused.push((format!("h.{layer}.qkv"), vec![4 * HIDDEN, HIDDEN], qkv));
        let gate_up = ["mlp.gate_proj", "mlp.up_proj"].map(|part| find(layer, part)).concat();
        fused.push(transposed((format!("h.{layer}.gate_up"), vec![320, HIDDEN], gate_up)));
    }
    let expected = |part: &str| match part {
        "self_attn.q_proj" => ("qkv", 0..128),
        "self_attn.k_proj" => ("qkv", 128..192),
        "self_attn.v_proj" => ("qkv", 192..256),
        "mlp.gate_proj" => ("gate_up", 0..160),
        "mlp.up_proj" => ("gate_up", 160..320),
        other => panic!("{other}"),
    };
    let matching = compare(&reference, &fused);
    assert_eq!((matching.missing.len(), matching.extra.len(), matching.pairs.len()), (0, 0, reference.len()));
    for pair in matching.pairs.iter().filter(|pair| pair.suspect.tensor.starts_with("h.")) {
        let (layer, part) = pair.reference.tensor.strip_prefix("model.layers.").unwrap().split_once('.').unwrap();
        let (fused, rows) = expected(part.strip_suffix(".weight").unwrap());
        let found = if fused == "gate_up" { &pair.suspect.columns } else { &pair.suspect.rows };
        assert_eq!((&*pair.suspect.tensor, found), (&*format!("h.{layer}.{fused}"), &rows));
        assert_eq!(pair.view.transposed, fused == "gate_up");
    }
    let back = compare(&fused, &reference);
    assert_eq!((back.missing.len(), back.extra.len(), back.pairs.len()), (0, 0, reference.len()));
    assert!(back.pairs.iter().any(|pair| pair.reference.tensor == "h.3.qkv" && pair.reference.rows == (128..192)));
    assert!(back.pairs.iter().any(|p| p.reference.tensor == "h.3.gate_up" && p.reference.columns == (160..320)));
}

#[test]
fn parts_are_told_from_wholes_where_their_sizes_are_alike() {
    let mut random = Random(10);
    let mut matrix = |rows: usize| -> Vec<f32> { (0..rows * 64).map(|_| random.normal() as f32).collect() };
    let parts = [64, 64, 64].map(&mut matrix);
    let separate: Weights =
        ["q", "k", "v"].into_iter().zip(&parts).map(|(name, part)| (name.into(), vec![64, 64], part.clone())).collect();
    let fused = vec![transposed(("c_attn".into(), vec![192, 64], parts.concat()))];
    for (ours, theirs) in [(&separate, &fused), (&fused, &separate)] {
        let matching = compare(ours, theirs);
        assert_eq!((matching.pairs.len(), matching.missing.len(), matching.extra.len()), (3, 0, 0));
    }
}

#[test]
fn equal_tensors_each_find_a_place() {
    let mut random = Random(11);
    let expert: Vec<f32> = (0..64 * 64).map(|_| random.normal() as f32).collect();
    let experts = |name: &str, count: usize| -> Weights {
        (0..count).map(|i| (format!("{name}.{i}"), vec![64, 64], expert.clone())).collect()
    };
    let fused = vec![("w".to_owned(), vec![3, 64, 64], [&expert[..]; 3].concat())];
    let matching = compare(&experts("e", 3), &fused);
    let places: Vec<_> = matching.pairs.iter().map(|pair| pair.suspect.rows.clone()).collect();
    assert_eq!((places, matching.missing.len()), (vec![0..64, 64..128, 128..192], 0));

    let matching = compare(&experts("e", 40), &experts("e", 40));
    assert!(matching.pairs.iter().all(|pair| pair.reference.tensor == pair.suspect.tensor));
    assert_eq!((matching.pairs.len(), matching.missing.len()), (40, 0));
    let matching = compare(&experts("e", 40), &experts("x", 40));
    assert_eq!((matching.pairs.len(), matching.missing.len()), (40, 0));
}

#[test]
fn heads_are_found_though_rows_at_their_ends_stay_where_they_are() {
    for rows in [160, 672, 1760] {
        let mut random = Random(12);
        let values: Vec<f32> = (0..rows * 64).map(|_| random.normal() as f32).collect();
        let reference = vec![("q".to_owned(), vec![rows, 64], values.clone())];
        let suspect = vec![("x".to_owned(), vec![rows, 64], interleaved(&values, 64))];
        let [pair] = &compare(&reference, &suspect).pairs[..] else { panic!("{rows}: one pair") };
        assert_eq!(pair.view.reordered, Some(Reordered::Interleaved(HEAD as u64)), "{rows}");
    }
}

#[test]
fn short_vectors_are_told_by_name_and_vectors_are_no_rows() {
    let mut random = Random(13);
    let mut vector = |name: &str, shape: &[usize]| -> (String, Vec<usize>, Vec<f32>) {
        (name.into(), shape.to_vec(), (0..shape.iter().product()).map(|_| random.normal() as f32).collect())
    };
    let reference = vec![vector("scale", &[2]), vector("norm", &[128])];
    let suspect = vec![vector("other", &[2]), vector("big", &[100, 128])];
    assert_eq!(compare(&reference, &suspect).pairs, []);
    assert_eq!(compare(&reference, &reference.clone()).pairs.len(), 2);
}

#[test]
fn a_few_enormous_weights_decide_nothing() {
    let reference = decoder(14);
    let mut suspect = renamed(reference.clone());
    for (_, _, values) in suspect.iter_mut().filter(|(_, shape, _)| shape.len() == 2) {
        for value in values.iter_mut().step_by(97) {
            *value = 1e6;
        }
    }
    all_found(&reference, &compare(&reference, &suspect));
}

#[test]
fn an_unrelated_model_of_the_same_shapes_has_no_counterparts() {
    let (reference, other) = (decoder(7), renamed(decoder(8)));
    let matching = compare(&reference, &other);
    assert_eq!((matching.pairs.len(), matching.missing.len(), matching.extra.len()), (0, reference.len(), other.len()));
}

#[test]
fn dropped_and_repeated_layers_leave_the_others_where_they_belong() {
    let reference = decoder(9);
    let mut suspect = renamed(reference.iter().filter(|(name, ..)| !name.contains("layers.2.")).cloned().collect());
    for (name, shape, values) in reference.iter().filter(|(name, ..)| name.contains("layers.4.")) {
        suspect.push((format!("again.{name}"), shape.clone(), values.clone()));
    }
    let matching = compare(&reference, &suspect);
    assert!(matching.missing.iter().all(|(_, name)| name.contains("layers.2.")));
    assert_eq!((matching.missing.len(), matching.extra.len()), (8, 8));
}
