"""Write the vectors of signed models: `cases.json`, `bundles/`, `keys/`, `models/`.

    python generate.py

Needs the packages `cryptography` (50) and `blake3`. Keys come from fixed seeds and ECDSA is
deterministic (RFC 6979), so that every run writes the same bytes. It shares no code with a verifier.
"""

# fmt: off

from __future__ import annotations

import base64
import copy
import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any, Callable

import blake3
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

Json = dict[str, Any]
Change = str | None | Json
ROOT = Path(__file__).parent
MEDIA, PAYLOAD = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.in-toto+json"
STATEMENT, OMS = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
OLD, RELEASE = "https://model_signing/Digests/v0.1", "https://weightmark/release/v1"
IGNORED = ["model.sig", "model.release.sig", "model.outboard", ".git", ".gitattributes", ".github", ".gitignore"]
HASHES: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(), "blake2b": lambda data: hashlib.blake2b(data).digest(),
    "blake3": lambda data: blake3.blake3(data).digest()}
DEFAULT = {"rules": [{"keys": ["alice"]}], "at": "2026-12-01T00:00:00Z"}


# Keys. The names are those of `policy.rules[].keys` in `cases.json`.

def seed(name: str, length: int) -> bytes:
    """Draw from a name what would be drawn at random."""
    return hashlib.shake_256(f"weightmark signing vectors, key {name}".encode()).digest(length)


CURVES = {"secp256r1": (ec.SECP256R1(), hashes.SHA256(), 32,
    0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551),
    "secp384r1": (ec.SECP384R1(), hashes.SHA384(), 47, 0), "secp521r1": (ec.SECP521R1(), hashes.SHA512(), 65, 0)}


class Key:
    """A signer."""

    def __init__(self, name: str, curve: str = "secp256r1") -> None:
        if curve == "ed25519":
            self.private: Any = ed25519.Ed25519PrivateKey.from_private_bytes(seed(name, 32))
        else:
            self.private = ec.derive_private_key(int.from_bytes(seed(name, CURVES[curve][2])), CURVES[curve][0])
        self.name, self.curve = name, curve
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.pem = self.private.public_key().public_bytes(serialization.Encoding.PEM, form)
        self.id = hashlib.sha256(self.pem).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """Sign a message."""
        if self.curve == "ed25519":
            return self.private.sign(message)
        return self.private.sign(message, ec.ECDSA(CURVES[self.curve][1], deterministic_signing=True))


ALICE, BOB, CAROL, MALLORY = (Key(name) for name in ("alice", "bob", "carol", "mallory"))
P384, P521, ED = Key("p384", "secp384r1"), Key("p521", "secp521r1"), Key("ed25519", "ed25519")
KEYS = [ALICE, BOB, CAROL, MALLORY, P384, P521, ED]


# Models.

def safetensors(data: bytes) -> bytes:
    """Write a file of one tensor of bytes."""
    entry = {"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}
    header = json.dumps(entry, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
MODELS: dict[str, dict[str, bytes]] = {
    "tiny": {"config.json": b'{"model_type":"tiny"}\n', "sub/weights.txt": b"0 1 2\n"},
    "other": {"config.json": b'{"model_type":"other"}\n', "sub/weights.txt": b"3 4 5\n"},
    "plain": {
        "chat_template.jinja": TEMPLATE.encode(), "config.json": b'{"model_type":"plain"}\n',
        "model.safetensors": safetensors(bytes(i * 37 & 0xff for i in range(1200))), "modeling.py": b"# a model\n",
        "tokenizer.json": b'{"version":"1.0"}\n',
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}).encode()},
    "shards": {"config.json": b"{}\n", "model.safetensors": safetensors(bytes(i * 41 & 0xff for i in range(1200)))},
    "names": {
        "sub/x.txt": b"1\n", "sub-x.txt": b"2\n", "sub.txt": b"3\n", ".hidden": b"4\n", "a b.txt": b"5\n",
        "\u00e9t\u00e9.txt": b"6\n", "\u91cd\u307f.txt": b"7\n", "empty.txt": b"", "Sub.txt": b"8\n",
        "sub/deep/er/y": b"9\n", "...": b"10\n", "\U0001f9e0.txt": b"11\n", "\uff5e.txt": b"12\n"},
}
SINGLE = safetensors(bytes(range(256)) * 3)
MODELS["single.safetensors"] = {"single.safetensors": SINGLE}


# Statements and bundles.

def resources(files: dict[str, bytes], name: str = "sha256", shard: int = 0, label: str = "") -> list[Json]:
    """List files, or their shards, in order of their names."""
    out = []
    for path in sorted(files):
        data = files[path]
        spans = [(f":{a}:{min(a + shard, len(data))}", data[a:a + shard]) for a in range(0, len(data),
            shard)] if shard else [("", data)]
        out += [{"name": path + at, "algorithm": label or name, "digest": HASHES[name](part).hex()} for at,
            part in spans]
    return out


def root(listed: list[Json]) -> str:
    """Hash the digests listed."""
    return hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in listed)).hexdigest()


def oms(model: str = "tiny", name: str = "sha256", listed: list[Json] | None = None, **more: Any) -> Json:
    """State what the files of a model are."""
    listed = resources(MODELS[model], name) if listed is None else listed
    kept = {"method": "files", "hash_type": name, "allow_symlinks": False, "ignore_paths": ["model.sig", ".git"]} | more
    return {"_type": STATEMENT, "subject": [{"name": model, "digest": {"sha256": root(listed)}}],
            "predicateType": OMS, "predicate": {"serialization": kept, "resources": listed}}


def component(kind: str, name: str, data: bytes) -> Json:
    """Name a component."""
    return {"kind": kind, "name": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}}


def parts(model: str) -> list[Json]:
    """List the components of a model."""
    if model != "plain":
        return []
    files = MODELS[model]
    return [component("chat-template", "chat_template.jinja", files["chat_template.jinja"]),
            component("chat-template", "tokenizer_config.json#chat_template", TEMPLATE.encode()),
            component("code", "modeling.py", files["modeling.py"]),
            component("tokenizer", "tokenizer.json", files["tokenizer.json"]),
            component("tokenizer", "tokenizer_config.json", files["tokenizer_config.json"])]


def release(statement: Json, name: str = "acme/tiny", version: Any = 3, **more: Any) -> Json:
    """State what is released."""
    model = statement["subject"][0]["name"]
    said = {"version": version, "issued": "2026-11-26T10:00:00Z", "expires": "2027-11-26T10:00:00Z", "parents": [],
            "components": parts(model), "code": []} | more
    return {"_type": STATEMENT, "subject": [{"name": name, "digest": statement["subject"][0]["digest"]}],
            "predicateType": RELEASE, "predicate": said}


def compact(value: Any) -> str:
    """Write JSON without blanks."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def pae(payload: bytes, kind: str = PAYLOAD) -> bytes:
    """Frame what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def base(data: bytes) -> str:
    """Write base64."""
    return base64.b64encode(data).decode()


def envelope(payload: bytes | str | Json, key: Key = ALICE, kind: str = PAYLOAD,
    signature: bytes | None = None) -> Json:
    """Sign a statement, as the Python tool lays it out."""
    payload = compact(payload) if isinstance(payload, dict) else payload
    payload = payload.encode() if isinstance(payload, str) else payload
    signature = key.sign(pae(payload, kind)) if signature is None else signature
    return {"mediaType": MEDIA, "verificationMaterial": {"publicKey": {"hint": key.id}, "tlogEntries": []},
            "dsseEnvelope": {"payload": base(payload), "payloadType": kind,
            "signatures": [{"sig": base(signature), "keyid": ""}]}}


# The list of cases.

cases: list[Json] = []
files: dict[bytes, str] = {}


def case(name: str, comment: str, expect: str | Json, *bundles: Any, model: str = "tiny", policy: Json | None = None,
        changes: dict[str, Change] | None = None, high_water: Json | None = None, raises: Json | None = None) -> None:
    """Add a case. A bundle is an envelope, text or bytes, or a pair: where it lies in the model, and that."""
    places, outside = {}, []
    for one in bundles:
        usual = model + ".sig" if model == "single.safetensors" else "model.sig"
        place, one = one if isinstance(one, tuple) else (usual, one)
        text = json.dumps(one) if isinstance(one, dict) else one
        data = text.encode() if isinstance(text, str) else text
        if data not in files:
            count = sum(value.split("~")[0] == name for value in files.values())
            files[data] = name + (f"~{count}" if count else "")
        if place is None:
            outside.append(files[data])
        else:
            places[place] = files[data]
    entry = {"name": name, "comment": comment, "model": model, "changes": changes, "bundles": places,
        "outside": outside or None,
             "policy": policy, "high_water": high_water, "high_water_after": raises}
    assert name not in {one["name"] for one in cases}, name
    cases.append({key: value for key, value in entry.items() if value is not None} | {"expect": expect})


def ok(model: str = "tiny", statement: Json | None = None, count: int | None = None, version: int | None = None,
    name: str | None = None) -> Json:
    """Say what a verifier is to find."""
    statement = statement or oms(model)
    old = statement["predicateType"] == OLD
    return {"files": len(MODELS[model]) if count is None else count,
        "root": None if old else statement["subject"][0]["digest"]["sha256"],
            "version": version, "name": "" if old else name or statement["subject"][0]["name"]}


def by(*keys: str, threshold: int = 1, **more: Any) -> Json:
    """Say who must have signed."""
    return {"rules": [{"keys": list(keys)} | ({"threshold": threshold} if threshold > 1 else {}) | more]}


def edit(value: Json, *path: Any, to: Any = ...) -> Json:
    """Copy with one place changed, or (without a value) left out."""
    value = copy.deepcopy(value)
    at: Any = value
    for step in path[:-1]:
        at = at[step]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return value


TINY = oms()
STD = envelope(TINY)
PLAIN = oms("plain")


def accepted() -> None:
    """What has to verify."""
    case("key-p256", "P-256 with SHA-256", ok(), STD)
    case("key-p384", "P-384 with SHA-384", ok(), envelope(TINY, P384), policy=by("p384"))
    case("key-p521", "P-521 with SHA-512", ok(), envelope(TINY, P521), policy=by("p521"))
    case("key-ed25519", "Ed25519 over the PAE bytes", ok(), envelope(TINY, ED), policy=by("ed25519"))
    case("key-one-of-three", "any of the keys named will do", ok(), STD, policy=by("bob", "p384", "alice"))
    case("outside", "a signature that is not in the model", ok(), (None, STD))
    for name in ("blake2b", "blake3"):
        statement = oms(name=name)
        case(f"hash-{name}", f"files by {name}", ok(statement=statement), envelope(statement))
    for name, label, size in (("sha256", "sha256-sharded-512", 512), ("blake2b", "blake2b-sharded-512", 512.0),
        ("blake3", "blake3", 512)):
        statement = oms("shards", name, resources(MODELS["shards"], name, 512, label), method="shards", shard_size=size)
        case(f"shards-{name}", f"shards labelled {label}, of size {size}", ok("shards", statement), envelope(statement),
            model="shards")
    shards = resources(MODELS["shards"], shard=496, label="sha256-sharded-496")
    even = oms("shards", listed=shards, method="shards", shard_size=496)
    case("shards-of-another-size", "the size is what the statement says", ok("shards", even), envelope(even),
        model="shards")
    case("shards-empty-file", "an empty file has no shards, and may be there", ok("shards", even), envelope(even),
        model="shards", changes={"empty": ""})
    shuffled = oms("shards", listed=shards[::-1], method="shards", shard_size=496)
    case("shards-in-any-order", "resources come in any order, the root in theirs", ok("shards", shuffled),
        envelope(shuffled), model="shards")
    shuffled = oms(listed=resources(MODELS["tiny"])[::-1])
    case("resources-in-any-order", "resources come in any order, the root in theirs", ok(statement=shuffled),
        envelope(shuffled))
    names = oms("names")
    case("names", "blanks, dots, capitals, other alphabets, an empty file; in code-point order", ok("names"),
        envelope(names), model="names")
    by_part = sorted(MODELS["names"], key=lambda path: path.split("/"))
    in_parts = oms("names", listed=[one for path in by_part for one in names["predicate"]["resources"]
        if one["name"] == path])
    case("names-in-order-of-parts", "`sub` before `sub-x.txt`, as one implementation has it", ok("names", in_parts),
        envelope(in_parts), model="names")
    escaped = json.dumps(names)
    case("names-escaped", "names escaped in the JSON", ok("names"), envelope(escaped), model="names")
    decomposed = oms(listed=resources(MODELS["tiny"] | {"e\u0301": b"1", "\u00e9": b"2"}))
    case("names-not-normalised", "names are bytes: two that normalise to one are two",
        ok(statement=decomposed, count=4), envelope(decomposed),
        changes={"e\u0301": "1", "\u00e9": "2"})
    spaced = json.dumps(TINY, indent=2)
    case("payload-with-blanks", "the payload is signed as it is", ok(), envelope(spaced))
    backward = json.dumps(dict(reversed(TINY.items())))
    case("payload-in-another-order", "members of the payload come in any order", ok(), envelope(backward))
    go = edit(edit(STD, "verificationMaterial", "tlogEntries"), "dsseEnvelope", "signatures", 0, "keyid")
    case("compact", "compact JSON without keyid and tlogEntries", ok(), compact(go))
    null = edit(STD, "dsseEnvelope", "signatures", 0, "keyid", to=None)
    case("keyid-null", "a keyid that is null", ok(), null)
    raw = {"rawBytes": base(ALICE.pem), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    case("raw-key-no-hint", "as written before 1.1.0: the key itself, and no hint", ok(),
        edit(STD, "verificationMaterial", "publicKey", to=raw))
    subjects = [{"name": one["name"], "digest": {"sha256": one["digest"]}} for one in TINY["predicate"]["resources"]]
    old = {"_type": STATEMENT, "subject": subjects, "predicateType": OLD, "predicate": {"unused": None}}
    case("digests-v0.1", "the statement from before 1.0: a subject a file", ok(statement=old), envelope(old))
    extra = edit(TINY, "predicate", "extra", to={"a": [1, None]})
    case("fields-unknown-in-predicate", "the predicate may say more", ok(), envelope(extra))
    case("no-ignored-paths", "nothing is ignored but signatures", ok(), envelope(oms(ignore_paths=[])))
    case("ignored-there", "what the signature ignores may be there, and change", ok(),
        envelope(oms(ignore_paths=IGNORED)), changes={".git/config": "x", ".gitattributes": "y"})
    links = oms(allow_symlinks=True)
    case("symlinks-allowed-none-there", "links would be allowed, and none is there", ok(), envelope(links))
    case("ignored-by-the-caller", "the caller may ignore more", ok(), STD, changes={"notes/today.txt": "x"},
        policy={"ignore": ["notes"]})
    case("unsigned-files-ignored-by-the-caller", "or all that is not signed", ok(), STD,
        changes={"notes/today.txt": "x"}, policy={"ignore_unsigned": True})
    single = "single.safetensors"
    dot = oms(single, listed=[resources(MODELS[single])[0] | {"name": "."}])
    case("single-dot", "a single file by the name `.`", ok(single, dot), envelope(dot), model=single)
    case("single-name", "a single file by its own name", ok(single), envelope(oms(single)), model=single)
    shard = oms(single, listed=[one | {"name": one["name"].replace(single, ".")} for one in resources(MODELS[single],
        shard=512)], method="shards", shard_size=512)
    case("single-shards", "shards of a single file", ok(single, shard), envelope(shard), model=single)
    signature = ALICE.sign(pae(compact(TINY).encode()))
    r, s = utils.decode_dss_signature(signature)
    order = CURVES["secp256r1"][3]
    high, low = (utils.encode_dss_signature(r, pick(s, order - s)) for pick in (max, min))
    case("high-s", "ECDSA with the greater s", ok(), envelope(TINY, signature=high))
    case("low-s", "ECDSA with the lesser s", ok(), envelope(TINY, signature=low))


def bundles_refused() -> None:
    """Steps 1 to 4: bundles that are none."""
    bad, text, std = "malformed-bundle", json.dumps(STD), STD
    payload = std["dsseEnvelope"]["payload"]
    for name, key in (("top", "mediaType"), ("material", "publicKey"), ("key", "hint"), ("envelope", "payload"),
        ("signature", "sig")):
        at = text.index(f'"{key}"')
        value = json.dumps({"mediaType": MEDIA, "publicKey": {"hint": ALICE.id}, "hint": ALICE.id, "payload": payload,
            "sig": std["dsseEnvelope"]["signatures"][0]["sig"]}[key])
        case(f"duplicate-{name}", f"{key} twice, with the same value", bad, f'{text[:at]}"{key}": {value}, {text[at:]}')
        escaped = f"\\u{ord(key[0]):04x}{key[1:]}"
        if name in ("top", "key", "signature"):
            case(f"duplicate-{name}-escaped", f"{key} twice, once escaped", bad,
                f'{text[:at]}"{escaped}": {value}, {text[at:]}')
    for name, data in (
        ("bom", "\ufeff" + text), ("trailing", text + "x"), ("trailing-object", text + "{}"),
        ("trailing-nul", text + "\0"),
        ("empty", ""), ("blank", " \n"), ("null", "null"), ("list", f"[{text}]"), ("truncated", text[:-1]),
        ("comma", text[:-1] + ",}"),
        ("nan", text[:-1] + ', "x": NaN}'), ("single-quotes", text.replace('"', "'")), ("comment", text + "// x"),
        ("deep-list", '{"mediaType": ' + "[" * 10_000 + "]" * 10_000 + "}"),
        ("not-utf-8", text.encode().replace(b"hint", b"hin\xff"))):
        case(f"json-{name}", "no strict JSON object in UTF-8", bad, data)
    for name, path in (("top", ()), ("material", ("verificationMaterial",)),
        ("key", ("verificationMaterial", "publicKey")),
                       ("envelope", ("dsseEnvelope",)), ("signature", ("dsseEnvelope", "signatures", 0))):
        case(f"unknown-field-{name}", "a field that a bundle does not have", bad, edit(std, *path, "extra", to=1))
    for name, path in (("media-type", ("mediaType",)), ("envelope", ("dsseEnvelope",)),
        ("payload", ("dsseEnvelope", "payload")),
                       ("material", ("verificationMaterial",)),
                       ("signature", ("dsseEnvelope", "signatures", 0, "sig"))):
        case(f"missing-{name}", "a field that a bundle must have", bad, edit(std, *path))
    signatures = std["dsseEnvelope"]["signatures"]
    other = envelope(TINY, BOB)["dsseEnvelope"]["signatures"]
    case("signatures-none", "no signature", bad, edit(std, "dsseEnvelope", "signatures", to=[]))
    case("signatures-two", "the same signature twice", bad, edit(std, "dsseEnvelope", "signatures", to=signatures * 2))
    case("signatures-two-signers", "a good signature, and another's", bad,
        edit(std, "dsseEnvelope", "signatures", to=signatures + other), policy=by("alice", "bob"))
    case("signatures-object", "an object for the list of signatures", bad,
        edit(std, "dsseEnvelope", "signatures", to=signatures[0]))
    case("media-type-v0.4", "another media type", bad, edit(std, "mediaType", to=MEDIA.replace("0.3", "0.4")))
    case("media-type-json", "another media type", bad, edit(std, "mediaType", to="application/json"))
    case("media-type-number", "a media type that is no text", bad, edit(std, "mediaType", to=3))
    material = std["verificationMaterial"]
    chain = {"x509CertificateChain": {"certificates": [{"rawBytes": "MAA="}]}}
    number = edit(std, "dsseEnvelope", "signatures", 0, "keyid", to=3)
    case("keyid-number", "a keyid that is no text", bad, number)
    case("material-none", "no material", bad, edit(std, "verificationMaterial", to={"tlogEntries": []}))
    case("material-two", "a key and a chain", bad, edit(std, "verificationMaterial", to=material | chain))
    case("material-key-and-certificate", "a key and a certificate", bad,
        edit(std, "verificationMaterial", to=material | {"certificate": {"rawBytes": "MAA="}}))
    case("material-chain", "a chain of certificates, and the policy names keys", "wrong-material",
        edit(std, "verificationMaterial", to=chain | {"tlogEntries": []}))
    case("material-keyless", "a certificate, and the policy names keys", "wrong-material",
        edit(std, "verificationMaterial", to={"certificate": {"rawBytes": "MAA="}, "tlogEntries": []}))
    case("material-key-list", "a list for the key", bad, edit(std, "verificationMaterial", "publicKey", to=[ALICE.id]))
    for name, change in (
        ("unpadded", lambda b: b.rstrip("=")), ("url-safe", lambda b: b.replace("+", "-").replace("/", "_")),
        ("newline", lambda b: b + "\n"),
        ("blank", lambda b: b[:8] + " " + b[8:]), ("cut", lambda b: b[:-3]), ("overlong", lambda b: b + "===="),
        ("line-break", lambda b: b[:76] + "\n" + b[76:]),
        ("trailing-bits", lambda b: b.rstrip("=")[:-1] + chr(ord(b.rstrip("=")[-1]) + 1) + "=" * b.count("="))):
        padded = next(one for one in (envelope(spaced) for spaced in (compact(TINY) + " " * n for n in range(9)))
                      if all(b.endswith("=") and set("+/") & set(b)
                      for b in [one["dsseEnvelope"]["signatures"][0]["sig"]])
                      and one["dsseEnvelope"]["payload"].endswith("="))
        sig = padded["dsseEnvelope"]["signatures"][0]["sig"]
        case(f"base64-signature-{name}", "base64 in another form", bad,
            edit(padded, "dsseEnvelope", "signatures", 0, "sig", to=change(sig)))
        if name in ("unpadded", "newline", "cut", "trailing-bits"):
            case(f"base64-payload-{name}", "base64 in another form", bad,
                edit(padded, "dsseEnvelope", "payload", to=change(padded["dsseEnvelope"]["payload"])))
    case("payload-type", "another type of payload, signed as such", bad, envelope(TINY, kind="application/json"))
    other = edit(envelope(TINY, kind="application/json"), "dsseEnvelope", "payloadType", to=PAYLOAD)
    case("payload-type-signed", "another type of payload was signed than is said", "bad-signature", other)
    case("payload-type-said", "another type of payload, not the one signed", bad,
        edit(std, "dsseEnvelope", "payloadType", to="application/json"))

    case("key-of-nobody", "signed by a key that the policy does not name", "untrusted-key", envelope(TINY, MALLORY))
    case("key-under-anothers-hint", "the hint of the key named, the signature of another", "bad-signature",
        edit(envelope(TINY, MALLORY), "verificationMaterial", "publicKey", "hint", to=ALICE.id))
    case("key-of-another-curve-under-the-hint", "a P-384 signature under the hint of a P-256 key", "bad-signature",
        edit(envelope(TINY, P384), "verificationMaterial", "publicKey", "hint", to=ALICE.id))
    case("key-hint-of-der", "a hint over DER is not that of the key", "untrusted-key",
        edit(std, "verificationMaterial", "publicKey", "hint",
        to=hashlib.sha256(base64.b64decode(b"".join(ALICE.pem.split(b"\n")[1:-2]))).hexdigest()))
    case("key-hint-of-a-second-key-named", "the other key named is the one that signed", "bad-signature",
        edit(std, "verificationMaterial", "publicKey", "hint", to=BOB.id), policy=by("alice", "bob"))
    case("key-raw-of-nobody", "the key in the bundle counts for nothing", "bad-signature",
        edit(envelope(TINY, MALLORY), "verificationMaterial", "publicKey",
        to={"rawBytes": base(MALLORY.pem), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}))
    case("key-revoked", "the key is revoked", "revoked", STD, policy={"revoked": ["alice"]})
    case("key-another-revoked", "a key that is revoked is another", ok(), STD,
        policy=by("alice", "bob") | {"revoked": ["bob"]})
    message = pae(compact(TINY).encode())
    good = ALICE.sign(message)
    r, s = utils.decode_dss_signature(good)
    order = CURVES["secp256r1"][3]
    for name, comment, signature in (
        ("empty", "no bytes", b""), ("truncated", "its last byte cut", good[:-1]),
        ("appended", "a byte after it", good + b"\0"),
        ("bit-flipped", "a bit of s", good[:-1] + bytes([good[-1] ^ 1])),
        ("bit-flipped-tag", "a bit of its tag", bytes([good[0] ^ 1]) + good[1:]),
        ("r-zero", "r is 0", utils.encode_dss_signature(0, s)), ("s-zero", "s is 0", utils.encode_dss_signature(r, 0)),
        ("zeros", "r and s are 0", utils.encode_dss_signature(0, 0)),
        ("r-plus-order", "r plus the order", utils.encode_dss_signature(r + order, s)),
        ("s-plus-order", "s plus the order", utils.encode_dss_signature(r, s + order)),
        ("order", "r and s are the order", utils.encode_dss_signature(order, order)),
        ("swapped", "s and r", utils.encode_dss_signature(s, r)),
        ("ones", "r and s are 1", utils.encode_dss_signature(1, 1)),
        ("raw", "64 bytes for DER", r.to_bytes(32) + s.to_bytes(32)),
        ("length-long-form", "BER", b"\x30\x81" + good[1:]),
        ("integer-padded", "BER", b"\x30" + bytes([good[1] + 1]) + b"\x02" + bytes([good[3] + 1]) + b"\0" + good[4:]),
        ("over-sha384", "SHA-384 under P-256", ALICE.private.sign(message,
        ec.ECDSA(hashes.SHA384(), deterministic_signing=True))),
        ("over-payload", "over the payload without its frame", ALICE.sign(compact(TINY).encode())),
        ("of-another-payload", "of another payload", ALICE.sign(pae(compact(oms("other")).encode())))):
        case(f"signature-{name}", comment, "bad-signature", envelope(TINY, signature=signature))
    edwards = ED.sign(message)
    s = int.from_bytes(edwards[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    case("signature-ed25519-s-plus-order", "s plus the order", "bad-signature",
        envelope(TINY, ED, signature=edwards[:32] + s.to_bytes(32, "little")), policy=by("ed25519"))
    case("signature-ed25519-cut", "its last byte cut", "bad-signature", envelope(TINY, ED, signature=edwards[:-1]),
        policy=by("ed25519"))
    case("signature-ed25519-bit-flipped", "a bit of it", "bad-signature",
        envelope(TINY, ED, signature=bytes([edwards[0] ^ 1]) + edwards[1:]), policy=by("ed25519"))
    changed = edit(std, "dsseEnvelope", "payload", to=base(compact(TINY).replace("config.json",
        "Config.json").encode()))
    case("payload-changed", "a letter of the payload", "bad-signature", changed)
    case("payload-written-again", "the payload with a blank more", "bad-signature",
        edit(std, "dsseEnvelope", "payload", to=base(json.dumps(TINY).encode())))


def statements_refused() -> None:
    """Steps 5 to 7: statements that are signed, and say nothing that could hold."""
    bad, text = "malformed-statement", compact(TINY)

    def signed(name: str, comment: str, expect: str, statement: Any, **more: Any) -> None:
        case(name, comment, expect, envelope(statement), **more)

    places = {"top": "_type", "subject": "name", "subject-digest": "sha256", "predicate": "serialization",
        "serialization": "method",
              "resource": "algorithm"}
    for name, key in places.items():
        at = text.index(f'"{key}"')
        value = '{"sha256":"00"}' if key == "serialization" else '"sha256"'
        signed(f"statement-duplicate-{name}", f"{key} twice", bad, f'{text[:at]}"{key}":{value},{text[at:]}')
        escaped = f"\\u{ord(key[0]):04x}{key[1:]}"
        if name in ("top", "subject-digest", "resource"):
            signed(f"statement-duplicate-{name}-escaped", f"{key} twice, once escaped", bad,
                f'{text[:at]}"{escaped}":{value},{text[at:]}')
    signed("statement-duplicate-unknown", "a field twice that nobody reads", bad,
        text[:-2] + ',"extra":[{"a":1,"a":1}]}}')
    for name, data in (("bom", "\ufeff" + text), ("trailing", text + "}"), ("nan", text[:-2] + ',"x":NaN}}'),
        ("empty", ""), ("list", f"[{text}]"), ("null", "null"),
                       ("deep", text[:-2] + ',"x":' + "[" * 2_000 + "]" * 2_000 + "}}"),
                       ("not-utf-8", text.encode().replace(b"tiny", b"tin\xff")),
                       ("half-a-surrogate", text.replace("config.json", "\\ud800"))):
        signed(f"statement-{name}", "no strict JSON object in UTF-8", bad, data)
    signed("statement-type", "another type", bad, edit(TINY, "_type", to="https://in-toto.io/Statement/v0.1"))
    signed("statement-type-missing", "no type", bad, edit(TINY, "_type"))
    for name, predicate in (("slsa", "https://slsa.dev/provenance/v1"), ("v2", "https://model_signing/signature/v2.0"),
        ("capitals", OMS.upper())):
        signed(f"predicate-{name}", "a statement of another kind, by the same key", bad,
            edit(TINY, "predicateType", to=predicate))
    signed("predicate-missing", "no predicate", bad, edit(TINY, "predicate"))
    signed("predicate-type-missing", "no type of predicate", bad, edit(TINY, "predicateType"))
    signed("predicate-list", "a list for the predicate", bad, edit(TINY, "predicate", to=[]))
    subject = TINY["subject"][0]
    signed("subject-none", "no subject", bad, edit(TINY, "subject", to=[]))
    signed("subject-two", "two subjects", bad, edit(TINY, "subject", to=[subject, subject]))
    signed("subject-no-digest", "a subject without digest", "root-mismatch", edit(TINY, "subject", 0, "digest", to={}))
    signed("subject-sha512", "a digest of another kind", "root-mismatch",
        edit(TINY, "subject", 0, "digest", to={"sha512": "0" * 128}))
    signed("subject-upper-case", "a root in capitals", "root-mismatch",
        edit(TINY, "subject", 0, "digest", "sha256", to=root(TINY["predicate"]["resources"]).upper()))
    signed("subject-short", "a root cut short", "root-mismatch",
        edit(TINY, "subject", 0, "digest", "sha256", to=root(TINY["predicate"]["resources"])[:-2]))
    two = {"sha256": root(TINY["predicate"]["resources"]), "sha512": "0" * 128}
    signed("subject-two-digests", "a second digest beside the root", "root-mismatch",
        edit(TINY, "subject", 0, "digest", to=two))
    signed("root-mismatch", "another root", "root-mismatch", edit(TINY, "subject", 0, "digest", "sha256", to="0" * 64))
    listed = TINY["predicate"]["resources"]
    resorted = edit(oms(listed=listed[::-1]), "predicate", "resources", to=listed)
    signed("root-in-another-order", "the root of the digests in another order", "root-mismatch", resorted)
    of_hex = hashlib.sha256("".join(one["digest"] for one in listed).encode()).hexdigest()
    signed("root-of-hexadecimal", "the root over hexadecimal", "root-mismatch",
        edit(TINY, "subject", 0, "digest", "sha256", to=of_hex))
    b3 = oms(name="blake3")
    own = blake3.blake3(b"".join(bytes.fromhex(one["digest"]) for one in b3["predicate"]["resources"])).hexdigest()
    signed("root-by-the-hash-of-the-files", "the root is SHA-256 whatever the files are hashed by", "root-mismatch",
        edit(b3, "subject", 0, "digest", "sha256", to=own))

    serial = ("predicate", "serialization")
    for name, path in (("top", ()), ("subject", ("subject", 0)), ("serialization", serial),
        ("resource", ("predicate", "resources", 0))):
        signed(f"statement-unknown-field-{name}", "a field that is not of OMS", bad, edit(TINY, *path, "extra", to=1))
    signed("serialization-missing", "no serialization", bad, edit(TINY, *serial))
    signed("method-missing", "no method", bad, edit(TINY, *serial, "method"))
    signed("method-unknown", "another method", "unsupported", edit(TINY, *serial, "method", to="tree"))
    signed("method-capitals", "a method in capitals", "unsupported", edit(TINY, *serial, "method", to="Files"))
    for name in ("sha512", "SHA256"):
        signed(f"hash-{name}", "another hash", "unsupported", edit(TINY, *serial, "hash_type", to=name))
    signed("hash-missing", "no hash", bad, edit(TINY, *serial, "hash_type"))
    signed("hash-of-another-kind-said", "blake3 said of digests by sha256", bad,
        edit(TINY, *serial, "hash_type", to="blake3"))
    for name, value in (("dot", ["."]), ("parent", ["../x"]), ("root", ["/"]), ("absolute", ["/config.json"]),
        ("empty", [""]), ("not-canonical", ["a/../sub"]),
                        ("slash", ["sub/"]), ("backslash", ["a\\b"]), ("nul", ["a\0b"]), ("text", "."),
                        ("number", [1])):
        signed(f"ignore-{name}", "what is ignored is not named canonically", bad, oms(ignore_paths=value))
    for name, label in (("other", "blake3"), ("capitals", "SHA256"), ("sharded", "sha256-sharded-512")):
        signed(f"label-{name}", "an algorithm that is not the hash", bad,
            oms(listed=[listed[0] | {"algorithm": label}, listed[1]]))
    for name, digest in (("upper-case", listed[0]["digest"].upper()), ("short", listed[0]["digest"][:-2]),
        ("long", listed[0]["digest"] + "00"),
                         ("odd", listed[0]["digest"][:-1]), ("blank", listed[0]["digest"][:-1] + " "),
                         ("not-hexadecimal", "g" + listed[0]["digest"][1:]),
                         ("base64", base(bytes.fromhex(listed[0]["digest"])))):
        signed(f"digest-{name}", "a digest that is not 64 lower-case hexadecimal digits", bad,
            edit(TINY, "predicate", "resources", 0, "digest", to=digest))
    signed("digest-of-sha256-under-blake2b", "32 bytes for 64", bad,
        edit(oms(listed=[one | {"algorithm": "blake2b"} for one in listed]), *serial, "hash_type", to="blake2b"))
    signed("digest-missing", "no digest", bad, edit(TINY, "predicate", "resources", 0, "digest"))
    signed("resources-empty", "no files", bad, oms(listed=[]))
    signed("resources-empty-of-an-empty-model", "no files, and none there", bad, oms(listed=[]),
        changes={"config.json": None, "sub/weights.txt": None})
    signed("resources-missing", "no list of files", bad, edit(TINY, "predicate", "resources"))
    for name, path in (("parent", "../config.json"), ("parent-within", "sub/../config.json"), ("parent-alone", ".."),
        ("absolute", "/config.json"), ("double-slash", "sub//weights.txt"),
                       ("dot", "."), ("dot-first", "./config.json"), ("dot-within", "sub/./weights.txt"),
                       ("slash-last", "config.json/"), ("backslash", "sub\\weights.txt"),
                       ("drive", "C:\\config.json"), ("nul", "config.json\0"), ("empty", ""), ("slash", "/")):
        signed(f"name-{name}", "a name that is not canonical", bad, oms(listed=[listed[0] | {"name": path}, listed[1]]))
        if name in ("parent", "absolute"):
            signed(f"name-{name}-unsigned-ignored", "nor where unsigned files are ignored", bad,
                oms(listed=[listed[0] | {"name": path}, listed[1]]), policy={"ignore_unsigned": True})
    signed("name-dot-of-a-directory", "the name of a single file, of a directory", "missing-file",
        oms(listed=[listed[0] | {"name": "."}]))
    signed("name-duplicate", "a file twice", bad, oms(listed=[listed[0], listed[0], listed[1]]))
    signed("name-duplicate-other-digest", "a file twice, with two digests", bad,
        oms(listed=[listed[0], listed[0] | {"digest": listed[1]["digest"]}, listed[1]]))
    doubled = compact(oms(listed=[listed[0], listed[0] | {"name": "@"}, listed[1]])).replace('"@"',
        '"\\u0063onfig.json"')
    signed("name-duplicate-escaped", "a file twice, once escaped", bad, doubled)
    signed("name-missing", "no name", bad, edit(TINY, "predicate", "resources", 0, "name"))
    signed("name-number", "a name that is no text", bad, edit(TINY, "predicate", "resources", 0, "name", to=1))

    good = resources(MODELS["shards"], shard=512)
    at = next(i for i, one in enumerate(good) if one["name"].startswith("model.safetensors:0:"))
    data = MODELS["shards"]["model.safetensors"]

    def shards(name: str, comment: str, expect: str, listed: list[Json], size: Any = 512, **more: Any) -> None:
        case(f"shards-{name}", comment, expect, envelope(oms("shards", listed=listed, method="shards",
            shard_size=size)), model="shards", **more)

    def renamed(index: int, name: str) -> list[Json]:
        return [one | ({"name": name} if i == index else {}) for i, one in enumerate(good)]

    third = good[at + 2]["name"]
    shards("gap", "the second shard is missing", bad, good[:at + 1] + good[at + 2:])
    shards("first-missing", "the first shard is missing", bad, good[:at] + good[at + 1:])
    shards("last-missing", "the last shard is missing: the file is longer", "digest-mismatch",
        good[:at + 2] + good[at + 3:])
    shards("overlap", "a shard begins within another", bad, renamed(at + 1, "model.safetensors:511:1024"))
    shards("duplicate", "a shard twice", bad, good[:at + 1] + good[at:])
    shards("empty-shard", "a shard of nothing", bad, good[:at] + [good[at]
        | {"name": "model.safetensors:0:0"}] + good[at:])
    shards("backward", "a shard that ends before it begins", bad, renamed(at, "model.safetensors:512:0"))
    shards("short-within", "a short shard before the last", bad,
        resources({**MODELS["shards"], "model.safetensors": data[:500]}, shard=512) + [
        {"name": f"model.safetensors:500:{len(data)}", "algorithm": "sha256",
        "digest": hashlib.sha256(data[500:]).hexdigest()}])
    shards("longer-than-size", "a shard longer than their size", bad, resources(MODELS["shards"], shard=4096), 512)
    shards("past-the-end", "the last shard ends after the file", "digest-mismatch",
        renamed(at + 2, third.replace(str(len(data)), str(len(data) + 1))))
    shards("no-range", "a name without a range", bad, renamed(at, "model.safetensors"))
    shards("range-without-name", "a range without a name", bad, renamed(at, ":0:512"))
    for name, number in (("plus", "+512"), ("zeros", "0512"), ("float", "512.0"),
                         ("huge", "18446744073709552128"), ("other-digits", "\u0665\u0661\u0662")):
        shards(f"number-{name}", f"an end of {number}", bad, renamed(at, f"model.safetensors:0:{number}"))
    for name, size in (("zero", 0), ("minus", -512), ("text", "512"), ("fraction", 512.5), ("huge", 1e300)):
        shards(f"size-{name}", f"a shard_size of {size}", bad, good, size)
    case("shards-size-missing", "no shard_size", bad, envelope(oms("shards", listed=good, method="shards")),
        model="shards")
    shards("label-of-another-size", "labels of another size", bad,
        [one | {"algorithm": "sha256-sharded-1024"} for one in good])
    shards("label-of-another-hash", "a label of another hash", bad,
        [one | {"algorithm": "blake3-sharded-512"} for one in good])
    swapped = [*good]
    swapped[at], swapped[at + 1] = (good[at] | {"digest": good[at + 1]["digest"]},
        good[at + 1] | {"digest": good[at]["digest"]})
    shards("swapped", "the digests of two shards swapped", "digest-mismatch", swapped)


def models_refused() -> None:
    """Steps 9 and 10: models that are not what was signed."""
    def changed(name: str, comment: str, expect: str | Json, changes: dict[str, Change], **more: Any) -> None:
        case(name, comment, expect, STD, changes=changes, **more)

    changed("file-changed", "a file changed", "digest-mismatch", {"config.json": '{"model_type":"Tiny"}\n'})
    changed("file-longer", "a file with a byte more", "digest-mismatch", {"config.json": '{"model_type":"tiny"}\n\n'})
    changed("file-shorter", "a file with a byte less", "digest-mismatch", {"config.json": '{"model_type":"tiny"}'})
    changed("file-empty", "a file emptied", "digest-mismatch", {"config.json": ""})
    changed("file-missing", "a file missing", "missing-file", {"config.json": None})
    changed("file-missing-unsigned-ignored", "nor where unsigned files are ignored", "missing-file",
        {"config.json": None}, policy={"ignore_unsigned": True})
    changed("files-swapped", "two files under each other's name", "digest-mismatch",
        {"config.json": "0 1 2\n", "sub/weights.txt": '{"model_type":"tiny"}\n'})
    changed("file-renamed", "a file under another name", "missing-file",
        {"config.json": None, "config2.json": '{"model_type":"tiny"}\n'})
    changed("file-in-other-case", "a file in capitals", "missing-file",
        {"config.json": None, "Config.json": '{"model_type":"tiny"}\n'})
    changed("file-moved", "a file in another folder", "missing-file",
        {"config.json": None, "sub/config.json": '{"model_type":"tiny"}\n'})
    changed("all-missing", "no files", "missing-file", {"config.json": None, "sub/weights.txt": None})
    for name, path in (("", "modeling.py"), ("-empty", "x"), ("-hidden", ".x"), ("-case-variant", "Config.json"),
        ("-deep", "sub/a/b"), ("-suffix", "model.sig.bak"),
                       ("-sig-within", "sub/model.sig"), ("-git-within", "sub/.git/config"), ("-blank", "config.json "),
                       ("-looks-ignored", ".github2"), ("-pycache", "__pycache__/x.pyc")):
        changed(f"extra{name}", "a file that was not signed", "extra-file", {path: "" if name == "-empty" else "x"})
    changed("extra-beside-ignored", "the caller ignores another", "extra-file", {"notes/x": "x", "notes2": "x"},
        policy={"ignore": ["notes"]})
    case("extra-in-shards", "a file that was not signed", "extra-file",
        envelope(oms("shards", listed=resources(MODELS["shards"], shard=512), method="shards", shard_size=512)),
        model="shards", changes={"extra": "x"})
    link = {"link": "weights.txt"}
    changed("link-to-file", "a link to a signed file", "not-a-file", {"sub/other.txt": link})
    changed("link-for-file", "a link in the place of a file", "not-a-file",
        {"real.json": '{"model_type":"tiny"}\n', "config.json": {"link": "real.json"}})
    changed("link-for-folder", "a link in the place of a folder", "not-a-file",
        {"real/weights.txt": "0 1 2\n", "sub": {"link": "real"}})
    changed("link-for-folder-unsigned-ignored", "nor where unsigned files are ignored", "not-a-file",
        {"real/weights.txt": "0 1 2\n", "sub": {"link": "real"}}, policy={"ignore_unsigned": True})
    changed("fifo", "a FIFO", "not-a-file", {"x": {"fifo": True}})
    changed("fifo-unsigned-ignored", "nor where unsigned files are ignored", "not-a-file", {"x": {"fifo": True}},
        policy={"ignore_unsigned": True})
    changed("link-dangling", "a link to nowhere", "not-a-file", {"x": {"link": "nowhere"}})
    case("link-allowed-by-signature", "links are refused whatever the signature says", "not-a-file",
        envelope(oms(allow_symlinks=True)), changes={"sub/other.txt": link})
    case("model-of-another-signature", "a signature of another model", "digest-mismatch", envelope(oms("other")))
    case("single-changed", "a single file changed", "digest-mismatch", envelope(oms("single.safetensors")),
        model="single.safetensors", changes={".": "x"})
    case("single-with-two-files", "a single file, signed with another", "missing-file",
        envelope(oms("single.safetensors", listed=resources(MODELS["single.safetensors"] | MODELS["tiny"]))),
        model="single.safetensors")
    case("single-by-another-name", "a single file under another name", "missing-file",
        envelope(oms("single.safetensors", listed=[
        resources(MODELS["single.safetensors"])[0] | {"name": "other.safetensors"}])), model="single.safetensors")
    case("signature-none", "no signature", "no-signature")
    case("signature-elsewhere", "a signature under a name that is none", "no-signature", ("sub/model.sig", STD))
    old = {"_type": STATEMENT, "subject": [{"name": one["name"], "digest": {"sha256": one["digest"]}}
        for one in TINY["predicate"]["resources"]], "predicateType": OLD, "predicate": None}
    case("digests-v0.1-changed", "a file changed", "digest-mismatch", envelope(old), changes={"config.json": "x"})
    case("digests-v0.1-extra", "a file that was not signed", "extra-file", envelope(old), changes={"x": ""})
    case("digests-v0.1-ignores-nothing-else", "a statement from before 1.0 ignores its signature only", "extra-file",
        envelope(old), changes={".git/config": "x"})
    case("digests-v0.1-empty", "no files", "malformed-statement", envelope(edit(old, "subject", to=[])))
    case("digests-v0.1-duplicate", "a file twice", "malformed-statement",
        envelope(edit(old, "subject", to=old["subject"] + old["subject"][:1])))
    case("digests-v0.1-parent", "a name that is not canonical", "malformed-statement",
        envelope(edit(old, "subject", 0, "name", to="../config.json")))
    case("digests-v0.1-upper-case", "a digest in capitals", "malformed-statement",
        envelope(edit(old, "subject", 0, "digest", "sha256", to="A" * 64)))


def policies() -> None:
    """Step 8: signers, rules and names."""
    two = by("alice", "bob", "carol", threshold=2)
    alice, bob = ("model.sig", STD), ("model.bob.sig", envelope(TINY, BOB))
    case("threshold", "two of three", ok(), alice, bob, policy=two)
    case("threshold-not-reached", "one of the two required", "threshold", alice, policy=two)
    case("threshold-one-twice", "the same signer twice", "threshold", alice,
        ("model.again.sig", envelope(json.dumps(TINY))), policy=two)
    case("threshold-one-named-twice", "a signer who is named twice is one", "threshold", alice,
        policy=by("alice", "alice", threshold=2))
    case("threshold-two-files-of-one-signature", "the same bundle twice", "threshold", alice, ("model.again.sig", STD),
        policy=two)
    case("threshold-one-of-nobody", "the second is by nobody", "untrusted-key", alice,
        ("model.m.sig", envelope(TINY, MALLORY)), policy=two)
    case("threshold-and-one-of-nobody", "two signed, and a third who is nobody", "untrusted-key", alice, bob,
        ("model.m.sig", envelope(TINY, MALLORY)), policy=two)
    case("threshold-of-other-files", "the second signed other files", "disagreement", alice,
        ("model.bob.sig", envelope(oms("other"), BOB)), policy=two)
    case("threshold-revoked", "the second is revoked", "revoked", alice, bob, policy=two | {"revoked": ["bob"]})
    case("threshold-bad", "the second does not verify", "bad-signature", alice,
        ("model.bob.sig", envelope(TINY, BOB, signature=ALICE.sign(b"x"))), policy=two)
    case("name", "the name expected", ok(), STD, policy={"name": "tiny"})
    case("name-wrong", "another name than the one expected", "wrong-name", STD, policy={"name": "acme/tiny"})
    rules = [{"models": ["other*"], "keys": ["bob"]}, {"models": ["tiny", "small"], "keys": ["alice"]}]
    case("rule", "the second rule fits", ok(), STD, policy={"rules": rules})
    case("rule-of-another-key", "the key of one rule signs for another", "untrusted-key", bob, policy={"rules": rules})
    case("rule-and-a-signer-of-another", "a signer of another rule may have signed too", ok(), ("model.sig", STD), bob,
        policy={"rules": rules})
    case("rule-and-a-signer-of-another-for-two", "nor towards the number", "threshold", ("model.sig", STD), bob,
        policy={"rules": [rules[0], {"keys": ["alice", "carol"], "threshold": 2}]})
    case("rule-none", "no rule for this name", "no-rule", STD,
        policy={"rules": rules[:1] + [{"models": ["tin", "tiny/*", "Tiny"], "keys": ["alice"]}]})
    case("rule-first", "the first that fits holds", "untrusted-key", STD,
        policy={"rules": [{"models": ["ti*"], "keys": ["bob"]}, {"keys": ["alice"]}]})
    for rule in ({"minimum_version": 1}, {"not_older_than": "2026-01-01T00:00:00Z"}):
        case(f"release-none-{next(iter(rule))}", "the rule asks for a release", "no-release", STD,
            policy=by("alice", **rule))
    case("release-none-high-water", "no rollback can be told without a release", "no-release", STD, high_water={})


def releases() -> None:
    """Releases, good and bad."""
    bad, at = "malformed-statement", "model.release.sig"
    good = release(TINY)

    def released(name: str, comment: str, expect: str | Json, statement: Any, key: Key = ALICE, **more: Any) -> None:
        case(f"release-{name}", comment, expect, STD, (at, envelope(statement, key)), **more)

    fine = ok(version=3, name="acme/tiny")
    released("ok", "a release", fine, good)
    released("without-expiry", "one that does not expire", fine, edit(good, "predicate", "expires"))
    parent = {"relation": "fine-tuned", "name": "acme/base", "digest": {"sha256": "ab" * 32}}
    released("parent-expected", "the parent expected", fine, release(TINY, parents=[parent]),
        policy={"parent": "ab" * 32})
    released("parent-of-another-digest", "another parent than the one expected", "parent",
        release(TINY, parents=[parent]), policy={"parent": "cd" * 32})
    released("parent-none", "no parent, and one expected", "parent", good, policy={"parent": "ab" * 32})
    case("release-none-parent", "no release, and a parent expected", "no-release", STD, policy={"parent": "ab" * 32})
    for relation in ("base", "fine-tuned", "quantised", "merged", "converted"):
        released(f"parent-{relation}", "a parent", fine, release(TINY, parents=[parent | {"relation": relation}]))
    released("version-0", "the lowest version", ok(version=0, name="acme/tiny"), release(TINY, version=0))
    largest = 2**64 - 1
    released("version-largest", "the highest version", ok(version=largest, name="acme/tiny"),
        release(TINY, version=largest))
    released("minimum-version", "just the version asked for", fine, good, policy=by("alice", minimum_version=3))
    released("version-low", "a version below", "version", good, policy=by("alice", minimum_version=4))
    released("not-older-than", "issued just then", fine, good,
        policy=by("alice", not_older_than="2026-11-26T10:00:00Z"))
    released("too-old", "issued a second before", "too-old", good,
        policy=by("alice", not_older_than="2026-11-26T10:00:01Z"))
    released("last-second", "a second before it expires", fine, good, policy={"at": "2027-11-26T09:59:59Z"})
    released("expires-now", "the very second at which it expires", "expired", good,
        policy={"at": "2027-11-26T10:00:00Z"})
    released("expired", "a second after it expired", "expired", good, policy={"at": "2027-11-26T10:00:01Z"})
    released("name", "the name expected is that of the release", fine, good, policy={"name": "acme/tiny"})
    released("name-wrong", "the name of the OMS statement counts no more", "wrong-name", good, policy={"name": "tiny"})
    released("rule", "the rule is that of the name released", "untrusted-key", good,
        policy={"rules": [{"models": ["acme/*"], "keys": ["bob"]}, {"keys": ["alice"]}]})
    released("of-nobody", "a release by nobody", "untrusted-key", good, MALLORY)
    released("of-another-root", "a release of another model", "foreign-release", release(oms("other")))
    under = edit(envelope(good, MALLORY), "verificationMaterial", "publicKey", "hint", to=ALICE.id)
    case("release-under-anothers-hint", "a release signed by another key under the hint", "bad-signature", STD,
        (at, under))
    case("release-as-signature", "a release in the place of the signature", "no-signature",
        ("model.sig", envelope(good)))
    case("release-alone", "a release, and no signature of the files", "no-signature", (at, envelope(good)))
    case("release-empty-file", "a release that is no bundle", "malformed-bundle", STD, (at, ""))
    case("release-is-a-signature", "a signature of the files in the place of a release", "no-release", STD, (at, STD),
        policy=by("alice", minimum_version=1))
    case("release-called-oms", "the fields of a release under the type of the other", bad,
        (at, envelope(edit(good, "predicateType", to=OMS))), STD)
    released("called-release", "the fields of a signature under the type of a release", bad,
        edit(TINY, "predicateType", to=RELEASE))
    released("v2", "a later kind of release", bad, edit(good, "predicateType", to=RELEASE.replace("v1", "v2")))
    for name, path in (("top", ()), ("predicate", ("predicate",)), ("subject", ("subject", 0)),
        ("digest", ("subject", 0, "digest"))):
        released(f"unknown-field-{name}", "a field that a release does not have", bad, edit(good, *path, "extra", to=1))
    for field in ("version", "issued", "parents", "components", "code"):
        released(f"missing-{field}", "a field that a release must have", bad, edit(good, "predicate", field))
    for name, version in (("text", "3"), ("float", 3.0), ("minus", -1), ("true", True), ("null", None),
        ("huge", 2**64)):
        released(f"version-{name}", f"a version that is none: {version}", bad, release(TINY, version=version))
    text = compact(good)
    released("version-exponent", "a version of 3e0", bad, text.replace('"version":3', '"version":3e0'))
    released("version-twice", "two versions", bad, text.replace('"version":3', '"version":2,"version":3'))
    for name, when in (("offset", "2026-11-26T10:00:00+00:00"), ("fraction", "2026-11-26T10:00:00.0Z"),
        ("blank", "2026-11-26 10:00:00Z"),
                       ("small-z", "2026-11-26T10:00:00z"), ("date", "2026-11-26"),
                       ("month-13", "2026-13-26T10:00:00Z"),
                       ("february-29", "2026-02-29T10:00:00Z"), ("hour-24", "2026-11-26T24:00:00Z"), ("empty", ""),
                       ("number", 1795687200), ("five-digits", "12026-11-26T10:00:00Z"),
                       ("trailing", "2026-11-26T10:00:00Z ")):
        released(f"issued-{name}", "a time in another form", bad, release(TINY, issued=when))
        if name in ("offset", "february-29", "number", "empty"):
            released(f"expires-{name}", "a time in another form", bad, release(TINY, expires=when))
    released("expires-null", "an expiry that is there, and no time", bad, release(TINY, expires=None))
    for name, called in (("empty", ""), ("256-bytes", "a" * 256), ("newline", "acme\ntiny"), ("blank-first", " acme"),
        ("blank-last", "acme "), ("nul", "a\0"), ("c1", "a\x85b")):
        released(f"name-{name}", "a name that is none", bad, release(TINY, called))
    released("name-255-bytes", "the longest name", ok(version=3, name="a" * 255), release(TINY, "a" * 255))
    released("subject-none", "no subject", bad, edit(good, "subject", to=[]))
    released("subject-two", "two subjects", bad, edit(good, "subject", to=good["subject"] * 2))
    released("digest-upper-case", "a root in capitals", bad,
        edit(good, "subject", 0, "digest", "sha256", to=good["subject"][0]["digest"]["sha256"].upper()))
    released("code-parent", "a path of code that is not canonical", bad, release(TINY, code=["../x.bin"]))
    released("code-there", "a path of code that is", fine, release(TINY, code=["sub/weights.txt"]))
    released("parent-relation", "a relation that is none", bad,
        release(TINY, parents=[parent | {"relation": "adapted"}]))
    released("parent-short", "a digest cut short", bad, release(TINY,
        parents=[edit(parent, "digest", "sha256", to="ab" * 31)]))
    released("parent-unknown-field", "a field that a parent does not have", bad,
        release(TINY, parents=[parent | {"extra": 1}]))
    released("parent-not-listed", "an object for the list of parents", bad, release(TINY, parents=parent))

    plain, fine = release(PLAIN, "acme/plain"), ok("plain", version=3, name="acme/plain")
    listed = parts("plain")

    def named(name: str, comment: str, expect: str | Json, statement: Json, **more: Any) -> None:
        case(f"components-{name}", comment, expect, envelope(PLAIN), (at, envelope(statement)), model="plain", **more)

    named("ok", "chat templates, code and tokenizer, each by its digest", fine, plain)
    named("none", "none named, and some there", "component", release(PLAIN, "acme/plain", components=[]))
    for index, name in enumerate(("template", "inner-template", "code", "tokenizer", "tokenizer-config")):
        named(f"{name}-missing", "one not named", "component",
            release(PLAIN, "acme/plain", components=listed[:index] + listed[index + 1:]))
        named(f"{name}-wrong", "one with another digest", "component",
            release(PLAIN, "acme/plain", components=edit({"": listed}, "", index, "digest", "sha256", to="0" * 64)[""]))
    named("extra", "one named that is not there", "component",
        release(PLAIN, "acme/plain", components=listed + [component("tokenizer", "vocab.txt", b"")]))
    named("extra-no-component", "one named that is there, and no component", "component",
        release(PLAIN, "acme/plain", components=listed[:3] + [
        component("tokenizer", "config.json", MODELS["plain"]["config.json"])] + listed[3:]))
    named("twice", "one named twice", bad, release(PLAIN, "acme/plain", components=listed[:1] + listed))
    named("in-another-order", "the same in another order", bad, release(PLAIN, "acme/plain", components=listed[::-1]))
    named("kind-unknown", "a kind that is none", bad, release(PLAIN, "acme/plain",
        components=listed + [component("weights", "model.safetensors", b"")]))
    named("digest-short", "a digest cut short", bad, release(PLAIN, "acme/plain",
        components=edit({"": listed}, "", 0, "digest", "sha256", to="00")[""]))
    several = json.dumps({"chat_template": [{"name": "default", "template": TEMPLATE},
        {"name": "tools", "template": "{{ tools }}"}]})
    inner = {"tokenizer_config.json": several.encode()} | MODELS["tiny"]
    statement = oms(listed=resources(inner))
    both = [component("chat-template", "tokenizer_config.json#chat_template/default", TEMPLATE.encode()),
            component("chat-template", "tokenizer_config.json#chat_template/tools", b"{{ tools }}"),
            component("tokenizer", "tokenizer_config.json", several.encode())]
    for name, listed, expect in (("", both, ok(statement=statement, count=3, version=3, name="acme/tiny")),
        ("-one-missing", both[1:], "component")):
        case(f"components-list-of-templates{name}", "several chat templates within one file", expect,
            envelope(statement),
             (at, envelope(release(statement, components=listed))), changes={"tokenizer_config.json": several})
    single = "single.safetensors"
    case("release-of-a-single-file", "beside it", ok(single, version=3, name="acme/single"), envelope(oms(single)),
        (single + ".release.sig", envelope(release(oms(single), "acme/single"))), model=single)

    both, threshold = (STD, ("model.bob.sig", envelope(TINY, BOB))), by("alice", "bob", threshold=2)
    later = release(TINY, issued="2026-11-27T10:00:00Z")
    fine = ok(version=3, name="acme/tiny")
    case("releases-two", "two signers of the files and of the release", fine, *both, (at, envelope(good)),
        ("model.bob-release.sig", envelope(good, BOB)), policy=threshold)
    case("releases-two-issued-apart", "of two times issued the earliest counts", "too-old", *both,
        (at, envelope(later)), ("model.bob-release.sig", envelope(good, BOB)),
        policy=by("alice", "bob", threshold=2, not_older_than="2026-11-27T00:00:00Z"))
    blake = oms(name="blake3")
    case("releases-by-another-hash", "the second signer hashed otherwise; the release is about what the first signed",
        fine, STD,
        ("model.bob.sig", envelope(blake, BOB)), (at, envelope(good)), ("model.bob-release.sig", envelope(good, BOB)),
        policy=threshold)
    case("releases-that-differ", "two signers released the same under two versions", "foreign-release", *both,
        (at, envelope(good)),
        ("model.bob-release.sig", envelope(release(TINY, version=4), BOB)), policy=threshold)
    case("releases-one-of-two", "two signed the files, one the release", "threshold", *both, (at, envelope(good)),
        policy=threshold)
    case("releases-one-of-two-files", "two signed the release, one the files", "threshold", STD, (at, envelope(good)),
        ("model.bob-release.sig", envelope(good, BOB)), policy=threshold)

    seen = {"acme/tiny": {"version": 3, "root": fine["root"]}}
    other = {"other": {"version": 9, "root": "00" * 32}}

    def rollback(name: str, comment: str, expect: str | Json, before: Json, raises: Json, statement: Json = good,
        **more: Any) -> None:
        case(f"high-water-{name}", comment, expect, STD, (at, envelope(statement)), high_water=before, raises=raises,
            **more)

    rollback("first", "nothing was seen before", fine, {}, seen)
    rollback("same", "the same was seen before", fine, seen, seen)
    rollback("higher", "a lower version was seen before", fine,
        {"acme/tiny": {"version": 2, "root": "00" * 32}} | other, seen | other)
    rollback("other", "a model of another name was seen before", fine, other, seen | other)
    lower = {"acme/tiny": {"version": 4, "root": fine["root"]}}
    rollback("lower", "a higher version was seen before", "rollback", lower, lower)
    same = {"acme/tiny": {"version": 3, "root": "00" * 32}}
    rollback("same-number", "the same version was seen before, of other files", "rollback", same, same)
    rollback("refused", "what is refused raises nothing", "digest-mismatch", {}, {}, changes={"config.json": "x"})


def main() -> None:
    """Write everything."""
    accepted()
    bundles_refused()
    statements_refused()
    models_refused()
    policies()
    releases()
    for folder in ("bundles", "keys", "models"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
        (ROOT / folder).mkdir()
    for model, content in MODELS.items():
        folder = ROOT / "models" if len(content) == 1 else ROOT / "models" / model
        for path, data in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    for data, name in files.items():
        (ROOT / "bundles" / f"{name}.sig").write_bytes(data)
    for key in KEYS:
        (ROOT / "keys" / f"{key.name}.pem").write_bytes(key.pem)
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in cases)
    (ROOT / "cases.json").write_text(f'{{"policy": {json.dumps(DEFAULT)},\n"cases": [\n{lines}\n]}}\n',
        encoding="utf-8")


if __name__ == "__main__":
    main()
