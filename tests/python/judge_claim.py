"""Judge a claim of ownership from what its owner has opened, from the specification alone.

    python judge_claim.py CLAIM OPENING ORIGINAL SUSPECT PUBLIC_KEY [LABEL ..] [--draw VALUE]

No owner key is needed.  ORIGINAL is the original, or the file of the blocks that were opened, for
which VALUE must be the one that the judge has drawn them with.  Models are safetensors files or
directories.  Prints what `judge.py` prints, and the digests of claim and suspect; log10_p is
corrected for the variants of the detector and for the choice of how many blocks to open.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

# isort: split
from judge import judge
from marks import (
    Block,
    Tensor,
    Terms,
    digest,
    find_terms,
    may_carry,
    kdf,
    open_whole,
    read_model,
)

PAYLOAD, PREDICATE = "application/vnd.in-toto+json", "https://weightmark/claim/v1"


def need(condition: object, problem: str) -> None:
    """Refuse what does not fit."""
    if not condition:
        raise ValueError(problem)


def read_json(text: bytes) -> Any:
    """Read JSON without duplicate names."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), "a duplicate name")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def climb(node: bytes, at: int, count: int, path: list[str]) -> bytes:
    """Follow a path from leaf `at` of `count` to the root (section 7)."""
    steps = [bytes.fromhex(step) for step in path]
    while count > 1:
        if at ^ 1 < count:
            need(steps, "a path is too short")
            other = steps.pop(0)
            node = digest("node", other, node) if at % 2 else digest("node", node, other)
        at, count = at // 2, (count + 1) // 2
    need(not steps, "a path is too long")
    return node


def read_claim(path: Path, public_key: Path) -> tuple[Terms, bytes, int, bytes]:
    """Verify a claim: its terms, the root of its secrets, variants, its digest (section 7)."""
    raw = path.read_bytes()
    envelope = read_json(raw)["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    need(envelope["payloadType"] == PAYLOAD, "another kind of payload")
    signed = f"DSSEv1 {len(PAYLOAD)} {PAYLOAD} {len(payload)} ".encode() + payload
    key: Any = load_pem_public_key(public_key.read_bytes())
    wide = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    how = [ec.ECDSA(wide[key.key_size])] if isinstance(key, ec.EllipticCurvePublicKey) else []
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"], validate=True), signed, *how)
    statement = read_json(payload)
    need(statement["predicateType"] == PREDICATE, "not a claim")
    record, none = statement["predicate"], np.zeros(0, np.uint8)
    rows = [Tensor(r["name"], r["dtype"], tuple(r["shape"]), none) for r in record["carriers"]]
    need(rows and all(map(may_carry, rows)), "a tensor cannot carry a mark")
    names = [t.name.encode() for t in rows]
    need(names == sorted(set(names)), "names are not in order")
    root, secrets = bytes.fromhex(record["root"]), bytes.fromhex(record["secrets"])
    terms = Terms(record["owner"], root, record["beacon"], float(record["strength"]), rows)
    need(terms.group == record["group"], "another group")
    need(1e-5 <= terms.strength <= 0.1, "absurd strength")
    return terms, secrets, max(1, record["variants"]), hashlib.sha256(raw).digest()


def open_blocks(
    terms: Terms, secrets: bytes, claim: bytes, shown: Any, parts: dict[str, Tensor]
) -> tuple[list[Block], bytes | None]:
    """Check the blocks that a value draws, and derive their keys (section 7)."""
    order, binding, opened = terms.blocks(), terms.binding(secrets), shown["opened"]
    blocks: list[Block] = []
    total, places = len(order), list(range(len(order)))
    need(0 < len(opened) == len(parts) <= total, "another number of blocks")
    for k, item in enumerate(opened):
        drawn = digest("draw", claim, shown["draw"], str(k))
        j = k + int.from_bytes(drawn[:8], "big") % (total - k)
        places[k], places[j] = places[j], places[k]
        (t, i), at, secret = order[places[k]], places[k], bytes.fromhex(item["secret"])
        name, rows = (t.name, str(i)), min(t.step, t.shape[0] - i * t.step)
        part = parts[f"{t.name}#{i}"]
        need((part.dtype, part.shape) == (t.dtype, (rows, *t.shape[1:])), "another block")
        root = climb(digest("leaf", *name, part.data), at, total, item["block_path"])
        need(root == terms.root, "a block is not of the original that was claimed")
        root = climb(digest("secret", *name, secret), at, total + 1, item["secret_path"])
        need(root == secrets, "a secret is not the one that was claimed")
        blocks.append(Block(t, i, part.data, kdf(secret, "block", binding, *name)))
    code = shown.get("code")
    if code:
        secret = bytes.fromhex(code["secret"])
        root = climb(digest("code", secret), total, total + 1, code["secret_path"])
        need(root == secrets, "the code is not the one that was claimed")
    return blocks, kdf(secret, binding) if code else None


def suspect_digest(path: Path) -> str:
    """Compute the digest of a suspect (section 7)."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = {str(f.relative_to(path)): f for f in path.rglob("*") if f.is_file()}
    lines = [f"{hashlib.sha256(files[k].read_bytes()).hexdigest()}  {k}\n" for k in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def judge_claim(args: argparse.Namespace) -> dict[str, Any]:
    """Judge from what was opened."""
    terms, secrets, tries, claim = read_claim(args.claim, args.public_key)
    opening, model = read_json(args.opening.read_bytes()), read_model(args.original)
    need(opening["schema"] == "weightmark/opening/1", "not an opening")
    need(opening["claim"] == claim.hex(), "the opening belongs to another claim")
    need(("whole" in opening) != ("blocks" in opening), "not one opening")
    code: bytes | None
    if "blocks" in opening:
        need(opening["blocks"]["draw"] == args.draw, "another value draws the blocks")
        blocks, code = open_blocks(terms, secrets, claim, opening["blocks"], model)
        tries *= len(terms.blocks())
    else:
        found = find_terms(model, terms.owner, terms.beacon, terms.strength)
        ours, theirs = ([(t.name, t.dtype, t.shape) for t in x.carriers] for x in (found, terms))
        need(found.root == terms.root and ours == theirs, "not the original that was claimed")
        blocks, code, root = open_whole(found, bytes.fromhex(opening["whole"]["secret"]))
        need(root == secrets, "the mark is not the one that was claimed")
    result = judge(terms, blocks, read_model(args.suspect), code, args.labels)
    result["log10_p"] = min(0.0, result["log10_p"] + math.log10(tries))
    result["copies"] = {k: min(0.0, p + math.log10(tries)) for k, p in result["copies"].items()}
    return result | {"claim": claim.hex(), "suspect": suspect_digest(args.suspect)}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Judge a claim of ownership.")
    for name in ("claim", "opening", "original", "suspect", "public_key"):
        parser.add_argument(name, type=Path)
    parser.add_argument("labels", nargs="*")
    parser.add_argument("--draw")
    try:
        print(json.dumps(judge_claim(parser.parse_intermixed_args())))
    except InvalidSignature:
        print("judge: bad signature", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"judge: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
