"""The package itself: types that hold, documentation that is there, an import that brings nothing heavy."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import weightmark

ROOT = Path(__file__).parent.parent.parent
LIGHT = ["numpy", "torch", "ml_dtypes", "safetensors", "transformers", "vllm", "onnxruntime", "tqdm", "mlflow"]


def run(*command: str | Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_types() -> None:
    run("-m", "mypy", "--strict", "python/weightmark", "python/tests")


def test_the_stub_is_that_of_the_module(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("" if sys.version_info >= (3, 12) else "weightmark._native.Buffer.__buffer__\n")
    run("-m", "mypy.stubtest", "weightmark._native", "--allowlist", allowed)


def test_everything_public_is_documented() -> None:
    things = {name: getattr(weightmark, name) for name in weightmark.__all__ if name != "__version__"}
    for name, thing in list(things.items()):
        if inspect.isclass(thing):
            members = {f"{name}.{key}": value for key, value in vars(thing).items() if not key.startswith("_")}
            things |= {key: value for key, value in members.items() if callable(value) or isinstance(value, property)}
    undocumented = [name for name, thing in things.items() if not inspect.getdoc(thing)]
    assert not undocumented
    functions = [name for name, thing in things.items() if inspect.isfunction(thing) and thing.__module__ != "weightmark._results"]
    assert len(functions) > 20
    assert [name for name in functions if ">>>" not in (inspect.getdoc(things[name]) or "")] == []


def test_nothing_heavy_is_imported() -> None:
    code = f"import sys, weightmark; print([name for name in {LIGHT} if name in sys.modules])"
    assert run("-c", code) == "[]\n"


def test_version() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert weightmark.__version__ == importlib.metadata.version("weightmark") == cargo["package"]["version"]
