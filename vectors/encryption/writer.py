"""A deterministic writer of encrypted files, for the vectors and for nothing else.

It follows the specification and shares no code with any reader. What a real writer draws at
random comes here from SHAKE-256 of a label, so the same vectors come out of every run; for that
it has its own ML-KEM-768 encapsulation (FIPS 203) and HPKE key schedule (RFC 9180).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

CHUNK, ALIGN = 16384, 4096
FILE_MAGIC, KEYS_MAGIC = b"weightmark-enc-1", b"weightmark-key-1"
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
Q = 3329
Poly = list[int]


def draw(label: str, size: int) -> bytes:
    """Stand in for random bytes."""
    return hashlib.shake_256(b"weightmark vectors: " + label.encode()).digest(size)


def expand(prk: bytes, info: bytes, size: int, name: str = "sha256") -> bytes:
    """Compute HKDF-Expand."""
    out, block = b"", b""
    for count in range(1, 256):
        if len(out) >= size:
            break
        block = hmac.digest(prk, block + info + bytes([count]), name)
        out += block
    return out[:size]


def hkdf(key: bytes, label: str, size: int) -> bytes:
    """Compute HKDF-SHA-256 with an empty salt."""
    return expand(hmac.digest(bytes(32), key, "sha256"), label.encode(), size)


def key_id(key: bytes) -> bytes:
    """Compute the key id of an input key."""
    return hkdf(key, "weightmark key id v1", 16)


def secrets(key: bytes, salt: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
    """Derive key, base nonce and commitment of a Cobblestone-256 message."""
    info = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\0" + salt + context
    derived = expand(key, info, 76, "sha512")
    return derived[:32], derived[32:44], derived[44:]


def seal_chunk(key: bytes, nonce: bytes, number: int, plain: bytes) -> bytes:
    """Seal one chunk."""
    own = bytes(a ^ b for a, b in zip(nonce, number.to_bytes(12, "big"), strict=True))
    return AESGCM(key).encrypt(own, plain, None)


def chunks(plain: bytes) -> list[bytes]:
    """Cut a plaintext; the last chunk is always a short one."""
    return [plain[i : i + CHUNK] for i in range(0, len(plain) // CHUNK * CHUNK + 1, CHUNK)]


def message(key: bytes, salt: bytes, context: bytes, plain: bytes) -> list[bytes]:
    """Seal a Cobblestone-256 message: salt and commitment first, then a record a chunk."""
    cipher, nonce, commitment = secrets(key, salt, context)
    parts = enumerate(chunks(plain))
    return [salt + commitment, *(seal_chunk(cipher, nonce, i, part) for i, part in parts)]


def bound(context: str, path: str) -> bytes:
    """Encode the payload context."""
    return b"".join(len(t.encode()).to_bytes(8, "big") + t.encode() for t in (context, path))


def b64(data: bytes) -> str:
    """Encode base64."""
    return base64.b64encode(data).decode()


def compact(value: Any) -> bytes:
    """Encode JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def header(magic: bytes, body: bytes, key: bytes, **changes: Any) -> bytes:
    """Build a header; `length`, `mac` and `padding` replace what belongs there."""
    length: int = changes.get("length", len(body))
    signed = magic + length.to_bytes(4, "little") + body
    mac = hmac.digest(hkdf(key, "weightmark envelope v1", 32), signed, "sha256")
    padding: bytes = changes.get("padding", bytes(-(len(signed) + 32) % ALIGN))
    return b"".join((signed, changes.get("mac", mac), padding))


def wrap(key: bytes, label: str, secret: bytes, salt: bytes) -> bytes:
    """Wrap a key in a key."""
    return b"".join(message(key, salt, label.encode(), secret))


def key_stanza(shared: bytes, secret: bytes) -> dict[str, str]:
    """Wrap an input key for whoever shares a key."""
    body = wrap(shared, "weightmark key v1", secret, draw("wrap" + secret.hex(), 24))
    return {"type": "key", "id": hkdf(shared, "weightmark key name v1", 8).hex(), "body": b64(body)}


def passphrase_stanza(phrase: str, secret: bytes, *cost: int) -> dict[str, str]:
    """Wrap an input key under a passphrase; the cost is memory, passes and lanes."""
    memory, passes, lanes = cost or (64, 1, 1)
    salt = draw(f"argon2 {phrase} {cost}", 16)
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    key = kdf.derive(phrase.encode())
    body = wrap(key, "weightmark passphrase v1", secret, draw("passphrase" + secret.hex(), 24))
    numbers = {"memory": str(memory), "passes": str(passes), "lanes": str(lanes)}
    ends = {"type": "passphrase", "id": "passphrase", "salt": b64(salt)}
    return {**ends, **numbers, "body": b64(body)}


def hpke_seal(kem: int, shared: bytes, info: str, plain: bytes) -> bytes:
    """Seal the first message of an HPKE context in base mode."""
    suite = b"HPKE" + kem.to_bytes(2, "big") + b"\0\1\0\3"

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info.encode())
    secret = extract(shared, b"secret", b"")
    key = expand(secret, b"\0\x20HPKE-v1" + suite + b"key" + context, 32)
    nonce = expand(secret, b"\0\x0cHPKE-v1" + suite + b"base_nonce" + context, 12)
    return ChaCha20Poly1305(key).encrypt(nonce, plain, None)


def dhkem_secret(dh: bytes, enc: bytes, public: bytes) -> bytes:
    """Compute ExtractAndExpand of DHKEM(X25519, HKDF-SHA256)."""
    suite = b"HPKE-v1KEM\0\x20"
    prk = hmac.digest(bytes(32), suite + b"eae_prk" + dh, "sha256")
    return expand(prk, b"\0\x20" + suite + b"shared_secret" + enc + public, 32)


def public_id(public: bytes) -> str:
    """Compute the id of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def x25519_public(private: bytes) -> bytes:
    """Compute an X25519 public key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def x25519(private: bytes, public: bytes) -> bytes:
    """Compute an X25519 shared secret."""
    peer = X25519PublicKey.from_public_bytes(public)
    return X25519PrivateKey.from_private_bytes(private).exchange(peer)


def x25519_stanza(public: bytes, secret: bytes) -> dict[str, str]:
    """Seal an input key for an X25519 recipient."""
    ephemeral = draw("x25519" + secret.hex() + public.hex(), 32)
    enc = x25519_public(ephemeral)
    shared = dhkem_secret(x25519(ephemeral, public), enc, public)
    body = hpke_seal(0x0020, shared, "weightmark x25519 v1", secret)
    return {"type": "x25519", "id": public_id(public), "enc": b64(enc), "body": b64(body)}


def x_wing_public(seed: bytes) -> bytes:
    """Compute an X-Wing encapsulation key."""
    expanded = hashlib.shake_256(seed).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).public_key().public_bytes_raw()
    return mlkem + x25519_public(expanded[64:])


def x_wing_stanza(public: bytes, secret: bytes) -> dict[str, str]:
    """Seal an input key for an X-Wing recipient."""
    seed = draw("x-wing" + secret.hex() + public_id(public), 64)
    ss_m, ct_m = mlkem_encapsulate(public[:1184], seed[:32])
    ct_x, ss_x = x25519_public(seed[32:]), x25519(seed[32:], public[1184:])
    shared = hashlib.sha3_256(ss_m + ss_x + ct_x + public[1184:] + b"\\.//^\\").digest()
    body = hpke_seal(0x647A, shared, "weightmark x-wing v1", secret)
    return {"type": "x-wing", "id": public_id(public), "enc": b64(ct_m + ct_x), "body": b64(body)}


def bech32m(prefix: str, data: bytes) -> str:
    """Encode bech32m without a limit on length."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return checked(prefix, [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)])


def checked(prefix: str, values: list[int], residue: int = 0x2BC830A3) -> str:
    """Add the checksum of bech32m."""
    state = 1
    spread = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    for value in [*spread, *values, 0, 0, 0, 0, 0, 0]:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for i, mask in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= mask if top >> i & 1 else 0
    state ^= residue
    values = values + [state >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(ALPHABET[value] for value in values)


ZETAS = [pow(17, int(f"{i:07b}"[::-1], 2), Q) for i in range(128)]


def ntt(f: Poly) -> Poly:
    """FIPS 203, algorithm 9."""
    f, i, size = list(f), 1, 128
    while size >= 2:
        for start in range(0, 256, 2 * size):
            zeta, i = ZETAS[i], i + 1
            for j in range(start, start + size):
                t = zeta * f[j + size]
                f[j], f[j + size] = (f[j] + t) % Q, (f[j] - t) % Q
        size //= 2
    return f


def inverse_ntt(f: Poly) -> Poly:
    """FIPS 203, algorithm 10."""
    f, i, size = list(f), 127, 2
    while size <= 128:
        for start in range(0, 256, 2 * size):
            zeta, i = ZETAS[i], i - 1
            for j in range(start, start + size):
                t = f[j]
                f[j], f[j + size] = (t + f[j + size]) % Q, zeta * (f[j + size] - t) % Q
        size *= 2
    return [c * 3303 % Q for c in f]


def dot(left: list[Poly], right: list[Poly]) -> Poly:
    """Sum the products of polynomials in the NTT domain (algorithm 11)."""
    out = [0] * 256
    for f, g in zip(left, right, strict=True):
        for i in range(0, 256, 2):
            gamma = pow(17, 2 * int(f"{i // 2:07b}"[::-1], 2) + 1, Q)
            out[i] += f[i] * g[i] + f[i + 1] * g[i + 1] * gamma
            out[i + 1] += f[i] * g[i + 1] + f[i + 1] * g[i]
    return [c % Q for c in out]


def unpack(data: bytes, bits: int) -> Poly:
    """ByteDecode."""
    whole = int.from_bytes(data, "little")
    return [whole >> bits * i & (1 << bits) - 1 for i in range(len(data) * 8 // bits)]


def pack(f: Poly, bits: int) -> bytes:
    """Compress, and ByteEncode."""
    values = [((c << bits + 1) + Q) // (2 * Q) & (1 << bits) - 1 for c in f]
    whole = sum(value << bits * i for i, value in enumerate(values))
    return whole.to_bytes(32 * bits, "little")


def uniform(seed: bytes) -> Poly:
    """SampleNTT."""
    triples = unpack(hashlib.shake_128(seed).digest(3 * 672), 12)
    return [value for value in triples if value < Q][:256]


def binomial(seed: bytes, number: int) -> Poly:
    """SamplePolyCBD of PRF, both with eta 2."""
    nibbles = unpack(hashlib.shake_256(seed + bytes([number])).digest(128), 4)
    return [((n & 1) + (n >> 1 & 1) - (n >> 2 & 1) - (n >> 3)) % Q for n in nibbles]


def mlkem_encapsulate(public: bytes, m: bytes) -> tuple[bytes, bytes]:
    """ML-KEM-768 Encaps_internal: shared secret and ciphertext."""
    derived = hashlib.sha3_512(m + hashlib.sha3_256(public).digest()).digest()
    secret, r, rho = derived[:32], derived[32:], public[1152:]
    t = [unpack(public[384 * i : 384 * i + 384], 12) for i in range(3)]
    y = [ntt(binomial(r, i)) for i in range(3)]
    out = b""
    for i in range(3):
        column = [uniform(rho + bytes([i, j])) for j in range(3)]
        u = inverse_ntt(dot(column, y))
        out += pack([(a + b) % Q for a, b in zip(u, binomial(r, 3 + i), strict=True)], 10)
    noisy = zip(inverse_ntt(dot(t, y)), binomial(r, 6), unpack(m, 1), strict=True)
    return secret, out + pack([(a + b + 1665 * bit) % Q for a, b, bit in noisy], 4)


def gf_multiply(x: int, y: int) -> int:
    """Multiply in the field of GHASH, blocks read as big-endian numbers."""
    out = 0
    for i in range(127, -1, -1):
        out ^= x if y >> i & 1 else 0
        x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
    return out


def gf_power(x: int, exponent: int) -> int:
    """Raise to a power in the field of GHASH."""
    out = 1 << 127
    for i in range(exponent.bit_length() - 1, -1, -1):
        out = gf_multiply(out, out)
        out = gf_multiply(out, x) if exponent >> i & 1 else out
    return out


def two_key_record(pairs: list[tuple[bytes, bytes]], first: bytes) -> bytes:
    """Find 32 bytes and a tag that open as chunk 0 under both pairs of key and nonce."""
    rests, squares = [], []
    for key, nonce in pairs:
        mask = int.from_bytes(AESGCM(key).encrypt(nonce, b"", None), "big")  # tag of nothing
        zeros = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes(16))
        h = int.from_bytes(zeros, "big")
        head = gf_multiply(int.from_bytes(first, "big"), gf_power(h, 3))
        rests.append(head ^ gf_multiply(256, h) ^ mask)  # 256: the length in bits
        squares.append(gf_power(h, 2))
    inverse = gf_power(squares[0] ^ squares[1], 2**128 - 2)
    second = gf_multiply(rests[0] ^ rests[1], inverse)
    tag = rests[0] ^ gf_multiply(second, squares[0])
    return first + second.to_bytes(16, "big") + tag.to_bytes(16, "big")
