"""Each verb, from end to end."""

from __future__ import annotations

import dataclasses
import mmap
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import weightmark

from .conftest import Home


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights large enough to carry a mark."""
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    rng = np.random.default_rng(3)
    save_file({f"layers.{i}.weight": rng.normal(0, 0.05, (256, 1024)).astype(np.float32) for i in range(4)}, path)
    return path


def test_keygen(tmp_path: Path) -> None:
    starts = {"identity": "wmrecipient1", "signing": "-----BEGIN PUBLIC KEY-----", "owner": "wmownerid1"}
    for kind, start in starts.items():
        name = "Acme" if kind == "owner" else None
        public = weightmark.keygen(kind, tmp_path / kind, name=name)  # type: ignore[arg-type]
        assert start in public and public in (tmp_path / f"{kind}.pub").read_text()
        assert (tmp_path / kind).stat().st_mode & 0o777 == 0o600
    assert weightmark.keygen("identity", tmp_path / "x", x25519=True).startswith("wmrecipient-x255191")
    weightmark.keygen("symmetric", tmp_path / "key")
    assert not (tmp_path / "key.pub").exists()
    for algorithm in ("p256", "p384", "p521", "ed25519"):
        weightmark.keygen("signing", tmp_path / algorithm, algorithm=algorithm)


def test_encrypt_and_decrypt(home: Home, tmp_path: Path) -> None:
    seen = weightmark.encrypt(
        home / "model",
        tmp_path / "o",
        recipients=[(home / "serving.key.pub").read_text().strip(), home / "other.key.pub"],
        context="a@1",
        public_index=True,
    )
    assert seen.context == "a@1" and len(seen.groups) == 1 and len(seen.groups[0].recipients) == 2
    assert [path for path, _ in seen.groups[0].files] == ["config.json", "model.safetensors"]
    assert {tensor.name: tensor.shape for tensor in seen.public[0].tensors}["matrix"] == (3000, 64)
    assert weightmark.inspect(tmp_path / "o") == {"encrypted": True, "envelope": seen.raw}
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.context = "b"  # type: ignore[misc]
    for key in ("serving.key", "other.key"):
        assert weightmark.decrypt(tmp_path / "o", tmp_path / key, identity=home / key, context="a@1") == []
        assert (tmp_path / key / "model.safetensors").read_bytes() == (home / "model.safetensors").read_bytes()


def test_passphrases_and_symmetric_keys(home: Home, tmp_path: Path) -> None:
    weightmark.encrypt(home / "model.safetensors", tmp_path / "p", passphrase="correct horse")
    with weightmark.open(tmp_path / "p", passphrase="correct horse") as model:
        assert model["scalar"].numpy() == 2.5
    with pytest.raises(weightmark.KeyUnavailable) as caught:
        weightmark.open(tmp_path / "p", passphrase="wrong")
    assert caught.value.cause == "wrong-passphrase"
    weightmark.keygen("symmetric", tmp_path / "key")
    weightmark.encrypt(home / "model.safetensors", tmp_path / "s", recipients=tmp_path / "key")
    weightmark.open(tmp_path / "s", identity=tmp_path / "key").close()


def test_groups_and_rewrap(home: Home, tmp_path: Path) -> None:
    serving, other = home / "serving.key", home / "other.key"
    groups = {"config.json": home / "other.key.pub"}
    weightmark.encrypt(home / "model", tmp_path / "o", recipients=home / "serving.key.pub", groups=groups)
    with pytest.raises(weightmark.KeyUnavailable) as caught:
        weightmark.open(tmp_path / "o", identity=serving)
    assert caught.value.cause == "closed-file"
    with weightmark.open(tmp_path / "o", identity=serving, accept_closed=True) as model:
        assert model.files == ["model.safetensors"] and model.closed_files == ["config.json"]
    assert weightmark.decrypt(tmp_path / "o", tmp_path / "d", identity=serving, accept_closed=True) == ["config.json"]
    with weightmark.open(tmp_path / "o", identity=[serving, other]) as model:
        assert model.files == ["config.json", "model.safetensors"]
    weightmark.rewrap(tmp_path / "o", identity=serving, add=home / "other.key.pub")
    weightmark.open(tmp_path / "o", identity=other).close()


def test_releases(home: Home, tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "model.safetensors").write_bytes((home / "model.safetensors").read_bytes())
    signed = weightmark.sign(model, key=home / "release.pem", release="acme/m@3", expires=timedelta(days=1))
    assert signed.files == 1 and signed.release is not None and signed.release["version"] == 3
    assert Path(signed.signature) == model / "model.sig"
    policy = weightmark.Policy.require(home / "release.pem.pub").expect_name("acme/m").minimum_version(3)
    verified = weightmark.verify(model, policy)
    assert verified.verified and verified.name == "acme/m" and verified.files == 1 and verified.ignored == ()
    assert verified.signer is not None and verified.signer["key"] == signed.signer["key"]
    with weightmark.open(model, policy=policy.high_water(tmp_path / "seen.json")) as opened:
        assert opened.verified == verified.raw and opened["scalar"].numpy() == 2.5
    causes = {
        "version": policy.minimum_version(4),
        "wrong-name": policy.expect_name("acme/n"),
        "untrusted-key": weightmark.Policy.require(other_key(tmp_path)),
        "revoked": policy.revoke(signed.signer["key"]),
    }
    for cause, stricter in causes.items():
        with pytest.raises(weightmark.Refused) as caught:
            weightmark.verify(model, stricter)
        assert caught.value.cause == cause
    (model / "extra.txt").write_text("x")
    with pytest.raises(weightmark.Refused) as caught:
        weightmark.open(model, policy=policy)
    assert caught.value.cause == "extra-file"
    assert weightmark.verify(model, policy.danger_ignore_path("extra.txt")).ignored == ("extra.txt",)
    assert weightmark.verify(model, policy.danger_ignore_unsigned_files()).ignored == ("extra.txt",)


def other_key(home: Path) -> Path:
    weightmark.keygen("signing", home / "another.pem")
    return home / "another.pem.pub"


def test_signatures_elsewhere_and_policies_in_files(home: Home, tmp_path: Path) -> None:
    when = datetime(2999, 1, 1, tzinfo=timezone.utc)
    weightmark.sign(home / "model", key=home / "release.pem", signature=tmp_path / "s", release="a@1", expires=when)
    assert sorted(os.listdir(tmp_path)) == ["s", "s.release.sig"]
    (tmp_path / "policy.toml").write_text(f'[[rule]]\nkeys = ["{home / "release.pem.pub"}"]\n')
    places = [tmp_path / "s", tmp_path / "s.release.sig"]
    policies: list[Path | weightmark.Policy] = [tmp_path / "policy.toml", weightmark.Policy.load(tmp_path / "policy.toml")]
    for policy in policies:
        verified = weightmark.verify(home / "model", policy, signature=places)
        assert verified.release is not None and verified.release["expires"] == "2999-01-01T00:00:00Z"
    with pytest.raises(weightmark.Misuse, match="time zone"):
        weightmark.sign(home / "model", key=home / "release.pem", release="a@1", expires=datetime(2999, 1, 1))


def test_protect_leak_and_detect(home: Home, trained: Path, tmp_path: Path) -> None:
    record = weightmark.protect(
        trained,
        tmp_path / "out",
        owner_key=home / "owner.key",
        signing_key=home / "release.pem",
        recipients=home / "serving.key.pub",
        copy="licensee-0017",
        context="a@1",
    )
    assert record.mark.tensors == 4 and record.mark.copy == "licensee-0017" and record.files == 1
    opened = weightmark.open(tmp_path / "out", identity=home / "serving.key", policy=home / "release.pem.pub")
    leak = {name: array.astype(np.float16) for name, array in opened.load().items()}
    save_file(leak, tmp_path / "leak.safetensors")
    labels = [f"licensee-{i:04}" for i in range(30)]
    found = weightmark.detect(tmp_path / "leak.safetensors", original=trained, owner_key=home / "owner.key", copies=labels)
    assert found.detected and found.log10_p < -38.53 and found.z > 10 and found.tensors_matched == found.tensors == 4
    assert found.copy is not None and found.copy.label == "licensee-0017" and found.copies[0] == found.copy
    assert found.readings[0].method == "direct" and found.raw["detected"] is True
    sealed_one = weightmark.detect(
        tmp_path / "out", original=trained, owner_key=home / "owner.key", identity=home / "serving.key"
    )
    assert sealed_one.detected
    nothing = weightmark.detect(trained, original=trained, owner_key=home / "owner.key")
    assert not nothing.detected and nothing.copy is None


def test_embed_and_lineage(home: Home, trained: Path, tmp_path: Path) -> None:
    done = weightmark.embed(trained, tmp_path / "m.safetensors", owner_key=home / "owner.key", payload=0xC0FFEE)
    assert done.payload == f"{0xC0FFEE:016x}" and done.weights == 4 * 256 * 1024 and done.predicted[0].attack == "bf16"
    found = weightmark.detect(tmp_path / "m.safetensors", original=trained, owner_key=home / "owner.key")
    assert found.payload is not None and int(found.payload.hex, 16) == 0xC0FFEE
    assert weightmark.lineage(trained, tmp_path / "m.safetensors").layers == ()


def test_seal(home: Home) -> None:
    with weightmark.seal(home / "file.wmenc", identity=home / "serving.key", context="a@1") as sealed:
        assert load_file_bytes(sealed.path) == (home / "model.safetensors").read_bytes()
        with open(sealed.path, "r+b", buffering=0) as file, pytest.raises(OSError):
            file.write(b"x")
        with open(sealed.path, "rb") as source, mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert len(mapped) == (home / "model.safetensors").stat().st_size
        path = sealed.path
        assert sealed.verified is None and sealed.code == []
    assert not os.path.exists(path)
    with pytest.raises(weightmark.Misuse):
        sealed.path


def load_file_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_inspect(home: Home, trained: Path) -> None:
    seen = weightmark.inspect(home / "model")
    assert not seen["encrypted"] and [file["path"] for file in seen["files"]] == ["config.json", "model.safetensors"]
    tensors = {tensor["name"]: tensor for tensor in seen["files"][1]["tensors"]}
    assert tensors["matrix"]["shape"] == [3000, 64] and tensors["matrix"]["dtype"] == "F32"
    assert set(load_file(trained)) == {tensor["name"] for tensor in weightmark.inspect(trained)["files"][0]["tensors"]}
