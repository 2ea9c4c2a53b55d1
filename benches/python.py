"""Python beside Rust and peers, in one run: 1 GiB of weights in the page cache, then calls that read next to nothing.

    cargo build --release --example load
    python benches/python.py [target/release/examples/load]

Contestants take turns, the fastest of seven is kept, and what counts is the ratio to the first. Peers take part where they
are installed: `safetensors`, `cryptotensors`. What is loaded is let go of outside of the time that counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import weightmark

TURNS = 7
#: Tensors of 128 MiB, then tensors of 8 MiB: 1 GiB in all, as `benches/encryption.rs` has them.
SIZES = [128] * 6 + [8] * 32
OCTETS = 43 * "A" + "="
KEYS = [
    {"kty": "oct", "alg": "aes256gcm", "use": "enc", "kid": "e", "k": OCTETS},
    {"kty": "okp", "alg": "ed25519", "use": "sig", "kid": "s", "d": OCTETS,
     "x": "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="},
]  # fmt: skip

#: What takes a turn, and returns the seconds that count.
Contestant = Callable[[], float]


def timed(work: Callable[[], object]) -> float:
    """The seconds that work takes, without those that letting go of its result does."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    del result
    return seconds


def compare(title: str, contestants: dict[str, Contestant], unit: float, size: int = 0) -> None:
    """Lets contestants take turns, and prints the fastest turn of each and its ratio to the first."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(TURNS):
        for name, turn in contestants.items():
            best[name] = min(best[name], turn())
    print(f"\n{title}")
    first = next(iter(best.values()))
    for name, seconds in best.items():
        speed = f"{size / seconds / (1 << 30):6.2f} GiB/s" if size else ""
        print(f"  {name:<34} {seconds * unit:9.2f}  {speed}  x {seconds / first:.2f}")


def loading(home: Path, rust: str | None) -> None:
    """Opens a model and loads all of it."""
    rng = np.random.default_rng(1)
    tensors = {f"t{i}": rng.random((size << 6, 4096), np.float32) for i, size in enumerate(SIZES)}
    plain, encrypted, theirs = home / "m.safetensors", home / "m.wmenc", home / "m.cryptotensors"
    key = home / "key"
    save_file(tensors, plain)
    weightmark.keygen("identity", key)
    weightmark.encrypt(plain, encrypted, recipients=home / "key.pub")

    def ours(path: Path, identity: Path | None) -> Contestant:
        return lambda: timed(lambda: weightmark.open(path, identity=identity).load())

    def native(*arguments: str | Path) -> Contestant:
        command = [str(rust), *map(str, arguments)]
        return lambda: float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]) / 1000

    contestants: dict[str, Contestant] = {}
    if rust:
        contestants["Rust, encrypted"] = native(encrypted, key)
    contestants["Python, encrypted"] = ours(encrypted, key)
    if rust:
        contestants["Rust, plain"] = native(plain)
    contestants["Python, plain"] = ours(plain, None)
    contestants["safetensors.numpy.load_file, plain"] = lambda: timed(lambda: load_file(plain))
    try:
        import cryptotensors
        from cryptotensors.numpy import load_file as load_theirs
        from cryptotensors.numpy import save_file as save_theirs

        cryptotensors.register_direct_key_provider(keys=KEYS)
        save_theirs(tensors, theirs, config={"enc_key": KEYS[0], "sign_key": KEYS[1]})
        contestants["cryptotensors, its own encrypted"] = lambda: timed(lambda: load_theirs(theirs))
    except ImportError:
        print("cryptotensors is not installed")
    del tensors
    compare("open and load 1 GiB, milliseconds", contestants, 1e3, plain.stat().st_size)


def calls(home: Path) -> None:
    """What a call costs: the time of many, one after the other."""
    count = 20_000
    save_file({"small": np.zeros(4, np.float32)}, home / "small.safetensors")
    model = weightmark.open(home / "small.safetensors")
    tensor, native, memory = model["small"], model._native, bytearray(16)

    def many(work: Callable[[], object]) -> Contestant:
        def turn() -> float:
            start = time.perf_counter()
            for _ in range(count):
                work()
            return (time.perf_counter() - start) / count

        return turn

    contestants = {
        "len(bytearray), for comparison": many(memory.__len__),
        "native: is it closed": many(native.is_closed),
        "native: read 16 bytes": many(lambda: native.read("small")),
        "native: read 16 bytes into memory": many(lambda: native.read_into("small", memory)),
        "tensor.read_into(memory)": many(lambda: tensor.read_into(memory)),
        "model[name]": many(lambda: model["small"]),
        "tensor.numpy()": many(tensor.numpy),
        "tensor[1:3]": many(lambda: tensor[1:3]),
    }
    compare("one call, microseconds", contestants, 1e6)


def main() -> None:
    """Everything."""
    with tempfile.TemporaryDirectory() as name:
        calls(Path(name))
        loading(Path(name), sys.argv[1] if len(sys.argv) > 1 else None)


main()
