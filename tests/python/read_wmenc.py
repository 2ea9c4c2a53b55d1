"""Decrypt a weightmark encrypted file or directory: a second reader, independent of the crate.

    python read_wmenc.py IDENTITY_FILE ENCRYPTED OUT

Follows the encrypted file and encrypted directory sections of the specification, and below them
C2SP chunked-encryption (Cobblestone-256); `xwing.py` beside this file follows the sections on keys.
Neither shares code with the crate, so a file that both can read is what the specification says.

ENCRYPTED is one `.wmenc` file or an encrypted directory; OUT must not exist, and it appears only
once everything has been authenticated.  Otherwise: status 1 and a message on stderr.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# isort: split
from xwing import (
    Identity,
    RefusedError,
    hkdf,
    hkdf_expand,
    hpke_open,
    need,
    read_identity,
    xwing_decapsulate,
)

FILE_MAGIC = b"weightmark-enc-1"
KEYS_MAGIC = b"weightmark-key-1"
KEYS_NAME = "weightmark.keys"
SUITE = "cobblestone-256"
ALIGN = 4096
CHUNK = 16384
TAG = 16
ENC = 1120  # bytes of an X-Wing ciphertext
BODY = 32 + TAG  # bytes of a sealed input key


class Header(NamedTuple):
    """A parsed, not yet authenticated header; `key_id` only when there is no envelope."""

    authenticated: bytes
    mac: bytes
    envelope: bytes | None
    key_id: bytes


def b64decode(text: str, length: int) -> bytes:
    """Decode base64 of exactly `length` bytes in its one canonical spelling."""
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "envelope: base64 is not canonical")
    need(len(data) == length, "envelope: stanza of the wrong size")
    return data


def unwrap(identity: Identity, recipients: list[dict[str, str]]) -> bytes:
    """Find the input key in the recipient stanzas."""
    for stanza in recipients:
        if stanza["id"] != identity.id:
            continue
        enc, body = b64decode(stanza["enc"], ENC), b64decode(stanza["body"], BODY)
        try:
            return hpke_open(xwing_decapsulate(identity, enc), b"weightmark x-wing v1", body)
        except (InvalidTag, ValueError):
            continue  # another recipient may share the short id
    raise RefusedError("no recipient stanza opens with this identity")


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; refuse a repeated name."""
    need(len({name for name, _ in pairs}) == len(pairs), "envelope: a name is repeated")
    return dict(pairs)


def refuse_number(text: str) -> None:
    """Refuse a JSON number that is not a plain integer."""
    raise RefusedError(f"envelope: {text} is not an integer")


def check_object(value: object, **types: type) -> None:
    """Require an object of exactly these members."""
    if not isinstance(value, dict) or value.keys() != types.keys():
        raise RefusedError("envelope: unexpected members")
    for name, kind in types.items():
        need(type(value[name]) is kind, f"envelope: {name} is not of type {kind.__name__}")


def check_path(path: str) -> None:
    """Require a path that stays below the directory it is joined to."""
    safe = all(part not in ("", ".", "..") for part in path.split("/"))
    need(safe and not set(path) & {"\0", "\\"}, f"envelope: unsafe path {path!r}")


def parse_envelope(data: bytes, directory: bool) -> dict[str, Any]:
    """Parse and check an envelope of the kind expected."""
    value: dict[str, Any] = json.loads(
        data.decode("utf-8"),
        object_pairs_hook=unique,
        parse_float=refuse_number,
        parse_constant=refuse_number,
    )
    content = {"files": list} if directory else {"path": str}
    check_object(value, suite=str, context=str, recipients=list, **content)
    need(value["suite"] == SUITE, "envelope: unknown suite")
    for stanza in value["recipients"]:
        check_object(stanza, type=str, id=str, enc=str, body=str)
        need(stanza["type"] == "x-wing", "envelope: unknown recipient type")
        need(re.fullmatch("[0-9a-f]{16}", stanza["id"]) is not None, "envelope: bad recipient id")
        b64decode(stanza["enc"], ENC)
        b64decode(stanza["body"], BODY)
    files = value["files"] if directory else [{"path": value["path"], "size": 0}]
    for entry in files:
        check_object(entry, path=str, size=int)
        check_path(entry["path"])
    need(len({entry["path"] for entry in files}) == len(files), "envelope: a path is repeated")
    need(directory or "/" not in value["path"], "envelope: the path is not a base name")
    return value


def take(stream: BinaryIO, length: int) -> bytes:
    """Read exactly `length` bytes."""
    need(length <= os.fstat(stream.fileno()).st_size - stream.tell(), "truncated")
    return stream.read(length)


def read_header(stream: BinaryIO, magic: bytes) -> Header:
    """Read up to the end of the padding; nothing is authenticated yet."""
    start = take(stream, 20)
    need(start[:16] == magic, f"not a {magic.decode()} file")
    length = int.from_bytes(start[16:], "little")
    body = take(stream, length or 16)
    mac = take(stream, 32)
    need(not any(take(stream, -stream.tell() % ALIGN)), "padding is not zero")
    return Header(start + body, mac, body if length else None, b"" if length else body)


def check_mac(header: Header, key: bytes) -> None:
    """Authenticate a header under the input key."""
    mac = hmac.digest(hkdf(key, b"weightmark envelope v1", 32), header.authenticated, "sha256")
    need(hmac.compare_digest(mac, header.mac), "the header is not authentic")


def unlock(identity: Identity, header: Header, directory: bool) -> tuple[dict[str, Any], bytes]:
    """Check an envelope and return it with its input key."""
    if header.envelope is None:
        raise RefusedError("no envelope here: decrypt the whole directory instead")
    envelope = parse_envelope(header.envelope, directory)
    key = unwrap(identity, envelope["recipients"])
    check_mac(header, key)
    return envelope, key


def decrypt_message(stream: BinaryIO, key: bytes, bound: tuple[str, str], out: BinaryIO) -> int:
    """Decrypt a Cobblestone-256 message to the end of the stream; return the plaintext size."""
    salt, commitment = take(stream, 24), take(stream, 32)
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt
    for text in bound:
        info += len(text.encode()).to_bytes(8, "big") + text.encode()
    derived = hkdf_expand(key, info, 76, "sha512")
    need(hmac.compare_digest(derived[44:], commitment), "the key commitment does not match")
    aead, base_nonce = AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")
    number = size = 0
    chunk = stream.read(CHUNK + TAG)
    while len(chunk) == CHUNK + TAG:
        size += out.write(aead.decrypt((base_nonce ^ number).to_bytes(12, "big"), chunk, None))
        number += 1
        chunk = stream.read(CHUNK + TAG)
    need(len(chunk) >= TAG, "truncated: no final chunk")
    return size + out.write(aead.decrypt((base_nonce ^ number).to_bytes(12, "big"), chunk, None))


def decrypt_file(identity: Identity, source: Path, out: Path) -> None:
    """Decrypt a single encrypted file."""
    with source.open("rb") as stream, out.open("xb") as sink:
        envelope, key = unlock(identity, read_header(stream, FILE_MAGIC), directory=False)
        decrypt_message(stream, key, (envelope["context"], envelope["path"]), sink)


def decrypt_member(source: Path, key: bytes, bound: tuple[str, str], out: Path) -> int:
    """Decrypt one file of an encrypted directory; return its plaintext size."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as stream, out.open("xb") as sink:
        header = read_header(stream, FILE_MAGIC)
        need(header.envelope is None, "a file of a directory has its own envelope")
        need(header.key_id == hkdf(key, b"weightmark key id v1", 16), "wrong key id")
        check_mac(header, key)
        return decrypt_message(stream, key, bound, sink)


def decrypt_directory(identity: Identity, source: Path, out: Path) -> None:
    """Decrypt every file an encrypted directory's envelope lists, and nothing else."""
    with (source / KEYS_NAME).open("rb") as stream:
        header = read_header(stream, KEYS_MAGIC)
        need(not stream.read(1), f"{KEYS_NAME}: data after the padding")
    envelope, key = unlock(identity, header, directory=True)
    out.mkdir()
    for entry in envelope["files"]:
        path, bound = entry["path"], (envelope["context"], entry["path"])
        try:
            size = decrypt_member(source / f"{path}.wmenc", key, bound, out / path)
            need(size == entry["size"], "the size is not the one listed")
        except (InvalidTag, RefusedError) as error:
            raise RefusedError(f"{path}: {describe(error)}") from error


def describe(error: Exception) -> str:
    """Word an error for the reader of a test log."""
    if isinstance(error, InvalidTag):
        return "a chunk is not authentic"
    return str(error) if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}"


def run(identity_file: Path, source: Path, out: Path) -> None:
    """Decrypt next to OUT and move the result there once it is complete."""
    need(not os.path.lexists(out), f"{out} exists already")
    decrypt = decrypt_directory if source.is_dir() else decrypt_file
    with tempfile.TemporaryDirectory(prefix=".read_wmenc-", dir=out.parent) as scratch:
        decrypt(read_identity(identity_file), source, Path(scratch) / "out")
        (Path(scratch) / "out").rename(out)


def main() -> int:
    """Run the command line."""
    if len(sys.argv) != 4:
        print("usage: read_wmenc.py IDENTITY_FILE ENCRYPTED OUT", file=sys.stderr)
        return 2
    try:
        run(*map(Path, sys.argv[1:]))
    except (RefusedError, InvalidTag, OSError, ValueError, RecursionError) as error:
        print(f"read_wmenc: {describe(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
