"""Tensors of PyTorch.

>>> model.load_state_dict(weightmark.torch.state_dict("out/", identity="serving.key"))

They lie in the memory that was decrypted into: no copy, and no detour over numpy, so BF16 and FP8 need nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import weightmark

from ._errors import Misuse
from ._tensor import as_torch, torch_dtype

if TYPE_CHECKING:
    import torch

    from ._arguments import Path
    from ._opening import Opening


def state_dict(
    path: Path, *, device: Any = "cpu", float32: bool = False, **opening: Unpack[Opening]
) -> dict[str, torch.Tensor]:
    """All tensors of a model by name, read in parallel.

    Args:
        path: The model.
        device: Where to.
        float32: Dequantises types that PyTorch does not have, such as those of GGUF, instead of refusing them.
        opening: As for :func:`weightmark.open`.
    """
    import torch

    with weightmark.open(path, **opening) as model:
        foreign = [name for name, stored in model.items() if not _has_type(stored)] if float32 else []
        state = model.load([name for name in model if name not in set(foreign)], framework="torch")
        state |= {name: torch.from_numpy(model[name].float32()) for name in foreign}
    return {name: tensor.to(device) for name, tensor in state.items()}


def rows(stored: weightmark.Tensor, index: Any) -> torch.Tensor:
    """A part of a tensor as PyTorch has it: as ``stored.torch()[index]``, but no other rows are read.

    >>> rows(model["embed.weight"], slice(3, 5)).shape
    torch.Size([2, 576])
    """
    first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
    run = stored._rows(first)
    if run is None:
        return stored.torch()[index]
    start, stop, is_one = run
    part = stored._model.rows(stored.name, start, stop)
    tensor = as_torch(part, torch_dtype(stored.dtype), (stop - start, *stored.shape[1:]))
    return tensor[(0 if is_one else slice(None), *rest)]


def _has_type(stored: weightmark.Tensor) -> bool:
    try:
        torch_dtype(stored.dtype)
    except Misuse:
        return False
    return True
