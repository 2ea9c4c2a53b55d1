"""Compare the sentence embeddings of two copies of all-MiniLM-L6-v2.

    python embeddings.py ORIGINAL_DIR OTHER_DIR

Follows the model as its own files state it: the BERT encoder of `config.json` (post-layer-norm
blocks, GELU by the error function, layer-norm epsilon from the file), then `modules.json`: mean
pooling over the attention mask and L2 normalisation.  The forward pass is plain numpy in float32,
so the check needs no machine-learning framework and does not depend on the code under test.

Prints one JSON object: {"sentences": 64, "cosine_mean": .., "cosine_min": ..}, where each cosine
is taken between the two embeddings of one sentence.  Exits with status 1 and a message on stderr
if either directory cannot be read as such a model or an embedding is not finite.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Array = NDArray[np.float32]
Tensors = dict[str, Array]
Spans = list[slice]

# What a broken model raises here; anything else ends in a traceback, which fails as well.
ERRORS = (OSError, ValueError, TypeError, LookupError, ArithmeticError, SafetensorError)

SENTENCES = """\
The cat sleeps on the warm windowsill.
A dog is barking at the postman.
She plays the violin in the city orchestra.
Heavy rain flooded the streets overnight.
The stock market fell sharply after the announcement.
Investors moved their savings into government bonds.
Our train to Vienna was delayed by two hours.
How do I reset the password of my account?
What is the capital of Mongolia?
Please send me the invoice before Friday.
The recipe needs two eggs, a cup of flour and a pinch of salt.
He fried the onions until they were golden brown.
Photosynthesis turns sunlight, water and carbon dioxide into sugar and oxygen.
The mitochondrion is the powerhouse of the cell.
Vaccines teach the immune system to recognise a pathogen.
The patient complained of chest pain and shortness of breath.
Jupiter is the largest planet in the solar system.
The telescope captured light that left the galaxy ten billion years ago.
Water boils at a lower temperature at high altitude.
An electron has a negative charge.
The court dismissed the appeal for lack of evidence.
Parliament passed the bill by a narrow majority.
The treaty was signed in 1648 and ended thirty years of war.
Ancient Rome was built on seven hills, or so the story goes.
The striker scored twice in the final ten minutes.
She won the marathon in two hours and nineteen minutes.
Chess players often study the endgame first.
The old lighthouse keeper wrote a letter to his daughter every evening.
It was a bright cold day, and all the clocks were wrong.
Nobody knew why the bells had stopped ringing.
The film was beautifully shot but far too long.
I loved this restaurant; the service was quick and friendly.
The headphones broke after a week, and I want my money back.
Terrible experience: cold food, rude staff, loud music.
The function returns a list of integers sorted in ascending order.
A segmentation fault occurs when a program reads memory it does not own.
Use a hash table when you need constant-time lookup by key.
The database index made the query forty times faster.
Public-key cryptography lets strangers agree on a secret over an open channel.
A digital signature proves who published the file and that nobody changed it.
Neural networks learn by adjusting millions of small weights.
Machine translation has improved a great deal in recent years.
Children learn their first language without being taught grammar.
The word "run" has more meanings than almost any other English verb.
Bees tell each other where flowers are by dancing.
Wolves returned to the valley after almost a century.
The glacier has retreated by three kilometres since 1900.
Wind turbines now supply a third of the island's electricity.
Electric cars are cheaper to run than petrol cars.
The bridge was closed because of cracks in its steel supports.
Concrete gains most of its strength in the first month.
Mortgage rates are expected to rise again next year.
The company reported a loss of $4.2 million in the third quarter.
Unemployment among young people has halved.
My grandmother taught me how to knit a scarf.
We spent the summer hiking in the mountains and swimming in cold lakes.
The museum is free on the first Sunday of every month.
He painted the kitchen walls pale yellow.
Turn left at the church, walk past the bakery, and the station is on your right.
Two plus two equals four.
Yes.
Why not?
Although the committee had promised, in three separate letters and over the course of more than a \
year, to publish its findings, the report appeared only after a newspaper had printed most of it.
For the best results, let the dough rest overnight in the refrigerator, bring it back to room \
temperature, shape it gently, and bake it on a very hot stone until the crust is dark and crisp.
""".splitlines()

ERF_LIMIT = 6.0  # erf differs from 1 by less than 3e-17 from here on
ERF_STEPS = 4096  # table entries per unit
ERF_TABLE = np.array([math.erf(i / ERF_STEPS) for i in range(int(ERF_LIMIT) * ERF_STEPS + 2)])
ERF_SLOPE = np.diff(ERF_TABLE, append=1.0)


def erf(x: Array) -> Array:
    """Interpolate erf to about 1e-8, finer than float32 resolves."""
    place = np.minimum(np.abs(x), ERF_LIMIT).astype(np.float64) * ERF_STEPS
    index = place.astype(np.int32)
    value = ERF_TABLE[index] + ERF_SLOPE[index] * (place - index)
    return np.copysign(value, x).astype(np.float32)


def gelu(x: Array) -> Array:
    """Apply the exact GELU."""
    return np.float32(0.5) * x * (np.float32(1.0) + erf(x * np.float32(math.sqrt(0.5))))


def softmax(x: Array) -> Array:
    """Normalise over the last axis."""
    powers: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def linear(t: Tensors, name: str, x: Array) -> Array:
    """Apply the dense layer `name`."""
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def layer_norm(t: Tensors, name: str, x: Array, eps: float) -> Array:
    """Apply the layer norm `name`."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    normal: Array = centred / np.sqrt(variance + np.float32(eps))
    return normal * t[f"{name}.weight"] + t[f"{name}.bias"]


def attention(t: Tensors, name: str, x: Array, spans: Spans, heads: int) -> Array:
    """Attend within each sentence, up to but without the output projection."""
    width = x.shape[1] // heads
    query, key, value = (
        linear(t, f"{name}.self.{part}", x).reshape(-1, heads, width).transpose(1, 0, 2)
        for part in ("query", "key", "value")
    )
    scale = np.float32(1.0 / math.sqrt(width))
    seen = np.empty_like(x)
    for span in spans:
        weights = softmax(query[:, span] @ key[:, span].transpose(0, 2, 1) * scale)
        seen[span] = (weights @ value[:, span]).transpose(1, 0, 2).reshape(-1, x.shape[1])
    return seen


def layer(t: Tensors, name: str, x: Array, spans: Spans, config: dict[str, Any]) -> Array:
    """Apply one transformer block."""
    eps = config["layer_norm_eps"]
    seen = attention(t, f"{name}.attention", x, spans, config["num_attention_heads"])
    seen = linear(t, f"{name}.attention.output.dense", seen)
    x = layer_norm(t, f"{name}.attention.output.LayerNorm", x + seen, eps)
    inner = gelu(linear(t, f"{name}.intermediate.dense", x))
    inner = linear(t, f"{name}.output.dense", inner)
    return layer_norm(t, f"{name}.output.LayerNorm", x + inner, eps)


def encode(t: Tensors, config: dict[str, Any], rows: list[list[int]]) -> list[Array]:
    """Run the encoder; the result holds each sentence's last hidden states.

    The sentences are packed end to end instead of padded to one length, and attention stays
    within a sentence's span: what the attention mask does for padding, without the padding.
    """
    ends = np.cumsum([len(row) for row in rows])
    spans = [slice(end - len(row), end) for row, end in zip(rows, ends, strict=True)]
    ids = np.concatenate(rows)
    positions = np.concatenate([np.arange(len(row)) for row in rows])
    x = t["embeddings.word_embeddings.weight"][ids]
    x = x + t["embeddings.token_type_embeddings.weight"][0]
    x = x + t["embeddings.position_embeddings.weight"][positions]
    x = layer_norm(t, "embeddings.LayerNorm", x, config["layer_norm_eps"])
    for number in range(config["num_hidden_layers"]):
        x = layer(t, f"encoder.layer.{number}", x, spans, config)
    return [x[span] for span in spans]


def pool(states: list[Array]) -> Array:
    """Average each sentence's tokens and scale to unit length."""
    mean: Array = np.stack([state.mean(axis=0) for state in states])
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean


def tokenize(path: Path, sentences: list[str]) -> list[list[int]]:
    """Split into token ids, unpadded (no sentence comes near the length limit)."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [encoding.ids for encoding in tokenizer.encode_batch(sentences)]


def load_config(path: Path) -> dict[str, Any]:
    """Read the configuration; refuse a model this forward pass would not match."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    expected = {"model_type": "bert", "hidden_act": "gelu", "num_hidden_layers": 6}
    for key, value in expected.items():
        if config.get(key) != value:
            raise ValueError(f"{path}: {key} is {config.get(key)!r}, not {value!r}")
    return config


def load_tensors(path: Path) -> Tensors:
    """Read the weights as float32; refuse one that is not finite."""
    tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(path).items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{path}: {name} is not finite")
    return tensors


def embed(directory: Path, sentences: list[str]) -> Array:
    """Embed the sentences with the model in `directory`."""
    config = load_config(directory / "config.json")
    tensors = load_tensors(directory / "model.safetensors")
    rows = tokenize(directory / "tokenizer.json", sentences)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        embeddings = pool(encode(tensors, config, rows))
    if not np.isfinite(embeddings).all():
        raise ValueError(f"{directory}: an embedding is not finite")
    return embeddings


def compare(original: Path, other: Path) -> dict[str, float]:
    """Summarise the cosine similarities of each sentence's two embeddings."""
    pair = [embed(path, SENTENCES).astype(np.float64) for path in (original, other)]
    norms = np.linalg.norm(pair[0], axis=1) * np.linalg.norm(pair[1], axis=1)
    cosines = (pair[0] * pair[1]).sum(axis=1) / norms
    return {
        "sentences": len(SENTENCES),
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
    }


def main() -> int:
    """Run the command line."""
    if len(sys.argv) != 3:
        print("usage: embeddings.py ORIGINAL_DIR OTHER_DIR", file=sys.stderr)
        return 2
    try:
        result = compare(Path(sys.argv[1]), Path(sys.argv[2]))
    except ERRORS as error:
        print(f"embeddings: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
