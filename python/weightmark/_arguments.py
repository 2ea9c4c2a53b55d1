"""What users may give, brought into the one form that the native half takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

from ._native import Policy

Path: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = Path | Iterable[Path]

#: Identity files, passphrase, context, and whether files may stay closed.
Opening: TypeAlias = tuple[list[Path], str | None, str | None, bool]


def several(paths: Paths | None) -> list[Path]:
    """One path or several, as a list.

    >>> several("a.key")
    ['a.key']
    """
    if paths is None:
        return []
    if isinstance(paths, (str, bytes, os.PathLike)):
        return [paths]
    return list(paths)


def texts(words: str | Iterable[str]) -> list[str]:
    """One text or several, as a list.

    >>> texts(("a", "b"))
    ['a', 'b']
    """
    return [words] if isinstance(words, str) else list(words)


def opening(
    identity: Paths | None = None,
    passphrase: str | None = None,
    context: str | None = None,
    accept_closed: bool = False,
) -> Opening:
    """What opens a model, as the native half takes it.

    >>> opening("a.key")
    (['a.key'], None, None, False)
    """
    return several(identity), passphrase, context, accept_closed


def policy_of(policy: Policy | Path | None) -> Policy | None:
    """A policy, or the one that a file holds: the PEM of a public key, or a policy in TOML.

    >>> policy_of("release.pem.pub")
    <weightmark.Policy object at 0x7f..>
    """
    return policy if policy is None or isinstance(policy, Policy) else Policy.from_file(policy)
