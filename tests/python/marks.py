"""The keys of a watermark, and what they are bound to: sections 1 to 4 of `spec/watermark.md`."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

Array = NDArray[Any]

RUN, BLOCK, CODE, FEWEST_WEIGHTS, LONGEST_ROW = 64, 1 << 20, 65536, 4096, 1 << 24
SKIPPED = (
    *("norm", "pooler.", "position_emb", "position_ids", "positional_emb", "pos_emb", "wpe."),
    *("embed_positions", "relative_attention_bias", "relative_position", "rotary", "inv_freq"),
    *("rope_f", "g_idx", "qzeros", "zero_point", "absmax", "quant_map"),
)
SCALES = ("scale", "scales", "scale_inv", "scale_2")
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
BECH32, BECH32M_RESIDUE = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 0x2BC830A3
BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


@dataclass(frozen=True)
class Tensor:
    """A tensor as stored; of one that is claimed, `data` may be missing."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Array

    @property
    def columns(self) -> int:
        """The length of a row of the matrix that section 2 takes it as."""
        return math.prod(self.shape[1:])

    @property
    def step(self) -> int:
        """Rows of a block (section 2)."""
        return max(1, BLOCK // self.columns)

    def block(self, i: int) -> Array:
        """Return the bytes of a block."""
        size = self.step * self.columns * np.dtype(STORED[self.dtype]).itemsize
        return self.data[i * size : (i + 1) * size]

    def weights(self, block: Array) -> Array:
        """Return the weights of a block as a matrix, rounded to binary32."""
        raw = block.view(STORED[self.dtype])
        if self.dtype == "BF16":
            raw = (raw.astype("<u4") << 16).view("<f4")
        with np.errstate(over="ignore"):
            return raw.astype(np.float32).reshape(-1, self.columns)


@dataclass(frozen=True)
class Terms:
    """What a mark is bound to (sections 3, 4)."""

    owner: str
    root: bytes
    beacon: str
    strength: float
    carriers: list[Tensor]

    @property
    def group(self) -> int:
        """Return `L` (section 3)."""
        half = sum(math.prod(t.shape) for t in self.carriers) // 2
        return 65536 if half >= 10_000_000 else max(4096, half // 300)

    def params(self) -> bytes:
        """Compute the digest of parameters and table (section 4)."""
        cells = ((t.name, t.dtype, str(t.shape[0]), str(t.columns)) for t in self.carriers)
        sizes = (str(self.group), str(CODE), str(RUN), str(BLOCK))
        strength, table = struct.pack(">d", self.strength), digest("table", *chain(*cells))
        return digest("params", "2", strength, *sizes, table)

    def blocks(self) -> list[tuple[Tensor, int]]:
        """List all blocks in order (section 2)."""
        return [(t, i) for t in self.carriers for i in range(-(-t.shape[0] // t.step))]

    def binding(self, secrets: bytes) -> bytes:
        """Compute what the keys of streams are bound to (section 4)."""
        return digest("binding", self.owner, self.root, self.beacon, self.params(), secrets)


class Block(NamedTuple):
    """A block of the original, and the key of its streams."""

    tensor: Tensor
    number: int
    data: Array
    key: bytes


def read_model(path: Path) -> dict[str, Tensor]:
    """Read the float tensors of a model; a name must not occur twice (section 2)."""
    model: dict[str, Tensor] = {}
    for file in sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]:
        data: Array = np.memmap(file, dtype=np.uint8, mode="r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        for name, entry in json.loads(data[8:start].tobytes()).items():
            if name in model:
                raise ValueError(f"{file}: a second tensor called {name}")
            if name != "__metadata__" and entry["dtype"] in STORED:
                begin, end = entry["data_offsets"]
                part = data[start + begin : start + end]
                model[name] = Tensor(name, entry["dtype"], tuple(entry["shape"]), part)
    return model


def may_carry(t: Tensor) -> bool:
    """Tell whether a tensor can carry the mark, by its description (section 2)."""
    big = len(t.shape) > 1 and math.prod(t.shape) >= FEWEST_WEIGHTS
    free = t.name.lower().endswith(SCALES) or any(part in t.name.lower() for part in SKIPPED)
    return big and t.columns <= LONGEST_ROW and not free


def is_carrier(t: Tensor) -> bool:
    """Tell whether a tensor carries the mark (section 2)."""
    width = np.dtype(STORED[t.dtype]).itemsize
    return may_carry(t) and len(np.unique(t.data.view(f"u{width}"))) > 4


def digest(*parts: bytes | str | Array) -> bytes:
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


def uniform(key: bytes, label: str, count: int) -> Array:
    """Read 64-bit words of a stream as numbers from 0 to 1 (section 4)."""
    return np.frombuffer(stream(key, label, 8 * count), "<u8").astype(np.float64) / 2.0**64


def find_root(nodes: list[bytes]) -> bytes:
    """Compute the root over leaves (section 2)."""
    while len(nodes) > 1:
        odd = nodes[-1:] if len(nodes) % 2 else []
        nodes = [digest("node", *pair) for pair in zip(nodes[::2], nodes[1::2], strict=False)] + odd
    return nodes[0]


def find_terms(model: dict[str, Tensor], owner: str, beacon: str, strength: float | None) -> Terms:
    """Find the carriers of an original, and what its mark is bound to (sections 2 and 3)."""
    carriers = sorted(filter(is_carrier, model.values()), key=lambda t: t.name.encode())
    seen = set()  # of equal tensors the first carries the mark
    same = [(t.dtype, t.shape, digest(t.data)) for t in carriers]
    carriers = [t for t, s in zip(carriers, same, strict=True) if s not in seen and not seen.add(s)]
    if not carriers:
        raise ValueError("nothing in the original carries the mark")
    half = sum(math.prod(t.shape) for t in carriers) // 2
    strength = strength or min(max(6.6 / math.sqrt(half), 0.0005), 0.01)
    terms = Terms(owner, b"", beacon, strength, carriers)
    root = find_root([digest("leaf", t.name, str(i), t.block(i)) for t, i in terms.blocks()])
    return replace(terms, root=root)


def open_whole(terms: Terms, mark: bytes) -> tuple[list[Block], bytes, bytes]:
    """Derive all keys, that of the code, and the root of the commitments (section 4)."""
    names = [(t.name, str(i)) for t, i in terms.blocks()]
    secrets = [kdf(kdf(mark, "tensor", name), "seg", number) for name, number in names]
    leaves = [digest("secret", *n, secret) for n, secret in zip(names, secrets, strict=True)]
    code = kdf(mark, "code")
    root = find_root([*leaves, digest("code", code)])
    binding = terms.binding(root)
    keys = (kdf(s, "block", binding, *n) for n, s in zip(names, secrets, strict=True))
    pairs = zip(terms.blocks(), keys, strict=True)
    return [Block(t, i, t.block(i), key) for (t, i), key in pairs], kdf(code, binding), root


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
