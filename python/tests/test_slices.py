"""Slices of tensors: those of numpy, with no more read than needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weightmark

from .conftest import Home


def some_index(rng: np.random.Generator, size: int) -> Any:
    """An index of one axis, most of them runs."""
    ends = [None, *range(-size - 2, size + 3)]
    kind = rng.integers(0, 10)
    if kind < 3:
        return int(rng.integers(-size, size)) if size else slice(None)
    start, stop = rng.choice(len(ends), 2)
    if kind < 8:
        return slice(ends[start], ends[stop])
    return slice(ends[start], ends[stop], int(rng.choice([-3, -2, -1, 1, 2, 3])))


def some_key(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    axes = int(rng.integers(0, len(shape) + 1))
    key = [some_index(rng, size) for size in shape[:axes]]
    extra = rng.integers(0, 8)
    if extra == 0:
        key.insert(int(rng.integers(0, len(key) + 1)), Ellipsis)
    elif extra == 1:
        key.insert(int(rng.integers(0, len(key) + 1)), None)
    return key[0] if len(key) == 1 and rng.integers(0, 2) else tuple(key)


def test_slices_are_those_of_numpy(home: Home) -> None:
    rng = np.random.default_rng(5)
    with weightmark.open(home / "out", identity=home / "serving.key") as model:
        for name in ["all.F32", "all.BF16", "all.BOOL", "matrix", "scalar", "empty", "hollow"]:
            for _ in range(300):
                key = some_key(rng, home.arrays[name].shape)
                try:
                    expected = home.arrays[name][key]
                except IndexError:  # an axis after an ellipsis
                    with pytest.raises(IndexError):
                        model[name][key]
                    continue
                found = model[name][key]
                assert type(found) is type(expected), (name, key)
                assert found.dtype == expected.dtype and found.shape == expected.shape, (name, key)
                assert found.tobytes() == expected.tobytes(), (name, key)


def test_other_indices_are_those_of_numpy(home: Home, model: weightmark.Model) -> None:
    array, tensor = home.arrays["matrix"], model["matrix"]
    mask = np.arange(3000) % 7 == 0
    keys: list[Any] = [[1, 2, 2999], mask, np.array([3, -3]), np.int64(7), np.array(8), (np.uint8(9), 3), True, False, (True, 1)]
    for key in keys:
        assert np.array_equal(tensor[key], array[key]) and tensor[key].shape == array[key].shape, key


@pytest.mark.parametrize("key", [3000, -3001, (0, 64), (0, 0, 0), "row", 1.5, slice("a", None), (slice(None), 64)])
def test_what_numpy_refuses(home: Home, model: weightmark.Model, key: Any) -> None:
    with pytest.raises((IndexError, TypeError)) as expected:
        home.arrays["matrix"][key]
    with pytest.raises(expected.type):
        model["matrix"][key]


def test_only_the_rows_are_read(home: Home, tmp_path: Path) -> None:
    """Damage in one chunk is not seen by who reads others."""
    path = tmp_path / "damaged.wmenc"
    damaged = bytearray((home / "file.wmenc").read_bytes())
    damaged[-100_000] ^= 1
    path.write_bytes(damaged)
    with weightmark.open(path, identity=home / "serving.key") as model:
        matrix = model["matrix"]
        with pytest.raises(weightmark.Refused):
            matrix.numpy()
        keys: list[Any] = [slice(0, 10), 3, (slice(5, 9), slice(1, 3)), (4, 2), slice(9, 3)]
        for key in keys:
            assert np.array_equal(matrix[key], home.arrays["matrix"][key])
