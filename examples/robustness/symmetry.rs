//! Symmetries: what a thief may do to the weights of a transformer without changing what it computes.
//!
//! Three families are known, by the names of their tensors: BERT, Llama (grouped queries, rotary embeddings, gated networks)
//! and GPT-2. Every function returns a new model; the same seed gives the same one.

use std::ops::Range;

use rayon::prelude::*;

use super::model::{Tensor, Weights};

/// A family of transformers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    Bert,
    Gpt2,
    Llama,
}

/// Where things are in a transformer.
#[derive(Clone, Debug)]
pub struct Anatomy {
    pub family: Family,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    /// Heads of keys and values.
    pub shared: usize,
    /// What stands before the names of the family.
    prefix: String,
}

/// How a head is mixed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mixing {
    /// Any invertible map of values and outputs, and of queries and keys unless rotary embeddings forbid it.
    Linear,
    /// Orthogonal ones.
    Orthogonal,
}

/// A matrix: rows are tokens, neurons or dimensions of heads, columns are hidden dimensions.
#[derive(Clone, Debug)]
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

/// Where a matrix is: the name of the tensor without `.weight`, the rows of a fused one, and whether it is stored transposed.
#[derive(Clone, Debug)]
struct Slot {
    name: String,
    rows: Option<Range<usize>>,
    transposed: bool,
}

/// The matrices of a layer.
struct Layer {
    query: Slot,
    key: Slot,
    value: Slot,
    output: Slot,
    gate: Option<Slot>,
    up: Slot,
    down: Slot,
    /// The norm before attention and that before the network, where they stand before.
    norms: Option<[String; 2]>,
}

impl Anatomy {
    /// Recognises a model; what its tensors do not tell are the numbers of heads.
    pub fn of(weights: &Weights, heads: usize, shared: usize) -> Option<Self> {
        let known = [
            (Family::Bert, "embeddings.word_embeddings.weight", "encoder.layer."),
            (Family::Gpt2, "wte.weight", "h."),
            (Family::Llama, "embed_tokens.weight", "layers."),
        ];
        let (family, table, layer) =
            known.into_iter().find(|(_, table, _)| weights.keys().any(|name| name.ends_with(table)))?;
        let (name, tensor) = weights.iter().find(|(name, _)| name.ends_with(table))?;
        let prefix = name.strip_suffix(table)?.to_owned();
        let start = format!("{prefix}{layer}");
        let number = |name: &String| name.strip_prefix(&start)?.split('.').next()?.parse::<usize>().ok();
        let layers = weights.keys().filter_map(number).max()? + 1;
        Some(Self { family, hidden: *tensor.shape.get(1)? as usize, layers, heads, shared, prefix })
    }

    fn layer(&self, number: usize) -> Layer {
        let (prefix, h) = (&self.prefix, self.hidden);
        let slot = |name: &str, transposed: bool| Slot { name: name.to_owned(), rows: None, transposed };
        match self.family {
            Family::Bert => {
                let at = |name: &str| format!("{prefix}encoder.layer.{number}.{name}");
                Layer {
                    query: slot(&at("attention.self.query"), false),
                    key: slot(&at("attention.self.key"), false),
                    value: slot(&at("attention.self.value"), false),
                    output: slot(&at("attention.output.dense"), true),
                    gate: None,
                    up: slot(&at("intermediate.dense"), false),
                    down: slot(&at("output.dense"), true),
                    norms: None,
                }
            }
            Family::Llama => {
                let at = |name: &str| format!("{prefix}layers.{number}.{name}");
                Layer {
                    query: slot(&at("self_attn.q_proj"), false),
                    key: slot(&at("self_attn.k_proj"), false),
                    value: slot(&at("self_attn.v_proj"), false),
                    output: slot(&at("self_attn.o_proj"), true),
                    gate: Some(slot(&at("mlp.gate_proj"), false)),
                    up: slot(&at("mlp.up_proj"), false),
                    down: slot(&at("mlp.down_proj"), true),
                    norms: Some([at("input_layernorm"), at("post_attention_layernorm")]),
                }
            }
            Family::Gpt2 => {
                let at = |name: &str| format!("{prefix}h.{number}.{name}");
                let fused =
                    |i: usize| Slot { name: at("attn.c_attn"), rows: Some(i * h..(i + 1) * h), transposed: true };
                Layer {
                    query: fused(0),
                    key: fused(1),
                    value: fused(2),
                    output: slot(&at("attn.c_proj"), false),
                    gate: None,
                    up: slot(&at("mlp.c_fc"), true),
                    down: slot(&at("mlp.c_proj"), false),
                    norms: Some([at("ln_1"), at("ln_2")]),
                }
            }
        }
    }

    /// Tensors whose last dimension is that of the hidden dimensions, outside of layers' matrices.
    fn tables<'a>(&'a self, weights: &'a Weights) -> impl Iterator<Item = &'a String> {
        const ENDS: [&str; 7] = [
            "word_embeddings.weight",
            "position_embeddings.weight",
            "token_type_embeddings.weight",
            "wte.weight",
            "wpe.weight",
            "embed_tokens.weight",
            "lm_head.weight",
        ];
        weights.keys().filter(|name| ENDS.iter().any(|end| name.ends_with(end)))
    }

    /// Vectors over the hidden dimensions: gains and biases of norms, biases of what writes them.
    fn vectors<'a>(&'a self, weights: &'a Weights) -> impl Iterator<Item = &'a String> {
        let writes = |name: &str| {
            let ends = ["output.dense.bias", "c_proj.bias", "o_proj.bias", "down_proj.bias"];
            ends.iter().any(|end| name.ends_with(end))
        };
        let is_norm = |name: &str| name.to_lowercase().contains("norm") || name.contains("ln_");
        weights
            .iter()
            .filter(move |(name, tensor)| tensor.shape == [self.hidden as u64] && (is_norm(name) || writes(name)))
            .map(|(name, _)| name)
    }

    fn head_size(&self, weights: &Weights) -> usize {
        Slot::rows_of(&self.layer(0).query, weights) / self.heads
    }
}

impl Slot {
    fn rows_of(slot: &Self, weights: &Weights) -> usize {
        match &slot.rows {
            Some(rows) => rows.len(),
            None => weights[&format!("{}.weight", slot.name)].shape[usize::from(slot.transposed)] as usize,
        }
    }

    fn read(&self, weights: &Weights) -> Matrix {
        let whole = Matrix::of(&weights[&format!("{}.weight", self.name)]);
        let whole = if self.transposed { whole.transposed() } else { whole };
        match &self.rows {
            Some(rows) => whole.part(rows.clone()),
            None => whole,
        }
    }

    fn write(&self, weights: &mut Weights, matrix: Matrix) {
        let Some(tensor) = weights.get_mut(&format!("{}.weight", self.name)) else { return };
        let matrix = match &self.rows {
            Some(rows) => {
                let whole = Matrix::of(tensor);
                let mut whole = if self.transposed { whole.transposed() } else { whole };
                whole.values[rows.start * whole.columns..rows.end * whole.columns].copy_from_slice(&matrix.values);
                whole
            }
            None => matrix,
        };
        *tensor = if self.transposed { matrix.transposed() } else { matrix }.into_tensor();
    }

    /// The bias of what reads hidden dimensions: one for each row.
    fn bias(&self, weights: &Weights) -> Option<Matrix> {
        let tensor = weights.get(&format!("{}.bias", self.name))?;
        let rows = self.rows.clone().unwrap_or(0..tensor.values.len());
        Some(Matrix { rows: rows.len(), columns: 1, values: tensor.values[rows].to_vec() })
    }

    fn write_bias(&self, weights: &mut Weights, bias: Matrix) {
        let Some(tensor) = weights.get_mut(&format!("{}.bias", self.name)) else { return };
        match &self.rows {
            Some(rows) => tensor.values[rows.clone()].copy_from_slice(&bias.values),
            None => *tensor = Tensor { shape: vec![bias.rows as u64], values: bias.values },
        }
    }

    /// Changes rows, and the bias with them.
    fn change(&self, weights: &mut Weights, f: impl Fn(&Matrix) -> Matrix) {
        let matrix = f(&self.read(weights));
        self.write(weights, matrix);
        if let Some(bias) = self.bias(weights) {
            self.write_bias(weights, f(&bias));
        }
    }

    /// Changes the rows of what writes hidden dimensions, whose bias has nothing to do with them.
    fn change_output(&self, weights: &mut Weights, f: impl Fn(&Matrix) -> Matrix) {
        let matrix = f(&self.read(weights));
        self.write(weights, matrix);
    }
}

impl Matrix {
    fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    fn of(tensor: &Tensor) -> Self {
        let columns = tensor.shape.last().map_or(1, |columns| *columns as usize);
        Self { rows: tensor.values.len() / columns, columns, values: tensor.values.clone() }
    }

    fn into_tensor(self) -> Tensor {
        Tensor { shape: vec![self.rows as u64, self.columns as u64], values: self.values }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    fn part(&self, rows: Range<usize>) -> Self {
        let values = self.values[rows.start * self.columns..rows.end * self.columns].to_vec();
        Self { rows: rows.len(), columns: self.columns, values }
    }

    fn transposed(&self) -> Self {
        let values =
            (0..self.values.len()).map(|i| self.values[i % self.rows * self.columns + i / self.rows]).collect();
        Self { rows: self.columns, columns: self.rows, values }
    }

    fn times(&self, other: &Self) -> Self {
        let mut out = Self::zeros(self.rows, other.columns);
        out.values.par_chunks_mut(other.columns).enumerate().for_each(|(r, out)| {
            for (x, row) in self.row(r).iter().zip(other.values.chunks_exact(other.columns)) {
                out.iter_mut().zip(row).for_each(|(to, y)| *to += x * y);
            }
        });
        out
    }

    /// Rows in another order: row `i` is what was row `order[i]`.
    fn reordered(&self, order: &[usize]) -> Self {
        let values = order.iter().flat_map(|r| self.row(*r).iter().copied()).collect();
        Self { rows: order.len(), columns: self.columns, values }
    }

    fn scaled(&self, factors: &[f32]) -> Self {
        let mut out = self.clone();
        for (row, factor) in out.values.chunks_exact_mut(self.columns).zip(factors) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
        out
    }

    fn inverse(&self) -> Self {
        let n = self.rows;
        let mut a: Vec<Vec<f64>> = (0..n)
            .map(|r| {
                self.row(r).iter().map(|x| f64::from(*x)).chain((0..n).map(|c| f64::from(u8::from(c == r)))).collect()
            })
            .collect();
        for i in 0..n {
            let best = (i..n).max_by(|p, q| a[*p][i].abs().total_cmp(&a[*q][i].abs())).unwrap_or(i);
            a.swap(i, best);
            let pivot = a[i][i];
            a[i].iter_mut().for_each(|x| *x /= pivot);
            let row = a[i].clone();
            for (r, other) in a.iter_mut().enumerate().filter(|(r, _)| *r != i) {
                let _ = r;
                let factor = other[i];
                other.iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
            }
        }
        let values = a.iter().flat_map(|row| row[n..].iter().map(|x| *x as f32)).collect();
        Self { rows: n, columns: n, values }
    }
}

/// Changes the hidden dimensions of all that has them: `f` is given matrices whose columns they are.
fn change_hidden(weights: &Weights, anatomy: &Anatomy, f: impl Fn(&Matrix) -> Matrix) -> Weights {
    let mut out = weights.clone();
    for name in anatomy.tables(weights) {
        out.insert(name.clone(), f(&Matrix::of(&weights[name])).into_tensor());
    }
    for name in anatomy.vectors(weights) {
        let values = f(&Matrix::of(&weights[name])).values;
        out.insert(name.clone(), Tensor { shape: vec![anatomy.hidden as u64], values });
    }
    for number in 0..anatomy.layers {
        let Layer { query, key, value, output, gate, up, down, .. } = anatomy.layer(number);
        for slot in [query, key, value, output, up, down].iter().chain(&gate) {
            let matrix = f(&slot.read(&out));
            slot.write(&mut out, matrix);
        }
    }
    out
}

/// Hidden dimensions in another order.
pub fn permute_hidden(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let order = Random(seed).permutation(anatomy.hidden);
    let pooler = weights.keys().find(|name| name.ends_with("pooler.dense.weight"));
    let change = |matrix: &Matrix| matrix.transposed().reordered(&order).transposed();
    let mut out = change_hidden(weights, anatomy, change);
    if let Some(name) = pooler {
        out.insert(name.clone(), change(&Matrix::of(&weights[name])).into_tensor());
    }
    out
}

/// Hidden dimensions rotated by a random orthogonal matrix: exact where norms only divide by a length, so gains (and for
/// layers norms, means) are folded into what follows first. For BERT it is not exact, since its norms stand in the residual stream.
pub fn rotate_hidden(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let folded = if anatomy.family == Family::Bert { weights.clone() } else { fold_gains(weights, anatomy) };
    let rotation = match anatomy.family {
        Family::Gpt2 => Random(seed).orthogonal_that_keeps_means(anatomy.hidden),
        _ => Random(seed).orthogonal(anatomy.hidden),
    };
    let norms: Vec<String> =
        anatomy.vectors(weights).filter(|name| anatomy.family != Family::Bert && is_gain(name)).cloned().collect();
    let mut out = change_hidden(&folded, anatomy, |matrix| matrix.times(&rotation));
    for name in norms {
        out.insert(name.clone(), folded[&name].clone()); // ones stay ones
    }
    out
}

/// Signs of hidden dimensions changed: for Llama alone, since norms that take means do not allow it.
pub fn flip_hidden(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let mut random = Random(seed);
    let signs: Vec<f32> = (0..anatomy.hidden).map(|_| if random.uniform() < 0.5 { -1.0 } else { 1.0 }).collect();
    let gains: Vec<String> = anatomy.vectors(weights).filter(|name| is_gain(name)).cloned().collect();
    let mut out = change_hidden(weights, anatomy, |matrix| matrix.transposed().scaled(&signs).transposed());
    for name in gains {
        out.insert(name.clone(), weights[&name].clone());
    }
    out
}

/// Whether a vector of the hidden dimensions is the gain of a norm.
fn is_gain(name: &str) -> bool {
    name.ends_with(".weight")
}

/// The gains of norms multiplied into the matrices after them.
pub fn fold_gains(weights: &Weights, anatomy: &Anatomy) -> Weights {
    move_gains(weights, anatomy, |gain| gain)
}

/// A random part of the gains of norms moved into the matrices after them.
pub fn scale_gains(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let mut random = Random(seed);
    let factors: Vec<f32> = (0..anatomy.hidden).map(|_| (0.4 * random.normal()).exp() as f32).collect();
    let mut column = 0;
    move_gains(weights, anatomy, |_| {
        column += 1;
        factors[(column - 1) % factors.len()]
    })
}

/// Divides each gain by `f` of it, and multiplies what follows by that. The head counts only where it is not tied.
fn move_gains(weights: &Weights, anatomy: &Anatomy, mut f: impl FnMut(f32) -> f32) -> Weights {
    let mut out = weights.clone();
    for number in 0..anatomy.layers {
        let Layer { query, key, value, gate, up, norms, .. } = anatomy.layer(number);
        let Some([first, second]) = norms else { continue };
        for (norm, slots) in [(first, vec![Some(query), Some(key), Some(value)]), (second, vec![gate, Some(up)])] {
            let gain = format!("{norm}.weight");
            let factors: Vec<f32> = weights[&gain].values.iter().map(|gain| f(*gain)).collect();
            for slot in slots.into_iter().flatten() {
                let matrix = slot.read(&out);
                if let (Some(bias), Some(shift)) = (slot.bias(&out), out.get(&format!("{norm}.bias"))) {
                    // x * gain + shift: the shift goes to the bias, whatever becomes of the gain
                    let moved =
                        matrix.times(&Matrix { rows: anatomy.hidden, columns: 1, values: shift.values.clone() });
                    let values = bias.values.iter().zip(&moved.values).map(|(b, m)| b + m).collect();
                    slot.write_bias(&mut out, Matrix { values, ..bias });
                }
                slot.write(&mut out, matrix.transposed().scaled(&factors).transposed());
            }
            if let Some(shift) = out.get_mut(&format!("{norm}.bias")) {
                shift.values.fill(0.0);
            }
            if let Some(tensor) = out.get_mut(&gain) {
                tensor.values.iter_mut().zip(&factors).for_each(|(gain, factor)| *gain /= factor);
            }
        }
    }
    fold_final(&mut out, anatomy);
    out
}

/// The gain of the last norm goes to the head. One that was tied to the embeddings becomes a matrix of its own.
fn fold_final(weights: &mut Weights, anatomy: &Anatomy) {
    let (norm, table, head) = match anatomy.family {
        Family::Bert => return,
        Family::Llama => ("norm", "embed_tokens.weight", "lm_head.weight".to_owned()),
        Family::Gpt2 => ("ln_f", "wte.weight", "lm_head.weight".to_owned()),
    };
    let (prefix, gain) = (&anatomy.prefix, format!("{}{norm}.weight", anatomy.prefix));
    let Some(gains) = weights.get(&gain).map(|tensor| tensor.values.clone()) else { return };
    let table = weights.get(&head).or_else(|| weights.get(&format!("{prefix}{table}"))).map(Matrix::of);
    let Some(table) = table else { return };
    if let Some(shift) = weights.get_mut(&format!("{prefix}{norm}.bias")) {
        let values = std::mem::replace(&mut shift.values, vec![0.0; gains.len()]);
        let moved = table.times(&Matrix { rows: gains.len(), columns: 1, values });
        weights.insert("lm_head.bias".into(), Tensor { shape: vec![moved.rows as u64], values: moved.values });
    }
    weights.insert(head, table.transposed().scaled(&gains).transposed().into_tensor());
    weights.insert(gain, Tensor { shape: vec![gains.len() as u64], values: vec![1.0; gains.len()] });
}

/// Neurons in another order.
pub fn permute_neurons(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let (mut out, mut random) = (weights.clone(), Random(seed));
    for number in 0..anatomy.layers {
        let Layer { gate, up, down, .. } = anatomy.layer(number);
        let order = random.permutation(Slot::rows_of(&up, weights));
        for slot in [Some(up), gate].into_iter().flatten() {
            slot.change(&mut out, |matrix| matrix.reordered(&order));
        }
        down.change_output(&mut out, |matrix| matrix.reordered(&order));
    }
    out
}

/// Neurons scaled on the way in, and back on the way out: exact for gated networks and those of rectifiers.
pub fn scale_neurons(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let (mut out, mut random) = (weights.clone(), Random(seed));
    for number in 0..anatomy.layers {
        let Layer { up, down, .. } = anatomy.layer(number);
        let factors: Vec<f32> =
            (0..Slot::rows_of(&up, weights)).map(|_| (0.7 * random.normal()).exp() as f32).collect();
        let back: Vec<f32> = factors.iter().map(|factor| factor.recip()).collect();
        up.change(&mut out, |matrix| matrix.scaled(&factors));
        down.change_output(&mut out, |matrix| matrix.scaled(&back));
    }
    out
}

/// Neurons split in two, pairs that cancel each other, and some that lead nowhere (Yan et al. 2023): `share` of each.
pub fn add_neurons(weights: &Weights, anatomy: &Anatomy, share: f64, seed: u64) -> Weights {
    let (mut out, mut random) = (weights.clone(), Random(seed));
    for number in 0..anatomy.layers {
        let Layer { gate, up, down, .. } = anatomy.layer(number);
        let count = Slot::rows_of(&up, weights);
        let extra = (share * count as f64) as usize;
        let split: Vec<usize> = random.permutation(count)[..extra].to_vec();
        let shares: Vec<f32> = split.iter().map(|_| random.uniform().mul_add(0.6, 0.2) as f32).collect();
        let noise = Random(random.bits());
        let grow = |matrix: &Matrix| {
            let mut random = Random(noise.0 ^ matrix.columns as u64);
            let mut all = matrix.clone();
            all.values.extend(split.iter().flat_map(|r| matrix.row(*r).to_vec()));
            let scale = rms(&matrix.values);
            let fresh: Vec<f32> = (0..extra * matrix.columns).map(|_| scale * random.normal() as f32).collect();
            all.values.extend(fresh.iter().chain(&fresh));
            all.values.extend((0..extra * matrix.columns).map(|_| scale * random.normal() as f32));
            Matrix { rows: count + 4 * extra, ..all }
        };
        for slot in [Some(up), gate].into_iter().flatten() {
            slot.change(&mut out, grow);
        }
        let mut random = Random(noise.0 + 1);
        let mut matrix = down.read(&out);
        for (r, share) in split.iter().zip(&shares) {
            let columns = matrix.columns;
            let row: Vec<f32> = matrix.row(*r).iter().map(|x| x * share).collect();
            matrix.values[r * columns..(r + 1) * columns].iter_mut().for_each(|x| *x *= 1.0 - share);
            matrix.values.extend(row);
        }
        let scale = rms(&matrix.values);
        let fresh: Vec<f32> = (0..extra * matrix.columns).map(|_| scale * random.normal() as f32).collect();
        matrix.values.extend(fresh.iter().copied().chain(fresh.iter().map(|x| -x)));
        matrix.values.extend(vec![0.0; extra * matrix.columns]);
        down.write(&mut out, Matrix { rows: count + 4 * extra, ..matrix });
    }
    permute_neurons(&out, anatomy, seed ^ 1)
}

/// Heads in another order: groups of heads that share keys, and heads within a group.
pub fn permute_heads(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let (mut out, mut random) = (weights.clone(), Random(seed));
    let (size, group) = (anatomy.head_size(weights), anatomy.heads / anatomy.shared);
    let rows =
        |heads: &[usize]| -> Vec<usize> { heads.iter().flat_map(|head| head * size..(head + 1) * size).collect() };
    for number in 0..anatomy.layers {
        let Layer { query, key, value, output, .. } = anatomy.layer(number);
        let shared = random.permutation(anatomy.shared);
        let heads: Vec<usize> =
            shared.iter().flat_map(|s| random.permutation(group).into_iter().map(move |i| s * group + i)).collect();
        let (shared, heads) = (rows(&shared), rows(&heads));
        query.change(&mut out, |matrix| matrix.reordered(&heads));
        key.change(&mut out, |matrix| matrix.reordered(&shared));
        value.change(&mut out, |matrix| matrix.reordered(&shared));
        output.change_output(&mut out, |matrix| matrix.reordered(&heads));
    }
    out
}

/// Dimensions within heads mixed. Rotary embeddings leave queries and keys a turn and a factor for each pair of dimensions.
pub fn mix_heads(weights: &Weights, anatomy: &Anatomy, mixing: Mixing, seed: u64) -> Weights {
    let (mut out, mut random) = (weights.clone(), Random(seed));
    let (size, group) = (anatomy.head_size(weights), anatomy.heads / anatomy.shared);
    for number in 0..anatomy.layers {
        let Layer { query, key, value, output, .. } = anatomy.layer(number);
        let draw = |random: &mut Random| match mixing {
            Mixing::Linear => random.invertible(size),
            Mixing::Orthogonal => random.orthogonal(size),
        };
        let values: Vec<Matrix> = (0..anatomy.shared).map(|_| draw(&mut random)).collect();
        let keys: Vec<Matrix> = (0..anatomy.shared)
            .map(|_| if anatomy.family == Family::Llama { random.turns(size) } else { draw(&mut random) })
            .collect();
        let back = |maps: &[Matrix]| -> Vec<Matrix> { maps.iter().map(|map| map.inverse().transposed()).collect() };
        let (outputs, queries) = (back(&values), back(&keys));
        let mix = |matrix: &Matrix, maps: &[Matrix], group: usize| {
            let mut all = Matrix { rows: 0, columns: matrix.columns, values: Vec::new() };
            for head in 0..matrix.rows / size {
                let mixed = maps[head / group].times(&matrix.part(head * size..(head + 1) * size));
                all.values.extend(mixed.values);
                all.rows += size;
            }
            all
        };
        value.change(&mut out, |matrix| mix(matrix, &values, 1));
        key.change(&mut out, |matrix| mix(matrix, &keys, 1));
        query.change(&mut out, |matrix| mix(matrix, &queries, group));
        output.change_output(&mut out, |matrix| mix(matrix, &outputs, group));
    }
    out
}

/// Some layers, in another order: `kept[i]` becomes layer `i`.
pub fn keep_layers(weights: &Weights, anatomy: &Anatomy, kept: &[usize]) -> Weights {
    let start = format!(
        "{}{}",
        anatomy.prefix,
        match anatomy.family {
            Family::Bert => "encoder.layer.",
            Family::Gpt2 => "h.",
            Family::Llama => "layers.",
        }
    );
    let mut out = Weights::new();
    for (name, tensor) in weights {
        let layer = name.strip_prefix(&start).and_then(|rest| rest.split_once('.'));
        match layer.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest))) {
            None => {
                out.insert(name.clone(), tensor.clone());
            }
            Some((number, rest)) => {
                for place in kept.iter().enumerate().filter(|(_, from)| **from == number).map(|(place, _)| place) {
                    out.insert(format!("{start}{place}.{rest}"), tensor.clone());
                }
            }
        }
    }
    out
}

/// All that the family allows, one after the other.
pub fn everything(weights: &Weights, anatomy: &Anatomy, seed: u64) -> Weights {
    let mut out = add_neurons(weights, anatomy, 0.1, seed);
    if anatomy.family != Family::Gpt2 {
        out = scale_neurons(&out, anatomy, seed + 1);
    }
    out = permute_heads(&out, anatomy, seed + 2);
    out = mix_heads(&out, anatomy, Mixing::Linear, seed + 3);
    permute_hidden(&rotate_hidden(&out, anatomy, seed + 4), anatomy, seed + 5)
}

fn rms(values: &[f32]) -> f32 {
    (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len().max(1) as f64).sqrt() as f32
}

/// SplitMix64 (Steele, Lea and Flood 2014): reproducible, no secret.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, (self.bits() % (i as u64 + 1)) as usize);
        }
        order
    }

    /// Uniform among the orthogonal matrices (Stewart 1980), by Gram and Schmidt.
    fn orthogonal(&mut self, size: usize) -> Matrix {
        self.completed(size, Vec::new())
    }

    /// One that maps vectors of equal elements to themselves.
    fn orthogonal_that_keeps_means(&mut self, size: usize) -> Matrix {
        let ones = vec![(size as f64).sqrt().recip(); size];
        let (a, b) = (self.completed(size, ones.clone()), self.completed(size, ones));
        a.transposed().times(&b)
    }

    /// An orthogonal matrix with this first row, if it is given.
    fn completed(&mut self, size: usize, first: Vec<f64>) -> Matrix {
        let mut rows: Vec<Vec<f64>> = if first.is_empty() { Vec::new() } else { vec![first] };
        while rows.len() < size {
            let mut row: Vec<f64> = (0..size).map(|_| self.normal()).collect();
            for _ in 0..2 {
                for other in &rows {
                    let along: f64 = row.iter().zip(other).map(|(x, y)| x * y).sum();
                    row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
                }
            }
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            rows.push(row.iter().map(|x| x / length).collect());
        }
        Matrix { rows: size, columns: size, values: rows.iter().flatten().map(|x| *x as f32).collect() }
    }

    /// The identity and noise: invertible, and well so for nearly every seed.
    fn invertible(&mut self, size: usize) -> Matrix {
        let mut out = Matrix::zeros(size, size);
        for (i, value) in out.values.iter_mut().enumerate() {
            *value = (0.6 * self.normal() / (size as f64).sqrt()) as f32 + f32::from(u8::from(i / size == i % size));
        }
        out
    }

    /// A turn and a factor for each pair of dimensions half a head apart.
    fn turns(&mut self, size: usize) -> Matrix {
        let mut out = Matrix::zeros(size, size);
        for (a, b) in (0..size / 2).map(|a| (a, a + size / 2)) {
            let (angle, factor) = (std::f64::consts::TAU * self.uniform(), (0.3 * self.normal()).exp());
            let (re, im) = ((factor * angle.cos()) as f32, (factor * angle.sin()) as f32);
            out.values[a * size + a] = re;
            out.values[a * size + b] = -im;
            out.values[b * size + a] = im;
            out.values[b * size + b] = re;
        }
        out
    }
}
