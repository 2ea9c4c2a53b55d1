//! What the tensors of a transformer are for, told by the names that its family gives them. Another family is another table.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::panel::{Panel, Stored, tensors};
use crate::error::Result;
use crate::format::gguf::names;
use crate::io::ReadAtExt;
use crate::linear::Matrix;
use crate::matching::Side;

/// Largest `config.json` that is looked at.
const MAX_CONFIG: u64 = 1 << 20;
/// Sizes of attention heads to try where nothing says them.
const HEAD_SIZES: [usize; 12] = [16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256];

/// What a matrix is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Role {
    /// A row for each token or position.
    Table,
    Query,
    Key,
    Value,
    /// The output of attention: columns of heads.
    Output,
    Gate,
    Up,
    /// The output of a feed-forward network: columns of neurons.
    Down,
}

impl Role {
    pub(super) fn is_neural(self) -> bool {
        matches!(self, Self::Gate | Self::Up | Self::Down)
    }

    pub(super) fn is_head(self) -> bool {
        matches!(self, Self::Query | Self::Key | Self::Value | Self::Output)
    }
}

/// Which axis of a tensor is that of the hidden dimensions.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Hidden {
    Rows,
    Columns,
}
use Hidden::{Columns, Rows};
use Role::{Down, Gate, Key, Output, Query, Table, Up, Value};

/// A family: ends of names outside of layers, and whole names within a layer, where `*` is a number. Each with what the
/// tensor is for (several roles: fused, one after the other) and with the norm whose gain its inputs carry, if any.
struct Family {
    outside: &'static [Entry],
    within: &'static [Entry],
}
type Entry = (&'static str, &'static [Role], Hidden, Option<&'static str>);

/// Devlin et al. 2018, and what kept its names. Norms stand behind the residual sum, so no input carries a gain.
const BERT: Family = Family {
    outside: &[("embeddings.word_embeddings.weight", &[Table], Columns, None)],
    within: &[
        ("attention.self.query.weight", &[Query], Columns, None),
        ("attention.self.key.weight", &[Key], Columns, None),
        ("attention.self.value.weight", &[Value], Columns, None),
        ("attention.output.dense.weight", &[Output], Rows, None),
        ("intermediate.dense.weight", &[Up], Columns, None),
        ("output.dense.weight", &[Down], Rows, None),
    ],
};

/// Sanh et al. 2019.
const DISTILBERT: Family = Family {
    outside: &[("embeddings.word_embeddings.weight", &[Table], Columns, None)],
    within: &[
        ("attention.q_lin.weight", &[Query], Columns, None),
        ("attention.k_lin.weight", &[Key], Columns, None),
        ("attention.v_lin.weight", &[Value], Columns, None),
        ("attention.out_lin.weight", &[Output], Rows, None),
        ("ffn.lin1.weight", &[Up], Columns, None),
        ("ffn.lin2.weight", &[Down], Rows, None),
    ],
};

/// Llama (Touvron et al. 2023), Mistral, Qwen, Phi-3, Mixtral and others.
const LLAMA: Family = Family {
    outside: &[
        ("embed_tokens.weight", &[Table], Columns, None),
        ("lm_head.weight", &[Table], Columns, Some("norm.weight")),
    ],
    within: &[
        ("self_attn.q_proj.weight", &[Query], Columns, Some("input_layernorm.weight")),
        ("self_attn.k_proj.weight", &[Key], Columns, Some("input_layernorm.weight")),
        ("self_attn.v_proj.weight", &[Value], Columns, Some("input_layernorm.weight")),
        ("self_attn.qkv_proj.weight", &[Query, Key, Value], Columns, Some("input_layernorm.weight")),
        ("self_attn.o_proj.weight", &[Output], Rows, None),
        ("mlp.gate_proj.weight", &[Gate], Columns, Some("post_attention_layernorm.weight")),
        ("mlp.up_proj.weight", &[Up], Columns, Some("post_attention_layernorm.weight")),
        ("mlp.gate_up_proj.weight", &[Gate, Up], Columns, Some("post_attention_layernorm.weight")),
        ("mlp.down_proj.weight", &[Down], Rows, None),
        ("mlp.experts.*.gate_proj.weight", &[Gate], Columns, Some("post_attention_layernorm.weight")),
        ("mlp.experts.*.up_proj.weight", &[Up], Columns, Some("post_attention_layernorm.weight")),
        ("mlp.experts.*.down_proj.weight", &[Down], Rows, None),
        ("block_sparse_moe.experts.*.w1.weight", &[Gate], Columns, Some("post_attention_layernorm.weight")),
        ("block_sparse_moe.experts.*.w3.weight", &[Up], Columns, Some("post_attention_layernorm.weight")),
        ("block_sparse_moe.experts.*.w2.weight", &[Down], Rows, None),
    ],
};

/// Radford et al. 2019, whose matrices stand with their inputs as rows.
const GPT2: Family = Family {
    outside: &[
        ("wte.weight", &[Table], Columns, None),
        ("wpe.weight", &[Table], Columns, None),
        ("lm_head.weight", &[Table], Columns, Some("ln_f.weight")),
    ],
    within: &[
        ("attn.c_attn.weight", &[Query, Key, Value], Rows, Some("ln_1.weight")),
        ("attn.c_proj.weight", &[Output], Columns, None),
        ("mlp.c_fc.weight", &[Up], Rows, Some("ln_2.weight")),
        ("mlp.c_proj.weight", &[Down], Columns, None),
    ],
};

/// Zhang et al. 2022.
const OPT: Family = Family {
    outside: &[
        ("embed_tokens.weight", &[Table], Columns, None),
        ("embed_positions.weight", &[Table], Columns, None),
        ("lm_head.weight", &[Table], Columns, Some("final_layer_norm.weight")),
    ],
    within: &[
        ("self_attn.q_proj.weight", &[Query], Columns, Some("self_attn_layer_norm.weight")),
        ("self_attn.k_proj.weight", &[Key], Columns, Some("self_attn_layer_norm.weight")),
        ("self_attn.v_proj.weight", &[Value], Columns, Some("self_attn_layer_norm.weight")),
        ("self_attn.out_proj.weight", &[Output], Rows, None),
        ("fc1.weight", &[Up], Columns, Some("final_layer_norm.weight")),
        ("fc2.weight", &[Down], Rows, None),
    ],
};

const FAMILIES: [&Family; 5] = [&BERT, &DISTILBERT, &LLAMA, &GPT2, &OPT];

/// One matrix of the reference: rows are tokens, neurons or dimensions of heads, columns are hidden dimensions.
pub(super) struct Part {
    pub(super) panel: Panel,
    pub(super) role: Role,
    /// Layer, and expert within it.
    pub(super) unit: (u64, u64),
    /// What the norm before it multiplies the columns by.
    pub(super) gain: Option<Arc<Vec<f32>>>,
}

/// How attention is cut into heads: rows of each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Heads {
    pub(super) size: usize,
}

/// A transformer, as far as alignment has to know it.
pub(super) struct Transformer {
    pub(super) hidden: usize,
    /// Token embeddings first.
    pub(super) parts: Vec<Part>,
    pub(super) heads: Option<Heads>,
}

impl Transformer {
    /// Recognises a model by the names of its tensors, or not.
    pub(super) fn recognise(side: Side<'_>) -> Result<Option<Self>> {
        let tensors = tensors(side)?;
        let named: Vec<(Name, &Arc<Stored>)> = tensors.iter().map(|stored| (Name::of(side, stored), stored)).collect();
        let fit = |family: &Family| named.iter().filter(|(name, _)| family.entry(name).is_some()).count();
        let Some(family) = FAMILIES.into_iter().rev().max_by_key(|family| fit(family)) else { return Ok(None) };
        let table = named.iter().find(|(name, _)| family.outside.first().is_some_and(|entry| name.is(entry.0)));
        let Some((_, table)) = table else { return Ok(None) };
        let [_, hidden] = *table.info.shape.as_slice() else { return Ok(None) };
        let hidden = hidden as usize;
        let mut gains: BTreeMap<(u64, &str), Arc<Vec<f32>>> = BTreeMap::new();
        for (name, stored) in named.iter().filter(|(_, stored)| stored.info.shape == [hidden as u64]) {
            let entries = family.outside.iter().chain(family.within);
            if let Some(norm) = entries.filter_map(|entry| entry.3).find(|norm| name.is(norm)) {
                let panel = Panel {
                    stored: Arc::clone(stored),
                    rows: 1,
                    columns: hidden,
                    first: 0,
                    row_step: hidden,
                    column_step: 1,
                };
                gains.insert((name.layer.unwrap_or(u64::MAX), norm), Arc::new(panel.read()?.values));
            }
        }
        let mut parts = Vec::new();
        for (name, stored) in &named {
            let Some((_, roles, axis, norm)) = family.entry(name) else { continue };
            let layer = name.layer.unwrap_or(u64::MAX);
            let gain = norm.and_then(|norm| gains.get(&(layer, norm))).cloned();
            let [whole] = &Panel::of(stored, hidden, *axis == Rows)[..] else { continue };
            for (role, start, rows) in split(roles, whole.rows, hidden) {
                let panel = whole.part(start, rows);
                parts.push(Part { panel, role, unit: (layer, name.expert), gain: gain.clone() });
            }
        }
        parts.sort_by_key(|part| (part.role != Table, part.gain.is_some(), part.unit, part.role));
        Ok(Some(Self { hidden, parts, heads: heads(side, hidden)? }).filter(|model| model.parts.len() > 1))
    }

    /// Sizes that the heads of attention may have: one if it is known.
    pub(super) fn head_sizes(&self) -> Vec<usize> {
        if let Some(Heads { size }) = self.heads {
            return vec![size];
        }
        let attention = || self.parts.iter().filter(|part| part.role.is_head());
        let fits = |size: &usize| attention().all(|part| part.panel.rows.is_multiple_of(*size));
        HEAD_SIZES.into_iter().filter(fits).collect()
    }

    /// The tables, token embeddings first.
    pub(super) fn tables(&self) -> impl Iterator<Item = (usize, &Part)> {
        self.parts.iter().enumerate().filter(|(_, part)| part.role == Table)
    }
}

/// Rows of fused matrices: equal parts, or, where queries have more heads than keys, the queries as many as hidden dimensions.
fn split(roles: &[Role], rows: usize, hidden: usize) -> Vec<(Role, usize, usize)> {
    let first = match roles {
        [Query, Key, Value] if rows > hidden && (rows - hidden).is_multiple_of(2) => hidden,
        _ => rows / roles.len().max(1),
    };
    let rest = (rows - first) / (roles.len().max(2) - 1);
    let mut start = 0;
    let part = |(i, role): (usize, &Role)| {
        let rows = if i == 0 { first } else { rest };
        start += rows;
        (*role, start - rows, rows)
    };
    roles.iter().enumerate().map(part).collect()
}

/// A name, with the numbers of the layer and of the expert taken out.
struct Name {
    whole: String,
    within: Option<String>,
    layer: Option<u64>,
    expert: u64,
}

impl Name {
    fn of(side: Side<'_>, stored: &Stored) -> Self {
        let metadata = side.index.file(&stored.file).map(|file| file.index.metadata());
        let architecture = metadata.and_then(|metadata| metadata.get("general.architecture"));
        let translated = architecture.and_then(|architecture| names::original(architecture, &stored.info.name));
        let whole = translated.unwrap_or_else(|| stored.info.name.clone());
        let mut pieces = whole.split('.');
        let layer = pieces.find_map(|piece| piece.parse().ok());
        let (mut expert, mut within) = (0, Vec::new());
        for piece in pieces {
            match piece.parse() {
                Ok(number) => {
                    expert = number;
                    within.push("*");
                }
                Err(_) => within.push(piece),
            }
        }
        let within = layer.map(|_| within.join("."));
        Self { within, layer, expert, whole }
    }

    fn is(&self, end: &str) -> bool {
        match &self.within {
            Some(within) => within == end,
            None => self.whole.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.')),
        }
    }
}

impl Family {
    fn entry(&self, name: &Name) -> Option<&Entry> {
        let table = if name.layer.is_some() { self.within } else { self.outside };
        table.iter().find(|entry| name.is(entry.0))
    }
}

/// The fields of a `config.json` that say how attention is cut into heads.
#[derive(Default, Deserialize)]
struct Config {
    head_dim: Option<usize>,
    #[serde(alias = "n_head", alias = "n_heads")]
    num_attention_heads: Option<usize>,
}

/// How the reference says that its attention is cut into heads, if it does.
fn heads(side: Side<'_>, hidden: usize) -> Result<Option<Heads>> {
    let mut config = Config::default();
    if side.tree.entries().iter().any(|entry| entry.path == "config.json") {
        let bytes = side.tree.open("config.json")?.read_all(MAX_CONFIG)?;
        config = serde_json::from_slice(&bytes).unwrap_or_default();
    }
    for file in side.index.files() {
        let metadata = file.index.metadata();
        let Some(architecture) = metadata.get("general.architecture") else { continue };
        let number = |key: &str| metadata.get(&format!("{architecture}.attention.{key}"))?.parse().ok();
        config = Config { head_dim: number("key_length"), num_attention_heads: number("head_count") };
    }
    let size = config.head_dim.or_else(|| hidden.checked_div(config.num_attention_heads?));
    Ok(size.filter(|size| *size > 0).map(|size| Heads { size }))
}

/// Multiplies the columns of a matrix.
pub(super) fn scale_columns(matrix: &mut Matrix, factors: &[f32]) {
    for row in matrix.values.chunks_exact_mut(matrix.columns.max(1)) {
        row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    }
}
