"""llama.cpp on encrypted and signed GGUF files: decrypted into sealed memory, which has a path. Linux only.

>>> with weightmark.llama.sealed("model.gguf.wmenc", identity="serving.key") as params:
...     params.n_ctx = 4096
...     server = xllamacpp.Server(params)

What was loaded inside of the block works on behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import weightmark

if TYPE_CHECKING:
    import xllamacpp

    from ._arguments import Path


@contextmanager
def sealed(path: Path, **opening: Any) -> Iterator[xllamacpp.CommonParams]:
    """Parameters for ``xllamacpp.Server``, whose model is the decrypted one.

    Args:
        path: An encrypted GGUF file.
        opening: As for :func:`weightmark.seal`.
    """
    import xllamacpp

    with weightmark.seal(path, **opening) as memory:
        params = xllamacpp.CommonParams()
        params.model.path = memory.path
        yield params
