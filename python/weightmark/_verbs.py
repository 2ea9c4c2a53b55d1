"""The verbs of the command line, with its names and its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from . import _native
from ._arguments import Path, Paths, opening, policy_of, several, texts
from ._errors import Misuse
from ._progress import Progress, watcher

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from ._native import Policy
    from ._results import Embedded, Evidence, Inspection, Lineage, Protected, Signed, Verified


def keygen(
    kind: Literal["identity", "signing", "owner", "symmetric"],
    path: Path,
    *,
    name: str | None = None,
    algorithm: Literal["p256", "p384", "p521", "ed25519"] | None = None,
    x25519: bool = False,
) -> str:
    """Makes a key: the secret at ``path``, for its owner's eyes only, and the public half at ``path`` + ``.pub``.

    Args:
        kind: What for: ``"identity"`` to decrypt, ``"signing"``, ``"owner"`` to mark, or ``"symmetric"`` to do both
            halves of encryption.
        path: Where to: a new file.
        name: Whose, of an owner key.
        algorithm: Of a signing key; P-256 unless said otherwise.
        x25519: Makes an identity with a short recipient, not safe from quantum computers.

    Returns:
        The public text; of a symmetric key, which has none, its id.

    >>> weightmark.keygen("identity", "serving.key")
    'wmrecipient1q..'
    """
    return _native.keygen(kind, path, name, algorithm, x25519)


def encrypt(
    source: Path,
    output: Path,
    *,
    recipients: Paths = (),
    passphrase: str | None = None,
    groups: Mapping[str, Paths] | None = None,
    context: str = "",
    public_index: bool = False,
    progress: Progress = None,
) -> Inspection:
    """Encrypts a file to a new file, or a directory to a new directory.

    Args:
        source: The model.
        output: Where to. Appears whole or not at all.
        recipients: Who may open it: texts of recipients, or files that hold them or a symmetric key.
        passphrase: A passphrase instead of recipients.
        groups: Directories or files of the model that are for others: path to recipients.
        context: What to bind it to, such as ``"acme/llama-1b@3"``.
        public_index: Lists names, types and shapes of tensors in clear.
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    >>> weightmark.encrypt("model/", "out/", recipients="serving.key.pub").groups[0].recipients
    (('x-wing', '6b1f..'),)
    """
    by_path = [(path, several(to)) for path, to in (groups or {}).items()]
    text = _native.encrypt(
        source, output, several(recipients), passphrase, by_path, context, public_index, watcher(progress)
    )
    from ._results import Inspection

    return Inspection.parse(text)


def decrypt(
    source: Path,
    output: Path,
    *,
    identity: Paths | None = None,
    passphrase: str | None = None,
    context: str | None = None,
    accept_closed: bool = False,
    progress: Progress = None,
) -> list[str]:
    """Decrypts a model to a new file or directory. To load one, :func:`open` it instead.

    Returns:
        The files that were left out, encrypted for others; none without ``accept_closed``.

    >>> weightmark.decrypt("out/", "plain/", identity="serving.key")
    []
    """
    keys = opening(identity, passphrase, context, accept_closed)
    return _native.decrypt(source, output, keys, watcher(progress))


def inspect(path: Path) -> dict[str, Any]:
    """What a file or directory is, without any key, and without running any of it. Nothing of it is authenticated.

    Returns:
        ``{"encrypted": True, "envelope": ..}`` or ``{"encrypted": False, "files": .., "signatures": ..}``.

    >>> weightmark.inspect("model.gguf")["files"][0]["format"]
    'gguf'
    """
    import json

    return dict(json.loads(_native.inspect(path)))


def rewrap(
    path: Path,
    *,
    identity: Paths | None = None,
    passphrase: str | None = None,
    add: Paths = (),
    only: Paths = (),
    remove: str | Iterable[str] = (),
    context: str | None = None,
    group: str = "",
    progress: Progress = None,
) -> Inspection:
    """Changes who may open an encrypted model, in place and without its payload.

    Whoever could open it before may have kept its key.

    Args:
        path: The encrypted file or directory.
        identity: What opens it now.
        passphrase: Likewise.
        add: Recipients to add.
        only: The recipients that are left, with those to add.
        remove: Ids of recipients to take away.
        context: What it must be bound to.
        group: The group of files to change; the one without a path unless said otherwise.
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    >>> weightmark.rewrap("out/", identity="serving.key", add="second.key.pub").groups[0].recipients
    (('x-wing', '6b1f..'), ('x-wing', '90aa..'))
    """
    keys = opening(identity, passphrase, context)
    text = _native.rewrap(path, keys, several(add), several(only), texts(remove), group, watcher(progress))
    from ._results import Inspection

    return Inspection.parse(text)


def sign(
    model: Path,
    *,
    key: Path,
    passphrase: str | None = None,
    hash: Literal["sha256", "blake2b", "blake3"] = "sha256",
    outboard: bool = False,
    signature: Path | None = None,
    ignore: str | Iterable[str] = (),
    danger_allow_code: str | Iterable[str] = (),
    release: str | None = None,
    expires: str | datetime | timedelta | None = None,
    progress: Progress = None,
) -> Signed:
    """Signs every file of a model, as OpenSSF Model Signing has it, and says what is released.

    Args:
        model: The file or directory, not encrypted.
        key: The signing key, in PEM.
        passphrase: That of the key, if it is encrypted.
        hash: How files are hashed.
        outboard: Writes digests of ranges too, so that a loader verifies just what it reads; hashes by BLAKE3.
        signature: Where to write it, if not to ``model.sig`` in a directory or beside a file.
        ignore: Paths of the model to leave out.
        danger_allow_code: Files that may hold code.
        release: ``"name@version"``, the version a number, for a second statement beside the signature.
        expires: When the release does: RFC 3339 or a time with a zone, or how long from now (``"90days"``).
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    >>> weightmark.sign("model/", key="release.pem", release="acme/llama-1b@3").signature
    'model/model.sig'
    """
    code = texts(danger_allow_code)
    text = _native.sign(
        model, key, passphrase, hash, outboard, signature, texts(ignore), code, release, _time(expires), watcher(progress)
    )
    from ._results import Signed

    return Signed.parse(text)


def _time(expires: str | datetime | timedelta | None) -> str | None:
    """A time as statements have it: RFC 3339, in UTC and whole seconds."""
    if expires is None or isinstance(expires, str):
        return expires
    from datetime import datetime, timedelta, timezone

    moment = datetime.now(timezone.utc) + expires if isinstance(expires, timedelta) else expires
    if moment.tzinfo is None:
        raise Misuse("expires has no time zone")
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def verify(
    model: Path,
    policy: Policy | Path,
    *,
    signature: Paths | None = None,
    identity: Paths | None = None,
    passphrase: str | None = None,
    context: str | None = None,
    accept_closed: bool = False,
    progress: Progress = None,
) -> Verified:
    """Verifies that a model, encrypted or not, is exactly what was signed. Raises :class:`Refused` if it is not.

    To load it, :func:`open` it with the policy instead: that holds the very bytes which are loaded to it.

    Args:
        model: The file or directory.
        policy: Who must have signed it: a :class:`Policy`, or the path of a public key (PEM) or of a policy (TOML).
        signature: The signature files, if they are not in their usual places.
        identity: What opens it, if it is encrypted.
        passphrase: Likewise.
        context: What it must be bound to.
        accept_closed: Whether files may be encrypted for others.
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    >>> weightmark.verify("model/", "release.pem.pub").name
    'acme/llama-1b'
    """
    found = policy_of(policy)
    if found is None:
        raise TypeError("verify() takes a policy")
    keys = opening(identity, passphrase, context, accept_closed)
    from ._results import Verified

    return Verified.parse(_native.verify(model, found, several(signature), keys, watcher(progress)))


def embed(
    original: Path,
    output: Path,
    *,
    owner_key: Path,
    copy: str | None = None,
    payload: int | None = None,
    strength: float | None = None,
    beacon: str = "",
    progress: Progress = None,
) -> Embedded:
    """Marks the weights of a model, at about 0.2 % of their size.

    Args:
        original: The file or directory. Keep it: detection compares with it.
        output: The marked one, new.
        owner_key: The owner's key.
        copy: The label of this copy, such as a licensee's number.
        payload: 64 bits to carry instead of a label.
        strength: The relative distortion to aim at.
        beacon: A public random value to bind the mark to.
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    >>> weightmark.embed("model.safetensors", "0017.safetensors", owner_key="owner.key", copy="licensee-0017").tensors
    210
    """
    text = _native.embed(original, output, owner_key, copy, payload, strength, beacon, watcher(progress))
    from ._results import Embedded

    return Embedded.parse(text)


def detect(
    suspect: Path,
    *,
    original: Path,
    owner_key: Path,
    copies: str | Iterable[str] = (),
    strength: float | None = None,
    beacon: str = "",
    partner: Path | None = None,
    exhaustive: bool = False,
    identity: Paths | None = None,
    passphrase: str | None = None,
    context: str | None = None,
    progress: Progress = None,
) -> Evidence:
    """Looks for the owner's mark in a suspect, and for whose copy it is.

    A suspect none of whose weights could be read is an ``InputError``: that is no answer.

    Args:
        suspect: The file or directory, in whatever format, encrypted or not.
        original: The unmarked model.
        owner_key: The owner's key.
        copies: Labels of all copies there are.
        strength: The relative distortion that was aimed at, if it was said.
        beacon: The value that the mark is bound to.
        partner: A model that the suspect may have been merged with.
        exhaustive: Tries every method, even where the first settles it.
        identity: What opens the suspect, if it is encrypted.
        passphrase: Likewise.
        context: What it must be bound to.
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    >>> found = weightmark.detect("leak.gguf", original="model/", owner_key="owner.key", copies=["licensee-0017"])
    >>> found.detected, found.copy.label
    (True, 'licensee-0017')
    """
    keys = opening(identity, passphrase, context)
    labels = texts(copies)
    text = _native.detect(
        suspect, keys, original, owner_key, labels, strength, beacon, partner, exhaustive, watcher(progress)
    )
    from ._results import Evidence

    return Evidence.parse(text)


def lineage(
    first: Path,
    second: Path,
    *,
    identity: Paths | None = None,
    passphrase: str | None = None,
    context: str | None = None,
    progress: Progress = None,
) -> Lineage:
    """Whether two models, encrypted or not, have a common origin: by the weights alone, without any mark.

    >>> weightmark.lineage("base/", "finetune/").related
    True
    """
    text = _native.lineage(first, second, opening(identity, passphrase, context), watcher(progress))
    from ._results import Lineage

    return Lineage.parse(text)


def protect(
    model: Path,
    output: Path,
    *,
    owner_key: Path,
    signing_key: Path,
    recipients: Paths,
    passphrase: str | None = None,
    copy: str | None = None,
    context: str = "",
    strength: float | None = None,
    beacon: str = "",
    progress: Progress = None,
) -> Protected:
    """The main job: marks a copy, signs it, encrypts it to its recipient.

    Args:
        model: The file or directory.
        output: The encrypted directory, new.
        owner_key: The owner's key.
        signing_key: The signing key, in PEM.
        recipients: Who may open it: texts of recipients, or files.
        passphrase: That of the signing key, if it is encrypted.
        copy: The label of this copy.
        context: What to bind the encryption to, such as ``"acme/llama-1b@3"``.
        strength: The relative distortion to aim at.
        beacon: A public random value to bind the mark to.
        progress: A callable ``(task, done, total)`` in bytes, or a tqdm bar.

    Returns:
        The record to keep of the copy.

    >>> record = weightmark.protect("model/", "out/", owner_key="owner.key", signing_key="release.pem",
    ...                             recipients="licensee.key.pub", copy="licensee-0017")
    """
    key, to = (signing_key, passphrase), several(recipients)
    text = _native.protect(
        model, output, owner_key, key, to, copy, context, strength, beacon, watcher(progress)
    )
    from ._results import Protected

    return Protected.parse(text)
