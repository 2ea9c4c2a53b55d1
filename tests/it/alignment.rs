//! Models scrambled by their symmetries: they compute what they did, and are put straight again.

use std::collections::BTreeMap;

use weightmark::alignment::{Alignment, align};
use weightmark::format::ModelIndex;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::io::tree;
use weightmark::matching::Side;
use weightmark::tensor::Dtype;

use super::support::{Home, Random};
use model::{Tensor, Weights};
use symmetry::{Anatomy, Family, Mixing};

mod model {
    use std::collections::BTreeMap;

    pub(super) type Weights = BTreeMap<String, Tensor>;

    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Tensor {
        pub(super) shape: Vec<u64>,
        pub(super) values: Vec<f32>,
    }
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/robustness/symmetry.rs"]
mod symmetry;

const HIDDEN: usize = 64;
const TOKENS: usize = 400;
const NEURONS: usize = 128;
const HEADS: usize = 4;
const LAYERS: usize = 3;

/// A small transformer with random weights, gains and biases among them.
fn transformer(family: Family) -> Weights {
    let (mut weights, mut random) = (Weights::new(), Random(family as u64));
    let mut add = |name: String, shape: &[usize], mean: f64, deviation: f64| {
        let values = (0..shape.iter().product()).map(|_| (mean + deviation * random.normal()) as f32).collect();
        weights.insert(name, Tensor { shape: shape.iter().map(|dim| *dim as u64).collect(), values });
    };
    let (h, n, scale) = (HIDDEN, NEURONS, 0.15);
    match family {
        Family::Bert => add("embeddings.word_embeddings.weight".into(), &[TOKENS, h], 0.0, 1.0),
        Family::Gpt2 => add("wte.weight".into(), &[TOKENS, h], 0.0, 1.0),
        Family::Llama => add("model.embed_tokens.weight".into(), &[TOKENS, h], 0.0, 1.0),
    }
    for l in 0..LAYERS {
        match family {
            Family::Bert => {
                for (name, rows, columns) in [
                    ("attention.self.query", h, h),
                    ("attention.self.key", h, h),
                    ("attention.self.value", h, h),
                    ("attention.output.dense", h, h),
                    ("intermediate.dense", n, h),
                    ("output.dense", h, n),
                ] {
                    add(format!("encoder.layer.{l}.{name}.weight"), &[rows, columns], 0.0, scale);
                    add(format!("encoder.layer.{l}.{name}.bias"), &[rows], 0.0, scale);
                }
            }
            Family::Gpt2 => {
                for (name, rows, columns) in
                    [("attn.c_attn", h, 3 * h), ("attn.c_proj", h, h), ("mlp.c_fc", h, n), ("mlp.c_proj", n, h)]
                {
                    add(format!("h.{l}.{name}.weight"), &[rows, columns], 0.0, scale);
                    add(format!("h.{l}.{name}.bias"), &[columns], 0.0, scale);
                }
                for norm in ["ln_1", "ln_2"] {
                    add(format!("h.{l}.{norm}.weight"), &[h], 1.0, 0.1);
                    add(format!("h.{l}.{norm}.bias"), &[h], 0.0, 0.1);
                }
            }
            Family::Llama => {
                for (name, rows, columns) in [
                    ("self_attn.q_proj", h, h),
                    ("self_attn.k_proj", h / 2, h),
                    ("self_attn.v_proj", h / 2, h),
                    ("self_attn.o_proj", h, h),
                    ("mlp.gate_proj", n, h),
                    ("mlp.up_proj", n, h),
                    ("mlp.down_proj", h, n),
                ] {
                    add(format!("model.layers.{l}.{name}.weight"), &[rows, columns], 0.0, scale);
                }
                add(format!("model.layers.{l}.input_layernorm.weight"), &[h], 1.0, 0.1);
                add(format!("model.layers.{l}.post_attention_layernorm.weight"), &[h], 1.0, 0.1);
            }
        }
    }
    match family {
        Family::Bert => {}
        Family::Gpt2 => {
            add("ln_f.weight".into(), &[h], 1.0, 0.1);
            add("ln_f.bias".into(), &[h], 0.0, 0.1);
        }
        Family::Llama => add("model.norm.weight".into(), &[h], 1.0, 0.1),
    }
    weights
}

fn anatomy(weights: &Weights, family: Family) -> Anatomy {
    Anatomy::of(weights, HEADS, if family == Family::Llama { HEADS / 2 } else { HEADS }).unwrap()
}

fn save(home: &Home, name: &str, weights: &Weights) {
    let bytes = |tensor: &Tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<_> = weights.iter().map(|(name, tensor)| (name, &tensor.shape, bytes(tensor))).collect();
    let tensors: Vec<_> =
        data.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes }).collect();
    home.write(&format!("{name}/model.safetensors"), to_bytes(&tensors, &BTreeMap::new()).unwrap());
    home.write(&format!("{name}/config.json"), format!("{{\"num_attention_heads\": {HEADS}}}"));
}

fn aligned(reference: &Weights, suspect: &Weights) -> Alignment {
    let home = Home::new();
    save(&home, "reference", reference);
    save(&home, "suspect", suspect);
    let (ours, theirs) = (tree::open(home.path("reference")).unwrap(), tree::open(home.path("suspect")).unwrap());
    let (our_index, their_index) = (ModelIndex::read(&*ours).unwrap(), ModelIndex::read(&*theirs).unwrap());
    align(Side::new(&*ours, &our_index), Side::new(&*theirs, &their_index), &()).unwrap()
}

/// The largest relative difference of an aligned matrix, or infinity if one is missing. Rows may differ by a factor.
fn worst(reference: &Weights, alignment: &Alignment) -> f64 {
    let matrices = reference.iter().filter(|(_, tensor)| tensor.shape.len() == 2);
    let difference = |(name, tensor): (&String, &Tensor)| {
        let Some(found) = alignment.tensor("model.safetensors", name).unwrap() else { return f64::INFINITY };
        let columns = tensor.shape[1] as usize;
        let (mut left, mut whole) = (0.0, 0.0);
        for (x, w) in found.chunks(columns).zip(tensor.values.chunks(columns)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let factor = dot(x, w) / dot(w, w);
            left += dot(x, x) / factor.powi(2) - dot(w, w);
            whole += dot(w, w);
        }
        (left.abs() / whole).sqrt()
    };
    matrices.map(difference).fold(0.0, f64::max)
}

/// Noise of this share of each weight tensor.
fn noisy(weights: &Weights, share: f64) -> Weights {
    let mut random = Random(5);
    let noisy = weights.iter().map(|(name, tensor)| {
        let mut tensor = tensor.clone();
        let norm = tensor.values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let scale = share * (norm / tensor.values.len() as f64).sqrt();
        tensor.values.iter_mut().for_each(|x| *x += (scale * random.normal()) as f32);
        (name.clone(), tensor)
    });
    noisy.collect()
}

type Attack = fn(&Weights, &Anatomy) -> Weights;

const ATTACKS: [(&str, Attack); 9] = [
    ("hidden permuted", |w, a| symmetry::permute_hidden(w, a, 1)),
    ("hidden rotated", |w, a| symmetry::rotate_hidden(w, a, 2)),
    ("gains folded", symmetry::fold_gains),
    ("gains moved", |w, a| symmetry::scale_gains(w, a, 3)),
    ("neurons permuted", |w, a| symmetry::permute_neurons(w, a, 4)),
    ("neurons added", |w, a| symmetry::add_neurons(w, a, 0.3, 6)),
    ("heads permuted", |w, a| symmetry::permute_heads(w, a, 7)),
    ("heads mixed", |w, a| symmetry::mix_heads(w, a, Mixing::Linear, 8)),
    ("everything", |w, a| symmetry::everything(w, a, 9)),
];

#[test]
fn every_symmetry_is_undone() {
    for family in [Family::Bert, Family::Gpt2, Family::Llama] {
        let weights = transformer(family);
        for (name, attack) in ATTACKS {
            let suspect = attack(&noisy(&weights, 0.002), &anatomy(&weights, family));
            let difference = worst(&weights, &aligned(&weights, &suspect));
            assert!(difference < 0.02, "{family:?}, {name}: {difference}");
        }
    }
}

#[test]
fn nothing_is_to_be_done_for_a_plain_copy() {
    for family in [Family::Bert, Family::Gpt2, Family::Llama] {
        let weights = transformer(family);
        let alignment = aligned(&weights, &noisy(&weights, 0.002));
        assert!(alignment.is_identity() && alignment.steps().is_empty(), "{:?}", alignment.steps());
    }
}

#[test]
fn layers_are_found_wherever_they_are() {
    let weights = transformer(Family::Bert);
    let suspect = symmetry::keep_layers(&weights, &anatomy(&weights, Family::Bert), &[2, 0]);
    let alignment = aligned(&weights, &suspect);
    let tensor = |name: &str| alignment.tensor("model.safetensors", name).unwrap();
    for layer in [0, 2] {
        let name = format!("encoder.layer.{layer}.output.dense.weight");
        assert_eq!(tensor(&name).unwrap(), weights[&name].values);
    }
    assert_eq!(tensor("encoder.layer.1.output.dense.weight"), None);
}

#[test]
fn strangers_yield_nothing_and_hostile_suspects_no_panic() {
    let weights = transformer(Family::Llama);
    let other = transformer(Family::Gpt2);
    assert_eq!(worst(&weights, &aligned(&weights, &other)), f64::INFINITY);
    for value in [f32::NAN, f32::INFINITY, 0.0, 1.0, f32::MAX] {
        let mut suspect = weights.clone();
        suspect.values_mut().for_each(|tensor| tensor.values.fill(value));
        let alignment = aligned(&weights, &suspect);
        let found = |name: &&String| alignment.tensor("model.safetensors", name).unwrap().is_some();
        assert_eq!(weights.keys().filter(found).count(), 0, "{value}");
    }
}

#[test]
fn symmetries_do_not_change_what_is_computed() {
    for family in [Family::Gpt2, Family::Llama] {
        let weights = transformer(family);
        let anatomy = anatomy(&weights, family);
        let expected = forward(&weights, family);
        let size = expected.iter().map(|x| x.abs()).fold(0.0, f64::max);
        for (name, attack) in ATTACKS {
            let got = forward(&attack(&weights, &anatomy), family);
            let difference = expected.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(difference < 1e-3 * size, "{family:?}, {name}: {difference} of {size}");
        }
    }
}

/// The logits after five tokens, computed from the definition of the family. Rectifiers stand for smooth activations in what
/// is not gated, so that scaled neurons are exact.
fn forward(weights: &Weights, family: Family) -> Vec<f64> {
    let is_llama = family == Family::Llama;
    let start = if is_llama { "model." } else { "" };
    let get = |name: String| weights.get(&name).map(|t| t.values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>());
    let linear = |name: &str, x: &[f64]| -> Vec<f64> {
        let tensor = &weights[&format!("{name}.weight")];
        let (rows, columns) = (tensor.shape[0] as usize, tensor.shape[1] as usize);
        let at = |i: usize| f64::from(tensor.values[i]);
        let is_turned = !is_llama && name != "lm_head" && name != "wte";
        let out = if is_turned { columns } else { rows };
        let bias = get(format!("{name}.bias")).unwrap_or(vec![0.0; out]);
        let row = |o: usize| -> f64 {
            x.iter()
                .enumerate()
                .map(|(i, x)| x * if is_turned { at(i * columns + o) } else { at(o * columns + i) })
                .sum()
        };
        (0..out).map(|o| row(o) + bias[o]).collect()
    };
    let norm = |name: String, x: &[f64]| -> Vec<f64> {
        let count = x.len() as f64;
        let mean = if is_llama { 0.0 } else { x.iter().sum::<f64>() / count };
        let length = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count + 1e-9).sqrt();
        let (gain, shift) = (get(format!("{name}.weight")).unwrap(), get(format!("{name}.bias")));
        let value =
            |(i, x): (usize, &f64)| (x - mean) / length * gain[i] + shift.as_ref().map_or(0.0, |shift| shift[i]);
        x.iter().enumerate().map(value).collect()
    };
    let size = HIDDEN / HEADS;
    let rotate = |x: &mut [f64], position: usize| {
        for head in x.chunks_mut(size) {
            for p in 0..size / 2 {
                let angle = position as f64 * 100f64.powf(-(p as f64) / (size / 2) as f64);
                let (a, b) = (head[p], head[p + size / 2]);
                head[p] = a * angle.cos() - b * angle.sin();
                head[p + size / 2] = a * angle.sin() + b * angle.cos();
            }
        }
    };
    let table = get(format!("{start}{}", if is_llama { "embed_tokens.weight" } else { "wte.weight" })).unwrap();
    let mut stream: Vec<Vec<f64>> =
        [7, 1, 99, 250, 7].iter().map(|token| table[token * HIDDEN..(token + 1) * HIDDEN].to_vec()).collect();
    for l in 0..LAYERS {
        let at = |name: &str| if is_llama { format!("model.layers.{l}.{name}") } else { format!("h.{l}.{name}") };
        let (first, second) = if is_llama { ("input_layernorm", "post_attention_layernorm") } else { ("ln_1", "ln_2") };
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (position, x) in stream.iter().enumerate() {
            let x = norm(at(first), x);
            if is_llama {
                let (mut q, mut k) = (linear(&at("self_attn.q_proj"), &x), linear(&at("self_attn.k_proj"), &x));
                rotate(&mut q, position);
                rotate(&mut k, position);
                queries.push(q);
                keys.push(k);
                values.push(linear(&at("self_attn.v_proj"), &x));
            } else {
                let all = linear(&at("attn.c_attn"), &x);
                queries.push(all[..HIDDEN].to_vec());
                keys.push(all[HIDDEN..2 * HIDDEN].to_vec());
                values.push(all[2 * HIDDEN..].to_vec());
            }
        }
        let group = HIDDEN / keys[0].len();
        for position in 0..stream.len() {
            let mut mixed = vec![0.0; HIDDEN];
            for head in 0..HEADS {
                let (own, shared) = (head * size..(head + 1) * size, head / group * size);
                let score = |other: usize| -> f64 {
                    let key = &keys[other][shared..shared + size];
                    queries[position][own.clone()].iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
                        / (size as f64).sqrt()
                };
                let weights: Vec<f64> = (0..=position).map(|other| score(other).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (other, weight) in weights.iter().enumerate() {
                    for i in 0..size {
                        mixed[head * size + i] += weight / total * values[other][shared + i];
                    }
                }
            }
            let out = linear(&at(if is_llama { "self_attn.o_proj" } else { "attn.c_proj" }), &mixed);
            stream[position].iter_mut().zip(out).for_each(|(x, y)| *x += y);
        }
        for x in &mut stream {
            let input = norm(at(second), x);
            let out = if is_llama {
                let (gate, up) = (linear(&at("mlp.gate_proj"), &input), linear(&at("mlp.up_proj"), &input));
                let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                linear(&at("mlp.down_proj"), &inner)
            } else {
                let inner: Vec<f64> = linear(&at("mlp.c_fc"), &input).iter().map(|x| x.max(0.0)).collect();
                linear(&at("mlp.c_proj"), &inner)
            };
            x.iter_mut().zip(out).for_each(|(x, y)| *x += y);
        }
    }
    let last = norm(format!("{start}{}", if is_llama { "norm" } else { "ln_f" }), &stream[stream.len() - 1]);
    let head = match weights.contains_key("lm_head.weight") {
        true => "lm_head".to_owned(),
        false => format!("{start}{}", if is_llama { "embed_tokens" } else { "wte" }),
    };
    linear(&head, &last)
}
