"""An MLflow flavour for protected models: what is logged stays encrypted and signed.

>>> weightmark.mlflow.log_model("out/", name="llama")
>>> model = weightmark.mlflow.load_model("models:/llama/3", identity="serving.key", policy="release.pem.pub")

Keys and policies are no part of an artifact, which would then vouch for itself. They are passed to :func:`load_model`,
or in the ``model_config`` of ``mlflow.pyfunc.load_model``, or named by the variables WEIGHTMARK_IDENTITY,
WEIGHTMARK_POLICY and WEIGHTMARK_CONTEXT. As a ``python_function``, an ONNX model predicts; others have no runtime of
their own.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Unpack

import weightmark

from ._errors import Misuse
from ._opening import split

if TYPE_CHECKING:
    from ._arguments import Path
    from ._opening import Opening

FLAVOR_NAME = "weightmark"
_VARIABLES = {"identity": "WEIGHTMARK_IDENTITY", "policy": "WEIGHTMARK_POLICY", "context": "WEIGHTMARK_CONTEXT"}


def save_model(
    model: Path, path: Path, *, mlflow_model: Any = None, signature: Any = None, metadata: dict[str, Any] | None = None
) -> None:
    """Writes a protected model as a model of MLflow.

    Args:
        model: An encrypted directory or file. One in clear is ``Misuse``.
        path: Where to: a new directory.
        mlflow_model: What it is added to.
        signature: Of inputs and outputs, for MLflow.
        metadata: For MLflow, in clear.
    """
    import mlflow.models
    import mlflow.pyfunc

    if not weightmark.inspect(model)["encrypted"]:
        raise Misuse(f"{os.fspath(model)} is not encrypted: see weightmark.protect")
    os.makedirs(path)
    if os.path.isdir(model):
        data = "model"
        shutil.copytree(model, os.path.join(path, data), symlinks=True)
    else:
        data = os.path.basename(model)
        shutil.copyfile(model, os.path.join(path, data))
    described = mlflow_model or mlflow.models.Model()
    described.signature = signature or described.signature
    described.metadata = metadata or described.metadata
    options = dict.fromkeys(_VARIABLES)  # that a caller may give
    mlflow.pyfunc.add_to_model(
        described, loader_module=__name__, data=data, python_env="python_env.yaml", model_config=options
    )
    described.add_flavor(FLAVOR_NAME, data=data, weightmark_version=weightmark.__version__)
    described.save(os.path.join(path, "MLmodel"))
    _write(path, "requirements.txt", f"weightmark=={weightmark.__version__}\nonnxruntime\n")
    _write(path, "python_env.yaml", "dependencies:\n- -r requirements.txt\n")


def log_model(model: Path, name: str, **options: Any) -> Any:
    """Logs a protected model; ``options`` are those of :func:`save_model` and of ``mlflow.models.Model.log``."""
    import mlflow.models

    return mlflow.models.Model.log(artifact_path=None, name=name, flavor=sys.modules[__name__], model=model, **options)


def load_model(model_uri: str, dst_path: str | None = None, **opening: Unpack[Opening]) -> weightmark.Model:
    """Opens a model that was logged or saved; ``opening`` is as for :func:`weightmark.open`."""
    import mlflow.artifacts
    import mlflow.models

    local = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=dst_path)
    flavor = mlflow.models.Model.load(local).flavors.get(FLAVOR_NAME)
    if flavor is None:
        raise Misuse(f"{model_uri} has no flavor {FLAVOR_NAME}")
    return weightmark.open(os.path.join(local, flavor["data"]), **_with_environment(opening))


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> _Session:
    """What ``mlflow.pyfunc.load_model`` calls."""
    return _Session(path, model_config or {})


class _Session:
    """An ONNX model, as MLflow calls it."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        from .onnxruntime import InferenceSession

        opening, rest = split({name: value for name, value in options.items() if value is not None})
        self._session = InferenceSession(path, **_with_environment(opening), **rest)

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Outputs by name, of inputs by name (a dict or a DataFrame), or of the only input."""
        inputs = [one.name for one in self._session.get_inputs()]
        if hasattr(data, "to_numpy"):
            data = {name: data[name].to_numpy() for name in inputs}
        elif not isinstance(data, dict):
            data = {inputs[0]: data}
        names = [one.name for one in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, data), strict=True))


def _with_environment(opening: Opening) -> Opening:
    found: Any = {option: os.environ[name] for option, name in _VARIABLES.items() if name in os.environ}
    return {**found, **opening}


def _write(folder: Path, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)
