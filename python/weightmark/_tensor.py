"""A tensor of an open model: what it is, and ways to read it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from ._errors import Misuse

if TYPE_CHECKING:
    import numpy as np
    import torch
    from typing_extensions import Buffer

    from . import _native

#: What numpy calls the types that it has.
_NUMPY = {
    "BOOL": "?", "C128": "<c16", "C64": "<c8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
    "I16": "<i2", "I32": "<i4", "I64": "<i8", "I8": "|i1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "U8": "|u1",
}  # fmt: skip
#: What ``ml_dtypes`` calls those that numpy has not.
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
#: What torch calls them.
_TORCH = {
    "BF16": "bfloat16", "BOOL": "bool", "C128": "complex128", "C64": "complex64", "F16": "float16", "F32": "float32",
    "F64": "float64", "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu", "I16": "int16", "I32": "int32", "I64": "int64",
    "I8": "int8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "U8": "uint8",
}  # fmt: skip


class Tensor:
    """A tensor that is read when it is asked for, from the model as long as that is open.

    Attributes:
        name: Its name, unique in the model.
        dtype: The type of its elements: ``"F32"``, ``"BF16"``, ``"Q4_K"``, ..
        shape: Its dimensions, outermost first; ``()`` for a scalar.
        nbytes: The size of its elements in bytes, as they are stored.
        file: The file of the model that holds it.

    >>> q = model["layers.0.q_proj.weight"]
    >>> q
    <Tensor layers.0.q_proj.weight F32 [576, 576]>
    >>> q[:16].shape  # reads, and decrypts, 16 rows
    (16, 576)
    """

    __slots__ = ("_model", "dtype", "file", "name", "nbytes", "shape")

    def __init__(self, model: _native.Model, name: str, dtype: str, shape: list[int], nbytes: int, file: str) -> None:
        self._model = model
        self.name, self.dtype, self.shape, self.nbytes, self.file = name, dtype, tuple(shape), nbytes, file

    def __repr__(self) -> str:
        return f"<Tensor {self.name} {self.dtype} {list(self.shape)}>"

    def numpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """All elements, of ``shape``, in new memory that is the caller's to write to.

        BF16 and the FP8 types need the package ``ml_dtypes``. Quantised types have no counterpart in numpy: ``Misuse``,
        see :meth:`float32`.

        >>> model["norm.weight"].numpy().dtype
        dtype('float32')
        """
        dtype = numpy_dtype(self.dtype)
        return as_array(self._model.read(self.name), dtype, self.shape)

    def float32(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All elements as ``float32``, of ``shape``: dequantised, or rounded to nearest.

        >>> gguf["blk.0.attn_q.weight"].float32().shape
        (576, 576)
        """
        return as_array(self._model.float32(self.name), numpy_dtype("F32"), self.shape)

    def torch(self) -> torch.Tensor:
        """All elements as a torch tensor of ``shape`` on the CPU, in new memory.

        >>> model["norm.weight"].torch().dtype
        torch.float32
        """
        dtype = torch_dtype(self.dtype)
        return as_torch(self._model.read(self.name), dtype, self.shape)

    def tobytes(self) -> bytes:
        """The ``nbytes`` bytes of the elements as they are stored: row-major, little-endian.

        >>> len(model["norm.weight"].tobytes())
        2304
        """
        return bytes(self._model.read(self.name))

    def read_into(self, buffer: Buffer | np.ndarray[Any, np.dtype[Any]]) -> None:
        """Reads the elements as they are stored into a writable contiguous buffer of exactly ``nbytes`` bytes.

        >>> model["norm.weight"].read_into(memory)
        """
        self._model.read_into(self.name, buffer)

    def __getitem__(self, key: Any) -> Any:
        """As ``numpy()[key]``, but where the first index is a row or a run of rows, no others are read.

        >>> model["embed.weight"][3:5].shape
        (2, 576)
        """
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        rows = self._rows(first)
        if rows is None:
            return self.numpy()[key]
        start, stop, is_one = rows
        part = self._part(start, stop)
        return part[(0 if is_one else slice(None), *rest)]

    def _part(self, start: int, stop: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Rows ``start`` to ``stop``."""
        dtype = numpy_dtype(self.dtype)
        shape = (stop - start, *self.shape[1:])
        return as_array(self._model.rows(self.name, start, stop), dtype, shape)

    def _rows(self, index: Any) -> tuple[int, int, bool] | None:
        """The rows that an index names, if they are a run, and whether it names just one."""
        if not self.shape:
            return None
        count = self.shape[0]
        if isinstance(index, slice):
            start, stop, step = index.indices(count)
            return (start, max(start, stop), False) if step == 1 else None
        if isinstance(index, bool) or getattr(index, "shape", None) or not hasattr(index, "__index__"):
            return None
        row = operator.index(index)
        if not -count <= row < count:
            raise IndexError(f"index {row} is out of bounds for axis 0 with size {count}")
        row %= count
        return row, row + 1, True

    def __len__(self) -> int:
        """The first dimension."""
        if not self.shape:
            raise TypeError("len() of a scalar tensor")
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        """All elements, for ``numpy.asarray(tensor)``."""
        if copy is False:
            raise ValueError("a tensor is read into new memory: there is nothing to share")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        """All elements as a DLPack capsule, by numpy, for ``torch.from_dlpack(tensor)``."""
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The CPU."""
        return (1, 0)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """What numpy has for a type, by its own name.

    >>> numpy_dtype("BF16")
    dtype(bfloat16)
    """
    import numpy as np

    if name in _NUMPY:
        return np.dtype(_NUMPY[name])
    if name not in _ML_DTYPES:
        raise Misuse(f"numpy has no type for {name}: use .float32() or .tobytes()", "misuse")
    try:
        import ml_dtypes
    except ImportError:
        raise Misuse(f"numpy has no type for {name}: install ml_dtypes, or use .float32()", "misuse") from None
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
    return dtype


def torch_dtype(name: str) -> torch.dtype:
    """What torch has for a type, by its own name.

    >>> torch_dtype("BF16")
    torch.bfloat16
    """
    import torch

    dtype = getattr(torch, _TORCH.get(name, ""), None)
    if not isinstance(dtype, torch.dtype):
        raise Misuse(f"torch has no type for {name}: use .float32() or .tobytes()", "misuse")
    return dtype


def as_array(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    """The bytes of a buffer as an array of a shape, without a copy.

    >>> as_array(bytearray(8), numpy.dtype("<f4"), (2,))
    array([0., 0.], dtype=float32)
    """
    import numpy as np

    return np.ndarray(shape, dtype, buffer)


def as_torch(buffer: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """The bytes of a buffer as a torch tensor of a shape, without a copy.

    >>> as_torch(bytearray(8), torch.float32, (2,))
    tensor([0., 0.])
    """
    import torch

    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)
