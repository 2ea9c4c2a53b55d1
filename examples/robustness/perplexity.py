"""Measure the perplexity of a Llama on the documentation in Python's own library.

    python perplexity.py BASE.gguf SUSPECT

BASE says how the model is built and how text is split; the weights come from SUSPECT, a GGUF file or a safetensors file
with the names of `transformers`. The forward pass is plain numpy in float32: no runtime decides what is computed.

Prints the perplexity of 1,024 tokens in windows of 256. Exits with status 3 if a package is missing or the model is no
Llama.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

try:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file
    from text import paragraphs
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

WINDOW, WINDOWS = 256, 4
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

Tensors = dict[str, Any]


def load(path: Path) -> tuple[Tensors, bool]:
    """Tensors under llama.cpp's names without ending, and whether Q and K are in llama.cpp's order."""
    if path.suffix == ".gguf":
        tensors = gguf.GGUFReader(path).tensors
        return {t.name.rsplit(".", 1)[0]: gguf.quants.dequantize(t.data, t.tensor_type) for t in tensors}, True

    def own(name: str) -> str:
        name = name.rsplit(".", 1)[0]
        found = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
        return f"blk.{found[1]}.{NAMES.get(found[2], found[2])}" if found else NAMES.get(name, name)

    return {own(name): tensor.astype(np.float32) for name, tensor in load_file(path).items()}, False


def tokenizer(fields: dict[str, Any]) -> Tokenizer:
    """The byte-level BPE of a GGUF file that calls it `smollm` or `gpt-2`."""
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    out = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    out.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return out


def rotate(x: Any, base: float, is_paired: bool) -> Any:
    """Rotary embedding (Su et al. 2021) of `[heads, places, width]`, on neighbours or on halves."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * base ** (-np.arange(half) / half)
    turn = np.exp(1j * angles).astype(np.complex64)
    a, b = (x[..., ::2], x[..., 1::2]) if is_paired else (x[..., :half], x[..., half:])
    turned = (a + 1j * b) * turn
    return np.concatenate([turned.real, turned.imag], axis=-1)


def forward(t: Tensors, sizes: dict[str, Any], ids: Any, is_paired: bool) -> Any:
    """Log-probabilities of what follows each token."""

    def norm(name: str, x: Any) -> Any:
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + sizes["eps"]) * t[name]

    heads, groups = sizes["heads"], sizes["kv_heads"]
    x = t["token_embd"][ids]
    hidden = np.triu(np.full((len(ids), len(ids)), -np.inf, dtype=np.float32), 1)
    for number in range(sizes["layers"]):
        layer = f"blk.{number}"
        y = norm(f"{layer}.attn_norm", x)
        q, k, v = (
            (y @ t[f"{layer}.attn_{part}"].T).reshape(len(ids), count, -1).swapaxes(0, 1)
            for part, count in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = (rotate(part, sizes["base"], is_paired) for part in (q, k))
        k, v = (part.repeat(heads // groups, axis=0) for part in (k, v))
        scores = q @ k.swapaxes(1, 2) / np.float32(q.shape[-1] ** 0.5) + hidden
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (powers / powers.sum(-1, keepdims=True)) @ v
        x = x + seen.swapaxes(0, 1).reshape(len(ids), -1) @ t[f"{layer}.attn_output"].T
        y = norm(f"{layer}.ffn_norm", x)
        gate = y @ t[f"{layer}.ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ t[f"{layer}.ffn_up"].T)) @ t[f"{layer}.ffn_down"].T
    logits = norm("output_norm", x) @ t["output" if "output" in t else "token_embd"].T
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def main() -> None:
    fields = gguf.GGUFReader(sys.argv[1]).fields
    if fields["general.architecture"].contents() != "llama":
        sys.exit(3)
    keys = {
        "layers": "block_count",
        "heads": "attention.head_count",
        "kv_heads": "attention.head_count_kv",
        "eps": "attention.layer_norm_rms_epsilon",
        "base": "rope.freq_base",
    }
    sizes = {name: fields[f"llama.{key}"].contents() for name, key in keys.items()}
    tensors, is_paired = load(Path(sys.argv[2]))
    text = "\n\n".join(paragraphs())[:100_000]
    ids = np.array(tokenizer(fields).encode(text).ids)
    loss = []
    for window in ids[: WINDOW * WINDOWS].reshape(WINDOWS, WINDOW):
        with np.errstate(all="ignore"):
            log_p = forward(tensors, sizes, window, is_paired)
        loss.append(-log_p[np.arange(WINDOW - 1), window[1:]])
    print(f"{np.exp(np.mean(loss, dtype=np.float64)):.4f}")


if __name__ == "__main__":
    main()
