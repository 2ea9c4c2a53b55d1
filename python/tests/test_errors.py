"""Bad input: the exact exception, the exact cause, and never a crash."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import weightmark

from .conftest import Home


def raised(kind: type[weightmark.Error], cause: str, call: Callable[[], object]) -> weightmark.Error:
    with pytest.raises(weightmark.Error) as caught:
        call()
    assert type(caught.value) is kind and caught.value.cause == cause, repr(caught.value)
    assert caught.value.code == kind.code
    return caught.value


def test_classes() -> None:
    assert issubclass(weightmark.Misuse, ValueError) and issubclass(weightmark.InputError, OSError)
    for kind in [weightmark.Refused, weightmark.Misuse, weightmark.InputError, weightmark.KeyUnavailable, weightmark.Cancelled]:
        assert issubclass(kind, weightmark.Error)
        error = kind("message", "cause", "artifact", 2)
        for same in [pickle.loads(pickle.dumps(error)), copy.copy(error)]:  # as between processes
            assert type(same) is kind and str(same) == "message"
            assert (same.cause, same.artifact, same.code) == ("cause", "artifact", kind.code)
    assert pickle.loads(pickle.dumps(weightmark.InputError("m", "io", "a", 2))).errno == 2


def test_keys(home: Home, tmp_path: Path) -> None:
    out = home / "out"
    error = raised(weightmark.KeyUnavailable, "no-match", lambda: weightmark.open(out, identity=home / "other.key"))
    assert error.artifact is not None and error.artifact in str(error)
    raised(weightmark.KeyUnavailable, "wanted", lambda: weightmark.open(out))
    raised(weightmark.InputError, "io", lambda: weightmark.open(out, identity=tmp_path / "nothing"))
    (tmp_path / "open.key").write_bytes((home / "serving.key").read_bytes())
    os.chmod(tmp_path / "open.key", 0o644)
    raised(weightmark.KeyUnavailable, "readable-by-others", lambda: weightmark.open(out, identity=tmp_path / "open.key"))
    raised(weightmark.KeyUnavailable, "malformed", lambda: weightmark.open(out, identity=home / "release.pem"))
    raised(weightmark.KeyUnavailable, "no-match", lambda: weightmark.open(out, passphrase="x"))


def test_what_the_caller_expects(home: Home) -> None:
    key = home / "serving.key"
    raised(weightmark.Refused, "context-mismatch", lambda: weightmark.open(home / "out", identity=key, context="a@2"))
    plain = home / "model.safetensors"
    raised(weightmark.Refused, "expected-encrypted", lambda: weightmark.open(plain, identity=key))
    raised(weightmark.Refused, "expected-encrypted", lambda: weightmark.open(plain, expect_encrypted=True))
    weightmark.open(plain, identity=key, danger_accept_plaintext=True).close()


def test_a_tampered_chunk(home: Home, tmp_path: Path) -> None:
    damaged = bytearray((home / "file.wmenc").read_bytes())
    damaged[-100_000] ^= 1
    (tmp_path / "m").write_bytes(damaged)
    model = weightmark.open(tmp_path / "m", identity=home / "serving.key")
    last = "matrix"
    error = raised(weightmark.Refused, "chunk-tampered", model[last].numpy)
    assert error.artifact == str(tmp_path / "m")
    raised(weightmark.Refused, "chunk-tampered", model.load)
    memory = bytearray(model[last].nbytes)
    raised(weightmark.Refused, "chunk-tampered", lambda: model[last].read_into(memory))
    true = home.arrays[last].tobytes()
    assert all(a in (b, 0) for a, b in zip(memory, true, strict=True)) and memory != true  # nothing unauthenticated


def test_a_signed_model_needs_a_policy(home: Home, tmp_path: Path) -> None:
    save_file({"a": np.zeros(3)}, tmp_path / "m.safetensors")
    weightmark.sign(tmp_path / "m.safetensors", key=home / "release.pem")
    raised(weightmark.Misuse, "misuse", lambda: weightmark.open(tmp_path / "m.safetensors"))
    weightmark.open(tmp_path / "m.safetensors", danger_accept_unsigned=True).close()
    with weightmark.open(tmp_path / "m.safetensors", policy=home / "release.pem.pub") as model:
        assert model.verified is not None and model.verified["files"] == 1
    save_file({"a": np.ones(3)}, tmp_path / "m.safetensors")
    for call in (weightmark.open, weightmark.verify):
        verify: Any = call
        raised(weightmark.Refused, "digest-mismatch", lambda: verify(tmp_path / "m.safetensors", policy=home / "release.pem.pub"))
    (tmp_path / "m.safetensors.sig").unlink()
    raised(weightmark.Refused, "no-signature", lambda: weightmark.verify(tmp_path / "m.safetensors", home / "release.pem.pub"))


def test_buffers(home: Home, model: weightmark.Model) -> None:
    matrix = model["matrix"]
    for size in [0, matrix.nbytes - 1, matrix.nbytes + 1]:
        raised(weightmark.Misuse, "misuse", lambda: matrix.read_into(bytearray(size)))
    frozen = np.empty((3000, 64), np.float32)
    frozen.flags.writeable = False
    refused: list[Any] = [bytes(matrix.nbytes), memoryview(bytearray(matrix.nbytes)).toreadonly(), frozen]
    for buffer in refused:
        raised(weightmark.Misuse, "misuse", lambda: matrix.read_into(buffer))
    for buffer in [np.empty((3000, 128), np.float32)[:, ::2], np.empty((64, 3000), np.float32).T]:
        raised(weightmark.Misuse, "misuse", lambda: matrix.read_into(buffer))
    for wrong in [None, 1, "text", [1, 2]]:
        with pytest.raises((TypeError, BufferError)):
            matrix.read_into(wrong)  # type: ignore[arg-type]
    model["empty"].read_into(bytearray())
    held = bytearray(matrix.nbytes)
    matrix.read_into(held)
    held.append(0)  # the export has ended


def test_paths_that_are_not_utf_8(home: Home, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.out"
    shown = os.fsdecode(raw)
    weightmark.encrypt(home / "model", shown, recipients=home / "serving.key.pub")
    for path in [shown, raw, Path(shown)]:
        with weightmark.open(path, identity=home / "serving.key") as model:  # type: ignore[arg-type]
            assert model["scalar"].numpy() == 2.5
    weightmark.keygen("identity", shown + ".key")
    assert os.path.exists(raw + b".key.pub")
    raised(weightmark.Misuse, "misuse", lambda: weightmark.encrypt(home / "model", tmp_path / "o", recipients=shown + ".key.pub"))
    error = raised(weightmark.InputError, "io", lambda: weightmark.open(shown + ".nothing"))
    assert isinstance(error, OSError) and error.errno == 2
    for path in ["\ud800", "a\0b"]:
        with pytest.raises((UnicodeEncodeError, weightmark.InputError)):
            weightmark.open(path)


@pytest.mark.parametrize("wrong", [1, 1.5, [], {}, object()])
def test_wrong_types(home: Home, tmp_path: Path, wrong: Any) -> None:
    key = home / "serving.key"
    calls: list[Callable[[], object]] = [
        lambda: weightmark.open(wrong),
        lambda: weightmark.open(home / "out", passphrase=wrong),
        lambda: weightmark.open(home / "out", identity=key, context=wrong),
        lambda: weightmark.open(home / "out", identity=[wrong]),
        lambda: weightmark.open(home / "out", identity=key, policy=wrong),
        lambda: weightmark.open(home / "out", identity=key, progress=wrong),
        lambda: weightmark.encrypt(home / "model", wrong, recipients=key),
        lambda: weightmark.encrypt(home / "model", tmp_path / "o", recipients=[wrong]),
        lambda: weightmark.keygen(wrong, tmp_path / "k"),
        lambda: weightmark.sign(home / "model", key=wrong),
        lambda: weightmark.verify(home / "model", wrong),
        lambda: weightmark.detect(wrong, original=home / "model", owner_key=home / "owner.key"),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    assert os.listdir(tmp_path) == []


def test_what_makes_no_sense(home: Home, tmp_path: Path) -> None:
    out, key = tmp_path / "o", home / "serving.key.pub"
    calls: list[Callable[[], object]] = [
        lambda: weightmark.keygen("password", out),  # type: ignore[arg-type]
        lambda: weightmark.keygen("owner", out),
        lambda: weightmark.keygen("identity", out, name="Acme"),
        lambda: weightmark.keygen("identity", out, algorithm="p256"),
        lambda: weightmark.keygen("signing", out, algorithm="rsa"),  # type: ignore[arg-type]
        lambda: weightmark.keygen("signing", out, x25519=True),
        lambda: weightmark.encrypt(home / "model", out),
        lambda: weightmark.encrypt(home / "model", out, recipients=key, passphrase="x"),
        lambda: weightmark.sign(home / "model", key=home / "release.pem", hash="md5"),  # type: ignore[arg-type]
        lambda: weightmark.sign(home / "model", key=home / "release.pem", release="name"),
        lambda: weightmark.sign(home / "model", key=home / "release.pem", expires="90days"),
        lambda: weightmark.sign(home / "model", key=home / "release.pem", release="a@1", expires="soon"),
        lambda: weightmark.Policy.require(),
        lambda: weightmark.Policy.require(home / "release.pem.pub").revoke("x"),
        lambda: weightmark.Policy.require(home / "release.pem.pub").danger_ignore_path("/"),
        lambda: weightmark.embed(home / "model", out, owner_key=home / "owner.key", copy="a", payload=1),
        lambda: weightmark.seal(home / "out", identity=home / "serving.key"),
    ]
    for i, call in enumerate(calls):
        try:
            raised(weightmark.Misuse, "misuse", call)
        except AssertionError as error:
            raise AssertionError(f"call {i}") from error
    ignored = raised(
        weightmark.InputError,
        "io",
        lambda: weightmark.sign(home / "model", key=home / "release.pem", ignore="nothing"),
    )
    assert ignored.artifact == "nothing"
    assert os.listdir(tmp_path) == []


def test_outputs_are_never_overwritten(home: Home, tmp_path: Path) -> None:
    (tmp_path / "o").write_text("mine")
    calls: list[Callable[[], object]] = [
        lambda: weightmark.encrypt(home / "model.safetensors", tmp_path / "o", recipients=home / "serving.key.pub"),
        lambda: weightmark.decrypt(home / "file.wmenc", tmp_path / "o", identity=home / "serving.key"),
        lambda: weightmark.keygen("signing", tmp_path / "o"),
        lambda: weightmark.embed(home / "model.safetensors", tmp_path / "o", owner_key=home / "owner.key"),
        lambda: weightmark.sign(home / "model", key=home / "release.pem", signature=tmp_path / "o"),
    ]
    for call in calls:
        error = raised(weightmark.InputError, "io", call)
        assert isinstance(error, OSError) and error.errno in (17, None)
    assert (tmp_path / "o").read_text() == "mine" and os.listdir(tmp_path) == ["o"]


def test_no_model_at_all(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model")
    raised(weightmark.InputError, "unknown", lambda: weightmark.inspect(tmp_path / "text"))
    (tmp_path / "m.safetensors").write_bytes(b"\xff" * 100)
    error = raised(weightmark.InputError, "header-too-large", lambda: weightmark.open(tmp_path / "m.safetensors"))
    assert isinstance(error, OSError) and error.errno is None
