"""Encrypted messages: C2SP chunked-encryption, instance Cobblestone-256.

Follows section 3 of the specification, and of section 5 `wrap`.
"""

from __future__ import annotations

import hmac
import io
from collections.abc import Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

TAG, CHUNK = 16, 16384
RECORD = CHUNK + TAG


class RefusedError(Exception):
    """The input is not what the specification allows; `kind` is the class of the refusal."""

    def __init__(self, kind: str, message: str, chunk: int | None = None) -> None:
        """Keep the class, and the number of the chunk if one fails."""
        super().__init__(message)
        self.kind, self.chunk = kind, chunk


def need(condition: bool, kind: str, message: str) -> None:
    """Refuse the input unless the condition holds."""
    if not condition:
        raise RefusedError(kind, message)


def hkdf(ikm: bytes, info: bytes, length: int) -> bytes:
    """Compute HKDF-SHA-256 with an empty salt."""
    return HKDF(hashes.SHA256(), length, salt=None, info=info).derive(ikm)


def message_keys(key: bytes, salt: bytes, context: bytes) -> tuple[AESGCM, int, bytes]:
    """Derive cipher, base nonce and commitment of a Cobblestone-256 message."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + context
    derived = HKDFExpand(hashes.SHA512(), 76, info).derive(key)
    return AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big"), derived[44:]


def unwrap(key: bytes, label: bytes, body: bytes, kind: str) -> bytes:
    """Open `wrap(key, label, secret)`."""
    cipher, nonce, commitment = message_keys(key, body[:24], label)
    need(hmac.compare_digest(commitment, body[24:56]), kind, "the stanza is not under this key")
    try:
        return cipher.decrypt(nonce.to_bytes(12, "big"), body[56:], None)
    except InvalidTag:
        raise RefusedError(kind, "the stanza does not open") from None


def take(stream: BinaryIO, length: int) -> bytes:
    """Read exactly `length` bytes."""
    data = stream.read(length)
    need(len(data) == length, "truncated", "truncated")
    return data


class Message:
    """A payload; the stream stands at its start."""

    def __init__(self, stream: BinaryIO, key: bytes, context: str, path: str) -> None:
        """Read the salt and check the commitment."""
        bound = b"".join(len(b).to_bytes(8, "big") + b for b in (context.encode(), path.encode()))
        self.stream, salt, commitment = stream, take(stream, 24), take(stream, 32)
        self.cipher, self.nonce, expected = message_keys(key, salt, bound)
        need(hmac.compare_digest(expected, commitment), "commitment", "another key or file")

    def chunk(self, number: int, record: bytes) -> bytes:
        """Decrypt one chunk."""
        need(len(record) >= TAG, "truncated", "truncated: no last chunk")
        try:
            return self.cipher.decrypt((self.nonce ^ number).to_bytes(12, "big"), record, None)
        except InvalidTag:
            message = f"chunk {number} is not authentic"
            raise RefusedError("chunk-tampered", message, number) from None

    def read(self) -> Iterator[bytes]:
        """Decrypt chunk after chunk, as a reader does that cannot seek."""
        number, record = 0, self.stream.read(RECORD)
        while len(record) == RECORD:
            yield self.chunk(number, record)
            number, record = number + 1, self.stream.read(RECORD)
        yield self.chunk(number, record)

    def prove(self) -> int:
        """Authenticate the last chunk and return the plaintext size."""
        start = self.stream.tell()
        number, tail = divmod(self.stream.seek(0, io.SEEK_END) - start, RECORD)
        self.stream.seek(-tail, io.SEEK_END)
        self.chunk(number, self.stream.read())
        self.stream.seek(start)
        return number * CHUNK + tail - TAG
