"""A row of the ledger."""

from __future__ import annotations

from typing import NamedTuple, Union

READS = "reads"


class Sparse(NamedTuple):
    """A file of `head`, a hole to `size` bytes, and `tail`."""

    head: bytes
    size: int
    tail: bytes = b""


class Link(NamedTuple):
    """A symbolic link."""

    target: str


Content = Union[bytes, Sparse, Link, dict]


class Case(NamedTuple):
    """One file, or a directory as a dictionary of paths.

    `expect` is a word, or words separated by blanks where each of them is an honest answer.  What reads must hold
    exactly the tensors `holds`: by name (in a directory "path:name"), as "TYPE [shape] bytes in hexadecimal", the last
    left out where only the index counts, and `refused` where the elements must not load.  `refused` names the files of
    a directory that are left closed, each with the word for it.  `gate` is the word with which the gate refuses what
    reads; what has none, and no file left closed, passes.
    """

    name: str
    what: str
    expect: str
    content: Content
    holds: dict[str, str] | None = None
    refused: dict[str, str] | None = None
    gate: str | None = None
