"""Snapshots of the Hugging Face Hub, verified before anything reads them.

>>> from weightmark.huggingface import from_hub, snapshot_download
>>> path = snapshot_download("acme/llama-1b", policy="release.pem.pub")
>>> model = from_hub("acme/llama-1b", policy="release.pem.pub", identity="serving.key")

Files go to a directory of their own and not to the hub's cache, which consists of links. What does not verify is never
returned; it stays where it is, for whoever wants to look.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import weightmark

from ._arguments import policy_of
from ._opening import split

if TYPE_CHECKING:
    from ._arguments import Path

#: The books that the hub's client keeps in each directory it downloads to.
_BOOKS = ".cache/huggingface"


def snapshot_download(repo_id: str, *, policy: weightmark.Policy | Path, **options: Any) -> str:
    """In the place of ``huggingface_hub.snapshot_download``: a directory that is exactly what was signed.

    Args:
        repo_id: As for the hub's client.
        policy: As for :func:`weightmark.verify`.
        options: As for :func:`weightmark.verify`; the rest as for the hub's client. Without a ``local_dir``, files go
            to ``weightmark/`` in HF_HOME.
    """
    opening, rest = split(options)
    path = _download(repo_id, rest)
    weightmark.verify(path, _tolerant(policy), **dict[str, Any](opening))
    return path


def from_hub(repo_id: str, *, policy: weightmark.Policy | Path, **options: Any) -> weightmark.Model:
    """Downloads a model and opens it, with what is read verified where it is read."""
    opening, rest = split(options)
    opening["policy"] = _tolerant(policy)
    return weightmark.open(_download(repo_id, rest), **opening)


def _download(repo_id: str, options: dict[str, Any]) -> str:
    import huggingface_hub

    if options.get("local_dir") is None:
        folder = "@".join([repo_id.replace("/", "--"), (options.get("revision") or "main").replace("/", "--")])
        options["local_dir"] = os.path.join(huggingface_hub.constants.HF_HOME, "weightmark", folder)
    path: str = huggingface_hub.snapshot_download(repo_id, **options)
    return os.path.abspath(path)


def _tolerant(policy: weightmark.Policy | Path) -> weightmark.Policy:
    return cast("weightmark.Policy", policy_of(policy)).danger_ignore_path(_BOOKS)
