"""A load format for vLLM, which finds it by its entry point.

::

    vllm serve ./llama-1b-config --load-format weightmark --model-loader-extra-config \\
        '{"path": "out/", "identity": "serving.key", "policy": "release.pem.pub", "context": "acme/llama-1b@3"}'

vLLM reads ``config.json`` and the tokenizer long before any weights, and as plain files. They lie in the directory that
is served, and must be, byte for byte, those in the protected model at ``path``, or nothing is loaded. Without ``path``,
the directory served is the model: signed, but not encrypted. Or leave everything encrypted, and serve it from sealed
memory without a load format: ``weightmark exec out/ -i serving.key -- vllm serve {}``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import weightmark

from ._errors import Misuse, Refused
from ._opening import split

if TYPE_CHECKING:
    import torch

FORMAT = "weightmark"


@cache
def register() -> None:
    """Makes the format known; vLLM calls this in each of its processes."""
    from vllm.model_executor.model_loader import DefaultModelLoader, register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    class WeightmarkModelLoader(BaseModelLoader):  # type: ignore[misc]
        """Decrypts and verifies each tensor when the model takes it."""

        def __init__(self, load_config: Any) -> None:
            super().__init__(load_config)
            self.opening, rest = split(load_config.model_loader_extra_config or {})
            self.path = rest.pop("path", None)
            if rest:
                raise Misuse(f"load format {FORMAT} has no option {', '.join(sorted(rest))}")

        def download_model(self, model_config: Any) -> None:
            """Nothing is downloaded: only opens it."""
            self._open(model_config).close()

        def load_weights(self, model: Any, model_config: Any) -> None:
            if tuple(getattr(model, "secondary_weights", ())):
                raise Misuse(f"load format {FORMAT} has no second source of weights")
            with self._open(model_config) as protected:
                loaded = model.load_weights(_weights(protected))
            track = getattr(DefaultModelLoader, "track_weights_loading", None)
            if track is not None and loaded is not None and model_config.quantization is None:
                track(self, model, loaded)  # which weights have none

        def _open(self, model_config: Any) -> weightmark.Model:
            if self.path is None:
                return weightmark.open(model_config.model, **self.opening)
            protected = weightmark.open(self.path, **self.opening)
            try:
                _same_beside(protected, model_config.model)
            except BaseException:
                protected.close()
                raise
            return protected

    register_model_loader(FORMAT)(WeightmarkModelLoader)


def _weights(protected: weightmark.Model) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, stored.torch()) for name, stored in protected.items())


def _same_beside(protected: weightmark.Model, served: str) -> None:
    """Refuses a directory whose files are not those of the model."""
    for name in sorted(os.listdir(served)):
        path = os.path.join(served, name)
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as plain:
            if name not in protected.files or plain.read() != protected.read(name):
                raise Refused(f"{path} is not what {protected.name} has", artifact=path)
