"""The key side of the encrypted container: identity file, X-Wing and HPKE.

Follows the identity section of the specification, and below it BIP 350 (bech32m),
draft-connolly-cfrg-xwing-kem (X-Wing) over ML-KEM-768 and X25519, and the HPKE base mode of
RFC 9180 with KEM 0x647a of draft-ietf-hpke-pq, KDF 0x0001 and AEAD 0x0003.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

CT_M = 1088  # bytes of an ML-KEM-768 ciphertext, the first part of an X-Wing one
SUITE_ID = b"HPKE" + bytes.fromhex("647a00010003")
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class RefusedError(Exception):
    """The input is not what the specification allows, or not for this identity."""


class Identity(NamedTuple):
    """An X-Wing key pair."""

    mlkem: MLKEM768PrivateKey
    x25519: X25519PrivateKey
    public_x25519: bytes
    id: str


def need(condition: bool, message: str) -> None:
    """Refuse the input with `message` unless the condition holds."""
    if not condition:
        raise RefusedError(message)


def hkdf_expand(prk: bytes, info: bytes, length: int, name: str = "sha256") -> bytes:
    """Compute HKDF-Expand of RFC 5869."""
    out = block = b""
    while len(out) < length:
        count = len(out) // hashlib.new(name).digest_size + 1
        block = hmac.digest(prk, block + info + bytes([count]), name)
        out += block
    return out[:length]


def hkdf(ikm: bytes, info: bytes, length: int) -> bytes:
    """Compute HKDF-SHA-256 with an empty salt."""
    return hkdf_expand(hmac.digest(b"", ikm, "sha256"), info, length)


def bech32m_decode(text: str, prefix: str, length: int) -> bytes:
    """Decode bech32m (BIP 350, without its length limit)."""
    need(text.isascii(), "identity: not ASCII")
    need(text in (text.lower(), text.upper()), "identity: mixed case")
    found, _, data = text.lower().rpartition("1")
    need(found == prefix, f"identity: not a {prefix}")
    need(all(c in BECH32 for c in data), "identity: invalid character")
    values = [BECH32.index(c) for c in data]
    checked = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values
    state = 1
    for value in checked:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for bit, mask in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= mask if top >> bit & 1 else 0
    need(state == 0x2BC830A3, "identity: wrong checksum")
    bits = "".join(f"{value:05b}" for value in values[:-6])
    need(len(bits) == -(-length * 8 // 5) * 5, "identity: wrong length")
    need("1" not in bits[length * 8 :], "identity: padding is not zero")
    return int(bits[: length * 8], 2).to_bytes(length, "big")


def read_identity(path: Path) -> Identity:
    """Read the identity file and expand its X-Wing seed."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    need(len(lines) == 1, "identity: not exactly one key line")
    expanded = hashlib.shake_256(bech32m_decode(lines[0], "wmidentity", 32)).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    public_x25519 = x25519.public_key().public_bytes_raw()
    public = mlkem.public_key().public_bytes_raw() + public_x25519
    return Identity(mlkem, x25519, public_x25519, hashlib.sha256(public).digest()[:8].hex())


def xwing_decapsulate(identity: Identity, enc: bytes) -> bytes:
    """Compute the X-Wing shared secret of a ciphertext."""
    ct_x = enc[CT_M:]
    ss_m = identity.mlkem.decapsulate(enc[:CT_M])
    ss_x = identity.x25519.exchange(X25519PublicKey.from_public_bytes(ct_x))
    label = b"\\.//^\\"
    return hashlib.sha3_256(ss_m + ss_x + ct_x + identity.public_x25519 + label).digest()


def hpke_open(shared: bytes, info: bytes, body: bytes) -> bytes:
    """Open the first message of an HPKE base mode context with an empty AAD (RFC 9180, 5.1)."""

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + SUITE_ID + label + ikm, "sha256")

    def expand(label: bytes, length: int) -> bytes:
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE_ID + label + context
        return hkdf_expand(secret, labeled, length)

    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return ChaCha20Poly1305(expand(b"key", 32)).decrypt(expand(b"base_nonce", 12), body, None)
