"""Encrypts, signs and watermarks machine-learning models.

>>> import weightmark
>>> recipient = weightmark.keygen("identity", "serving.key")
>>> weightmark.encrypt("model/", "out/", recipients=recipient, context="acme/llama-1b@3")
>>> with weightmark.open("out/", identity="serving.key", context="acme/llama-1b@3") as model:
...     q = model["layers.0.q_proj.weight"].numpy()  # decrypts only its own chunks

Adapters: ``weightmark.safetensors``, ``.torch``, ``.transformers``, ``.vllm``, ``.onnxruntime``, ``.llama``,
``.huggingface``, ``.mlflow``.
"""

from typing import TYPE_CHECKING

from ._errors import Cancelled, Error, InputError, KeyUnavailable, Misuse, Refused
from ._model import Model, open
from ._native import Policy, __version__
from ._sealed import Sealed, seal
from ._tensor import Tensor
from ._verbs import (
    decrypt,
    detect,
    embed,
    encrypt,
    inspect,
    keygen,
    lineage,
    protect,
    rewrap,
    sign,
    verify,
)

if TYPE_CHECKING:
    from ._results import Embedded, Evidence, Inspection, Lineage, Protected, Signed, Verified

__all__ = [
    "Cancelled", "Embedded", "Error", "Evidence", "InputError", "Inspection", "KeyUnavailable", "Lineage", "Misuse",
    "Model", "Policy", "Protected", "Refused", "Sealed", "Signed", "Tensor", "Verified", "__version__", "decrypt",
    "detect", "embed", "encrypt", "inspect", "keygen", "lineage", "open", "protect", "rewrap", "seal", "sign", "verify",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """The classes of results, which take longer to import than all the rest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _results

    return getattr(_results, name)
