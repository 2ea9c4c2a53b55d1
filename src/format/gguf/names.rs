//! What `llama.cpp` calls tensors, and what the same tensors are called where they come from.
//!
//! Its converter renames every tensor, and for the architectures whose rotary embedding it computes on neighbouring pairs
//! it also reorders the rows of Q and K within each head. Names prove nothing: they only say where to look first.

use crate::tensor::Index;

/// How a family of models names its tensors in `transformers`. Pairs are `llama.cpp`'s name and that one.
struct Family {
    layers: &'static str,
    outside: &'static [(&'static str, &'static str)],
    within: &'static [(&'static str, &'static str)],
}

/// Decoders like Llama.
const DECODER: Family = Family {
    layers: "model.layers",
    outside: &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")],
    within: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("ffn_gate_inp", "mlp.gate"),
    ],
};

/// What differs within blocks of Gemma 2 and later, which put norms on both sides.
const GEMMA: &[(&str, &str)] = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// Encoders like BERT.
const ENCODER: Family = Family {
    layers: "encoder.layer",
    outside: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
    ],
    within: &[
        ("attn_q", "attention.self.query"),
        ("attn_k", "attention.self.key"),
        ("attn_v", "attention.self.value"),
        ("attn_output", "attention.output.dense"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("ffn_up", "intermediate.dense"),
        ("ffn_down", "output.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ],
};

/// Architectures whose Q and K the converter reorders.
const REORDERED: &[&str] = &["baichuan", "deci", "granite", "internlm2", "llama", "minicpm", "olmo", "xverse"];

/// The name in `transformers` of the tensor that a GGUF file of this architecture calls `name`.
///
/// Knows decoders like Llama, Qwen, Phi-3 and Gemma, and encoders like BERT; `None` for the rest.
pub fn original(architecture: &str, name: &str) -> Option<String> {
    let Family { layers, outside, within } = match architecture {
        "bert" | "jina-bert-v2" | "nomic-bert" => ENCODER,
        _ => DECODER,
    };
    let find =
        |table: &[(&str, &'static str)], stem: &str| table.iter().find(|(own, _)| *own == stem).map(|(_, to)| *to);
    let (stem, ending) = name.rsplit_once('.')?;
    let Some(inside) = stem.strip_prefix("blk.") else {
        return find(outside, stem).map(|original| format!("{original}.{ending}"));
    };
    let (block, stem) = inside.split_once('.')?;
    let block: u32 = block.parse().ok()?;
    let special = if architecture.starts_with("gemma") && architecture != "gemma" { find(GEMMA, stem) } else { None };
    special.or_else(|| find(within, stem)).map(|original| format!("{layers}.{block}.{original}.{ending}"))
}

/// The number of heads within which the rows of this tensor were reordered, if they were.
pub fn reordered_heads(index: &Index, name: &str) -> Option<u64> {
    let architecture = index.metadata().get("general.architecture")?;
    let heads = match name.split('.').nth(2)? {
        _ if !REORDERED.contains(&architecture.as_str()) => return None,
        "attn_q" => "head_count",
        "attn_k" => "head_count_kv",
        _ => return None,
    };
    let text = |key: &str| index.metadata().get(&format!("{architecture}.attention.{key}"));
    text(heads).or_else(|| text("head_count"))?.parse().ok().filter(|heads| *heads > 0)
}

/// The row of the original tensor that stands at `row` of the reordered one, where heads are `size` rows high.
///
/// Pairs that were half a head apart (`0, size/2`, `1, size/2 + 1`, ..) are neighbours in `llama.cpp`.
pub fn original_row(row: u64, size: u64) -> u64 {
    let (head, inside) = (row / size, row % size);
    head * size + inside % 2 * (size / 2) + inside / 2
}

/// The other way round: the row of the reordered tensor that is `row` of the original.
pub fn reordered_row(row: u64, size: u64) -> u64 {
    let (head, inside) = (row / size, row % size);
    head * size + inside % (size / 2) * 2 + inside / (size / 2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_of_the_families() {
        for (architecture, name, expected) in [
            ("llama", "token_embd.weight", Some("model.embed_tokens.weight")),
            ("llama", "blk.12.attn_q.weight", Some("model.layers.12.self_attn.q_proj.weight")),
            ("qwen2", "blk.0.attn_k.bias", Some("model.layers.0.self_attn.k_proj.bias")),
            ("gemma2", "blk.3.ffn_norm.weight", Some("model.layers.3.pre_feedforward_layernorm.weight")),
            ("gemma", "blk.3.ffn_norm.weight", Some("model.layers.3.post_attention_layernorm.weight")),
            ("bert", "blk.5.ffn_up.weight", Some("encoder.layer.5.intermediate.dense.weight")),
            ("bert", "token_embd_norm.bias", Some("embeddings.LayerNorm.bias")),
            ("llama", "blk.x.attn_q.weight", None),
            ("llama", "rope_freqs.weight", None),
            ("llama", "blk", None),
        ] {
            assert_eq!(original(architecture, name).as_deref(), expected, "{architecture} {name}");
        }
    }

    #[test]
    fn rows_of_a_head_alternate_between_its_halves() {
        let rows: Vec<_> = (0..12).map(|row| original_row(row, 6)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert!((0..576).all(|row| reordered_row(original_row(row, 64), 64) == row));
    }

    #[test]
    fn only_q_and_k_of_some_architectures_are_reordered() {
        let heads = |architecture: &str, name: &str| {
            let metadata = [
                ("general.architecture".into(), architecture.into()),
                (format!("{architecture}.attention.head_count"), "9".into()),
                (format!("{architecture}.attention.head_count_kv"), "3".into()),
            ];
            reordered_heads(&Index::new(Vec::new(), BTreeMap::from(metadata)).unwrap(), name)
        };
        assert_eq!(heads("llama", "blk.0.attn_q.weight"), Some(9));
        assert_eq!(heads("llama", "blk.0.attn_k.weight"), Some(3));
        assert_eq!(heads("llama", "blk.0.attn_v.weight"), None);
        assert_eq!(heads("qwen2", "blk.0.attn_q.weight"), None);
    }
}
