"""Exceptions, one class for each kind of failure that the library knows."""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """Any failure of this package.

    Attributes:
        code: The kind: ``"refused"``, ``"misuse"``, ``"input"``, ``"key"``, ``"cancelled"``, or ``"panic"``.
        cause: The cause as a stable word: ``"chunk-tampered"``, ``"no-match"``, ..
        artifact: The file or model that it is about, as it was named, or None.

    >>> try:
    ...     weightmark.open("out/", identity="other.key")
    ... except weightmark.KeyUnavailable as error:
    ...     print(error.cause)
    no-match
    """

    code: ClassVar[str] = "panic"
    cause: str
    artifact: str | None

    def __init__(self, message: str, cause: str = "", artifact: str | None = None, errno: int | None = None) -> None:
        super().__init__(message)
        self.cause = cause or self.code
        self.artifact = artifact

    def __reduce__(self) -> tuple[type[Error], tuple[object, ...]]:
        return type(self), (str(self), self.cause, self.artifact, getattr(self, "errno", None))


class Refused(Error):
    """The answer is no: tampered, badly signed, bound to something else."""

    code = "refused"


class Misuse(Error, ValueError):
    """The call makes no sense, as its documentation says."""

    code = "misuse"


class InputError(Error, OSError):
    """The operating system or the file format says no. ``errno`` is the system's number, or None."""

    code = "input"

    def __init__(self, message: str, cause: str = "", artifact: str | None = None, errno: int | None = None) -> None:
        super().__init__(message, cause, artifact)
        self.errno = errno


class KeyUnavailable(Error):
    """A key is missing, malformed or does not fit."""

    code = "key"


class Cancelled(Error):
    """The progress callable asked to stop. Nothing was left behind."""

    code = "cancelled"


#: By ``Error::code()`` of the library; a panic, which is a defect of it, has none.
_BY_CODE: dict[int, type[Error]] = {1: Refused, 2: Misuse, 3: InputError, 4: KeyUnavailable, 5: Cancelled}


def exception(code: int, message: str, cause: str, artifact: str | None, errno: int | None) -> Error:
    """The exception for a failure of the native half, which calls this."""
    return _BY_CODE.get(code, Error)(message, cause, artifact, errno)
