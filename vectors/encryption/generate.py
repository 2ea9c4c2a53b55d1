"""Write the vectors of the encrypted file: `index.json`, `valid/`, `invalid/`.

    python generate.py

Needs the package `cryptography`. Every run writes the same bytes. `identity.txt`, `model.bin.wmenc`
and `directory/` are not written: they are version 1 as it was first written, and only listed.
"""

# fmt: off

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# isort: split
import writer as w

ROOT = Path(__file__).parent
CONTEXT, PATH, KEYS = "acme/vector@1", "model.bin", "weightmark.keys"
KEY, KEY_A, KEY_B = (w.draw(f"input key {name}", 32) for name in ("main", "a", "b"))
SHARED, OTHER, THIRD = (w.draw(f"shared key {name}", 32) for name in ("1", "2", "3"))
ALICE, BOB, CAROL, DAVE = (w.draw(f"identity {name}", 32) for name in ("a", "b", "c", "d"))
ALICE_PUBLIC, BOB_PUBLIC = w.x_wing_public(ALICE), w.x_wing_public(BOB)
CAROL_PUBLIC = w.x25519_public(CAROL)
RAW = w.draw("raw key", 32)
PHRASE, DECOMPOSED = "correct horse battery staple", "cafe\u0301"
KEYRING = {"v1": {"identity": (ROOT / "identity.txt").read_text().splitlines()[-1]},
    "alice": {"identity": w.bech32m("wmidentity", ALICE)},
    "alice-upper-case": {"identity": w.bech32m("wmidentity", ALICE).upper()},
    "bob": {"identity": w.bech32m("wmidentity", BOB)},
    "carol": {"identity": w.bech32m("wmidentity-x25519", CAROL)},
    "dave": {"identity": w.bech32m("wmidentity-x25519", DAVE)},
    "shared": {"key": w.bech32m("wmkey", SHARED)}, "other": {"key": w.bech32m("wmkey", OTHER)},
    "third": {"key": w.bech32m("wmkey", THIRD)}, "raw": {"file": "valid/raw.key"},
    "passphrase": {"passphrase": PHRASE},
    "wrong-passphrase": {"passphrase": PHRASE + "s"}, "decomposed": {"passphrase": DECOMPOSED},
    "composed": {"passphrase": "caf\u00e9"}}
SHORT = b"weights\n"
LONG = bytes((i * 131 + (i >> 8)) & 0xFF for i in range(2 * w.CHUNK + 100))
MID = LONG[: w.CHUNK + 100]
STANZA = w.key_stanza(SHARED, KEY)
Stanza = dict[str, Any]
Entry = dict[str, Any]
entries: list[Entry] = []


def digest(data: bytes) -> dict[str, Any]:
    """Describe bytes."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def add(name: str, comment: str, content: bytes | dict[str, bytes] | str, **more: Any) -> None:
    """Add a vector: a file, a directory, or the path of one that is there already."""
    who, expect = more.pop("who", "shared"), more.pop("expect", "ok")
    files, released = more.pop("files", {PATH: SHORT}), more.pop("released", b"")
    path = f"{'valid' if expect == 'ok' else 'invalid'}/{name}"
    if isinstance(content, str):
        path = content
    elif isinstance(content, bytes):
        path += ".wmenc"
        (ROOT / path).write_bytes(content)
    else:
        for inner, data in content.items():
            (ROOT / path / inner).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path / inner).write_bytes(data)
    entry: Entry = {"name": name, "comment": comment, "path": path, "identities": who.split()}
    entry |= {"expect": expect, **more}
    if expect == "ok":
        entry["files"] = {inner: digest(data) for inner, data in files.items()}
        entry["closed"] = more.pop("closed", [])
    elif path.endswith(".wmenc"):
        entry["released"] = digest(released)
    entries.append(entry)


# Single files


def envelope(stanzas: list[Stanza], context: str = CONTEXT, path: str = PATH) -> bytes:
    """Encode the envelope of a file."""
    suite = "cobblestone-256"
    return w.compact({"suite": suite, "context": context, "path": path, "recipients": stanzas})


BASE = envelope([STANZA])


def payload(plain: bytes, key: bytes = KEY, *, salt: str = "1", **at: str) -> list[bytes]:
    """Seal a payload: its header, then a record a chunk."""
    context = w.bound(at.get("context", CONTEXT), at.get("path", PATH))
    return w.message(key, w.draw(f"salt {salt}", 24), context, plain)


def head(
    text: bytes = BASE, key: bytes = KEY, magic: bytes = w.FILE_MAGIC, **changes: Any
) -> bytes:
    """Build the header of a file."""
    return w.header(magic, text, key, **changes)


def lone(text: bytes = BASE, plain: bytes = SHORT, key: bytes = KEY, **at: str) -> bytes:
    """Build a whole file."""
    return head(text, key) + b"".join(payload(plain, key, **at))


def edit(name: str, comment: str, old: str, new: str | bytes, **more: Any) -> None:
    """Add a file that differs from the plain one in its envelope; everything else fits it."""
    if BASE.count(old.encode()) != 1:
        raise AssertionError(f"{name}: {old!r}")
    at = {key: more.pop(key) for key in ("context", "path") if key in more}
    text = BASE.replace(old.encode(), new if isinstance(new, bytes) else new.encode())
    more.setdefault("expect", "bad-envelope")
    add(name, comment, lone(text, **at), **more)


def stanzas(name: str, comment: str, given: list[Stanza], **more: Any) -> None:
    """Add a file with other recipients."""
    add(name, comment, lone(envelope(given)), **more)


def flip(data: bytes, at: int) -> bytes:
    """Change a bit of a byte."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flipped(stanza: Stanza, name: str, at: int) -> Stanza:
    """Change a bit of a binary argument."""
    return stanza | {name: w.b64(flip(base64.b64decode(stanza[name]), at))}


def loose(text: str) -> str:
    """Spell the same bytes in base64 with another unused bit."""
    body = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(body[-1]) ^ 1]
    return body[:-1] + last + text[len(body) :]


def positives() -> None:
    """Files that open."""
    content = {PATH: b"weights, sealed for ever\n"}
    comment = "A file as version 1 first wrote it."
    add("v1-file", comment, "model.bin.wmenc", who="v1", files=content)
    content = {"one": b"one", "sub/two": b"two"}
    comment = "A directory as version 1 first wrote it."
    add("v1-directory", comment, "directory", who="v1", files=content)
    for size in (0, 1, w.CHUNK - 1, w.CHUNK):
        plain = LONG[:size]
        add(f"size-{size}", f"A plaintext of {size} bytes.", lone(plain=plain), files={PATH: plain})
    add("three-chunks", "Two full chunks and a short one.", lone(plain=LONG), files={PATH: LONG})
    context, path = "acmé/модель@1", "gewichte-größe.模型"
    text = envelope([STANZA], context, path)
    data = lone(text, context=context, path=path)
    comment = "Context and path are bound by their UTF-8 bytes, and their lengths counted in them."
    add("non-ascii", comment, data, context=context, files={path: SHORT})
    data = lone(envelope([STANZA], context=""), context="")
    add("context-empty", "An empty context.", data)
    add("context-empty-expected", "Expecting the empty context is not expecting none.",
        "valid/context-empty.wmenc", context="")
    for name, path in (("nested", "sub/model.bin"), ("dots", ".../..model/m."),
            ("odd", "a b:*?\n~"), ("64-components", "/".join("a" * 64)), ("4096-bytes", "é" * 2048)):
        data = lone(envelope([STANZA], path=path), path=path)
        add(f"path-{name}", "A path that is canonical, unusual as it is.", data,
            files={path: SHORT})

    several = [w.x_wing_stanza(ALICE_PUBLIC, KEY), w.x25519_stanza(CAROL_PUBLIC, KEY), STANZA]
    stanzas("recipient-x-wing", "One X-Wing recipient.", several[:1], who="alice")
    add("identity-upper-case", "A key text may be all upper case (BIP 350).",
        "valid/recipient-x-wing.wmenc", who="alice-upper-case")
    stanzas("recipient-x25519", "One X25519 recipient.", several[1:2], who="carol")
    stanzas("recipient-key", "One shared key.", several[2:])
    (ROOT / "valid/raw.key").write_bytes(RAW)
    stanzas("recipient-raw-key", "A key file of exactly 32 bytes, not all of them text.",
        [w.key_stanza(RAW, KEY)], who="raw")
    stanzas("recipient-passphrase", "A passphrase.", [w.passphrase_stanza(PHRASE, KEY)],
        who="passphrase")
    stanzas("passphrase-16-lanes", "The most lanes and the least memory for them.",
        [w.passphrase_stanza(PHRASE, KEY, 128, 2, 16)], who="passphrase")
    stanzas("passphrase-decomposed", "A passphrase is taken as given, not normalised.",
        [w.passphrase_stanza(DECOMPOSED, KEY)], who="decomposed")
    for who in ("alice", "carol", "shared"):
        name, same = f"recipients-several-{who}", "valid/recipients-several-alice.wmenc"
        comment = "Three recipients, of whom each opens the file."
        add(name, comment, same if who != "alice" else lone(envelope(several)), who=who)
    add("identities-several", "The reader has more identities than the one that fits.",
        "valid/recipients-several-alice.wmenc", who="bob other dave shared passphrase")
    unknown = {"type": "acme.example/vault", "id": "7", "where": "", "id2": "x", "\u00e9": "y"}
    stanzas("recipient-unknown", "A type the reader does not know is skipped.", [unknown, STANZA])
    unknown = {"type": "x-wing-2", "id": STANZA["id"]}
    stanzas("recipient-unknown-same-id", "Ids are those of a type.", [unknown, STANZA])

    for name, comment, text in (("space-behind", "Spaces behind the JSON.", BASE + b" " * 100),
            ("space-all-kinds", "All four kinds of white space, around and inside.",
            b" \t\r\n" + BASE.replace(b",", b" ,\r\n\t").replace(b":", b" :\n") + b"\n"),
            ("header-16384", "A header of 16,384 bytes, room for more.", BASE.ljust(16384 - 52)),
            ("header-unpadded", "A header that ends at a multiple of 4096.", BASE.ljust(4096 - 52)),
            ("header-padded-4095", "A header one byte longer than 4096.", BASE.ljust(4097 - 52)),
            ("json-escaped-names", "Escapes in the names of the JSON.",
            BASE.replace(b"suite", b"s\\u0075ite").replace(b'"body"', b'"\\u0062od\\u0079"')),
            ("json-escaped-values", "Escapes in the values of the JSON.",
            BASE.replace(b"cobble", b"\\u0063obble") .replace(b"acme/", b"acme\\/")
            .replace(b'"key"', b'"\\u006b\\u0065y"')),
            ("json-order", "Another order of the names.",
            w.compact(dict(reversed(json.loads(BASE).items()))))):
        add(name, comment, lone(text))
    path = "\N{GRINNING FACE}"
    text = BASE.replace(PATH.encode(), b"\\ud83d\\uDE00")
    add("json-surrogate-pair", "A pair of escaped surrogates is one character.",
        lone(text, path=path), files={path: SHORT})
    for name, tensors in (("", [{"name": "w", "dtype": "F32", "shape": [2, 1]},
            {"name": "", "dtype": "BF16", "shape": []}]), ("-no-tensors", [])):
        public = [{"path": PATH, "tensors": tensors}]
        text = w.compact(json.loads(BASE) | {"public": public})
        add(f"public-list{name}", "A list of tensors for readers without a key.", lone(text))
    text = w.compact(json.loads(BASE) | {"public": []})
    add("public-empty", "An empty list of files with public tensors.", lone(text))


def header_rules() -> None:
    """Files whose header breaks a rule before the envelope is read, and their MAC fits."""
    whole, bad = lone(), "bad-envelope"

    def header(name: str, comment: str, data: bytes, expect: str, **more: Any) -> None:
        add(name, comment, data, expect=expect, **more)

    header("plaintext", "Not an encrypted file.", SHORT * 4, "not-encrypted")
    header("nothing", "An empty file.", b"", "not-encrypted")
    header("magic-15-bytes", "Too short for a magic.", whole[:15], "not-encrypted")
    header("magic-only", "Nothing after the magic.", whole[:16], "truncated")
    header("magic-other", "Another magic.", b"W" + whole[1:], "not-encrypted")
    data = head(magic=w.KEYS_MAGIC) + whole[4096:]
    header("magic-of-keys", "The magic of weightmark.keys.", data, "not-encrypted")
    for name, last in (("2", b"2"), ("nul", b"\0")):
        data = head(magic=w.FILE_MAGIC[:15] + last) + whole[4096:]
        header(f"version-{name}", "A version that is not known.", data, "unknown-version")
    body = w.key_id(KEY)
    data = w.header(w.FILE_MAGIC, body, KEY, length=0) + whole[4096:]
    header("length-0", "A file of a directory, without it.", data, bad)
    header("length-over-limit", "An envelope longer than 16,777,216 bytes.",
        head(length=(1 << 24) + 1) + whole[4096:], bad)
    header("length-huge", "The longest length there is.", head(length=2**32 - 1), bad)
    header("length-beyond-end", "An envelope longer than the file, but not too long.",
        head(length=1 << 24) + whole[4096:], "truncated")
    for name, size in (("length", 18), ("envelope", 20 + 100), ("mac", 20 + len(BASE) + 31),
            ("padding", 4095)):
        header(f"cut-in-{name}", f"The file ends within the {name}.", whole[:size], "truncated")
    room = 4096 - 52 - len(BASE)
    for name, at in (("first", 0), ("last", room - 1)):
        padding = bytes(at) + b"\1" + bytes(room - 1 - at)
        header(f"padding-{name}", f"The {name} byte of the padding is not zero.",
            head(padding=padding) + whole[4096:], bad)
    header("padding-none", "No padding: the payload stands there.",
        head(padding=b"") + b"".join(payload(LONG[:4096])), bad)
    data = head(padding=bytes(room + 4096)) + whole[4096:]
    header("padding-twice", "More padding than there is to be.", data, "commitment")
    at = 20 + len(BASE)
    header("mac-first", "A bit of the MAC is flipped.", flip(whole, at), "envelope-tampered")
    header("mac-last", "The last bit of the MAC is flipped.", flip(whole, at + 31),
        "envelope-tampered")
    header("mac-zero", "A MAC of zeros.", head(mac=bytes(32)) + whole[4096:], "envelope-tampered")
    header("mac-other-key", "The MAC of the right bytes under another key.",
        w.header(w.FILE_MAGIC, BASE, KEY_A) + whole[4096:], "envelope-tampered")
    header("mac-of-length", "The length is part of what the MAC is over.",
        whole[:16] + (len(BASE) + 1).to_bytes(4, "little") + BASE + b" " + whole[at : at + 32] +
        bytes(room - 1) + whole[4096:], "envelope-tampered")


def json_rules() -> None:
    """Files whose envelope breaks a rule; the MAC and the payload fit it."""
    suite, context, path = ('"suite":"cobblestone-256"', f'"context":"{CONTEXT}"',
        f'"path":"{PATH}"')
    edit("json-empty", "No object.", BASE.decode(), " ")
    edit("json-list", "A list for the object.", BASE.decode(), f"[{BASE.decode()}]")
    edit("json-byte-order-mark", "A byte order mark.", "{" + suite,
        b"\xef\xbb\xbf{" + suite.encode())
    edit("json-behind", "Something behind the object.", "]}", "]}x")
    edit("json-two-objects", "A second object behind the first.", "]}", "]}{}")
    edit("json-nul-behind", "A zero byte behind the object.", "]}", "]}\0")
    edit("json-form-feed", "White space that JSON does not have.", suite + ",", suite + ",\f")
    edit("json-trailing-comma", "A comma behind the last member.", "]}", "],}")
    edit("json-control", "A control character in a string.", "acme", "acme\n",
        context="acme\n/vector@1")
    edit("json-utf-8", "A string that is not UTF-8.", "acme", b"acme\xff")
    edit("json-utf-8-overlong", "An overlong form in UTF-8.", "acme/", b"acme\xc0\xaf")
    edit("json-utf-8-surrogate", "A surrogate in UTF-8.", "acme", b"acme\xed\xa0\x80")
    for name, text in (("high", "\\ud800"), ("low", "\\udc00"), ("reversed", "\\udc00\\ud800")):
        edit(f"json-surrogate-{name}", "The escape of a lone surrogate.", "acme", "acme" + text)
    edit("json-surrogate-name", "The escape of a lone surrogate in a name.", '"type":"key"',
        '"type":"key","\\ud800":""')
    edit("json-nested-deep", "Lists in lists, thousands deep.", context,
        context + ',"public":' + "[" * 8000 + "]" * 8000)
    for name, comment, old, new in (("suite", "A name twice", suite, f"{suite},{suite}"),
            ("suite-escaped", "A name twice, once escaped", suite,
            suite + ',"suit\\u0065"' + suite[7:]),
            ("path", "A name twice, with another value", path, f'{path},"path":"other"'),
            ("in-stanza", "A name twice in a stanza", '"type":"key"', '"type":"key","type":"key"'),
            ("in-stanza-escaped", "A name twice in a stanza, once escaped", '"type":"key"',
            '"type":"key","\\u0074ype":"key"')):
        edit(f"json-duplicate-{name}", comment + ".", old, new)
    unknown = '{"type":"a","id":"","x":"","x":""},'
    edit("json-duplicate-in-unknown", "A name twice in a stanza of an unknown type.",
        '"recipients":[', '"recipients":[' + unknown)

    for name, old in (("suite", suite + ","), ("context", context + ","), ("path", path + ",")):
        edit(f"missing-{name}", f"No {name}.", old, "")
    edit("missing-recipients", "No recipients.",
        "," + w.compact({"recipients": [STANZA]})[1:-1].decode(), "")
    edit("unknown-name", "A name that is not known.", context, context + ',"comment":""')
    edit("files-in-file", "A lone file with files.", context,
        context + f',"files":[{{{path},"size":8}}]')
    edit("files-for-path", "A lone file with files in place of a path.", path,
        f'"files":[{{{path},"size":8}}]')
    edit("groups-in-file", "A lone file with groups.", context, context + ',"groups":[]')
    edit("suite-unknown", "Another suite.", "cobblestone-256", "cobblestone-128",
        expect="unknown-suite")
    edit("suite-empty", "An empty suite.", "cobblestone-256", "", expect="unknown-suite")
    for name, old, new in (("suite-number", '"cobblestone-256"', "256"),
            ("context-null", f'"{CONTEXT}"', "null"), ("path-list", f'"{PATH}"', f'["{PATH}"]'),
            ("public-null", context, context + ',"public":null'),
            ("public-object", context, context + ',"public":{}'),
            ("stanza-text", '"recipients":[', '"recipients":["key",'),
            ("stanza-null", '"recipients":[', '"recipients":[null,'),
            ("stanza-number", '"type":"key"', '"type":"key","size":104')):
        edit(f"type-{name}", "A value of another type than the one it is to have.", old, new)
    one = w.compact([STANZA]).decode()
    edit("type-recipients-object", "An object for the list of recipients.", one, one[1:-1])
    for name, other in (("type", "id"), ("id", "type")):
        edit(f"stanza-no-{name}", f"A stanza without {name}, beside one that opens.",
            '"recipients":[', f'"recipients":[{{"{other}":"a"}},')
    edit("recipients-0", "No recipient.", one, "[]")
    more = "".join(f'{{"type":"a","id":"{i}"}},' for i in range(4096))
    edit("recipients-4097", "One recipient too many.", '"recipients":[', '"recipients":[' + more)
    for name, bad in (("empty", ""), ("absolute", "/model.bin"), ("double-slash", "a//b"),
            ("slash-behind", "a/"), ("dot", "."), ("dot-in-front", "./a"), ("dot-inside", "a/./b"),
            ("parent", ".."), ("parent-in-front", "../a"), ("parent-inside", "a/../b"),
            ("parent-behind", "a/.."), ("nul", "a\0b"), ("backslash", "a\\b"),
            ("backslash-parent", "..\\a"), ("65-components", "/".join("a" * 65)),
            ("4097-bytes", "é" * 2048 + "a")):
        edit(f"path-{name}", f"The path {bad!r} is not canonical.", f'"{PATH}"', json.dumps(bad),
            path=bad)

    def public(name: str, comment: str, text: str) -> None:
        edit(f"public-{name}", comment, context, f'{context},"public":[{text}]')

    tensor = '{"name":"w","dtype":"F32","shape":[2]}'
    whole = f'{{{path},"tensors":[{tensor}]}}'
    public("other-path", "Public tensors of another file.", whole.replace(PATH, "other.bin"))
    public("twice", "A file twice in the public list.", f"{whole},{whole}")
    public("unknown-name", "A name not known, in an entry.", whole.replace("{", '{"size":8,', 1))
    public("no-tensors", "An entry without tensors.", f"{{{path}}}")
    public("tensor-unknown-name", "A name not known, in a tensor.",
        whole.replace('"dtype"', '"rank":1,"dtype"'))
    public("tensor-no-dtype", "A tensor without a type.", whole.replace('"dtype":"F32",', ""))
    public("tensor-text", "A tensor that is no object.", whole.replace(tensor, '"w"'))
    public("duplicate", "A name twice in a tensor.", whole.replace('"name"', '"name":"w","name"'))
    for name, number in (("text", '"2"'), ("float", "2.0"), ("negative", "-2"), ("exponent", "2e0"),
            ("true", "true"), ("nan", "NaN")):
        public(f"shape-{name}", f"The dimension {number}.", whole.replace("[2]", f"[{number}]"))


def recipients() -> None:
    """Files whose stanzas do not open, or not for this reader."""
    tampered = "envelope-tampered"
    x_wing, x25519 = w.x_wing_stanza(ALICE_PUBLIC, KEY), w.x25519_stanza(CAROL_PUBLIC, KEY)
    phrase = w.passphrase_stanza(PHRASE, KEY)
    for name, right, who, wrong in (("x-wing", x_wing, "alice", "bob"),
            ("x25519", x25519, "carol", "dave"), ("key", STANZA, "shared", "other"),
            ("passphrase", phrase, "passphrase", "wrong-passphrase")):
        path = f"valid/recipient-{name}.wmenc"
        expect = "wrong-passphrase" if name == "passphrase" else "no-match"
        comment = ("A passphrase that is not the one." if name == "passphrase"
            else "No stanza for us.")
        add(f"{name}-wrong", comment, path, who=wrong, expect=expect)
        for argument in (a for a in right if a not in ("type", "id")):
            less = {key: value for key, value in right.items() if key != argument}
            stanzas(f"{name}-no-{argument}", f"A stanza without {argument}.", [less], who=who,
                expect=tampered)
        stanzas(f"{name}-extra", "A stanza with an argument too many.", [right | {"note": ""}],
            who=who, expect=tampered)
        if name in ("x25519", "passphrase"):
            continue
        wordy = right | {"body": right["body"][:8] + "\n" + right["body"][8:]}
        stanzas(f"{name}-base64-newline", "A line break in base64.", [wordy], who=who,
            expect=tampered)
        short = right | {"body": w.b64(base64.b64decode(right["body"])[:-1])}
        stanzas(f"{name}-body-short", "A body that is a byte too short.", [short], who=who,
            expect=tampered)
        longer = right | {"body": w.b64(base64.b64decode(right["body"]) + b"\0")}
        stanzas(f"{name}-body-long", "A body that is a byte too long.", [longer], who=who,
            expect=tampered)
    for name, stanza, who, argument, at in (("x-wing-enc-mlkem", x_wing, "alice", "enc", 0),
            ("x-wing-enc-x25519", x_wing, "alice", "enc", 1088),
            ("x-wing-body", x_wing, "alice", "body", 0),
            ("x-wing-body-tag", x_wing, "alice", "body", -1),
            ("x25519-enc", x25519, "carol", "enc", 0), ("x25519-body", x25519, "carol", "body", 0),
            ("x25519-body-tag", x25519, "carol", "body", -1),
            ("key-body-salt", STANZA, "shared", "body", 0),
            ("key-body-commitment", STANZA, "shared", "body", 24),
            ("key-body-secret", STANZA, "shared", "body", 56),
            ("key-body-tag", STANZA, "shared", "body", -1)):
        stanzas(name, f"A bit of {argument} is flipped, at byte {at}.",
            [flipped(stanza, argument, at)], who=who, expect=tampered)
    for argument, at in (("salt", 0), ("body", 0), ("body", 24)):
        name = (argument if argument == "salt"
            else f"{argument}-{'salt' if at == 0 else 'commitment'}")
        stanzas(f"passphrase-{name}", "What is changed looks like a wrong passphrase.",
            [flipped(phrase, argument, at)], who="passphrase", expect="wrong-passphrase")
    add("passphrase-composed", "A passphrase that is only equivalent in Unicode.",
        "valid/passphrase-decomposed.wmenc", who="composed", expect="wrong-passphrase")
    for name, stanza, who, argument in (("x-wing-enc", x_wing, "alice", "enc"),
            ("x25519-enc", x25519, "carol", "enc"), ("key-body", STANZA, "shared", "body"),
            ("passphrase-body", phrase, "passphrase", "body"),
            ("passphrase-salt", phrase, "passphrase", "salt")):
        stanzas(f"{name}-base64-loose", "Unused bits of base64 are not zero.",
            [stanza | {argument: loose(stanza[argument])}], who=who, expect=tampered)
    stanzas("key-body-base64-unpadded", "Base64 without its padding.",
        [STANZA | {"body": STANZA["body"].rstrip("=")}], expect=tampered)
    url = STANZA["body"].replace("+", "-").replace("/", "_")
    stanzas("key-body-base64-url", "The alphabet for addresses.", [STANZA | {"body": url}],
        expect=tampered)
    enc = base64.b64decode(x25519["enc"])
    high = w.b64(enc[:31] + bytes([enc[31] ^ 0x80]))
    stanzas("x25519-enc-high-bit", "The same point spelled otherwise is not the same message.",
        [x25519 | {"enc": high}], who="carol", expect=tampered)
    shared = w.dhkem_secret(bytes(32), bytes(32), CAROL_PUBLIC)
    body = w.hpke_seal(0x0020, shared, "weightmark x25519 v1", KEY)
    stanzas("x25519-enc-zero", "A point that makes the shared secret zero for everybody.",
        [x25519 | {"enc": w.b64(bytes(32)), "body": w.b64(body)}], who="carol", expect=tampered)
    stanzas("x25519-as-x-wing", "A stanza of one type under the name of another.",
        [x25519 | {"type": "x-wing"}], who="carol", expect="no-match")
    stanzas("x-wing-info", "Sealed with the info of another type.",
        [x_wing | {"body": w.b64(xwing_body("weightmark x25519 v1"))}], who="alice",
        expect=tampered)
    label = w.wrap(SHARED, "weightmark passphrase v1", KEY, bytes(24))
    stanzas("key-label", "Wrapped with the label of another type.",
        [STANZA | {"body": w.b64(label)}], expect=tampered)
    stanzas("stanza-of-other-key", "A stanza that opens, to another key than that of the file.",
        [w.key_stanza(SHARED, KEY_A)], expect=tampered)
    colliding = w.x_wing_stanza(BOB_PUBLIC, KEY) | {"id": x_wing["id"]}
    stanzas("id-collision-alone", "A stanza with our id that does not open, and no other one.",
        [colliding, STANZA], who="alice", expect=tampered)
    twice = "Two recipients of one type and id, of whom one would open the file."
    for name, mine, wrong, who in (("x-wing", x_wing, colliding, "alice"),
            ("x25519", x25519, w.x25519_stanza(w.x25519_public(DAVE), KEY), "carol"),
            ("key", STANZA, {"type": "key"}, "shared")):
        wrong = wrong | {"id": mine["id"]}
        stanzas(f"id-twice-{name}", twice, [wrong, mine], who=who, expect="bad-envelope")
    stanzas("id-twice-unknown", "Two recipients of one unknown type and id.",
        [{"type": "a", "id": "1"}, STANZA, {"type": "a", "id": "1", "b": ""}], expect="bad-envelope")
    stanzas("only-unknown", "Only types that the reader does not know.",
        [{"type": "acme.example/vault", "id": STANZA["id"]}], expect="no-match")

    for name, given in (("before", [phrase, STANZA]), ("behind", [STANZA, phrase]),
            ("twice", [phrase, phrase]), ("unknown", [{"type": "a", "id": ""}, phrase])):
        for who in ("passphrase", "shared")[: 2 if name in ("before", "behind") else 1]:
            suffix = "-for-key" if who == "shared" else ""
            stanzas(f"passphrase-not-alone-{name}{suffix}", "A passphrase is the only recipient.",
                given, who=who, expect="bad-envelope")
    stanzas("passphrase-id", "A passphrase with another id is not for us.",
        [phrase | {"id": "mine"}], who="passphrase", expect="no-match")
    for argument, text, expect in (("lanes", "0", tampered), ("passes", "0", tampered),
            ("memory", "7", tampered), ("lanes", "01", tampered), ("passes", "+1", tampered),
            ("passes", "-1", tampered), ("passes", "", tampered), ("passes", " 1", tampered),
            ("passes", "1\n", tampered), ("passes", "1e0", tampered),
            ("passes", "\u0661", tampered), ("lanes", "17", "excessive-work"),
            ("lanes", str(2**32 + 1), "excessive-work"), ("memory", "1048577", "excessive-work"),
            ("memory", str(2**32), "excessive-work"), ("memory", str(2**32 + 64), "excessive-work"),
            ("passes", "65537", "excessive-work"), ("passes", str(2**26), "excessive-work"),
            ("passes", str(2**58), "excessive-work"), ("passes", str(2**64 + 1), "excessive-work"),
            ("passes", "9" * 60, "excessive-work")):
        number = argon_name(text)
        what = "excessive" if expect == "excessive-work" else "malformed"
        more = {"memory": "1024"} if argument == "lanes" else {}
        stanzas(f"argon2-{argument}-{number}", f"The number {text!r} of {argument} is {what}.",
            [phrase | more | {argument: text}], who="passphrase", expect=expect)
    stanzas("argon2-memory-per-lane", "A KiB less than 8 a lane.",
        [phrase | {"memory": "127", "lanes": "16"}], who="passphrase", expect=tampered)
    stanzas("argon2-work", "A KiB of work over the ceiling, each number below its own.",
        [phrase | {"memory": "838861", "passes": "5"}], who="passphrase", expect="excessive-work")


def argon_name(text: str) -> str:
    """Spell a number in the name of a vector."""
    if text.isascii() and text.isdecimal() and len(text) > 7:
        return next((f"2-to-{n}-plus-{int(text) - 2**n}" for n in (64, 58, 32, 26) if 0 <= int(text)
            - 2**n < 65), "huge")
    for old, new in (("-", "minus-"), ("+", "plus-"), (".", "-point-"), ("_", "-underscore-"),
            ("\n", "-newline"), ("\u0661", "arabic"), (" ", "space-")):
        text = text.replace(old, new)
    return text or "empty"


def xwing_body(info: str) -> bytes:
    """Seal the default input key for Alice with another info, under her usual enc."""
    seed = w.draw("x-wing" + KEY.hex() + w.public_id(ALICE_PUBLIC), 64)
    ss_m, _ = w.mlkem_encapsulate(ALICE_PUBLIC[:1184], seed[:32])
    ct_x, ss_x = w.x25519_public(seed[32:]), w.x25519(seed[32:], ALICE_PUBLIC[1184:])
    joined = ss_m + ss_x + ct_x + ALICE_PUBLIC[1184:] + b"\\.//^\\"
    return w.hpke_seal(0x647A, hashlib.sha3_256(joined).digest(), info, KEY)


def binding() -> None:
    """Files put together from parts that do not belong together."""
    old = lone()
    for name, text in (("context", BASE.replace(b"vector@1", b"vector@2")),
            ("path", BASE.replace(b"model.bin", b"model.bak"))):
        forged = old[:20] + text + old[20 + len(BASE) :]
        add(f"{name}-changed", f"The {name} changed by someone without the key.", forged,
            expect="envelope-tampered")
        add(f"{name}-changed-with-key",
            f"The {name} changed by someone with the key, not in the payload.",
            head(text) + old[4096:], expect="commitment")
    data = (head(BASE.replace(b'"context":"acme/vector@1","path":"model.bin"',
        b'"context":"acme/vector@1mod","path":"el.bin"')) + old[4096:])
    add("context-and-path-shifted", "The lengths of context and path are bound.", data,
        expect="commitment")
    data = head() + b"".join(payload(SHORT, KEY_A))
    add("payload-other-key", "The envelope of another file before a payload.", data,
        expect="commitment")
    add("context-unexpected", "Another context than the caller expects.",
        "valid/recipient-key.wmenc", context="acme/vector@2", expect="context-mismatch")
    add("context-unexpected-prefix", "The start of a context is another one.",
        "valid/recipient-key.wmenc", context="acme/vector", expect="context-mismatch")
    add("context-unexpected-empty", "Expecting the empty context is not expecting none.",
        "valid/recipient-key.wmenc", context="", expect="context-mismatch")
    add("order-context-payload", "The context is compared before the payload is looked at.", head(),
        context="acme/vector@2", expect="context-mismatch")
    add("order-mac-context", "The MAC is checked before the context is compared.",
        flip(old, 20 + len(BASE)), context="acme/vector@2", expect="envelope-tampered")
    salt = w.draw("salt two keys", 24)
    derived = [w.secrets(key, salt, w.bound(CONTEXT, PATH)) for key in (KEY, KEY_A)]
    record = w.two_key_record([pair[:2] for pair in derived], b"opens under two ")
    for name, key, expect in (("first", KEY, "ok"), ("second", KEY_A, "commitment")):
        cipher, nonce, _ = derived[0]
        plain = AESGCM(cipher).decrypt(nonce, record, None)
        data = head(envelope([w.key_stanza(SHARED, key)]), key) + salt + derived[0][2] + record
        add(f"two-keys-{name}", "A payload whose chunk opens under two keys, committed to one.",
            data, expect=expect, files={PATH: plain})


def payloads() -> None:
    """Files whose payload is damaged; the header fits."""
    tampered, full = "chunk-tampered", w.CHUNK
    short, mid, long = payload(SHORT), payload(MID), payload(LONG)

    def bad(
        name: str,
        comment: str,
        parts: list[bytes] | bytes,
        expect: str,
        released: bytes = b"",
        chunk: int | None = None,
        stream: int | None = None,
    ) -> None:
        data = parts if isinstance(parts, bytes) else b"".join(parts)
        fields = {} if chunk is None else {"chunk": chunk}
        if stream is not None and stream != chunk:
            fields["chunk_stream"] = stream
        add(name, comment, head() + data, expect=expect, released=released, **fields)

    whole = b"".join(short)
    bad("salt", "A bit of the salt is flipped.", flip(whole, 0), "commitment")
    bad("commitment", "A bit of the commitment is flipped.", flip(whole, 24), "commitment")
    bad("commitment-last", "The last bit of the commitment is flipped.", flip(whole, 55),
        "commitment")
    for size in (0, 10, 40, 56, 71):
        bad(f"cut-payload-{size}", f"Only {size} bytes of the payload, no last chunk.",
            whole[:size], "truncated")
    bad("cut-payload-72", "Room for a tag only, and not that of nothing.", whole[:72], tampered,
        b"", 0, 0)
    bad("chunk-first", "The first chunk is changed.", [mid[0], flip(mid[1], 0), mid[2]], tampered,
        b"", 0, 0)
    bad("chunk-middle", "The middle chunk is changed.", [*long[:2], flip(long[2], 9), long[3]],
        tampered, LONG[:full], 1, 1)
    bad("chunk-last", "The last chunk is changed.", [*mid[:2], flip(mid[2], 0)], tampered,
        LONG[:full], 1, 1)
    bad("tag-last", "The tag of the last chunk is changed.", flip(whole, -1), tampered, b"", 0, 0)
    bad("chunks-swapped", "Two chunks are exchanged.", [long[0], long[2], long[1], long[3]],
        tampered, b"", 0, 0)
    bad("chunk-duplicated", "A chunk twice.", [*mid[:2], *mid[1:]], tampered, MID[:full], 2, 1)
    bad("chunk-dropped-first", "The first chunk is left out.", [mid[0], mid[2]], tampered, b"", 0,
        0)
    bad("chunk-dropped-middle", "The middle chunk is left out.", [*long[:2], long[3]], tampered,
        LONG[:full], 1, 1)
    other = payload(MID, salt="2")
    bad("chunk-spliced", "A chunk of another file of the same key and path.",
        [mid[0], other[1], mid[2]], tampered, b"", 0, 0)
    bad("chunk-last-replaced", "The last chunk of another file of the same key and path.",
        [*mid[:2], other[2]], tampered, MID[:full], 1, 1)
    bad("salt-spliced", "Salt and commitment of another file of the same key and path.",
        [other[0], *mid[1:]], tampered, b"", 1, 0)
    data, at = b"".join(long), 56 + full + 16
    for name, by in (("less-1", -1), ("0", 0), ("plus-1", 1), ("plus-16", 16)):
        comment = f"Cut at the end of a chunk, {by} bytes on: "
        comment += "the rest is too short for a tag." if 0 <= by < 16 else "its tag is gone."
        kept, bare = (LONG[:full] if by >= 0 else b""), 0 <= by < 16
        chunk = None if bare else (0 if by < 0 else 1)
        bad(f"cut-boundary-{name}", comment, data[: at + by], "truncated" if bare else tampered,
            kept, chunk, chunk)
    bad("cut-boundary-second", "Cut at the end of the second chunk.", data[: at + full + 16],
        "truncated", LONG[: 2 * full])
    bad("cut-end", "The last byte is missing.", whole[:-1], tampered, b"", 0, 0)
    for size in (1, 16):
        bad(f"appended-{size}", f"{size} bytes appended.", whole + bytes(size), tampered, b"", 0, 0)
    bad("appended-record", "As much appended as a full chunk takes.", whole + long[1], tampered,
        b"", 1, 0)
    cipher, nonce, _ = w.secrets(KEY, short[0][:24], w.bound(CONTEXT, PATH))
    bad("appended-empty-chunk", "An empty chunk behind the last one.",
        whole + w.seal_chunk(cipher, nonce, 1, b""), tampered, b"", 0, 0)
    add("last-chunk-full", "A last chunk of 16384 bytes, without a shorter one behind.",
        "invalid/cut-boundary-0.wmenc", expect="truncated", released=LONG[:full])
    data = b"".join(payload(LONG[: full - 1])) + b"\0"
    add("appended-until-full", "A byte appended makes the last chunk look full.", head() + data,
        expect="truncated", expect_stream=tampered, chunk_stream=0)


# Directories


def keys(files: list[Any] | bytes, key: bytes = KEY, shared: bytes = SHARED, **more: Any) -> bytes:
    """Build a block of weightmark.keys, of a list of files or of the whole envelope."""
    changes = {name: more.pop(name) for name in ("length", "mac", "padding", "magic") if name
        in more}
    text = files
    if not isinstance(text, bytes):
        fields = {"suite": "cobblestone-256", "context": CONTEXT, "files": files}
        text = w.compact(fields | {"recipients": [w.key_stanza(shared, key)]} | more)
    return w.header(changes.pop("magic", w.KEYS_MAGIC), text, key, **changes)


def member(path: str, plain: bytes, key: bytes = KEY, **changes: Any) -> bytes:
    """Build a file of a directory."""
    at = {name: changes.pop(name) for name in ("context", "salt") if name in changes}
    magic = changes.pop("magic", w.FILE_MAGIC)
    start = w.header(magic, changes.pop("id", w.key_id(key)), key, **({"length": 0} | changes))
    return start + b"".join(payload(plain, key, **({"salt": path} | at), path=path))


def listed(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """List files."""
    return [{"path": path, "size": len(plain)} for path, plain in files.items()]


def sealed(files: dict[str, bytes], key: bytes = KEY) -> dict[str, bytes]:
    """Build the files of a directory."""
    return {f"{path}.wmenc": member(path, plain, key) for path, plain in files.items()}


ONE = {"one": b"1111"}
TWO = {"one": b"1111", "sub/two": b"2222"}
ADAPTER = {"adapters/acme/a": b"aaaa"}
DEEP = {"adapters/acme/deep/b": b"bbbb"}


def groups(*named: tuple[str, bytes]) -> list[dict[str, str]]:
    """List groups."""
    return [{"path": path, "key": w.key_id(key).hex()} for path, key in named]


PAIR = groups(("", KEY), ("adapters/acme", KEY_A))
TRIPLE = [*PAIR, *groups(("adapters/acme/deep", KEY_B))]


def pair(main: dict[str, bytes], adapter: dict[str, bytes], names: Any = PAIR) -> bytes:
    """Build the keys of a directory of two groups."""
    return keys(listed(main), groups=names) + keys(listed(adapter), KEY_A, OTHER, groups=names)


def many(count: int) -> bytes:
    """Build a block that is each of the blocks of so many groups: none has files."""
    return keys([], groups=groups(("", KEY), *((f"g{i}", KEY) for i in range(1, count))))


def directories() -> None:
    """Directories that open."""
    data = {KEYS: keys(listed(TWO)), **sealed(TWO)}
    add("directory-two-files", "Two files, one of them in a folder.", data, files=TWO,
        context=CONTEXT)
    add("directory-plain-beside", "Files that are not encrypted are not part of the model.",
        {KEYS: keys(listed(ONE)), **sealed(ONE), "README.md": SHORT, "sub/two": SHORT}, files=ONE)
    add("directory-none", "An empty list of files.", {KEYS: keys([])}, files={})
    nested = {"a/b/c/d": b"", "a/b-c": LONG[:1], "a.b": LONG[:2]}
    nested = dict(sorted(nested.items()))
    add("directory-nested", "Folders in folders, and an empty file.",
        {KEYS: keys(listed(nested)), **sealed(nested)}, files=nested)
    ordered = {"a\ufffd": b"1", "a\U0001f600": b"2"}
    add("directory-code-points", "The order is that of code points, not of UTF-16.",
        {KEYS: keys(listed(ordered)), **sealed(ordered)}, files=ordered)
    public = [{"path": "one", "tensors": [{"name": "w", "dtype": "U8", "shape": [4]}]}]
    add("directory-public", "Public tensors of one of the files.",
        {KEYS: keys(listed(TWO), public=public), **sealed(TWO)}, files=TWO)
    data = {KEYS: pair(ONE, ADAPTER), **sealed(ONE), **sealed(ADAPTER, KEY_A)}
    add("groups-two", "Two groups and the keys of both.", data, who="shared other",
        files=ONE | ADAPTER)
    add("groups-two-main", "Two groups and the key of the first.", "valid/groups-two", files=ONE,
        closed=list(ADAPTER))
    add("groups-two-adapter", "Two groups and the key of the second.", "valid/groups-two",
        who="other", files=ADAPTER, closed=list(ONE))
    data |= {f"{path}.wmenc": SHORT for path in ADAPTER}
    add("groups-closed-unread", "The files of a group without key are closed, whatever they hold.",
        data, files=ONE, closed=list(ADAPTER))
    three = (keys(listed(ONE), groups=TRIPLE) + keys(listed(ADAPTER), KEY_A, OTHER, groups=TRIPLE) +
        keys(listed(DEEP), KEY_B, THIRD, groups=TRIPLE))
    data = {KEYS: three, **sealed(ONE), **sealed(ADAPTER, KEY_A), **sealed(DEEP, KEY_B)}
    add("groups-three", "A group beneath another: the longest path counts.", data,
        who="third shared other", files=ONE | ADAPTER | DEEP)
    add("groups-three-middle", "Three groups and the key of the second.", "valid/groups-three",
        who="other", files=ADAPTER, closed=[*ONE, *DEEP])
    add("groups-main-empty", "A main group without files.",
        {KEYS: pair({}, ADAPTER), **sealed(ADAPTER, KEY_A)}, who="shared other", files=ADAPTER)
    main = {"adapters/acme-2/x": b"xxxx", "adapters/x": b"yyyy"}
    add("groups-path-component", "A path beneath another is so by whole components.",
        {KEYS: pair(main, ADAPTER), **sealed(main), **sealed(ADAPTER, KEY_A)}, who="shared other",
        files=main | ADAPTER)
    file = {"adapters/acme": b"aaaa"}
    add("groups-path-is-file", "A group of the one file that is at its path.",
        {KEYS: pair(ONE, file), **sealed(ONE), **sealed(file, KEY_A)}, who="shared other",
        files=ONE | file)
    add("groups-256", "As many blocks as there may be; all of them are this one.",
        {KEYS: many(256)}, files={}, repeat={"file": KEYS, "times": 256})


def keys_rules() -> None:
    """Directories whose weightmark.keys breaks a rule; their files would fit."""
    one, bad, block = listed(ONE), "bad-envelope", keys(listed(ONE))

    def refuse(name: str, comment: str, data: bytes, expect: str = bad, **more: Any) -> None:
        add(f"keys-{name}", comment, {KEYS: data, **sealed(more.pop("beside", {}))}, expect=expect,
            **more)

    refuse("empty", "An empty weightmark.keys.", b"", "not-encrypted")
    refuse("magic-of-file", "The magic of a file.", keys(one, magic=w.FILE_MAGIC), "not-encrypted")
    refuse("version", "A version that is not known.", keys(one, magic=b"weightmark-key-2"),
        "unknown-version")
    refuse("length-0", "A block without an envelope.",
        w.header(w.KEYS_MAGIC, w.key_id(KEY), KEY, length=0))
    refuse("length-over-limit", "An envelope too long.", keys(one, length=(1 << 24) + 1))
    refuse("padding", "Padding that is not zero.", block[:-1] + b"\1")
    refuse("mac", "A bit of the MAC is flipped.", keys(one, mac=bytes(32)), "envelope-tampered")
    refuse("wrong-key", "No stanza for us.", block, "no-match", who="other")
    refuse("context", "Another context than the caller expects.", block, "context-mismatch",
        context="acme/vector@2", beside=ONE)
    for size in (18, 200, 4095):
        refuse(f"cut-{size}", "Cut within the block.", block[:size], "truncated")
    for name, stray in (("byte", b"\0"), ("zeros", bytes(4096)), ("text", SHORT * 4)):
        refuse(f"stray-{name}", "Something behind the last block.", block + stray, beside=ONE)
    text = block[20 : 20 + int.from_bytes(block[16:20], "little")]

    def rule(name: str, comment: str, old: str, new: str, expect: str = bad) -> None:
        if text.count(old.encode()) != 1:
            raise AssertionError(name)
        refuse(name, comment, keys(text.replace(old.encode(), new.encode())), expect)

    entry = '{"path":"one","size":4}'
    rule("path-for-files", "A path in place of files.", f'"files":[{entry}]', '"path":"one"')
    rule("path-and-files", "A path beside files.", '"files":', '"path":"one","files":')
    rule("no-files", "Neither path nor files.", f'"files":[{entry}],', "")
    rule("files-object", "An object for the list of files.", f"[{entry}]", entry)
    rule("file-text", "A text for a file.", entry, '"one"')
    rule("file-no-size", "A file without a size.", ',"size":4', "")
    rule("file-unknown-name", "A name not known, in a file.", ',"size":4', ',"size":4,"mode":0')
    rule("file-duplicate", "A name twice in a file.", ',"size":4', ',"size":4,"size":4')
    rule("file-duplicate-escaped", "A name twice in a file, once escaped.", ',"size":4',
        ',"size":4,"siz\\u0065":4')
    rule("suite", "Another suite.", "cobblestone-256", "cobblestone-128", "unknown-suite")
    for name, number in (("text", '"4"'), ("float", "4.0"), ("exponent", "4e0"), ("negative", "-4"),
            ("minus-zero", "-0"), ("leading-zero", "04"), ("plus", "+4"), ("true", "true")):
        rule(f"size-{name}", f"The size {number}.", '"size":4', f'"size":{number}')
    for name, path in (("absolute", "/one"), ("parent", "../one"), ("backslash", "a\\one")):
        rule(f"path-{name}", f"The path {path!r} is not canonical.", '"one"', json.dumps(path))
    refuse("unordered", "Files out of order.", keys(listed(dict(reversed(TWO.items())))))
    utf16 = {"a\U0001f600": b"2", "a\ufffd": b"1"}
    refuse("unordered-utf-16", "Files in the order of UTF-16.", keys(listed(utf16)))
    refuse("listed-twice", "A file twice.", keys(one * 2))
    refuse("file-and-folder", "A file that is a folder of another.",
        keys(listed({"one": b"", "one/two": b""})))
    refuse("file-and-folder-apart", "A file that is a folder of another, not next to it.",
        keys(listed({"one": b"", "one-two": b"", "one/two/three": b""})))
    public = [{"path": "two", "tensors": []}]
    refuse("public-other-path", "Public tensors of a file that is not listed.",
        keys(one, public=public))
    stanza = w.passphrase_stanza(PHRASE, KEY)
    refuse("passphrase-not-alone", "A passphrase beside another recipient.",
        keys(one, recipients=[stanza, STANZA]), who="passphrase")

    main, second = keys(one, groups=PAIR), keys(listed(ADAPTER), KEY_A, OTHER, groups=PAIR)
    both = {"who": "shared other"}
    refuse("groups-missing", "Two blocks without groups.",
        keys(one) + keys(listed(ADAPTER), KEY_A, OTHER), **both)
    refuse("groups-missing-in-one", "Two blocks, of which one has groups.",
        main + keys(listed(ADAPTER), KEY_A, OTHER), **both)
    refuse("groups-of-one-block", "One block, with groups.", keys(one, groups=PAIR[:1]))
    refuse("groups-empty", "One block, with empty groups.", keys(one, groups=[]))
    renamed = groups(("", KEY), ("adapters/acme", KEY_B))
    refuse("groups-different", "Blocks with different groups.",
        main + keys(listed(ADAPTER), KEY_A, OTHER, groups=renamed), **both)
    refuse("groups-context", "Blocks with different contexts.",
        main + keys(listed(ADAPTER), KEY_A, OTHER, groups=PAIR, context="acme/vector@2"), **both)
    refuse("groups-block-removed", "Two blocks of three: one is left out.",
        pair(ONE, ADAPTER, TRIPLE), **both)
    refuse("groups-block-added", "A block twice.", main + second + second, **both)
    refuse("groups-swapped", "Blocks in another order than the groups.", second + main, **both)
    refuse("groups-cut", "Cut within the second block.", (main + second)[:4296], "truncated",
        **both)
    refuse("groups-stray", "Something behind the second block.", main + second + b"\0", **both)
    names: list[Any] | dict[str, str] = groups(("", KEY), ("adapters/acme", KEY_B))
    refuse("groups-other-key", "The groups name another key than that of a group that opens.",
        pair(ONE, ADAPTER, names), "foreign-file", **both)
    for name, comment, names in (("first-named", "The first group has a path.",
            groups(("a", KEY), ("adapters/acme", KEY_A))),
            ("empty-twice", "Two main groups.", groups(("", KEY), ("", KEY_A))),
            ("key-short", "A key id that is too short.", [PAIR[0], PAIR[1] | {"key": "00"}]),
            ("key-no-hex", "A key id that is not hex.", [PAIR[0], PAIR[1] | {"key": "x" * 32}]),
            ("unknown-name", "A name not known, in a group.", [PAIR[0], PAIR[1] | {"files": []}]),
            ("no-key", "A group without a key id.", [PAIR[0], {"path": "adapters/acme"}]),
            ("object", "An object for the list of groups.", PAIR[0]),
            ("slash", "The path of a group is not canonical.",
            groups(("", KEY), ("adapters/acme/", KEY_A))),
            ("parent", "The path of a group is not canonical.",
            groups(("", KEY), ("../acme", KEY_A)))):
        adapter = {} if name in ("first-named", "empty-twice", "slash", "parent") else ADAPTER
        own = {} if name == "first-named" else ONE
        refuse(f"groups-{name}", comment, pair(own, adapter, names), **both)
    names = [*PAIR, *groups(("adapters/acme", KEY_B))]
    refuse("groups-path-twice", "Two groups at one path.",
        keys(one, groups=names) + keys(listed(ADAPTER), KEY_A, OTHER, groups=names) +
        keys([], KEY_B, THIRD, groups=names), **both)
    refuse("groups-file-of-main", "A file of the main group, listed in another.",
        pair({}, dict(sorted((ONE | ADAPTER).items()))), **both)
    refuse("groups-file-in-main", "A file of another group, listed in the main one.",
        pair(dict(sorted((ONE | ADAPTER).items())), {}), **both)
    refuse("groups-file-in-two", "A file listed in two groups.",
        pair(dict(sorted((ONE | ADAPTER).items())), ADAPTER), **both)
    names, above = TRIPLE, dict(sorted((ADAPTER | DEEP).items()))
    refuse("groups-file-above", "A file of the longest path, listed in the group above.",
        keys(one, groups=names) + keys(listed(above), KEY_A, OTHER, groups=names) +
        keys([], KEY_B, THIRD, groups=names), who="shared other third")
    refuse("groups-file-and-folder", "A file that is a folder of another group.",
        pair({"adapters": b""}, ADAPTER), **both)
    refuse("groups-passphrase", "A group with a passphrase.",
        main + keys(listed(ADAPTER), KEY_A, groups=PAIR,
            recipients=[w.passphrase_stanza(PHRASE, KEY_A)]), who="shared passphrase")
    refuse("blocks-257", "A block too many; all of them are this one.", many(257),
        repeat={"file": KEYS, "times": 257})


def members() -> None:
    """Directories with a file that is not what the list says."""
    one, block, pairs = listed(ONE), keys(listed(ONE)), pair(ONE, ADAPTER)

    def refuse(name: str, comment: str, data: bytes, expect: str, **more: Any) -> None:
        add(f"file-{name}", comment, {KEYS: block, "one.wmenc": data}, expect=expect, **more)

    good = member("one", ONE["one"])
    add("directory-no-keys", "A directory that is not encrypted.", {"one": SHORT},
        expect="not-encrypted")
    add("directory-missing", "A listed file is missing.", {KEYS: keys(listed(TWO)), **sealed(ONE)},
        expect="missing-file")
    add("directory-renamed-plain", "A listed file is there, but without its ending.",
        {KEYS: block, "one": good}, expect="missing-file")
    add("directory-extra", "A file that is not listed.",
        {KEYS: block, **sealed(ONE), "two.wmenc": member("two", SHORT)}, expect="extra-file")
    add("directory-extra-nested", "A file in a folder that is not listed.",
        {KEYS: block, **sealed(ONE), "a/b/two.wmenc": SHORT}, expect="extra-file")
    add("directory-swapped", "Two files are exchanged.",
        {KEYS: keys(listed(TWO)), "one.wmenc": member("sub/two", TWO["sub/two"]),
        "sub/two.wmenc": good}, expect="commitment")
    refuse("other-directory", "A file of another directory of the same context and path.",
        member("one", ONE["one"], KEY_B), "foreign-file")
    refuse("other-context", "A file of a directory of the same key and another context.",
        member("one", ONE["one"], context="acme/vector@2"), "commitment")
    add("file-other-group", "A file under the key of another group.",
        {KEYS: pairs, "one.wmenc": member("one", ONE["one"], KEY_A), **sealed(ADAPTER, KEY_A)},
        who="shared other", expect="foreign-file")
    refuse("plaintext", "A plaintext in place of the file.", SHORT * 4, "not-encrypted")
    refuse("empty", "An empty file in place of the file.", b"", "not-encrypted")
    refuse("lone", "A file with an envelope of its own.",
        lone(envelope([STANZA], path="one"), ONE["one"], path="one"), "foreign-file")
    refuse("version", "A version that is not known.",
        member("one", ONE["one"], magic=b"weightmark-enc-2"), "unknown-version")
    refuse("magic-of-keys", "The magic of weightmark.keys.",
        member("one", ONE["one"], magic=w.KEYS_MAGIC), "not-encrypted")
    refuse("key-id", "A bit of the key id is flipped.",
        member("one", ONE["one"], id=flip(w.key_id(KEY), 0)), "foreign-file")
    refuse("mac", "A bit of the MAC is flipped.", flip(good, 36), "envelope-tampered")
    refuse("padding", "Padding that is not zero.", flip(good, 4095), "bad-envelope")
    refuse("chunk", "A chunk is changed.", flip(good, -1), "chunk-tampered", chunk=0)
    refuse("cut-header", "Cut within the header.", good[:60], "truncated")
    refuse("cut-payload", "Cut behind the header.", good[:4096], "truncated")
    refuse("cut-commitment", "Cut behind the commitment.", good[:4152], "truncated")
    for size in (3, 5):
        add(f"file-size-{size}", f"A file of 4 bytes that is listed with {size}.",
            {KEYS: keys([one[0] | {"size": size}]), **sealed(ONE)}, expect="truncated")
    longer = {"one": ONE["one"], "sub/two": LONG[: w.CHUNK]}
    data = {KEYS: keys(listed(longer)), "one.wmenc": good,
        "sub/two.wmenc": member("sub/two", longer["sub/two"])[:-16]}
    add("file-cut-boundary", "A file that ends with a full chunk.", data, expect="truncated")


def no_keys() -> list[dict[str, str]]:
    """List texts that are not keys to open anything with."""
    good = w.bech32m("wmkey", SHARED)
    values = [w.ALPHABET.index(c) for c in good.removeprefix("wmkey1")[:-6]]
    texts = (("A character of the checksum is another one.", good[:-1] + "qp"[good[-1] == "q"]),
        ("A character of the key is another one.", good[:9] + "qp"[good[9] == "q"] + good[10:]),
        ("The checksum of bech32, not bech32m.", w.checked("wmkey", values, 1)),
        ("Unused bits that are not zero.", w.checked("wmkey", [*values[:-1], values[-1] | 1])),
        ("Upper and lower case.", good[:5].upper() + good[5:]),
        ("31 bytes.", w.bech32m("wmkey", SHARED[:31])),
        ("33 bytes.", w.bech32m("wmkey", SHARED + b"\0")), ("No bytes.", w.bech32m("wmkey", b"")),
        ("Another prefix.", w.bech32m("wmkeys", SHARED)),
        ("A recipient opens nothing.", w.bech32m("wmrecipient", ALICE_PUBLIC)),
        ("An X25519 recipient opens nothing.", w.bech32m("wmrecipient-x25519", CAROL_PUBLIC)),
        ("Two keys.", f"{good}\n{good}"), ("No key.", "# only a comment\n"))
    return [{"comment": comment, "text": text} for comment, text in texts]


def main() -> None:
    """Write everything anew."""
    for name in ("valid", "invalid"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
        (ROOT / name).mkdir()
    for part in (positives, directories, header_rules, json_rules, recipients, binding, payloads,
            keys_rules, members):
        part()
    if len({entry["name"] for entry in entries}) != len(entries):
        raise AssertionError("a name twice")
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    ring, bad = json.dumps(KEYRING, indent=1), json.dumps(no_keys(), indent=1)
    text = f'{{"keys": {ring},\n"not_keys": {bad},\n"vectors": [\n{lines}\n]}}\n'
    (ROOT / "index.json").write_text(text)


if __name__ == "__main__":
    main()
