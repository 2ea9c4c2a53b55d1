"""What the verbs return: the JSON objects of the command line, as dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

R = TypeVar("R", bound="Result")


@dataclass(frozen=True)
class Result:
    """What a verb returns. ``raw`` is the JSON object itself, later fields included.

    >>> weightmark.inspect("model.gguf")["encrypted"]
    False
    """

    raw: dict[str, Any] = field(repr=False, compare=False, kw_only=True)

    #: Fields that are objects, or lists of them.
    _parts: ClassVar[Mapping[str, type[Result]]] = {}

    @classmethod
    def parse(cls: type[R], text: str) -> R:
        """The result that a JSON text holds."""
        return cls._of(json.loads(text))

    @classmethod
    def _of(cls: type[R], raw: dict[str, Any]) -> R:
        names = [f.name for f in fields(cls) if f.name != "raw"]
        return cls(raw=raw, **{name: _value(raw[name], cls._parts.get(name)) for name in names})


def _value(raw: Any, part: type[Result] | None) -> Any:
    if isinstance(raw, list):
        return tuple(_value(item, part) for item in raw)
    return part._of(raw) if part is not None and isinstance(raw, dict) else raw


@dataclass(frozen=True)
class Group(Result):
    """Files under one key of an encrypted artifact.

    Attributes:
        path: The directory or file that is the group; empty for all that is in no other.
        files: Paths of the plaintext files with their sizes in bytes.
        recipients: Type and id of each recipient.
    """

    path: str
    files: tuple[tuple[str, int], ...]
    recipients: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PublicTensor(Result):
    """A tensor that the publisher lists in clear: name, type and dimensions."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PublicFile(Result):
    """A file whose tensors the publisher lists in clear."""

    path: str
    tensors: tuple[PublicTensor, ...]
    _parts = {"tensors": PublicTensor}


@dataclass(frozen=True)
class Inspection(Result):
    """An encrypted artifact as anybody sees it.

    Attributes:
        context: What it is bound to.
        groups: Its files, group by group.
        public: The tensors that are listed in clear.
    """

    context: str
    groups: tuple[Group, ...]
    public: tuple[PublicFile, ...]
    _parts = {"groups": Group, "public": PublicFile}


@dataclass(frozen=True)
class Signed(Result):
    """A signature that was made.

    Attributes:
        signature: Where it is.
        files: How many files it covers.
        signer: The id of the key, under ``"key"``.
        release: Name, version and path of the release, if there is one.
    """

    signature: str
    files: int
    signer: dict[str, str]
    release: dict[str, Any] | None


@dataclass(frozen=True)
class Verified(Result):
    """What was verified; there is none unless everything was.

    Attributes:
        verified: True.
        signer: The first of the signers: kind, key id, algorithm, and of certificates names, subject and issuer.
        signers: All of them.
        name: That of the release, or else the one in the signature.
        root_digest: The digest that stands for the model, in hexadecimal.
        hash: How files were hashed: ``"sha256"``, ..
        files: How many files are covered.
        ignored: Files that are there but not covered.
        release: What the publisher says besides: version, issued, expires, parents, components, code.
    """

    verified: bool
    signer: dict[str, Any] | None
    signers: tuple[dict[str, Any], ...]
    name: str
    root_digest: str
    hash: str
    files: int
    ignored: tuple[str, ...]
    release: dict[str, Any] | None


@dataclass(frozen=True)
class Skipped(Result):
    """A matrix of weights that carries no mark, and why."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class Prediction(Result):
    """What detection is expected to find after an attack: normalised correlation, and log10 of the p-value."""

    attack: str
    z: float
    log10_p: float


@dataclass(frozen=True)
class Embedded(Result):
    """What was marked.

    Attributes:
        tensors: How many carry the mark.
        weights: How many weights these have.
        owner_weights: Those that carry the owner's mark; the others carry the copy's.
        groups: Groups that the owner's weights are in.
        changed: Weights that are others than before.
        relative_distortion: Root mean square of the change over that of the weights.
        distortion_db: The same in decibel.
        strength: What the relative distortion aims at.
        original_root: Merkle root of the original's blocks, in hexadecimal.
        copy: The label of the copy, if it has one.
        payload: The payload in hexadecimal, if it has one.
        skipped: Matrices that carry no mark.
        on_grid: Carriers that lie on the grid of a quantiser, and lose most of their mark if quantised again.
        predicted: What theory says of common attacks.
    """

    tensors: int
    weights: int
    owner_weights: int
    groups: int
    changed: int
    relative_distortion: float
    distortion_db: float
    strength: float
    original_root: str
    copy: str | None
    payload: str | None
    skipped: tuple[Skipped, ...]
    on_grid: tuple[str, ...]
    predicted: tuple[Prediction, ...]
    _parts = {"skipped": Skipped, "predicted": Prediction}


@dataclass(frozen=True)
class Protected(Result):
    """What was done to one copy: the record to keep of it. Holds no secret.

    Attributes:
        owner: The owner's public id.
        mark: The mark.
        signer: The id of the key that signed.
        root_digest: The digest that stands for the signed model, in hexadecimal.
        files: How many files were signed.
        context: What the encryption is bound to.
        recipients: Type and id of each recipient.
    """

    owner: str
    mark: Embedded
    signer: str
    root_digest: str
    files: int
    context: str
    recipients: tuple[tuple[str, str], ...]
    _parts = {"mark": Embedded}


@dataclass(frozen=True)
class Reading(Result):
    """What one method found: ``"direct"``, ``"cleaned"`` or ``"blind"``; z of mean 0 and variance 1 where there is no mark."""

    method: str
    z: float
    log10_p: float


@dataclass(frozen=True)
class CopyEvidence(Result):
    """A copy that a suspect derives from, and log10 of a bound on the probability that it is named wrongly."""

    label: str
    log10_p: float


@dataclass(frozen=True)
class Payload(Result):
    """A payload that was read: hexadecimal, bits turned over for its checksum to agree, clearness of the weakest bit."""

    hex: str
    turned: int
    weakest: float


@dataclass(frozen=True)
class Unread(Result):
    """A file of a suspect that may hold weights but was not looked at, and the cause as a word."""

    path: str
    code: str


@dataclass(frozen=True)
class Evidence(Result):
    """What was found in a suspect.

    Attributes:
        detected: Whether the owner's mark is there beyond doubt: p below 2^-128.
        log10_p: log10 of the p-value, a proved bound, of the best method, corrected for their number.
        z: The normalised correlation with the owner's mark: of mean 0 and variance 1 where there is none.
        readings: What each method found that was tried.
        copy: The copy that stands out most clearly, if one does.
        copies: All that do (p below 2^-40).
        payload: The copy mark read as a payload, if its checksum agrees.
        tensors_matched: Tensors of the original found in the suspect.
        tensors: Tensors of the original that carry the mark.
        unread: Files that were not looked at.
        alignment: What had to be undone before the suspect could be compared, in words.
    """

    detected: bool
    log10_p: float
    z: float
    readings: tuple[Reading, ...]
    copy: CopyEvidence | None
    copies: tuple[CopyEvidence, ...]
    payload: Payload | None
    tensors_matched: int
    tensors: int
    unread: tuple[Unread, ...]
    alignment: tuple[str, ...]
    _parts = {"readings": Reading, "copy": CopyEvidence, "copies": CopyEvidence, "payload": Payload, "unread": Unread}


@dataclass(frozen=True)
class FixedPoints(Result):
    """Units of the same number in both models: log10 of an exact p-value, how many, and whether that is proof."""

    log10_p: float
    fixed: int
    proved: bool


@dataclass(frozen=True)
class Agreement(Result):
    """A heuristic, not a p-value: whether enough units agree."""

    is_p_value: bool
    agrees: bool


@dataclass(frozen=True)
class Layer(Result):
    """A layer of the first model beside the one of the second that is most like it.

    Attributes:
        name: What it is called.
        tensor: The tensor of the second model that was taken for it.
        units: Its units.
        matched: How many have a counterpart.
        fixed: How many of those have the same number in both.
        agreeing: How many are matched to the same unit by incoming and by outgoing weights.
        control: The same of two neighbouring layers of the first model.
    """

    name: str
    tensor: str
    units: int
    matched: int
    fixed: int
    agreeing: int | None
    control: int | None


@dataclass(frozen=True)
class Lineage(Result):
    """What two models have in common.

    Attributes:
        related: Whether they have a common origin, by either test.
        fixed_points: The exact test.
        agreement: The heuristic.
        layers: What was compared; none if nothing could be.
    """

    related: bool
    fixed_points: FixedPoints
    agreement: Agreement
    layers: tuple[Layer, ...]
    _parts = {"fixed_points": FixedPoints, "agreement": Agreement, "layers": Layer}
