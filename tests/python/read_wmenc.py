"""Decrypt a weightmark encrypted file or directory: a second reader, independent of the crate.

    python read_wmenc.py IDENTITY ENCRYPTED OUT

Follows sections 1 and 4 of the specification; beside this file, `envelope.py` follows section 2,
`cobblestone.py` section 3 and `keys.py` section 5. None of it shares code with the crate, so a file
that both can read is what the specification says.

IDENTITY is a key file, or `passphrase:FILE`. ENCRYPTED is one `.wmenc` file or an encrypted
directory; of a directory, the groups that open are decrypted. OUT must not exist, and it appears
only once everything has been authenticated. Otherwise: status 1 and a message on stderr.
"""

from __future__ import annotations

import hmac
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

# isort: split
from cobblestone import Message, RefusedError, hkdf, need, take
from envelope import check_groups, parse_envelope
from keys import Identity, Passphrase, read_identity

FILE_MAGIC, KEYS_MAGIC, KEYS_NAME = b"weightmark-enc-1", b"weightmark-key-1", "weightmark.keys"
ALIGN, LONGEST, MOST_KEYS, MOST_BLOCKS = 4096, 1 << 24, 64 << 20, 256


class Header(NamedTuple):
    """What stands before a payload, not yet authenticated; `body` is an envelope or a key id."""

    signed: bytes
    body: bytes
    mac: bytes

    def check(self, key: bytes) -> None:
        """Authenticate the header under the input key."""
        mac = hmac.digest(hkdf(key, b"weightmark envelope v1", 32), self.signed, "sha256")
        need(hmac.compare_digest(mac, self.mac), "envelope-tampered", "the MAC is wrong")


def read_header(found: bytes, stream: BinaryIO, magic: bytes, member: bool = False) -> Header:
    """Read up to the end of the padding, after the 16 bytes `found` at the start."""
    need(len(found) == 16 and found[:15] == magic[:15], "not-encrypted", "not encrypted")
    need(found == magic, "unknown-version", "a version this reader does not know")
    start = take(stream, 4)
    length = int.from_bytes(start, "little")
    need(length <= LONGEST, "bad-envelope", "the envelope is too long")
    need(length == 0 or not member, "foreign-file", "a file with an envelope of its own")
    need(length > 0 or member, "bad-envelope", "no envelope: the file belongs to a directory")
    body, mac = take(stream, length or 16), take(stream, 32)
    padding = take(stream, -(52 + len(body)) % ALIGN)
    need(not any(padding), "bad-envelope", "the padding is not zero")
    return Header(found + start + body, body, mac)


def open_envelope(identities: list[Identity], header: Header, stanzas: list[Any]) -> bytes:
    """Find the input key in the stanzas, and authenticate the header."""
    refusal = RefusedError("no-match", "no recipient stanza is for this identity")
    for stanza, identity in ((s, i) for s in stanzas for i in identities):
        if (stanza["type"], stanza["id"]) == (identity.type, identity.id):
            try:
                key = identity.open(stanza)
            except RefusedError as error:
                refusal = error
            else:
                header.check(key)
                return key
    raise refusal


def open_file(stream: BinaryIO, identities: list[Identity], context: str | None) -> Message:
    """Take the steps of section 1 up to the commitment."""
    header = read_header(stream.read(16), stream, FILE_MAGIC)
    envelope = parse_envelope(header.body, directory=False)
    key = open_envelope(identities, header, envelope["recipients"])
    expect(envelope, context)
    return Message(stream, key, envelope["context"], envelope["path"])


def expect(envelope: dict[str, Any], context: str | None) -> None:
    """Compare the context with the one the caller expects."""
    same = context in (None, envelope["context"])
    need(same, "context-mismatch", f"the context is {envelope['context']!r}")


def write(message: Message, out: Path) -> None:
    """Decrypt a payload whose last chunk is authenticated."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("xb") as sink:
        sink.writelines(message.read())


def decrypt_file(identities: list[Identity], source: Path, out: Path, context: str | None) -> None:
    """Decrypt a single encrypted file."""
    with source.open("rb") as stream:
        message = open_file(stream, identities, context)
        message.prove()
        write(message, out)


def read_blocks(stream: BinaryIO) -> list[Header]:
    """Read the blocks of `weightmark.keys`."""
    need(os.fstat(stream.fileno()).st_size <= MOST_KEYS, "bad-envelope", f"{KEYS_NAME} is too large")
    blocks = [read_header(stream.read(16), stream, KEYS_MAGIC)]
    while found := stream.read(16):
        need(len(blocks) < MOST_BLOCKS, "bad-envelope", "too many blocks")
        stray = len(found) < 16 or found[:15] != KEYS_MAGIC[:15]
        need(not stray, "bad-envelope", "stray bytes after the last block")
        blocks.append(read_header(found, stream, KEYS_MAGIC))
    return blocks


def decrypt_directory(
    identities: list[Identity], source: Path, out: Path, context: str | None
) -> list[str]:
    """Decrypt the files of the groups that open; return the paths of the others."""
    need((source / KEYS_NAME).is_file(), "not-encrypted", f"no {KEYS_NAME}")
    with (source / KEYS_NAME).open("rb") as stream:
        blocks = read_blocks(stream)
    envelopes = [parse_envelope(block.body, directory=True) for block in blocks]
    files: list[tuple[str, int, bytes]] = []
    closed: list[str] = []
    opened = False
    for group, block, envelope in zip(check_groups(envelopes), blocks, envelopes, strict=True):
        try:
            key = open_envelope(identities, block, envelope["recipients"])
        except RefusedError as error:
            if error.kind != "no-match":
                raise
            closed += [entry["path"] for entry in envelope["files"]]
            continue
        named = group["key"] in ("", hkdf(key, b"weightmark key id v1", 16).hex())
        need(named, "foreign-file", f"the key of group {group['path']!r} is another")
        files += [(entry["path"], entry["size"], key) for entry in envelope["files"]]
        opened = True
    need(opened, "no-match", "no recipient stanza is for this identity")
    expect(envelopes[0], context)
    for path, _, _ in files:
        need((source / f"{path}.wmenc").is_file(), "missing-file", f"{path} is missing")
    listed = {source / f"{path}.wmenc" for path in [*closed, *(path for path, _, _ in files)]}
    extra = [path for path in source.rglob("*.wmenc") if path.is_file() and path not in listed]
    need(not extra, "extra-file", f"not listed: {extra[:1]}")
    out.mkdir()
    for path, size, key in files:
        with (source / f"{path}.wmenc").open("rb") as stream:
            header = read_header(stream.read(16), stream, FILE_MAGIC, member=True)
            own = header.body == hkdf(key, b"weightmark key id v1", 16)
            need(own, "foreign-file", f"{path} is under another key")
            header.check(key)
            message = Message(stream, key, envelopes[0]["context"], path)
            need(message.prove() == size, "truncated", f"{path} is not of the size listed")
            write(message, out / path)
    return closed


def decrypt(
    identities: list[Identity], source: Path, out: Path, context: str | None = None
) -> list[str]:
    """Decrypt next to OUT and move the result there; return the paths that stay closed."""
    need(not os.path.lexists(out), "exists", f"{out} exists already")
    with tempfile.TemporaryDirectory(prefix=".read_wmenc-", dir=out.parent) as scratch:
        result, closed = Path(scratch) / "out", []
        if source.is_dir():
            closed = decrypt_directory(identities, source, result, context)
        else:
            decrypt_file(identities, source, result, context)
        result.rename(out)
    return closed


def main() -> int:
    """Run the command line."""
    if len(sys.argv) != 4:
        print("usage: read_wmenc.py IDENTITY ENCRYPTED OUT", file=sys.stderr)
        return 2
    phrase = sys.argv[1].startswith("passphrase:")
    try:
        secret = Path(sys.argv[1].removeprefix("passphrase:")).read_bytes()
        identity = Passphrase(secret.removesuffix(b"\n")) if phrase else read_identity(secret)
        for path in decrypt([identity], Path(sys.argv[2]), Path(sys.argv[3])):
            print(f"read_wmenc: closed: {path}", file=sys.stderr)
    except RefusedError as error:
        print(f"read_wmenc: {error.kind}: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"read_wmenc: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
