//! The forward pass of BERT (Devlin et al. 2018), for one sentence.

use std::error::Error;

use candle_core::{D, Module, Result, Tensor};
use candle_nn::ops::softmax;
use candle_nn::{Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};

/// What `config.json` says.
#[derive(serde::Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    type_vocab_size: usize,
    vocab_size: usize,
}

/// A model, its weights in memory.
pub(crate) struct Bert {
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
    longest: usize,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
    mixed: Linear,
    mixed_norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
    narrow_norm: LayerNorm,
}

impl Bert {
    /// Builds the layers; each asks for its own weights.
    pub(crate) fn load(weights: &VarBuilder<'_>, config: &[u8]) -> std::result::Result<Self, Box<dyn Error>> {
        let config: Config = serde_json::from_slice(config)?;
        let (at, hidden) = (weights.pp("embeddings"), config.hidden_size);
        Ok(Self {
            words: embedding(config.vocab_size, hidden, at.pp("word_embeddings"))?,
            positions: embedding(config.max_position_embeddings, hidden, at.pp("position_embeddings"))?,
            types: embedding(config.type_vocab_size, hidden, at.pp("token_type_embeddings"))?,
            norm: layer_norm(hidden, config.layer_norm_eps, at.pp("LayerNorm"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(&weights.pp(format!("encoder.layer.{i}")), &config))
                .collect::<Result<_>>()?,
            longest: config.max_position_embeddings,
        })
    }

    /// The hidden states `[tokens, hidden]` of the tokens `ids`, as many of them as there are positions.
    pub(crate) fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let ids = &ids[..ids.len().min(self.longest)];
        let device = self.words.embeddings().device();
        let words = self.words.forward(&Tensor::new(ids, device)?)?;
        let positions = self.positions.forward(&Tensor::arange(0, ids.len() as u32, device)?)?;
        let types = self.types.forward(&Tensor::new(&vec![0u32; ids.len()][..], device)?)?;
        let start = self.norm.forward(&((words + types)? + positions)?)?;
        self.layers.iter().try_fold(start, |states, layer| layer.forward(&states))
    }
}

impl Layer {
    fn load(weights: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let (hidden, wide, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let (attention, output) = (weights.pp("attention.self"), weights.pp("attention.output"));
        Ok(Self {
            query: linear(hidden, hidden, attention.pp("query"))?,
            key: linear(hidden, hidden, attention.pp("key"))?,
            value: linear(hidden, hidden, attention.pp("value"))?,
            heads: config.num_attention_heads,
            mixed: linear(hidden, hidden, output.pp("dense"))?,
            mixed_norm: layer_norm(hidden, eps, output.pp("LayerNorm"))?,
            wide: linear(hidden, wide, weights.pp("intermediate.dense"))?,
            narrow: linear(wide, hidden, weights.pp("output.dense"))?,
            narrow_norm: layer_norm(hidden, eps, weights.pp("output.LayerNorm"))?,
        })
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let mixed = self.mixed.forward(&self.attend(states)?)?;
        let mixed = self.mixed_norm.forward(&(mixed + states)?)?;
        let wide = self.wide.forward(&mixed)?.gelu_erf()?;
        self.narrow_norm.forward(&(self.narrow.forward(&wide)? + mixed)?)
    }

    /// Each token looks at all others, with several heads.
    fn attend(&self, states: &Tensor) -> Result<Tensor> {
        let (tokens, hidden) = states.dims2()?;
        let size = hidden / self.heads;
        let heads =
            |by: &Linear| by.forward(states)?.reshape((tokens, self.heads, size))?.transpose(0, 1)?.contiguous();
        let (query, key, value) = (heads(&self.query)?, heads(&self.key)?, heads(&self.value)?);
        let scores = (query.matmul(&key.t()?.contiguous()?)? / (size as f64).sqrt())?;
        softmax(&scores, D::Minus1)?.matmul(&value)?.transpose(0, 1)?.reshape((tokens, hidden))
    }
}
