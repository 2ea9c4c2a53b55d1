"""What `weightmark.open` takes, as the adapters pass it on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from ._arguments import Path, Paths
from ._native import Policy
from ._progress import Progress


class Opening(TypedDict, total=False):
    """The options of :func:`weightmark.open`."""

    identity: Paths | None
    passphrase: str | None
    context: str | None
    policy: Policy | Path | None
    expect_encrypted: bool
    accept_closed: bool
    danger_accept_plaintext: bool
    danger_accept_unsigned: bool
    danger_allow_code: str | Iterable[str]
    progress: Progress


def split(options: Mapping[str, Any]) -> tuple[Opening, dict[str, Any]]:
    """Options for :func:`weightmark.open`, and those for whatever an adapter calls after it.

    >>> split({"identity": "a.key", "providers": ["CPUExecutionProvider"]})
    ({'identity': 'a.key'}, {'providers': ['CPUExecutionProvider']})
    """
    opening: Any = {name: value for name, value in options.items() if name in Opening.__annotations__}
    return opening, {name: value for name, value in options.items() if name not in opening}
