"""Fine-tune a BERT-like sentence encoder, truly: AdamW on a contrastive objective.

    python finetune.py IN.safetensors OUT.safetensors MODEL [--lr 5e-5] [--steps 200] [--rank 0]

Learns to tell which two halves belong to one paragraph (InfoNCE, van den Oord et al. 2018) of the documentation in
Python's own library. MODEL is the directory of `config.json` and `tokenizer.json`, or a file in it. With `--rank`, what
is trained is a LoRA of that rank on every matrix of the layers (Hu et al. 2021), merged at the end.

Exits with status 3 if a package is missing or the model is not of that kind.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from safetensors.numpy import load_file, save_file
    from text import paragraphs
    from tokenizers import Tokenizer
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

PAIRS, LENGTH = 8, 40  # of a batch, and tokens of a half
TEMPERATURE = 0.05
BETAS, DECAY = (0.9, 0.999), 0.01

Params = dict[str, Any]


def encode(params: Params, config: dict[str, Any], ids: Any, mask: Any) -> Any:
    """Unit vectors of sentences."""

    def linear(name: str, x: Any) -> Any:
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    def norm(name: str, x: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return x * params[f"{name}.weight"] + params[f"{name}.bias"]

    def heads(x: Any) -> Any:
        return x.reshape(*x.shape[:2], config["num_attention_heads"], -1).swapaxes(1, 2)

    x = params["embeddings.word_embeddings.weight"][ids]
    x = x + params["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm("embeddings.LayerNorm", x + params["embeddings.token_type_embeddings.weight"][0])
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        q, k, v = (heads(linear(f"{layer}.attention.self.{part}", x)) for part in ("query", "key", "value"))
        scores = q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5
        seen = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -1e9)) @ v
        seen = seen.swapaxes(1, 2).reshape(x.shape)
        x = norm(f"{layer}.attention.output.LayerNorm", x + linear(f"{layer}.attention.output.dense", seen))
        inner = jax.nn.gelu(linear(f"{layer}.intermediate.dense", x), approximate=False)
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", inner))
    mean = (x * mask[..., None]).sum(1)
    return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)


def batches(tokenizer: Tokenizer, count: int) -> Iterator[tuple[Any, Any]]:
    """First halves, then second halves, padded."""
    random = np.random.default_rng(1)
    texts = list(paragraphs())
    for _ in range(count):
        words = [texts[i].split() for i in random.choice(len(texts), PAIRS, replace=False)]
        halves = [w[: len(w) // 2] for w in words] + [w[len(w) // 2 :] for w in words]
        encoded = tokenizer.encode_batch([" ".join(half) for half in halves])
        yield (np.array([e.ids for e in encoded]), np.array([e.attention_mask for e in encoded], dtype=bool))


def train(params: Params, loss: Callable[..., Any], data: Iterator[tuple[Any, Any]], rate: float) -> Params:
    """AdamW (Loshchilov and Hutter 2019)."""

    @jax.jit
    def step(params: Params, m: Params, v: Params, t: Any, ids: Any, mask: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(params, ids, mask)
        m = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, m, gradient)
        v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, gradient)

        def update(p: Any, m: Any, v: Any) -> Any:
            direction = m / (1 - BETAS[0] ** t) / (jnp.sqrt(v / (1 - BETAS[1] ** t)) + 1e-8)
            return p - rate * (direction + DECAY * p)

        return jax.tree.map(update, params, m, v), m, v, value

    m = jax.tree.map(jnp.zeros_like, params)
    v = m
    for t, (ids, mask) in enumerate(data, 1):
        params, m, v, value = step(params, m, v, jnp.float32(t), ids, mask)
        if t % 20 == 1:
            print(f"step {t}: loss {value:.4f}", file=sys.stderr)
    return params


def adapters(params: Params, rank: int) -> Params:
    """A LoRA for each matrix of the layers, without effect as yet."""
    random = np.random.default_rng(2)
    lora = {}
    for name, tensor in params.items():
        if name.startswith("encoder.layer.") and tensor.ndim == 2:
            lora[name] = {
                "down": jnp.asarray(random.standard_normal((rank, tensor.shape[1])) / rank**0.5, jnp.float32),
                "up": jnp.zeros((tensor.shape[0], rank), jnp.float32),
            }
    return lora


def merged(params: Params, lora: Params) -> Params:
    """The weights with the adapters in them."""
    return params | {name: params[name] + pair["up"] @ pair["down"] for name, pair in lora.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("source", "out", "model"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rank", type=int, default=0)
    arguments = parser.parse_args()
    directory = arguments.model if arguments.model.is_dir() else arguments.model.parent
    if not (directory / "config.json").exists() or not (directory / "tokenizer.json").exists():
        sys.exit(3)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "bert":
        sys.exit(3)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    tensors = load_file(arguments.source)
    params = {name: jnp.asarray(tensor) for name, tensor in tensors.items() if tensor.dtype == np.float32}

    def loss(params: Params, ids: Any, mask: Any) -> Any:
        vectors = encode(params, config, ids, mask)
        scores = vectors[:PAIRS] @ vectors[PAIRS:].T / TEMPERATURE
        return -jnp.diag(jax.nn.log_softmax(scores)).mean()

    data = batches(tokenizer, arguments.steps)
    if arguments.rank:
        lora = adapters(params, arguments.rank)
        lora = train(lora, lambda lora, *batch: loss(merged(params, lora), *batch), data, arguments.lr)
        params = merged(params, lora)
    else:
        params = train(params, loss, data, arguments.lr)
    save_file(tensors | {name: np.asarray(tensor) for name, tensor in params.items()}, arguments.out)


if __name__ == "__main__":
    main()
