"""A contract, not vLLM: what version 0.33 of vLLM has where `weightmark.vllm` meets it, for machines without it.

Names, signatures and order of calls are those of `vllm/model_executor/model_loader/{__init__,base_loader,default_loader}.py`
and `vllm/config/load.py`. It proves nothing about vLLM itself: where that can be imported, tests take it instead.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytest


@dataclasses.dataclass
class LoadConfig:
    load_format: str = "auto"
    model_loader_extra_config: dict[str, Any] = dataclasses.field(default_factory=dict)


class BaseModelLoader(ABC):
    def __init__(self, load_config: LoadConfig) -> None:
        self.load_config = load_config

    @abstractmethod
    def download_model(self, model_config: Any) -> None: ...

    @abstractmethod
    def load_weights(self, model: Any, model_config: Any) -> None: ...


class DefaultModelLoader(BaseModelLoader):
    def download_model(self, model_config: Any) -> None: ...

    def load_weights(self, model: Any, model_config: Any) -> None: ...

    def track_weights_loading(self, model: Any, loaded_weights: set[str] | None, quantized: bool = False) -> None:
        missing = {name for name, _ in model.named_parameters()} - (loaded_weights or set())
        if missing:
            raise ValueError(f"Following weights were not initialized from checkpoint: {missing}")


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the contract where `import vllm` finds it, for one test."""
    loaders: dict[str, type[BaseModelLoader]] = {}

    def register_model_loader(load_format: str) -> Callable[[type[BaseModelLoader]], type[BaseModelLoader]]:
        def register(loader: type[BaseModelLoader]) -> type[BaseModelLoader]:
            if not issubclass(loader, BaseModelLoader):
                raise ValueError("The model loader must be a subclass of `BaseModelLoader`.")
            assert load_format not in loaders, "registered twice"
            loaders[load_format] = loader
            return loader

        return register

    def get_model_loader(load_config: LoadConfig) -> BaseModelLoader:
        return loaders[load_config.load_format](load_config)

    loading: list[Any] = [register_model_loader, get_model_loader, DefaultModelLoader]
    modules: dict[str, list[Any]] = {
        "vllm": [],
        "vllm.config": [],
        "vllm.config.load": [LoadConfig],
        "vllm.model_executor": [],
        "vllm.model_executor.model_loader": loading,
        "vllm.model_executor.model_loader.base_loader": [BaseModelLoader],
    }
    for name, contents in modules.items():
        module = types.ModuleType(name)
        for value in contents:
            setattr(module, value.__name__, value)
        monkeypatch.setitem(sys.modules, name, module)
