"""The key side of the encrypted file: key texts, and the stanzas that hold an input key.

Follows section 5 of the specification, and below it BIP 350 (bech32m). HPKE with X-Wing and with
DHKEM(X25519), and Argon2id, are those of the package `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

# isort: split
from cobblestone import RefusedError, hkdf, need, unwrap

BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
X25519_SUITE, X_WING_SUITE = (
    hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
    for kem in (hpke.KEM.X25519, hpke.KEM.MLKEM768_X25519)
)


def b64decode(text: str, length: int) -> bytes:
    """Decode base64 of exactly `length` bytes in its one canonical spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise RefusedError("envelope-tampered", "the stanza is not base64") from None
    canonical = base64.b64encode(data).decode() == text
    need(canonical and len(data) == length, "envelope-tampered", "the stanza is malformed")
    return data


class Identity:
    """Something that opens the stanzas of a type with an id."""

    type: ClassVar[str]
    sizes: ClassVar[dict[str, int]]  # of the binary arguments
    numbers: ClassVar[tuple[str, ...]] = ()  # the decimal arguments
    id: str

    def open(self, stanza: dict[str, str]) -> bytes:
        """Return the input key that a stanza with this type and id holds."""
        names = {"type", "id", *self.sizes, *self.numbers}
        need(stanza.keys() == names, "envelope-tampered", "the stanza has other arguments")
        for name in self.numbers:
            decimal = re.fullmatch("0|[1-9][0-9]*", stanza[name])
            need(decimal is not None, "envelope-tampered", f"{name} is not a plain number")
        binary = [b64decode(stanza[name], size) for name, size in self.sizes.items()]
        return self.unseal(*binary, *(int(stanza[name][:4000]) for name in self.numbers))

    def unseal(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the input key that arguments of the right shape hold."""
        raise NotImplementedError


def public_id(public: bytes) -> str:
    """Compute the id of a public key."""
    return hashlib.sha256(public).digest()[:8].hex()


class HpkeIdentity(Identity):
    """A private key of HPKE."""

    suite: ClassVar[hpke.Suite]
    info: ClassVar[bytes]
    private: X25519PrivateKey | hpke.MLKEM768X25519PrivateKey

    def unseal(self, enc: bytes, body: bytes) -> bytes:
        """Open the HPKE message."""
        try:
            return self.suite.decrypt(enc + body, self.private, self.info)
        except (InvalidTag, ValueError):
            raise RefusedError("envelope-tampered", "the stanza does not open") from None


class XWing(HpkeIdentity):
    """The X-Wing decapsulation key: a seed for an ML-KEM-768 and an X25519 key."""

    type, sizes = "x-wing", {"enc": 1120, "body": 48}
    suite, info = X_WING_SUITE, b"weightmark x-wing v1"

    def __init__(self, seed: bytes) -> None:
        """Expand the seed."""
        expanded = hashlib.shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.private = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.id = public_id(public)


class X25519(HpkeIdentity):
    """An X25519 private key."""

    type, sizes = "x25519", {"enc": 32, "body": 48}
    suite, info = X25519_SUITE, b"weightmark x25519 v1"

    def __init__(self, seed: bytes) -> None:
        """Compute the public key."""
        private = X25519PrivateKey.from_private_bytes(seed)
        self.private = private
        self.id = public_id(private.public_key().public_bytes_raw())


@dataclass
class SharedKey(Identity):
    """32 bytes that reader and writer share."""

    key: bytes
    type, sizes = "key", {"body": 104}

    def __post_init__(self) -> None:
        """Compute the id."""
        self.id = hkdf(self.key, b"weightmark key name v1", 8).hex()

    def unseal(self, body: bytes) -> bytes:
        """Open the wrapped key."""
        return unwrap(self.key, b"weightmark key v1", body, "envelope-tampered")


@dataclass
class Passphrase(Identity):
    """A passphrase, and what it may cost to try it (KiB, and KiB times passes)."""

    passphrase: bytes
    memory_ceiling: int = 1_048_576
    work_ceiling: int = 4_194_304
    type, id, sizes = "passphrase", "passphrase", {"salt": 16, "body": 104}
    numbers = ("memory", "passes", "lanes")

    def unseal(self, salt: bytes, body: bytes, memory: int, passes: int, lanes: int) -> bytes:
        """Derive the key and open the wrapped one."""
        need(lanes > 0, "envelope-tampered", "no lanes")
        need(lanes <= 16, "excessive-work", "more than 16 lanes")
        need(passes > 0, "envelope-tampered", "no passes")
        need(memory >= 8 * lanes, "envelope-tampered", "less than 8 KiB of memory a lane")
        need(memory <= self.memory_ceiling, "excessive-work", "too much memory")
        need(memory * passes <= self.work_ceiling, "excessive-work", "too much work")
        kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
        key = kdf.derive(self.passphrase)
        return unwrap(key, b"weightmark passphrase v1", body, "wrong-passphrase")


def bech32m_decode(text: str) -> tuple[str, bytes]:
    """Decode bech32m (BIP 350, without its length limit) to its prefix and bytes."""
    lower = text.lower()
    prefix, _, data = lower.rpartition("1")
    sound = text.isascii() and text in (lower, text.upper()) and set(data) <= set(BECH32)
    need(sound, "bad-key", "not a key text")
    values = [BECH32.index(c) for c in data]
    state = 1
    for value in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for bit, mask in enumerate(BECH32_GENERATOR):
            state ^= mask if top >> bit & 1 else 0
    need(state == 0x2BC830A3, "bad-key", "wrong checksum of a key text")
    bits = "".join(f"{value:05b}" for value in values[:-6])
    size = len(bits) // 8
    need(len(bits) % 8 < 5 and "1" not in bits[8 * size :], "bad-key", "bad padding of a key text")
    return prefix, int(bits[: 8 * size] or "0", 2).to_bytes(size, "big")


KINDS: dict[str, Callable[[bytes], Identity]]
KINDS = {"wmidentity": XWing, "wmidentity-x25519": X25519, "wmkey": SharedKey}


def read_identity(data: bytes) -> Identity:
    """Read the content of a key file."""
    if len(data) == 32 and not all(32 < byte < 127 or byte in b" \t\n\r\f" for byte in data):
        return SharedKey(data)
    lines = [line.strip() for line in data.decode("utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    need(len(lines) == 1, "bad-key", "not exactly one key text")
    prefix, key = bech32m_decode(lines[0])
    need(prefix in KINDS and len(key) == 32, "bad-key", "not an identity or key")
    return KINDS[prefix](key)
