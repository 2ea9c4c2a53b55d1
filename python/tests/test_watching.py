"""Long work: it says how far it is, and stops when asked, with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tqdm
from safetensors.numpy import save_file

import weightmark

from .conftest import Home

Told = list[tuple[str, int, int]]


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose encryption takes a few reports."""
    path = tmp_path_factory.mktemp("large") / "m.safetensors"
    tensor = np.random.default_rng(2).normal(size=(4096, 4096)).astype(np.float32)
    save_file({f"t{i}": tensor for i in range(6)}, path)
    return path


def test_a_callable_is_told(home: Home, large: Path, tmp_path: Path) -> None:
    told: Told = []
    threads = set()

    def progress(task: str, done: int, total: int) -> None:
        told.append((task, done, total))
        threads.add(threading.get_ident())

    weightmark.encrypt(large, tmp_path / "o", recipients=home / "serving.key.pub", progress=progress)
    size = large.stat().st_size
    assert {(task, total) for task, _, total in told} == {("encrypt", size)}
    assert told[-1] == ("encrypt", size, size) and [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert threads == {threading.get_ident()}
    told.clear()
    weightmark.sign(large, key=home / "release.pem", signature=tmp_path / "s", progress=progress)
    assert told[-1] == ("hash", size, size)


def test_a_bar_of_tqdm_is_moved(home: Home, tmp_path: Path) -> None:
    with open(os.devnull, "w") as nowhere, tqdm.tqdm(file=nowhere, unit="B", unit_scale=True) as bar:
        weightmark.encrypt(home / "model", tmp_path / "o", recipients=home / "serving.key.pub", progress=bar)
        assert bar.n == bar.total > 1000 and bar.desc.startswith("encrypt")


def test_false_cancels(home: Home, large: Path, tmp_path: Path) -> None:
    with pytest.raises(weightmark.Cancelled) as caught:
        weightmark.encrypt(large, tmp_path / "o", recipients=home / "serving.key.pub", progress=lambda *_: False)
    assert caught.value.cause == "cancelled" and os.listdir(tmp_path) == []
    weightmark.encrypt(home / "model", tmp_path / "o", recipients=home / "serving.key.pub", progress=lambda *_: 0)  # not False


def test_what_progress_raises_comes_through(home: Home, large: Path, tmp_path: Path) -> None:
    def progress(task: str, done: int, total: int) -> None:
        raise ZeroDivisionError(task)

    with pytest.raises(ZeroDivisionError, match="encrypt"):
        weightmark.encrypt(large, tmp_path / "o", recipients=home / "serving.key.pub", progress=progress)
    assert os.listdir(tmp_path) == []


def test_progress_may_call_the_library(home: Home, large: Path, tmp_path: Path) -> None:
    seen = []

    def progress(task: str, done: int, total: int) -> None:
        with weightmark.open(home / "out", identity=home / "serving.key") as model:
            seen.append(float(model["scalar"].numpy()))

    weightmark.encrypt(large, tmp_path / "o", recipients=home / "serving.key.pub", progress=progress)
    assert seen and set(seen) == {2.5}


def test_other_threads_run_meanwhile(home: Home, large: Path, tmp_path: Path) -> None:
    ticks, done = 0, threading.Event()

    def count() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    weightmark.encrypt(large, tmp_path / "o", recipients=home / "serving.key.pub")
    done.set()
    thread.join()
    assert ticks > 10


INTERRUPTED = """
import sys, weightmark
def progress(task, done, total):
    print("started", flush=True)
try:
    weightmark.{call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        "encrypt(sys.argv[1], sys.argv[2], recipients=sys.argv[3] + '/serving.key.pub', progress=progress)",
        "embed(sys.argv[1], sys.argv[2], owner_key=sys.argv[3] + '/owner.key', progress=progress)",
    ],
)
def test_ctrl_c(home: Home, large: Path, tmp_path: Path, call: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED.format(call=call), str(large), str(tmp_path / "o"), str(home.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "interrupted"
    assert process.returncode == 0 and os.listdir(tmp_path) == []
