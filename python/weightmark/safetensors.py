"""The face of the package ``safetensors``, over models that may be encrypted and signed.

>>> from weightmark.safetensors import safe_open
>>> with safe_open("model.safetensors.wmenc", framework="pt", identity="serving.key") as file:
...     q = file.get_slice("layers.0.q_proj.weight")[:128]  # reads, and decrypts, 128 rows

A directory of shards opens like one file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Unpack

import weightmark

from ._errors import Misuse

if TYPE_CHECKING:
    from types import TracebackType

    from ._arguments import Path
    from ._opening import Opening

_FRAMEWORKS = {"np": "numpy", "numpy": "numpy", "pt": "torch", "torch": "torch", "pytorch": "torch"}


class safe_open:
    """In the place of ``safetensors.safe_open``; further options are those of :func:`weightmark.open`."""

    def __init__(self, filename: Path, framework: str = "np", device: Any = "cpu", **opening: Unpack[Opening]) -> None:
        if framework not in _FRAMEWORKS:
            raise Misuse(f'no framework {framework!r}: "np" or "pt"')
        self._framework = _FRAMEWORKS[framework]
        if self._framework == "numpy" and str(device) != "cpu":
            raise Misuse(f"numpy has no device {device!r}")
        self._device = device
        self._model = weightmark.open(filename, **opening)

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.close()

    def keys(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._model)

    def offset_keys(self) -> list[str]:
        """Names of all tensors, as they lie in the file."""
        return list(self._model)

    def metadata(self) -> dict[str, str] | None:
        """What the header says besides."""
        return self._model.metadata or None

    def get_tensor(self, name: str) -> Any:
        """A whole tensor."""
        stored = self._stored(name)
        return stored.numpy() if self._framework == "numpy" else stored.torch().to(self._device)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors, read in parallel."""
        if self._framework == "numpy":
            return self._model.load()
        return {name: tensor.to(self._device) for name, tensor in self._model.load(framework="torch").items()}

    def get_slice(self, name: str) -> Slice:
        """A tensor to take parts of: only the rows asked for are read."""
        return Slice(self._stored(name), self._framework, self._device)

    def _stored(self, name: str) -> weightmark.Tensor:
        if name not in self._model:
            raise Misuse(f"{self._model.name} does not contain tensor {name}")
        return self._model[name]


class Slice:
    """What :meth:`safe_open.get_slice` returns."""

    def __init__(self, stored: weightmark.Tensor, framework: str, device: Any) -> None:
        self._stored, self._framework, self._device = stored, framework, device

    def get_shape(self) -> list[int]:
        """Its dimensions."""
        return list(self._stored.shape)

    def get_dtype(self) -> str:
        """Its type, as safetensors calls it: ``"F32"``, ``"BF16"``."""
        return self._stored.dtype

    def __getitem__(self, index: Any) -> Any:
        if self._framework == "numpy":
            return self._stored[index]
        from .torch import rows

        return rows(self._stored, index).to(self._device)


def load_file(
    filename: Path, framework: str = "np", device: Any = "cpu", **opening: Unpack[Opening]
) -> dict[str, Any]:
    """In the place of ``load_file`` of ``safetensors.numpy``, or of ``safetensors.torch`` with ``framework="pt"``."""
    with safe_open(filename, framework, device, **opening) as file:
        return file.get_tensors()


def load(data: bytes, framework: str = "np", device: Any = "cpu", **opening: Unpack[Opening]) -> dict[str, Any]:
    """All tensors of a file that is in memory already, encrypted or not. Linux only."""
    memory = os.memfd_create("weightmark")
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
        return load_file(f"/proc/self/fd/{memory}", framework, device, **opening)
    finally:
        os.close(memory)
