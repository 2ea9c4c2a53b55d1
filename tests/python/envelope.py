"""The envelope of the encrypted file: strict JSON, and the rules about its fields.

Follows section 2 of the specification, and of section 4 what it says of `weightmark.keys`.
"""

from __future__ import annotations

import json
import re
from typing import Any

# isort: split
from cobblestone import RefusedError, need

MOST_STANZAS = 4096


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; refuse a repeated name."""
    need(len(dict(pairs)) == len(pairs), "bad-envelope", "a name is repeated")
    return dict(pairs)


def plain(text: str) -> int:
    """Convert a JSON number that is a plain decimal integer."""
    need(text.isdecimal(), "bad-envelope", f"{text} is not a plain integer")
    return int(text)


def parse_json(data: bytes) -> Any:
    """Parse strict JSON."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_int=plain,
            parse_float=plain,
            parse_constant=plain,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails for lone surrogates
    except (ValueError, RecursionError) as error:
        raise RefusedError("bad-envelope", f"not strict JSON: {error}") from None
    return value


def check(value: Any, kinds: dict[str, type], *optional: str) -> dict[str, Any]:
    """Require an object of these members, of these types."""
    if not isinstance(value, dict) or not kinds.keys() - optional <= value.keys() <= kinds.keys():
        raise RefusedError("bad-envelope", "unexpected or missing members")
    for name, member in value.items():
        need(type(member) is kinds[name], "bad-envelope", f"{name} is of another type")
    return value


def paths_of(entries: list[Any], kinds: dict[str, type]) -> list[str]:
    """Check a list of objects that have canonical paths, none twice, and return the paths."""
    paths = [check(entry, {"path": str, **kinds})["path"] for entry in entries]
    need(len(set(paths)) == len(paths), "bad-envelope", "a path is repeated")
    for path in paths:
        parts = path.split("/")
        canonical = not {"", ".", ".."} & set(parts) and not {"\0", "\\"} & set(path)
        canonical = canonical and len(parts) <= 64 and len(path.encode()) <= 4096
        need(canonical, "bad-envelope", f"not a canonical path: {path!r}")
    return paths


def parse_envelope(data: bytes, directory: bool) -> dict[str, Any]:
    """Parse and check an envelope of the kind expected."""
    own: dict[str, type] = {"files": list, "groups": list} if directory else {"path": str}
    common = {"suite": str, "context": str, "public": list, "recipients": list}
    envelope = check(parse_json(data), {**common, **own}, "public", "groups")
    need(envelope["suite"] == "cobblestone-256", "unknown-suite", "unknown suite")
    stanzas = envelope["recipients"]
    need(1 <= len(stanzas) <= MOST_STANZAS, "bad-envelope", "number of recipients")
    for stanza in stanzas:
        names = stanza if isinstance(stanza, dict) else ()
        check(stanza, {"type": str, "id": str, **dict.fromkeys(names, str)})
    ids = {(stanza["type"], stanza["id"]) for stanza in stanzas}
    need(len(ids) == len(stanzas), "bad-envelope", "a recipient stands there twice")
    alone = len(stanzas) == 1 or all(stanza["type"] != "passphrase" for stanza in stanzas)
    need(alone, "bad-envelope", "a passphrase is not the only recipient")
    if directory:
        paths = paths_of(envelope["files"], {"size": int})
        need(paths == sorted(paths), "bad-envelope", "the files are not in order")
    else:
        paths = paths_of([{"path": envelope["path"]}], {})
    claimed = paths_of(envelope.get("public", []), {"tensors": list})
    need(set(claimed) <= set(paths), "bad-envelope", "public names another file")
    for tensor in (t for entry in envelope.get("public", []) for t in entry["tensors"]):
        shape = check(tensor, {"name": str, "dtype": str, "shape": list})["shape"]
        need(all(type(n) is int for n in shape), "bad-envelope", "shape is not of integers")
    return envelope


def check_groups(envelopes: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Check what a directory's envelopes say of each other, and return the groups."""
    first = envelopes[0]
    for other in envelopes[1:]:
        same = other["context"] == first["context"] and other.get("groups") == first.get("groups")
        need(same, "bad-envelope", "the blocks do not belong together")
    single = len(envelopes) == 1
    need(single == ("groups" not in first), "bad-envelope", "groups without blocks, or none")
    stanzas = [stanza for envelope in envelopes for stanza in envelope["recipients"]]
    shared = single or all(stanza["type"] != "passphrase" for stanza in stanzas)
    need(shared, "bad-envelope", "a passphrase in a directory of groups")
    groups = [{"path": "", "key": ""}] if single else first["groups"]
    need(len(groups) == len(envelopes), "bad-envelope", "not as many blocks as groups")
    for group in groups:
        key = check(group, {"path": str, "key": str})["key"]
        need(single or re.fullmatch("[0-9a-f]{32}", key) is not None, "bad-envelope", "bad key id")
    need(groups[0]["path"] == "", "bad-envelope", "the first group is not the main one")
    beneath = paths_of(groups[1:], {"key": str})
    for own, envelope in zip(["", *beneath], envelopes, strict=True):
        for path in (entry["path"] for entry in envelope["files"]):
            over = [group for group in beneath if f"{path}/".startswith(f"{group}/")]
            need(max(over, key=len, default="") == own, "bad-envelope", "listed in another group")
    paths = {entry["path"] for envelope in envelopes for entry in envelope["files"]}
    parents = {path[:i] for path in paths for i, c in enumerate(path) if c == "/"}
    need(not paths & parents, "bad-envelope", "a file is a directory of another")
    return groups
