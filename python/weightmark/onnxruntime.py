"""Sessions of ONNX Runtime from encrypted and signed models: decrypted in memory, external data too.

>>> from weightmark.onnxruntime import InferenceSession
>>> session = InferenceSession("model.onnx.wmenc", identity="serving.key")
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import weightmark

from ._errors import Misuse
from ._opening import split

if TYPE_CHECKING:
    import onnxruntime

    from ._arguments import Path


def InferenceSession(
    path: Path, sess_options: Any = None, *arguments: Any, file: str | None = None, **options: Any
) -> onnxruntime.InferenceSession:
    """In the place of ``onnxruntime.InferenceSession``.

    Args:
        path: An ONNX file, or a directory with one.
        sess_options: As for ONNX Runtime, as are further arguments. Not to be used for another session: external data
            are part of it.
        file: Which, of the ONNX files in a directory.
        options: As for :func:`weightmark.open`; the rest as for ONNX Runtime.
    """
    import onnxruntime

    opening, rest = split(options)
    with weightmark.open(path, **opening) as model:
        graph = file or _graph(model)
        data = _external(model, graph)
        if data:
            sess_options = sess_options or onnxruntime.SessionOptions()
            sess_options.add_external_initializers_from_files_in_memory(
                list(data), list(data.values()), [len(part) for part in data.values()]
            )
        return onnxruntime.InferenceSession(model.read(graph), sess_options, *arguments, **rest)


def _graph(model: weightmark.Model) -> str:
    """The one ONNX file of a model."""
    files = model.files
    found = files if len(files) == 1 else [path for path in files if path.endswith(".onnx")]
    if len(found) != 1:
        raise Misuse(f"{model.name} has {len(found)} ONNX files: say which by file")
    return found[0]


def _external(model: weightmark.Model, graph: str) -> dict[str, bytes]:
    """The files that a graph keeps its weights in, by its own names for them."""
    folder = PurePosixPath(graph).parent
    paths = (PurePosixPath(path) for path in sorted({tensor.file for tensor in model.values()}))
    inside = (path for path in paths if path.suffix != ".onnx" and path.is_relative_to(folder))
    return {str(path.relative_to(folder)): model.read(str(path)) for path in inside if str(path) != graph}
