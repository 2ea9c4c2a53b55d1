"""Reading models: equal to numpy, whatever way they lie."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weightmark

from .conftest import Home, write_safetensors


def test_every_tensor_is_that_of_numpy(home: Home, model: weightmark.Model) -> None:
    assert set(model) == set(home.arrays) and len(model) == len(home.arrays)
    for name, expected in home.arrays.items():
        tensor = model[name]
        assert tensor.shape == expected.shape and tensor.nbytes == expected.nbytes and tensor.name == name
        array = tensor.numpy()
        assert array.dtype == expected.dtype and array.shape == expected.shape
        assert array.flags.writeable and array.flags.c_contiguous
        assert array.tobytes() == expected.tobytes() == tensor.tobytes()
        assert np.asarray(tensor).tobytes() == expected.tobytes()
        into = np.empty_like(expected)
        tensor.read_into(into.reshape(-1).view(np.uint8))  # numpy exports no types that it does not know itself
        assert into.tobytes() == expected.tobytes()


def test_arrays_are_the_callers_own(home: Home, model: weightmark.Model) -> None:
    first, second = model["matrix"].numpy(), model["matrix"].numpy()
    first[:] = 7
    assert np.array_equal(second, home.arrays["matrix"])
    assert not first.flags.owndata and type(first.base).__name__ in ("memoryview", "Buffer")  # not a copy
    model.close()
    assert second.sum() == home.arrays["matrix"].sum()


def test_everything_at_once(home: Home, model: weightmark.Model) -> None:
    loaded = model.load()
    assert list(loaded) == list(model)
    assert all(loaded[name].tobytes() == home.arrays[name].tobytes() for name in loaded)
    assert list(model.load(["scalar", "matrix"])) == ["scalar", "matrix"]
    with pytest.raises(KeyError):
        model.load(["matrix", "nothing"])
    with pytest.raises(weightmark.Misuse):
        model.load(framework="jax")  # type: ignore[arg-type]


def test_float32_is_rounded_to_nearest(home: Home, model: weightmark.Model) -> None:
    for name, expected in home.arrays.items():
        array = model[name].float32()
        assert array.dtype == np.float32 and array.shape == expected.shape
        assert np.array_equal(array, expected.astype(np.float32)), name


def test_large_tensors_are_converted_piece_by_piece(tmp_path: Path) -> None:
    halves = np.random.default_rng(1).normal(size=(1000, 333)).astype(np.float16)
    save_file({"halves": halves}, tmp_path / "m.safetensors")
    with weightmark.open(tmp_path / "m.safetensors") as model:
        assert np.array_equal(model["halves"].float32(), halves.astype(np.float32))
        assert np.array_equal(model["halves"].numpy(), load_file(tmp_path / "m.safetensors")["halves"])


def test_protocols(home: Home, model: weightmark.Model) -> None:
    matrix = model["matrix"]
    assert np.array_equal(np.from_dlpack(matrix), home.arrays["matrix"])
    assert matrix.__dlpack_device__() == (1, 0)
    assert np.asarray(matrix, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="nothing to share"):
        np.asarray(matrix, copy=False)
    assert len(matrix) == 3000 and repr(matrix) == "<Tensor matrix F32 [3000, 64]>"
    with pytest.raises(TypeError):
        len(model["scalar"])
    with pytest.raises(KeyError):
        model["nothing"]
    assert "matrix" in model and "nothing" not in model and model.get("nothing") is None


def test_files(home: Home) -> None:
    with weightmark.open(home / "out", identity=home / "serving.key") as model:
        assert model.files == ["config.json", "model.safetensors"] and model.closed_files == []
        assert model.read("config.json") == b'{"model_type": "test"}'
        plain = (home / "model.safetensors").read_bytes()
        assert model.read("model.safetensors") == plain
        file = model.open_file("model.safetensors")
        assert isinstance(file, io.BufferedReader) and file.read() == plain and file.read() == b""
        assert file.seek(-8, os.SEEK_END) == len(plain) - 8 and file.read(4) == plain[-8:-4]
        assert file.seek(5) == 5 and file.read(70_000) == plain[5:70_005]
        assert file.seek(1 << 40) == 1 << 40 and file.read(1) == b""
        with pytest.raises(ValueError):
            file.seek(-1)
        for path in ["nothing", "", "../out", "/etc/passwd"]:
            with pytest.raises(weightmark.InputError) as caught:
                model.read(path)
            assert caught.value.cause == "io"
            with pytest.raises(weightmark.InputError):
                model.open_file(path)
        assert model.metadata == {"format": "np", "über": "alles"}
        assert model.code == [] and model.verified is None and model.name == str(home / "out")


def test_a_closed_model_is_closed(home: Home, model: weightmark.Model) -> None:
    tensor, file_path = model["matrix"], model.files[0]
    file = model.open_file(file_path)
    with model as same:
        assert same is model
    model.close()
    uses = [
        lambda: model["matrix"], lambda: len(model), lambda: list(model), lambda: "matrix" in model, model.load,
        tensor.numpy, tensor.float32, tensor.tobytes, lambda: tensor[0], lambda: tensor.read_into(bytearray(1)),
        lambda: model.files, lambda: model.read(file_path), lambda: model.open_file(file_path), lambda: file.read(1),
        lambda: model.verified, lambda: model.code, lambda: model.metadata, lambda: model.name, model.__enter__,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(weightmark.Misuse) as caught:
            use()
        assert caught.value.cause == "misuse" and str(caught.value) == "the model is closed"
    assert repr(model) == "<weightmark.Model, closed>"


def test_threads_share_a_model(home: Home, model: weightmark.Model) -> None:
    wrong: list[str] = []

    def read(start: int) -> None:
        names = sorted(home.arrays)
        for i in range(200):
            name = names[(start + i) % len(names)]
            if model[name].numpy().tobytes() != home.arrays[name].tobytes():
                wrong.append(name)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_amid_reads_of_another_thread(home: Home) -> None:
    for _ in range(20):
        model = weightmark.open(home / "out", identity=home / "serving.key")
        tensor, outcome = model["matrix"], []

        def read() -> None:
            try:
                while True:
                    assert np.array_equal(tensor.numpy(), home.arrays["matrix"])
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        model.close()
        thread.join()
        assert [type(error) for error in outcome] == [weightmark.Misuse]


def test_a_tensor_in_two_files_is_that_of_the_preferred_format(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"a": np.ones(3, np.float32), "b": np.zeros(2, np.int8)})
    np.savez(tmp_path / "model.npz", a=np.zeros(3, np.float32), c=np.arange(2.0))
    with weightmark.open(tmp_path) as model:
        assert sorted(model) == ["a", "b", "c"]
        assert model["a"].file == "model.safetensors" and model["a"].numpy().tolist() == [1, 1, 1]
        assert model["c"].numpy().tolist() == [0, 1]
