"""Models as programs load them: decrypted, verified, tensor by tensor."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from . import _native
from ._arguments import Path, Paths, opening, policy_of, texts
from ._errors import Misuse
from ._progress import Progress, watcher
from ._tensor import Tensor, as_array, as_torch, numpy_dtype, torch_dtype

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

#: Read ahead in files of a model: many chunks of an encrypted one.
_READ_AHEAD = 256 << 10


def open(
    path: Path,
    *,
    identity: Paths | None = None,
    passphrase: str | None = None,
    context: str | None = None,
    policy: _native.Policy | Path | None = None,
    expect_encrypted: bool = False,
    accept_closed: bool = False,
    danger_accept_plaintext: bool = False,
    danger_accept_unsigned: bool = False,
    danger_allow_code: str | Iterable[str] = (),
    progress: Progress = None,
) -> Model:
    """Opens a model: a directory or a file, plain or encrypted.

    Args:
        path: The model.
        identity: The file of an identity or of a symmetric key, or several: whoever has one expects an encrypted model.
        passphrase: What it was encrypted to, if not to a key.
        context: What it must be bound to, such as ``"acme/llama-1b@3"``.
        policy: Who must have signed it: a :class:`Policy`, or the path of a public key (PEM) or of a policy (TOML). A
            model that is signed needs one.
        expect_encrypted: Refuses a plain model, even without an identity.
        accept_closed: Opens a model some of whose files are encrypted for others.
        danger_accept_plaintext: Opens a plain model even though an identity is given.
        danger_accept_unsigned: Does not look at signatures.
        danger_allow_code: Files that may hold code. Nothing here runs it; other loaders may.
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    >>> with weightmark.open("out/", identity="serving.key", policy="release.pem.pub") as model:
    ...     q = model["layers.0.q_proj.weight"].numpy()
    """
    allows = (expect_encrypted, danger_accept_plaintext, danger_accept_unsigned)
    keys = opening(identity, passphrase, context, accept_closed)
    code = texts(danger_allow_code)
    return Model(_native.open(path, keys, policy_of(policy), allows, code, watcher(progress)))


class Model(Mapping[str, Tensor]):
    """An open model: its tensors by name, and its files. Made by :func:`open`.

    Threads may share it. Processes that are forked off may read it, and open others.

    >>> model = weightmark.open("model.safetensors")
    >>> len(model), "norm.weight" in model
    (272, True)
    """

    def __init__(self, native: _native.Model) -> None:
        self._native = native
        self._known: dict[str, Tensor] | None = None

    @property
    def _tensors(self) -> dict[str, Tensor]:
        if self._known is None:
            self._known = {found[0]: Tensor(self._native, *found) for found in self._native.tensors()}
        elif self._native.is_closed():
            raise Misuse("the model is closed")
        return self._known

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of this name, of which nothing is read yet. ``KeyError`` if there is none."""
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        if self._native.is_closed():
            return "<weightmark.Model, closed>"
        return f"<weightmark.Model {self.name!r}, {len(self)} tensors>"

    def __enter__(self) -> Model:
        self._native.name()  # unless it is closed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files and keys. Everything but this raises ``Misuse`` from then on; arrays stay good.

        >>> model.close()
        """
        self._native.close()

    def load(
        self, names: Iterable[str] | None = None, *, framework: Literal["numpy", "np", "torch", "pt"] = "numpy"
    ) -> dict[str, Any]:
        """Reads all tensors, or those of these names, in parallel: arrays of numpy or tensors of torch by name.

        >>> model.load(["norm.weight"])["norm.weight"].shape
        (576,)
        """
        tensors = self._tensors
        wanted = list(tensors.values()) if names is None else [tensors[name] for name in names]
        if framework in ("numpy", "np"):
            dtypes = {name: numpy_dtype(name) for name in {tensor.dtype for tensor in wanted}}
            buffers = self._native.load([tensor.name for tensor in wanted])
            return {t.name: as_array(b, dtypes[t.dtype], t.shape) for t, b in zip(wanted, buffers, strict=True)}
        if framework in ("torch", "pt"):
            kinds = {name: torch_dtype(name) for name in {tensor.dtype for tensor in wanted}}
            buffers = self._native.load([tensor.name for tensor in wanted])
            return {t.name: as_torch(b, kinds[t.dtype], t.shape) for t, b in zip(wanted, buffers, strict=True)}
        raise Misuse(f"no framework {framework!r}: \"numpy\" or \"torch\"")

    @property
    def name(self) -> str:
        """What messages call the model: the path that it was opened by."""
        return self._native.name()

    @property
    def files(self) -> list[str]:
        """The paths of its files, tensors or not, decrypted if they were encrypted, in order.

        >>> model.files
        ['config.json', 'model.safetensors', 'tokenizer.json']
        """
        return [path for path, _ in self._native.files()]

    @property
    def closed_files(self) -> list[str]:
        """The paths of those that are encrypted for others."""
        return self._native.closed_files()

    def read(self, path: str) -> bytes:
        """All bytes of a file of the model.

        >>> json.loads(model.read("config.json"))["model_type"]
        'llama'
        """
        return self._native.read_file(path)

    def open_file(self, path: str) -> io.BufferedReader:
        """A file of the model to be read piece by piece, anywhere.

        >>> with model.open_file("tokenizer.json") as file:
        ...     head = file.read(16)
        """
        sizes = dict(self._native.files())
        if path not in sizes:
            self._native.read_file(path)  # says so
        return io.BufferedReader(_File(self._native, path, sizes[path]), _READ_AHEAD)

    @property
    def verified(self) -> dict[str, Any] | None:
        """What was verified, if a policy was given: signers, name, digest, files, release.

        >>> model.verified["signer"]["key"]
        '5d0b..'
        """
        import json

        text = self._native.verified()
        return None if text is None else dict(json.loads(text))

    @property
    def code(self) -> list[str]:
        """Files that hold code, or what is not provably plain data, and that ``danger_allow_code`` let through."""
        return self._native.code()

    @property
    def metadata(self) -> dict[str, str]:
        """The free-form metadata of its safetensors and GGUF files; of several files that have a key, the first's.

        >>> gguf.metadata["general.architecture"]
        'llama'
        """
        return self._native.metadata()


class _File(io.RawIOBase):
    """A file of a model as Python reads files."""

    def __init__(self, model: _native.Model, path: str, size: int) -> None:
        self._model, self.name, self._size, self._at = model, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        count = self._model.read_file_at(self.name, self._at, buffer)
        self._at += count
        return count

    def readall(self) -> bytes:
        rest = bytearray(max(0, self._size - self._at))
        self.readinto(rest)
        return bytes(rest)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}.get(whence)
        if start is None or start + offset < 0:
            raise ValueError("no such place in a file")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at
