"""Look for a watermark, from the specification alone.

    python judge.py OWNER_KEY_FILE ORIGINAL SUSPECT [LABEL ..] [--strength X] [--beacon S]

A second implementation of the detector of `spec/watermark.md`, whose sections are cited below,
written without looking at the first.  ORIGINAL and SUSPECT are safetensors files or directories.
`judge_claim.py` judges claims with it, without the owner key.

Prints one JSON object: {"z": .., "log10_p": .., "tensors_matched": .., "root": "<hex>",
"copies": {LABEL: log10_p, ..}}, where the p of a copy is corrected for the number of labels given.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

# isort: split
from marks import (
    CODE,
    RUN,
    Array,
    Block,
    Tensor,
    Terms,
    find_terms,
    kdf,
    open_whole,
    read_model,
    read_owner,
    stream,
    uniform,
)


def lane_sums(values: Array) -> Array:
    """Sum the last axis, a multiple of 8 long, in eight lanes, all in binary32 (section 1)."""
    lanes = np.zeros((*values.shape[:-1], 8), np.float32)
    for start in range(0, values.shape[-1], 8):
        lanes = lanes + values[..., start : start + 8]
    for _ in range(3):
        lanes = lanes[..., 0::2] + lanes[..., 1::2]
    return lanes[..., 0]


def sum64(values: Array) -> Array:
    """Sum every row (section 1)."""
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % 8)))
    total = np.zeros(len(values))
    for start in range(0, padded.shape[1], 512):
        total = total + lane_sums(padded[:, start : start + 512]).astype(np.float64)
    return total[:, None]


def row_scales(weights: Array) -> Array:
    """Compute the scale of every row (section 5)."""
    return np.sqrt(sum64(weights * weights) / weights.shape[1]).astype(np.float32)


def per_run(values: Array) -> Array:
    """Arrange the weights of a block by runs, the last one padded with zeros (section 2)."""
    return np.pad(values.ravel(), (0, -values.size % RUN)).reshape(-1, RUN)


def group_amplitudes(
    strength: float, sums: Array, sizes: Array, groups: Array, dither: Array
) -> Array:
    """Compute `a_g` of a block from the sums and sizes of its owner runs (section 5)."""
    total = np.zeros(dither.size, dtype=np.int64)
    np.add.at(total, groups, sums.astype(np.int64))
    count = np.bincount(groups, sizes, dither.size)
    filled = np.maximum(count, 1)
    p = total / 2.0**14 / np.sqrt(filled)
    delta = strength * np.sqrt(12 * filled)
    e = delta * (np.rint(p / delta + dither) - dither) - p
    return np.where(count > 0, e / np.sqrt(filled), 0.0)


def deviations(weights: Array, suspect: Array, scales: Array) -> Array:
    """Compute `clip(d h, -4, 4) h` (section 6)."""
    zero, four = np.float32(0), np.float32(4)
    with np.errstate(invalid="ignore"):
        x = np.where(np.abs(suspect) <= 2.0**60, suspect, zero)  # NaN compares false
    k = np.where(x != 0, weights, zero)
    e, gone = x - k, weights - k
    ee, ek, kk, z = sum64(e * e), sum64(e * k), sum64(k * k), sum64(gone * gone)
    delta = ek / np.maximum(kk, 1e-30)
    c = 1 + delta
    unit = np.where(np.abs(c) > 1e-6, 1 / np.where(c == 0, 1, c), 1)
    kept = np.maximum(ee - delta * ek, 0) * unit * unit
    d = ((x - weights) - delta.astype(np.float32) * weights) * unit.astype(np.float32)
    columns, zeros = weights.shape[1], np.where(z > 0, (x == 0).sum(1, keepdims=True), 0)
    floor, inverse = 1e-6 * scales.astype(np.float64) ** 2 + 1e-30, np.empty_like(d)
    for members, total, count in ((x != 0, kept, columns - zeros), (x == 0, z, zeros)):
        mean = np.where(count > 16, total / np.maximum(count, 1), (kept + z) / columns)
        h = (1 / np.sqrt(np.maximum(mean, floor))).astype(np.float32)
        np.copyto(inverse, h, where=members)
    return np.clip(d * inverse, -four, four) * inverse


def by_row_and_run(values: Array, columns: int) -> Array:
    """Sum the parts that rows have of every run (section 6), then the parts of a run in binary64."""
    runs = per_run(values)
    row = per_run(np.repeat(np.arange(values.size // columns), columns))
    first, last, total = row[:, 0], row.max(1), np.zeros(len(runs))
    for k in range(int((last - first).max()) + 1):
        part = np.where(row == first[:, None] + k, runs, np.float32(0))
        total += lane_sums(part).astype(np.float64)
    return total


def judge_block(terms: Terms, key: bytes, weights: Array, suspect: Array) -> tuple[Array, Array]:
    """Compute a block's owner and copy evidence, as rows of signal and variance (section 6)."""
    runs, scales = -(-weights.size // RUN), row_scales(weights)
    bits = np.frombuffer(stream(key, "sign", 8 * runs), np.uint8)
    bits = np.unpackbits(bits, bitorder="little").reshape(runs, RUN)
    chips = np.where(bits == 1, np.float32(1), np.float32(-1))
    words = np.frombuffer(stream(key, "role", 4 * runs), "<u4").astype(np.int64)
    copy, owner = words % 2 == 1, words % 2 == 0
    dither = uniform(key, "dither", max(1, (weights.size + terms.group) // (2 * terms.group)))
    groups, places = words[owner] // 2 % dither.size, words[copy] // 2 % CODE
    sizes = np.minimum(RUN, weights.size - RUN * np.arange(runs))[owner]
    there = scales >= np.float32(1e-30)
    safe = np.where(there, scales, np.float32(1))
    relative = np.where(there, weights * (np.float32(2**14) / safe), np.float32(0))
    relative = per_run(np.clip(relative, np.float32(-(2**21)), np.float32(2**21)))
    sums = np.rint(chips * relative).astype(np.int64).sum(1)[owner]
    a = group_amplitudes(terms.strength, sums, sizes, groups, dither)[groups]
    u, half = deviations(weights, suspect, scales), np.float32(0.5)
    amplitude = np.sqrt(half * scales * scales + half * (weights * weights))
    signs, found = chips.ravel()[: weights.size].reshape(weights.shape), []
    for members, v in ((owner, u * scales), (copy, u * amplitude)):
        sums = (by_row_and_run(x, weights.shape[1])[members] for x in (signs * v, v * v))
        found.append(list(sums))
    (signal, variance), by_copy = found
    by_place = [np.bincount(places, part, CODE) for part in by_copy]
    return np.array([a @ signal, (a * a) @ variance]), np.array(by_place)


def log_upper_tail(z: float) -> float:
    """Compute ln Q(z): by erfc, or by the asymptotic series where that would underflow."""
    if z < 30:
        return math.log(0.5 * math.erfc(z / math.sqrt(2)))
    series = sum(accumulate(range(1, 12), lambda term, k: term * (1 - 2 * k) / z**2, initial=1.0))
    return -0.5 * z * z - math.log(z) - 0.5 * math.log(2 * math.pi) + math.log(series)


def judge_copies(code: bytes, evidence: Array, labels: list[str]) -> dict[str, float]:
    """Compute log10 p of every label (sections 4 and 6)."""
    edge = math.asin(math.sqrt(1 / 6000))
    v = uniform(kdf(code, "tardos-p"), "", CODE)
    odds = np.sin(edge + v * (math.pi / 2 - 2 * edge)) ** 2
    y = np.divide(evidence[0], np.sqrt(evidence[1]), out=np.zeros(CODE), where=evidence[1] > 0)
    limit = 4 * math.sqrt(np.square(y).sum() / max(np.count_nonzero(y), 1))
    y = np.clip(y, -limit, limit)
    high, low = y * np.sqrt((1 - odds) / odds), -y * np.sqrt(odds / (1 - odds))
    steps = 0.05 * 1.06 ** np.arange(160) / math.sqrt(max(np.square(y).sum(), 1e-300))
    terms = (np.logaddexp(np.log(odds) + s * high, np.log1p(-odds) + s * low) for s in steps)
    cumulants = np.array([term.sum() for term in terms])
    result: dict[str, float] = {}
    for label in labels:
        words = np.frombuffer(stream(kdf(code, "cust", label), "", 4 * CODE), "<u4")
        score = np.where(words < odds * 2.0**32, high, low).sum()
        bound = math.log(len(labels)) + float((cumulants - steps * score).min())
        result[label] = min(0.0, bound) / math.log(10)
    return result


def judge(
    terms: Terms,
    blocks: list[Block],
    suspect: dict[str, Tensor],
    code: bytes | None,
    labels: list[str],
) -> dict[str, Any]:
    """Compute everything that is printed (section 6)."""
    owner, copies, matched = np.zeros(2), np.zeros((2, CODE)), set()
    for tensor, number, data, key in blocks:
        other = suspect.get(tensor.name)
        if other is not None and other.shape == tensor.shape:
            matched.add(tensor.name)
            pair = tensor.weights(data), other.weights(other.block(number))
            found = judge_block(terms, key, *pair)
            owner, copies = owner + found[0], copies + found[1]
    z = float(owner[0] / math.sqrt(owner[1])) if owner[1] > 0 else 0.0
    log10_p = min(0.0, log_upper_tail(z) - math.log(2 * math.erfc(1))) / math.log(10)
    by_label = judge_copies(code, copies, labels) if code and labels else {}
    keys = ("z", "log10_p", "tensors_matched", "root", "copies")
    return dict(zip(keys, (z, log10_p, len(matched), terms.root.hex(), by_label), strict=True))


def judge_owner(args: argparse.Namespace) -> dict[str, Any]:
    """Judge from the owner key."""
    owner = read_owner(args.owner_key)
    terms = find_terms(read_model(args.original), owner[32:].decode(), args.beacon, args.strength)
    mark = kdf(owner[:32], "wm/v1/own", terms.owner, terms.root, terms.beacon, terms.params())
    blocks, code, _ = open_whole(terms, mark)
    return judge(terms, blocks, read_model(args.suspect), code, args.labels)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Look for a watermark.")
    for name in ("owner_key", "original", "suspect"):
        parser.add_argument(name, type=Path)
    parser.add_argument("labels", nargs="*")
    parser.add_argument("--strength", type=float)
    parser.add_argument("--beacon", default="")
    try:
        print(json.dumps(judge_owner(parser.parse_intermixed_args())))
    except (OSError, ValueError, KeyError) as error:
        print(f"judge: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
