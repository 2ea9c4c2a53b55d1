"""Run the second reader over the vectors of the encrypted file.

    python check_vectors.py VECTORS_DIR

Each vector is read as a reader does that can seek; a lone file also as a stream. What comes out,
or the class of the refusal, must be what `index.json` says, and no text of `not_keys` be a key.
Prints how many vectors opened and how many were refused; status 1 if any disagrees.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

# isort: split
from cobblestone import RefusedError
from keys import Identity, Passphrase, read_identity
from read_wmenc import decrypt, open_file

Entry = dict[str, Any]


def digest(data: bytes) -> dict[str, Any]:
    """Describe bytes as the index does."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def identity(root: Path, entry: dict[str, str]) -> Identity:
    """Make the identity that an entry of the index stands for."""
    if "passphrase" in entry:
        return Passphrase(entry["passphrase"].encode())
    if "file" in entry:
        return read_identity((root / entry["file"]).read_bytes())
    return read_identity(next(iter(entry.values())).encode())


def expected(entry: Entry, stream: bool = False) -> tuple[Any, ...]:
    """Say what a reader is to find: class and chunk, or files and paths that stay closed."""
    if entry["expect"] == "ok":
        return "ok", entry["files"], entry["closed"]
    if not stream:
        return entry["expect"], entry.get("chunk")
    chunk = entry.get("chunk_stream", entry.get("chunk"))
    return entry.get("expect_stream", entry["expect"]), chunk


def read(identities: list[Identity], source: Path, entry: Entry, scratch: Path) -> tuple[Any, ...]:
    """Read with a reader that seeks."""
    out = scratch / "out"
    try:
        closed = decrypt(identities, source, out, entry.get("context"))
    except RefusedError as error:
        return error.kind, error.chunk
    if out.is_file():
        return "ok", {next(iter(entry["files"])): digest(out.read_bytes())}, closed
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return "ok", {name: digest(path.read_bytes()) for name, path in found.items()}, closed


def read_stream(identities: list[Identity], source: Path, entry: Entry) -> tuple[Any, ...]:
    """Read a lone file as a stream; of a refusal, also say what was released before it."""
    released = b""
    with source.open("rb") as stream:
        try:
            for chunk in open_file(stream, identities, entry.get("context")).read():
                released += chunk
        except RefusedError as error:
            return error.kind, error.chunk, digest(released)
    return "ok", {next(iter(entry["files"])): digest(released)}, []


def check(root: Path, keys: dict[str, Any], entry: Entry, scratch: Path) -> list[str]:
    """Read one vector; return what disagrees."""
    identities = [identity(root, keys[name]) for name in entry["identities"]]
    source = root / entry["path"]
    if "repeat" in entry:
        source = Path(shutil.copytree(source, scratch / "repeated"))
        file = source / entry["repeat"]["file"]
        file.write_bytes(file.read_bytes() * entry["repeat"]["times"])
    pairs = [(read(identities, source, entry, scratch), expected(entry))]
    if source.is_file():
        released = () if entry["expect"] == "ok" else (entry["released"],)
        stream = read_stream(identities, source, entry)
        pairs.append((stream, expected(entry, stream=True) + released))
    return [f"{entry['name']}: {got}, not {wanted}" for got, wanted in pairs if got != wanted]


def refuses(text: str) -> bool:
    """Tell whether a text is refused as a key."""
    try:
        read_identity(text.encode())
    except RefusedError:
        return True
    return False


def main() -> int:
    """Run the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: check_vectors.py VECTORS_DIR")
    root = Path(sys.argv[1])
    index = json.loads((root / "index.json").read_text(encoding="utf-8"))
    wrong = [entry["text"] for entry in index["not_keys"] if not refuses(entry["text"])]
    for entry in index["vectors"]:
        with tempfile.TemporaryDirectory() as scratch:
            wrong += check(root, index["keys"], entry, Path(scratch))
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    good = sum(entry["expect"] == "ok" for entry in index["vectors"])
    print(json.dumps({"ok": good, "refused": len(index["vectors"]) - good}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
