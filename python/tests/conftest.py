"""What the tests have in common: small models, and keys to them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import weightmark

Arrays = dict[str, np.ndarray]

DTYPES = {
    "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_, "F16": np.float16, "F32": np.float32, "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "I16": np.int16, "I32": np.int32,
    "I64": np.int64, "I8": np.int8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "U8": np.uint8,
}  # fmt: skip


def write_safetensors(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file of all types, with which its own writer has trouble."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    at, parts = 0, []
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        offsets = [at, at + len(data)]
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        at += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def some_arrays(seed: int = 0) -> Arrays:
    """One array of each type, and the odd shapes."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, dtype in DTYPES.items():
        arrays[f"all.{name}"] = rng.integers(0, 2, (7, 5, 3)).astype(dtype)
    arrays["matrix"] = rng.normal(size=(3000, 64)).astype(np.float32)
    arrays["scalar"] = np.array(2.5, np.float32)
    arrays["empty"] = np.zeros((0, 4), np.float32)
    arrays["hollow"] = np.zeros((3, 0), np.int64)
    arrays["ünï/код"] = rng.normal(size=(4,)).astype(np.float64)
    return arrays


@dataclass(frozen=True)
class Home:
    """A plain model, encrypted both as a file and as a directory, and the keys."""

    path: Path
    arrays: Arrays

    def __truediv__(self, name: str) -> Path:
        return self.path / name


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"), some_arrays())
    write_safetensors(home / "model.safetensors", home.arrays, {"format": "np", "über": "alles"})
    (home / "model").mkdir()
    (home / "model" / "model.safetensors").write_bytes((home / "model.safetensors").read_bytes())
    (home / "model" / "config.json").write_text('{"model_type": "test"}')
    weightmark.keygen("identity", home / "serving.key")
    weightmark.keygen("identity", home / "other.key")
    weightmark.keygen("signing", home / "release.pem")
    weightmark.keygen("owner", home / "owner.key", name="Acme")
    weightmark.encrypt(home / "model.safetensors", home / "file.wmenc", recipients=home / "serving.key.pub", context="a@1")
    weightmark.encrypt(home / "model", home / "out", recipients=home / "serving.key.pub", context="a@1")
    return home


@pytest.fixture(params=["plain", "encrypted file", "encrypted directory"])
def model(home: Home, request: pytest.FixtureRequest) -> weightmark.Model:
    """The same model, in every way that it can lie."""
    if request.param == "plain":
        return weightmark.open(home / "model.safetensors")
    place = "file.wmenc" if request.param == "encrypted file" else "out"
    return weightmark.open(home / place, identity=home / "serving.key", context="a@1")
