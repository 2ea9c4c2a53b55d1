"""The native half. What users call is in the other modules, which say what everything means."""

import os
from collections.abc import Callable
from typing import Any, TypeAlias, final

from numpy.typing import NDArray
from typing_extensions import Buffer as _Buffer

_Path: TypeAlias = str | os.PathLike[str]
_Target: TypeAlias = _Buffer | NDArray[Any]
_Watcher: TypeAlias = Callable[[str, int, int], object] | None
_Opening: TypeAlias = tuple[list[_Path], str | None, str | None, bool]

__all__ = [
    "Buffer", "Model", "Policy", "Sealed", "__version__", "decrypt", "detect", "embed", "encrypt", "inspect", "keygen",
    "lineage", "open", "protect", "rewrap", "seal", "sign", "verify",
]  # fmt: skip

__version__: str

@final
class Buffer:
    """Bytes that were read: writable, and nobody else's."""

    def __len__(self, /) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Model:
    def close(self, /) -> None: ...
    def is_closed(self, /) -> bool: ...
    def name(self, /) -> str: ...
    def tensors(self, /) -> list[tuple[str, str, list[int], int, str]]: ...
    def read(self, /, name: str) -> Buffer: ...
    def rows(self, /, name: str, start: int, end: int) -> Buffer: ...
    def float32(self, /, name: str) -> Buffer: ...
    def read_into(self, /, name: str, buffer: _Target) -> None: ...
    def load(self, /, names: list[str]) -> list[Buffer]: ...
    def files(self, /) -> list[tuple[str, int]]: ...
    def closed_files(self, /) -> list[str]: ...
    def read_file(self, /, path: str) -> bytes: ...
    def read_file_at(self, /, path: str, offset: int, buffer: _Target) -> int: ...
    def verified(self, /) -> str | None: ...
    def code(self, /) -> list[str]: ...
    def metadata(self, /) -> dict[str, str]: ...

@final
class Sealed:
    def close(self, /) -> None: ...
    def path(self, /) -> str: ...
    def code(self, /) -> list[str]: ...
    def verified(self, /) -> str | None: ...

@final
class Policy:
    """What a model must satisfy to be verified. Unchanging: each method returns another policy.

    >>> Policy.require("release.pem.pub").expect_name("acme/llama-1b").high_water("seen.json")
    """

    @staticmethod
    def require(*public_keys: _Path) -> Policy:
        """Requires a signature by one of these keys: paths of PEM files."""

    @staticmethod
    def load(path: _Path) -> Policy:
        """Reads a policy in TOML, with the keys and certificates that it names."""

    @staticmethod
    def from_certificates(chain: _Path | list[_Path], *, identity: str | list[str] | None = None) -> Policy:
        """Requires a signature by a certificate that one of these authorities issued: PEM files. ``identity``: to whom."""

    @staticmethod
    def from_file(path: _Path) -> Policy:
        """Reads a public key (PEM) or a policy (TOML), whichever the file holds."""

    def expect_name(self, /, name: str) -> Policy:
        """Requires that the model was signed, or released, under this name."""

    def minimum_version(self, /, version: int) -> Policy:
        """Requires a release of this version or a later one."""

    def high_water(self, /, path: _Path) -> Policy:
        """Keeps the highest version of each model in a file, and refuses a lower one."""

    def revoke(self, /, key_id: str) -> Policy:
        """Takes no signature by the key of this id: 64 hexadecimal digits."""

    def danger_ignore_path(self, /, path: str) -> Policy:
        """Leaves out a path of the model, and all beneath it, even though it was not signed."""

    def danger_ignore_unsigned_files(self, /) -> Policy:
        """Tolerates files that were not signed. Whatever loads them loads what nobody vouched for."""

def open(
    path: _Path,
    opening: _Opening,
    policy: Policy | None,
    allows: tuple[bool, bool, bool],
    allow_code: list[str],
    progress: _Watcher,
) -> Model: ...
def seal(
    path: _Path,
    opening: _Opening,
    policy: Policy | None,
    accept_unsigned: bool,
    allow_code: list[str],
    progress: _Watcher,
) -> Sealed: ...
def keygen(kind: str, path: _Path, name: str | None, algorithm: str | None, x25519: bool) -> str: ...
def encrypt(
    source: _Path,
    output: _Path,
    to: list[_Path],
    passphrase: str | None,
    groups: list[tuple[str, list[_Path]]],
    context: str,
    public_index: bool,
    progress: _Watcher,
) -> str: ...
def decrypt(source: _Path, output: _Path, opening: _Opening, progress: _Watcher) -> list[str]: ...
def inspect(path: _Path) -> str: ...
def rewrap(
    path: _Path,
    opening: _Opening,
    add: list[_Path],
    only: list[_Path],
    remove: list[str],
    group: str,
    progress: _Watcher,
) -> str: ...
def sign(
    model: _Path,
    key: _Path,
    passphrase: str | None,
    hash: str,
    outboard: bool,
    signature: _Path | None,
    ignore: list[str],
    allow_code: list[str],
    release: str | None,
    expires: str | None,
    progress: _Watcher,
) -> str: ...
def verify(
    model: _Path,
    policy: Policy,
    places: list[_Path],
    opening: _Opening,
    progress: _Watcher,
) -> str: ...
def embed(
    original: _Path,
    output: _Path,
    owner_key: _Path,
    copy: str | None,
    payload: int | None,
    strength: float | None,
    beacon: str,
    progress: _Watcher,
) -> str: ...
def detect(
    suspect: _Path,
    opening: _Opening,
    original: _Path,
    owner_key: _Path,
    copies: list[str],
    strength: float | None,
    beacon: str,
    partner: _Path | None,
    exhaustive: bool,
    progress: _Watcher,
) -> str: ...
def lineage(first: _Path, second: _Path, opening: _Opening, progress: _Watcher) -> str: ...
def protect(
    model: _Path,
    output: _Path,
    owner_key: _Path,
    key: tuple[_Path, str | None],
    to: list[_Path],
    copy: str | None,
    context: str,
    strength: float | None,
    beacon: str,
    progress: _Watcher,
) -> str: ...
