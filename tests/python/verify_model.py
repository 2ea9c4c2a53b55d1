"""A second verifier of signed models, written from `spec/signing.md` alone.

    python verify_model.py MODEL KEY.pem .. [--bundle FILE ..] [--threshold N] [--at TIME] [--name NAME]

Prints what was verified as JSON, or the cause of the refusal with status 1. Needs the package
`cryptography`, and `blake3` for models signed by that hash. Links are told by `lstat`: fit for
models at rest, not against one who swaps files meanwhile. Signers are keys; certificates, keyless
signatures and components within GGUF files are not read here.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import stat
import sys
import unicodedata
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

MEDIA_TYPE, PAYLOAD_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.in-toto+json"
STATEMENT, OMS = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
OLD, RELEASE = "https://model_signing/Digests/v0.1", "https://weightmark/release/v1"
LENGTHS = {"sha256": 32, "blake2b": 64, "blake3": 32}
ECDSA = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
RELATIONS = {"base", "fine-tuned", "quantised", "merged", "converted"}
KINDS = {"chat-template", "code", "tokenizer"}
CODE = "py pyc pyx ipynb so dll dylib sh js mjs lua c cc cpp cu h ptx java jar".split()
TOKENIZERS = """added_tokens.json merges.txt sentencepiece.bpe.model source.spm special_tokens_map.json
spiece.model target.spm tekken.json tokenizer.json tokenizer.model tokenizer_config.json vocab.bpe
vocab.json vocab.txt""".split()
MOST = 64 << 20
Json = dict[str, Any]


class RefusedError(Exception):
    """Why a model is refused: a word, as in `vectors/signing/README.md`."""


def need(condition: object, word: str) -> None:
    """Refuse for this cause unless the condition holds."""
    if not condition:
        raise RefusedError(word)


def parse(data: bytes, word: str) -> Any:
    """Read JSON in which nothing could be read in two ways."""

    def members(pairs: list[tuple[str, Any]]) -> Json:
        need(len({key for key, _ in pairs}) == len(pairs), word)
        return dict(pairs)

    try:
        value = json.loads(data.decode(), object_pairs_hook=members, parse_constant=lambda _: need(False, word))
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise RefusedError(word) from None
    return value


def member(of: Any, kind: type, name: str, word: str) -> Any:
    """Take a member that must be there, and of this type."""
    need(isinstance(of, dict) and type(of.get(name)) is kind, word)
    return of[name]


def only(of: Any, known: str, word: str) -> None:
    """Refuse what is no object, or has other fields."""
    need(isinstance(of, dict) and set(of) <= set(known.split()), word)


def decode(text: str) -> bytes:
    """Read base64 in its one form."""
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except ValueError:
        data = b"" if text else b"-"
    need(base64.b64encode(data).decode() == text, "malformed-bundle")
    return data


def unwrap(data: bytes) -> tuple[str, bytes, bytes]:
    """Steps 1 and 2: the hint, the payload and its signature."""
    bad = "malformed-bundle"
    need(len(data) <= MOST, bad)
    bundle = parse(data, bad)
    only(bundle, "mediaType verificationMaterial dsseEnvelope", bad)
    need(bundle.get("mediaType") == MEDIA_TYPE, bad)
    material, envelope = (member(bundle, dict, name, bad) for name in ("verificationMaterial", "dsseEnvelope"))
    only(material, "publicKey x509CertificateChain certificate tlogEntries timestampVerificationData", bad)
    need(len(material.keys() & {"publicKey", "x509CertificateChain", "certificate"}) == 1, bad)
    only(envelope, "payload payloadType signatures", bad)
    signatures = member(envelope, list, "signatures", bad)
    need(len(signatures) == 1 and envelope.get("payloadType") == PAYLOAD_TYPE, bad)
    only(signatures[0], "sig keyid", bad)
    need(isinstance(signatures[0].get("keyid", ""), str | None), bad)
    payload, signature = decode(member(envelope, str, "payload", bad)), decode(member(signatures[0], str, "sig", bad))
    need("publicKey" in material, "wrong-material")
    only(material["publicKey"], "hint rawBytes keyDetails", bad)
    return member({"hint": "", **material["publicKey"]}, str, "hint", bad), payload, signature


def key_id(key: Any) -> str:
    """Name a key by the SHA-256 of its PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def signs(key: Any, signature: bytes, message: bytes) -> bool:
    """Tell whether the signature is by this key."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(ECDSA[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def signer(bundle: bytes, keys: list[Any], revoked: list[str]) -> tuple[str, bytes]:
    """Steps 1 to 4: who signed, and what."""
    hint, payload, signature = unwrap(bundle)
    named = [key for key in keys if not hint or key_id(key) == hint]
    need(named, "untrusted-key")
    message = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    by = [key_id(key) for key in named if signs(key, signature, message)]
    need(by, "bad-signature")
    need(by[0] not in revoked, "revoked")
    return by[0], payload


def canonical(name: Any) -> bool:
    """Tell whether a name can be that of one file only."""
    return isinstance(name, str) and not set(name.split("/")) & {"", ".", ".."} and not set(name) & {"\0", "\\"}


def lower_hex(value: Any, length: int, word: str) -> str:
    """Take a digest in the one form that it has."""
    need(isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value), word)
    return value


def sha256_of(one: Json, word: str) -> str:
    """Take the SHA-256 of a subject or the like, which is its only digest."""
    digests = member(one, dict, "digest", "malformed-statement")
    only(digests, "sha256", word)
    return lower_hex(digests.get("sha256"), 32, word)


def in_order(spans: list[tuple[int, int, str]], size: int) -> bool:
    """Tell whether the shards of a file follow one another, all but the last of the one size."""
    spans = sorted(spans)
    starts, ends = [start for start, _, _ in spans], [end for _, end, _ in spans]
    whole = starts == list(range(0, size * len(spans), size)) and ends[:-1] == starts[1:]
    return whole and starts[-1] < ends[-1] <= starts[-1] + size


def manifest(statement: Json, single: str | None) -> Json:
    """Steps 5 to 7: what an OMS statement says of the files; of each its shards, or all of it as one."""
    bad = "malformed-statement"
    subjects, size = statement["subject"], None
    if statement["predicateType"] == OLD:
        how = {"hash": "sha256", "ignored": ["model.sig"], "root": None, "name": ""}
        listed = [{"name": one["name"], "algorithm": "sha256", "digest": sha256_of(one, bad)} for one in subjects]
    else:
        need(len(subjects) == 1, bad)
        predicate = member(statement, dict, "predicate", bad)
        kept, listed = member(predicate, dict, "serialization", bad), member(predicate, list, "resources", bad)
        only(kept, "method hash_type allow_symlinks ignore_paths shard_size", bad)
        method, name = member(kept, str, "method", bad), member(kept, str, "hash_type", bad)
        need(method in ("files", "shards") and name in LENGTHS, "unsupported")
        if method == "shards":
            size = kept.get("shard_size")
            need(type(size) in (int, float) and 0 < size < 2**63 and size == int(size), bad)
            size = int(size)
        root = sha256_of(subjects[0], "root-mismatch")
        how = {"hash": name, "ignored": kept.get("ignore_paths", []), "root": root, "name": subjects[0]["name"]}
    files: dict[str, list[tuple[int, Any, str]]] = {}
    for one in listed:
        only(one, "name algorithm digest", bad)
        need(one.get("algorithm") in {how["hash"]} | ({f"{how['hash']}-sharded-{size}"} if size else set()), bad)
        path, start, end = member(one, str, "name", bad), 0, None
        if size:
            place = re.fullmatch(r"(.*):(0|[1-9][0-9]{0,18}):([1-9][0-9]{0,18})", path, re.DOTALL)
            need(place, bad)
            path, start, end = place[1], int(place[2]), int(place[3])  # type: ignore[index]
        need(canonical(path) or path == ".", bad)
        files.setdefault(path, []).append((start, end, lower_hex(one.get("digest"), LENGTHS[how["hash"]], bad)))
    need(files and ("." not in files or len(files) == 1), bad)
    need(all(in_order(spans, size) if size else len(spans) == 1 for spans in files.values()), bad)
    need(isinstance(how["ignored"], list) and all(map(canonical, how["ignored"])), bad)
    whole = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in listed)).hexdigest()
    need(how["root"] in (None, whole), "root-mismatch")
    if single is not None and "." in files:
        files = {single: files["."]}
    return how | {"files": files, "shards": size is not None}


def layout(told: dict) -> tuple:
    """Tell how the files were hashed, and in which parts."""
    return told["hash"], {path: [span[:2] for span in spans] for path, spans in told["files"].items()}


def moment(text: Any) -> datetime:
    """Read a time in its one form."""
    form = r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z"
    need(isinstance(text, str) and re.fullmatch(form, text), "malformed-statement")
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise RefusedError("malformed-statement") from None


def is_name(name: str) -> bool:
    """Tell whether this may be the name of a model."""
    outer = name != name.strip()
    return 1 <= len(name.encode()) <= 255 and not outer and not any(unicodedata.category(c) == "Cc" for c in name)


def release(statement: Json) -> Json:
    """Read a release: no field but those it has."""
    bad = "malformed-statement"
    subjects, said = statement["subject"], member(statement, dict, "predicate", bad)
    need(len(subjects) == 1, bad)
    only(said, "version issued expires parents components code", bad)
    parents, components, code = (member(said, list, name, bad) for name in ("parents", "components", "code"))
    need(0 <= member(said, int, "version", bad) < 1 << 64, bad)
    need(all(map(canonical, code)), bad)
    for listed, field, words in ((parents, "relation", RELATIONS), (components, "kind", KINDS)):
        for one in listed:
            only(one, f"{field} name digest", bad)
            need(member(one, str, field, bad) in words, bad)
            need(member(one, str, "name", bad), bad)
            sha256_of(one, bad)
    need(all(is_name(one["name"]) for one in subjects + parents), bad)
    order = [(one["kind"], one["name"]) for one in components]
    need(order == sorted(set(order)), bad)
    for name in {"issued"} | said.keys() & {"expires"}:
        moment(said.get(name))
    return said | {"name": subjects[0]["name"], "root": sha256_of(subjects[0], bad)}


def walk(model: Path) -> dict[str, Path]:
    """Find the files of a model: regular ones only."""
    found = {model.name: model}
    if model.is_dir():
        found = {one.relative_to(model).as_posix(): one for one in model.rglob("*")}
    modes = {name: path.lstat().st_mode for name, path in found.items()}
    need(all(stat.S_ISREG(mode) or stat.S_ISDIR(mode) for mode in modes.values()), "not-a-file")
    return {name: path for name, path in found.items() if stat.S_ISREG(modes[name])}


def digest(data: bytes, name: str) -> str:
    """Hash by one of the three."""
    if name == "blake3":
        import blake3

        return blake3.blake3(data).hexdigest()
    return hashlib.new(name, data).hexdigest()


def kind_of(path: str) -> str | None:
    """Tell what a file is by its name, in which capitals do not count."""
    name = path.rsplit("/", 1)[-1].lower()
    stem, dot, ending = name.rpartition(".")
    ending = ending if dot else ""
    if ending in ("jinja", "jinja2") or ending == "json" and stem.startswith("chat_template"):
        return "chat-template"
    return "code" if ending in CODE else "tokenizer" if name in TOKENIZERS else None


def components(files: dict[str, bytes]) -> list[tuple[str, str, str]]:
    """Find chat templates, code and tokenizer."""
    found = [(kind, path, data) for path, data in files.items() if (kind := kind_of(path))]
    for path, data in files.items():
        if path.rsplit("/", 1)[-1] == "tokenizer_config.json":
            inner = parse(data, "component").get("chat_template", [])
            many = [("", inner)] if isinstance(inner, str) else [("/" + one["name"], one["template"]) for one in inner]
            found += [("chat-template", f"{path}#chat_template{key}", text.encode()) for key, text in many]
    return sorted((kind, name, hashlib.sha256(data).hexdigest()) for kind, name, data in found)


def hold(policy: Json, name: str, released: Json | None, signers: set[str], releasers: set[str]) -> None:
    """Step 8: hold who signed, and the release, to the first rule for models of this name."""
    need(policy.get("name", name) == name, "wrong-name")
    fits = lambda p: p == name or p.endswith("*") and name.startswith(p[:-1])  # noqa: E731
    rule = next((rule for rule in policy["rules"] if any(map(fits, rule.get("models", ["*"])))), None)
    need(rule, "no-rule")
    for who in [signers, releasers] if released else [signers]:
        counted = who & set(map(key_id, rule["keys"]))
        need(counted, "untrusted-key")
        need(len(counted) >= rule.get("threshold", 1), "threshold")
    if released is None:
        need(not rule.keys() & {"minimum_version", "not_older_than"} and "parent" not in policy, "no-release")
        return
    at = moment(policy["at"]) if "at" in policy else datetime.now(timezone.utc)
    need("expires" not in released or at < moment(released["expires"]), "expired")
    need(released["version"] >= rule.get("minimum_version", 0), "version")
    need(released["issued"] >= rule.get("not_older_than", ""), "too-old")
    parents = [one["digest"]["sha256"] for one in released["parents"]]
    need("parent" not in policy or policy["parent"] in parents, "parent")


def compare(told: Json, present: dict[str, bytes], policy: Json) -> None:
    """Steps 9 and 10: the files are those that were signed, and no others."""
    ignored = told["ignored"] + policy.get("ignore", [])
    need(told["files"].keys() <= present.keys(), "missing-file")
    for path in present.keys() - told["files"].keys():
        tolerated = any(path == rest or path.startswith(rest + "/") for rest in ignored)
        is_empty = told["shards"] and not present[path]
        need(tolerated or is_empty or policy.get("ignore_unsigned"), "extra-file")
    for path, spans in told["files"].items():
        data = present[path]
        need(all(digest(data[start:end], told["hash"]) == want for start, end, want in spans), "digest-mismatch")
        need(not told["shards"] or max(end for _, end, _ in spans) == len(data), "digest-mismatch")


def verify(model: Path, outside: list[Path], policy: Json, seen: Json | None = None) -> Json:
    """Verify a model under a policy; raise `seen`, the versions that were verified before, by name."""
    single, files = None if model.is_dir() else model.name, walk(model)
    if single is None:
        found = [path for name, path in sorted(files.items()) if re.fullmatch(r"model\.([^/]*\.)?sig", name)]
    else:
        found = [path for end in (".sig", ".release.sig") if (path := model.with_name(single + end)).is_file()]
    keys, bad = [key for rule in policy["rules"] for key in rule["keys"]], "malformed-statement"
    told, releases, signers, releasers = [], [], set(), set()
    for path in [*outside, *found]:
        by, payload = signer(path.read_bytes(), keys, policy.get("revoked", []))
        statement = parse(payload, bad)
        only(statement, "_type subject predicateType predicate", bad)
        need(statement.get("_type") == STATEMENT and statement.get("predicateType") in (OMS, OLD, RELEASE), bad)
        need("predicate" in statement, bad)
        for one in member(statement, list, "subject", bad):
            only(one, "name digest annotations", bad)
            member(one, str, "name", bad)
        if statement["predicateType"] == RELEASE:
            releases.append(release(statement))
            releasers.add(by)
        else:
            told.append(manifest(statement, single))
            signers.add(by)
    need(told, "no-signature")
    released = min(releases, key=lambda one: one["issued"], default=None)
    need(all({**one, "issued": ""} == {**releases[0], "issued": ""} for one in releases), "foreign-release")
    need(not released or released["root"] in [one["root"] for one in told], "foreign-release")
    for one in told:
        need(one["files"].keys() == told[0]["files"].keys(), "disagreement")
        need(released or one["name"] == told[0]["name"], "disagreement")
        need(all(one["files"] == other["files"] for other in told if layout(one) == layout(other)), "disagreement")
    name = released["name"] if released else told[0]["name"]
    need(released or seen is None, "no-release")
    hold(policy, name, released, signers, releasers)
    present = {name: path.read_bytes() for name, path in files.items() if path not in found}
    for one in told:
        compare(one, present, policy)
    covered = {path for one in told for path in one["files"]}
    if released:
        named = [(one["kind"], one["name"], one["digest"]["sha256"]) for one in released["components"]]
        need(named == components({path: present[path] for path in covered}), "component")
    if released and seen is not None:
        mark = {"version": released["version"], "root": released["root"]}
        before = seen.get(name, {"version": -1})
        need(before == mark or before["version"] < mark["version"], "rollback")
        seen[name] = mark
    root, version = (released["root"], released["version"]) if released else (told[0]["root"], None)
    return {"name": name, "files": len(covered), "root": root, "version": version}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("keys", type=Path, nargs="+")
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--threshold", type=int, default=1)
    parser.add_argument("--at")
    parser.add_argument("--name")
    args = parser.parse_args()
    keys = [serialization.load_pem_public_key(path.read_bytes()) for path in args.keys]
    asked = {name: value for name, value in {"at": args.at, "name": args.name}.items() if value}
    try:
        found = verify(args.model, args.bundle, {"rules": [{"keys": keys, "threshold": args.threshold}], **asked})
    except RefusedError as error:
        print(json.dumps({"refused": str(error)}))
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
