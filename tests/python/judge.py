"""Look for a watermark, from the specification alone.

    python judge.py OWNER_KEY_FILE ORIGINAL SUSPECT [LABEL ..] [--strength X] [--beacon S]

A second implementation of the detector of `spec/watermark.md`, whose sections are cited below,
written without looking at the first.  ORIGINAL and SUSPECT are safetensors files or directories.

Prints one JSON object: {"z": .., "log10_p": .., "tensors_matched": .., "root": "<hex>",
"copies": {LABEL: log10_p, ..}}, where the p of a copy is corrected for the number of labels given.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import math
import struct
import sys
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RUN, BLOCK, CODE, FEWEST_WEIGHTS, LONGEST_ROW = 64, 1 << 20, 65536, 4096, 1 << 24
SKIPPED = ("norm", "pooler.", "position_embedding", "position_ids", "rotary", "inv_freq")
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
BECH32, BECH32M_RESIDUE = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 0x2BC830A3
BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


@dataclass(frozen=True)
class Tensor:
    """A tensor as stored; `columns` as section 2 sees it as a matrix."""

    name: str
    dtype: str
    shape: list[int]
    columns: int
    data: Bytes

    def blocks(self) -> list[Bytes]:
        """Cut into blocks of whole rows (section 2)."""
        step = max(1, BLOCK // self.columns) * (self.data.size // self.shape[0])
        return [self.data[i : i + step] for i in range(0, self.data.size, step)]

    def weights(self, block: Bytes) -> Floats:
        """Return the weights of a block as a matrix."""
        raw = block.view(STORED[self.dtype])
        if self.dtype == "BF16":
            raw = (raw.astype("<u4") << 16).view("<f4")
        return raw.astype(np.float64).reshape(-1, self.columns)


@dataclass(frozen=True)
class Mark:
    """The parameters and the key of a mark (sections 3 and 4)."""

    strength: float
    group: int
    key: bytes


def read_model(path: Path) -> dict[str, Tensor]:
    """Read the float tensors of a model; a name must not occur twice (section 2)."""
    model: dict[str, Tensor] = {}
    for file in sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]:
        data: Bytes = np.memmap(file, dtype=np.uint8, mode="r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        for name, entry in json.loads(data[8:start].tobytes()).items():
            if name in model:
                raise ValueError(f"{file}: a second tensor called {name}")
            if name != "__metadata__" and entry["dtype"] in STORED:
                shape, (begin, end) = entry["shape"], entry["data_offsets"]
                part = data[start + begin : start + end]
                model[name] = Tensor(name, entry["dtype"], shape, math.prod(shape[1:]), part)
    return model


def is_carrier(tensor: Tensor) -> bool:
    """Tell whether a tensor carries the mark (section 2)."""
    big = len(tensor.shape) > 1 and math.prod(tensor.shape) >= FEWEST_WEIGHTS
    skipped = any(part in tensor.name.lower() for part in SKIPPED)
    return big and tensor.columns <= LONGEST_ROW and not skipped


def digest(*parts: bytes | str | Bytes) -> bytes:
    """Compute H (section 1)."""
    state = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        state.update(struct.pack(">Q", len(raw)))
        state.update(raw)
    return state.digest()


def kdf(key: bytes, *parts: bytes | str) -> bytes:
    """Compute KDF (section 1)."""
    return hmac.digest(key, digest(*parts), "sha256")


def stream(key: bytes, label: str, size: int) -> bytes:
    """Compute the keystream (section 1)."""
    nonce = bytes(4) + label.encode("ascii").ljust(12, b"\0")
    return Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(bytes(size))


def uniform(key: bytes, label: str, count: int) -> Floats:
    """Read 64-bit words of a stream as numbers from 0 to 1 (section 4)."""
    return np.frombuffer(stream(key, label, 8 * count), "<u8").astype(np.float64) / 2.0**64


def find_root(carriers: list[Tensor]) -> bytes:
    """Compute the root of an original (section 2)."""
    blocks = ((t.name, str(i), b) for t in carriers for i, b in enumerate(t.blocks()))
    nodes = [digest("leaf", name, number, block) for name, number, block in blocks]
    while len(nodes) > 1:
        odd = nodes[-1:] if len(nodes) % 2 else []
        nodes = [digest("node", *pair) for pair in zip(nodes[::2], nodes[1::2], strict=False)] + odd
    return nodes[0]


def find_mark(carriers: list[Tensor], root: bytes, args: argparse.Namespace) -> Mark:
    """Derive the parameters and the key (sections 3 and 4)."""
    half = sum(math.prod(t.shape) for t in carriers) // 2
    strength = args.strength or min(max(6.6 / math.sqrt(half), 0.0005), 0.01)
    group = 65536 if half >= 10_000_000 else max(4096, half // 300)
    cells = ((t.name, t.dtype, str(t.shape[0]), str(t.columns)) for t in carriers)
    table = digest("table", *chain.from_iterable(cells))
    sizes = (str(group), str(CODE), str(RUN), str(BLOCK))
    params = digest("params", "1", struct.pack(">d", strength), *sizes, table)
    owner = read_owner(args.owner_key)
    key = kdf(owner[:32], "wm/v1/own", owner[32:], root, args.beacon, params)
    return Mark(strength, group, key)


def row_scales(weights: Floats) -> Floats:
    """Compute the scale of every row, in eight lanes added in order (section 5)."""
    rows, columns = weights.shape
    squares = np.pad(weights * weights, ((0, 0), (0, -columns % 8)))
    lanes = np.cumsum(squares.reshape(rows, -1, 8), axis=1)[:, -1]  # cumsum never reorders
    for _ in range(3):
        lanes = lanes[:, 0::2] + lanes[:, 1::2]
    return np.sqrt(lanes / columns)


def per_run(values: Floats) -> Floats:
    """Arrange the weights of a block by runs, the last one padded with zeros (section 2)."""
    return np.pad(values.ravel(), (0, -values.size % RUN)).reshape(-1, RUN)


def group_amplitudes(mark: Mark, sums: Floats, sizes: Ints, groups: Ints, dither: Floats) -> Floats:
    """Compute `a_g` of a block from the sums and sizes of its owner runs (section 5)."""
    total = np.zeros(dither.size, dtype=np.int64)
    np.add.at(total, groups, sums.astype(np.int64))
    count = np.bincount(groups, sizes, dither.size)
    filled = np.maximum(count, 1)
    p = total / 2.0**20 / np.sqrt(filled)
    delta = mark.strength * np.sqrt(12 * filled)
    e = delta * (np.rint(p / delta + dither) - dither) - p
    return np.where(count > 0, e / np.sqrt(filled), 0.0)


def deviations(weights: Floats, suspect: Floats, scales: Floats) -> Floats:
    """Compute `clip(d / v, -4, 4) / v` (section 6)."""
    x = np.where(np.abs(suspect) <= 2.0**128, suspect, 0.0)  # NaN compares false
    kept = x != 0
    own = np.where(kept, weights, 0.0)
    c = (x * own).sum(1, keepdims=True) / np.maximum((own * own).sum(1, keepdims=True), 1e-30)
    d = (x - c * weights) / np.where(np.abs(c) <= 1e-6, 1.0, c)
    variance = np.empty_like(d)
    for members in (kept, ~kept):
        sums = np.where(members, d * d, 0.0).sum(1, keepdims=True)
        counts = members.sum(1, keepdims=True)
        whole = sums.sum() / max(counts.sum(), 1)
        mean = np.where(counts > 16, sums / np.maximum(counts, 1), whole)
        np.copyto(variance, mean, where=members)
    v = np.sqrt(np.maximum(variance, 1e-6 * scales * scales + 1e-38))
    return np.clip(d / v, -4, 4) / v


def judge_block(mark: Mark, key: bytes, weights: Floats, suspect: Floats) -> tuple[Floats, Floats]:
    """Compute a block's owner and copy evidence, as rows of signal and variance (section 6)."""
    runs, scales = -(-weights.size // RUN), row_scales(weights)
    bits = np.frombuffer(stream(key, "sign", 8 * runs), np.uint8)
    chips = np.unpackbits(bits, bitorder="little").reshape(runs, RUN) * 2.0 - 1.0
    words = np.frombuffer(stream(key, "role", 4 * runs), "<u4").astype(np.int64)
    copy, owner = words % 2 == 1, words % 2 == 0
    dither = uniform(key, "dither", max(1, (weights.size + mark.group) // (2 * mark.group)))
    groups, places = words[owner] // 2 % dither.size, words[copy] // 2 % CODE
    sizes = np.minimum(RUN, weights.size - RUN * np.arange(runs))[owner]
    relative = np.divide(weights, scales, out=np.zeros_like(weights), where=scales > 0)
    sums = np.rint(chips * per_run(relative) * 2.0**20).sum(1)[owner]
    a = group_amplitudes(mark, sums, sizes, groups, dither)[groups]
    u = deviations(weights, suspect, scales)
    u_owner = per_run(u * scales)[owner]
    u_copy = per_run(u * np.sqrt(0.5 * scales * scales + 0.5 * weights * weights))[copy]
    signal, variance = (chips[owner] * u_owner).sum(1), (u_owner * u_owner).sum(1)
    copy_signal, copy_variance = (chips[copy] * u_copy).sum(1), (u_copy * u_copy).sum(1)
    by_place = [np.bincount(places, part, CODE) for part in (copy_signal, copy_variance)]
    return np.array([a @ signal, (a * a) @ variance]), np.array(by_place)


def log_upper_tail(z: float) -> float:
    """Compute ln Q(z): by erfc, or by the asymptotic series where that would underflow."""
    if z < 30:
        return math.log(0.5 * math.erfc(z / math.sqrt(2)))
    series = sum(accumulate(range(1, 12), lambda term, k: term * (1 - 2 * k) / z**2, initial=1.0))
    return -0.5 * z * z - math.log(z) - 0.5 * math.log(2 * math.pi) + math.log(series)


def judge_copies(mark: Mark, evidence: Floats, labels: list[str]) -> dict[str, float]:
    """Compute log10 p of every label (sections 4 and 6)."""
    edge = math.asin(math.sqrt(1 / 6000))
    v = uniform(kdf(mark.key, "tardos-p"), "", CODE)
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
        words = np.frombuffer(stream(kdf(mark.key, "cust", label), "", 4 * CODE), "<u4")
        score = np.where(words < odds * 2.0**32, high, low).sum()
        bound = math.log(len(labels)) + float((cumulants - steps * score).min())
        result[label] = min(0.0, bound) / math.log(10)
    return result


def read_owner(path: Path) -> bytes:
    """Read an owner key file: bech32m of master and owner name."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    (text,) = (line for line in lines if line and not line.startswith("#"))
    prefix, _, payload = text.rpartition("1")
    digits, check = [BECH32.index(c) for c in payload], 1
    for digit in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *digits]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ digit
        for i, generator in enumerate(BECH32_GENERATOR):
            check ^= generator if top >> i & 1 else 0
    if prefix != "wmowner" or check != BECH32M_RESIDUE:
        raise ValueError(f"{path}: not an owner key")
    joined = "".join(f"{digit:05b}" for digit in digits[:-6])
    return bytes(int(joined[i : i + 8], 2) for i in range(0, len(joined) // 8 * 8, 8))


def judge(args: argparse.Namespace) -> dict[str, object]:
    """Compute everything that is printed."""
    original, suspect = read_model(args.original), read_model(args.suspect)
    carriers = sorted(filter(is_carrier, original.values()), key=lambda t: t.name.encode())
    if not carriers:
        raise ValueError("nothing in the original carries the mark")
    root = find_root(carriers)
    mark = find_mark(carriers, root, args)
    owner, copies = np.zeros(2), np.zeros((2, CODE))
    matched = [t for t in carriers if t.name in suspect and suspect[t.name].shape == t.shape]
    for tensor in matched:
        tensor_key = kdf(mark.key, "tensor", tensor.name)
        other = suspect[tensor.name]
        for number, pair in enumerate(zip(tensor.blocks(), other.blocks(), strict=True)):
            key = kdf(tensor_key, "seg", str(number))
            found = judge_block(mark, key, tensor.weights(pair[0]), other.weights(pair[1]))
            owner, copies = owner + found[0], copies + found[1]
    z = float(owner[0] / math.sqrt(owner[1])) if owner[1] > 0 else 0.0
    log10_p = min(0.0, log_upper_tail(z) - math.log(2 * math.erfc(1))) / math.log(10)
    by_label = judge_copies(mark, copies, args.labels)
    keys = ("z", "log10_p", "tensors_matched", "root", "copies")
    return dict(zip(keys, (z, log10_p, len(matched), root.hex(), by_label), strict=True))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Look for a watermark.")
    for name in ("owner_key", "original", "suspect"):
        parser.add_argument(name, type=Path)
    parser.add_argument("labels", nargs="*")
    parser.add_argument("--strength", type=float)
    parser.add_argument("--beacon", default="")
    try:
        print(json.dumps(judge(parser.parse_intermixed_args())))
    except (OSError, ValueError, KeyError) as error:
        print(f"judge: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
