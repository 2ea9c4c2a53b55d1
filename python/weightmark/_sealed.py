"""Decrypted models for programs that want a path: in sealed memory, never on a disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import _native
from ._arguments import Path, Paths, opening, policy_of, texts
from ._progress import Progress, watcher

if TYPE_CHECKING:
    from types import TracebackType


def seal(
    path: Path,
    *,
    identity: Paths | None = None,
    passphrase: str | None = None,
    context: str | None = None,
    policy: _native.Policy | Path | None = None,
    danger_accept_unsigned: bool = False,
    danger_allow_code: str | Iterable[str] = (),
    progress: Progress = None,
) -> Sealed:
    """Decrypts an encrypted lone file into memory that nobody can change any more, and verifies it there. Linux only.

    For runtimes that want a path. Arguments are those of :func:`open`. Of directories, see ``weightmark exec``.

    >>> with weightmark.seal("model.gguf.wmenc", identity="serving.key") as sealed:
    ...     llama = runtime.load(sealed.path)
    """
    keys = opening(identity, passphrase, context)
    code = texts(danger_allow_code)
    return Sealed(_native.seal(path, keys, policy_of(policy), danger_accept_unsigned, code, watcher(progress)))


class Sealed:
    """A model in sealed memory until it is closed, or let go of. Made by :func:`seal`.

    >>> sealed.path
    '/proc/4711/fd/5'
    """

    def __init__(self, native: _native.Sealed) -> None:
        self._native = native

    @property
    def path(self) -> str:
        """Where it is: a path that this process, and those it starts, can open and map."""
        return self._native.path()

    @property
    def verified(self) -> dict[str, Any] | None:
        """What was verified, if a policy was given."""
        import json

        text = self._native.verified()
        return None if text is None else dict(json.loads(text))

    @property
    def code(self) -> list[str]:
        """Files that hold code and that ``danger_allow_code`` let through."""
        return self._native.code()

    def close(self) -> None:
        """Lets go of it. Whoever has opened or mapped the path still has it.

        >>> sealed.close()
        """
        self._native.close()

    def __enter__(self) -> Sealed:
        self._native.path()  # unless it is closed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
