"""Processes that fork after they have used the library, as loaders of training data do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np

import weightmark

from .conftest import Home

LIMIT = 60


def in_child(work: Callable[[], None]) -> int:
    """What `work` ends with in a process that is forked off; one that hangs is killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    timer = threading.Timer(LIMIT, os.kill, (child, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    return os.waitstatus_to_exitcode(status)


def test_parent_and_child_read_one_model_and_open_others(home: Home, tmp_path: Path) -> None:
    model = weightmark.open(home / "out", identity=home / "serving.key")

    def read() -> None:
        assert all(tensor.numpy().tobytes() == home.arrays[name].tobytes() for name, tensor in model.items())
        assert all(array.tobytes() == home.arrays[name].tobytes() for name, array in model.load().items())

    def work() -> None:
        read()
        with weightmark.open(home / "file.wmenc", identity=home / "serving.key") as another:
            assert np.array_equal(another["matrix"].numpy(), home.arrays["matrix"])
        weightmark.encrypt(home / "model", tmp_path / "child", recipients=home / "serving.key.pub")
        try:
            weightmark.open(home / "out", identity=home / "other.key")
        except weightmark.KeyUnavailable:
            return
        raise AssertionError

    read()
    weightmark.encrypt(home / "model", tmp_path / "parent", recipients=home / "serving.key.pub")
    assert in_child(work) == 0
    assert in_child(lambda: exit_code_of_grandchild(read)) == 0
    read()


def exit_code_of_grandchild(work: Callable[[], None]) -> None:
    work()
    assert in_child(work) == 0
    work()


def read_name(model: weightmark.Model, name: str, queue: SimpleQueue[bytes]) -> None:
    queue.put(model[name].numpy().tobytes())


def test_multiprocessing(home: Home) -> None:
    context = multiprocessing.get_context("fork")
    model = weightmark.open(home / "out", identity=home / "serving.key")
    model.load()
    for name in ["matrix", "all.BF16"]:
        queue = context.SimpleQueue()
        process = context.Process(target=read_name, args=(model, name, queue))
        process.start()
        assert queue.get() == home.arrays[name].tobytes()
        process.join(LIMIT)
        assert process.exitcode == 0
