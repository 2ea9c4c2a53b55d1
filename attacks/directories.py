"""Attacks on model directories: files that are not what they are called, shard indices, split files, external data."""

from __future__ import annotations

import json

import gguf
import onnx
import pytorch
import safetensors
from archive import Member, archive
from case import READS, Case, Link, Sparse

FORMAT, EXTENSION = "directories", ""

INDEX = "model.safetensors.index.json"
SHARDS = {"one.safetensors": safetensors.two("a", "b"), "two.safetensors": safetensors.two("c", "d")}
MAP = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors", "d": "two.safetensors"}
WHOLE = {"config.json": b"{}", "tokenizer/vocab.txt": b"a\n", **SHARDS,
    INDEX: json.dumps({"metadata": {"total_size": 16}, "weight_map": MAP}).encode()}
HELD_SHARDS = {
    "one.safetensors:a": "U8 [4] 00010203", "one.safetensors:b": "U8 [4] 04050607",
    "two.safetensors:c": "U8 [4] 00010203", "two.safetensors:d": "U8 [4] 04050607",
}
GOOD = {"model.safetensors": safetensors.one()}
HELD = {"model.safetensors:a": safetensors.HELD_A["a"]}
PICKLE = pytorch.PROTO + pytorch.call("posix", "system", pytorch.text("id")) + pytorch.STOP


def shards(changes: dict | None = None, *, text: str | None = None, files: dict | None = None) -> dict:
    """Make a model of two shards, with changes to what its index says."""
    listed = {name: shard for name, shard in (MAP | (changes or {})).items() if shard is not None}
    return WHOLE | {INDEX: (text or json.dumps({"weight_map": listed})).encode()} | (files or {})


def part(number: int, count: int = 2, tensors: int = 2, name: str = "a", keys: bool = True) -> bytes:
    """Write a part of a split file, of one tensor."""
    entries = [
        gguf.kv("split.no", gguf.U16, number.to_bytes(2, "little")),
        gguf.kv("split.count", gguf.U16, count.to_bytes(2, "little")),
        gguf.kv("split.tensors.count", gguf.I32, tensors.to_bytes(4, "little")),
    ]
    return gguf.file(entries if keys else [], [gguf.tensor(name, [8])], gguf.DATA)


FIRST, SECOND = "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"
PARTS = {FIRST: part(0), SECOND: part(1, name="b")}
MODEL, DATA = {"m.onnx": onnx.one(onnx.external())}, {"w.bin": onnx.DATA}
TWO = onnx.file(onnx.tensor(onnx.external()), onnx.tensor(onnx.external(), name="b"))

SHARD_INDICES = [
    Case(f"shards-{name}", what, "shard-index", content)
    for name, what, content in [
        ("missing", "a shard that is not there", shards({"x": "three.safetensors"})),
        ("outside", "a shard outside of the directory", shards({"a": "../one.safetensors"})),
        ("outside-inside", "a shard by a path out and back in",
            shards({"a": "../model/one.safetensors", "b": "../model/one.safetensors"})),
        ("dot", "a shard by ./", shards({"a": "./one.safetensors", "b": "./one.safetensors"})),
        ("absolute", "a shard by an absolute path", shards({"a": "/etc/passwd"})),
        ("empty", "a shard without name", shards({"a": ""})),
        ("nul", "a shard with a NUL", shards({"a": "one.safetensors\0"})),
        ("by-case", "a shard by another case", shards({"a": "ONE.safetensors", "b": "ONE.safetensors"})),
        ("config", "a shard that holds no tensors", shards({"a": "config.json"})),
        ("tensor-more", "a tensor that no shard has", shards({"e": "two.safetensors"})),
        ("tensor-less", "a tensor of a shard that the index leaves out", shards({"d": None})),
        ("tensor-elsewhere", "a tensor in another shard than the index says", shards({"a": "two.safetensors"})),
        ("tensor-twice", "a tensor in two shards",
            shards(text=json.dumps({"weight_map": MAP})[:-2] + ',"a":"two.safetensors"}}')),
        ("tensor-twice-escaped", "a tensor in two shards, once with an escape",
            shards(text=json.dumps({"weight_map": MAP})[:-2] + ',"\\u0061":"one.safetensors"}}')),
        ("map-twice", "two maps", shards(text=json.dumps({"weight_map": MAP})[:-1] + ',"weight_map":{}}')),
        ("map-twice-escaped", "two maps, one with an escape",
            shards(text=json.dumps({"weight_map": MAP})[:-1] + ',"weight\\u005fmap":{}}')),
        ("map-none", "no map", shards(text="{}")),
        ("map-list", "a list for the map", shards(text='{"weight_map":["a"]}')),
        ("map-null", "null for the map", shards(text='{"weight_map":null}')),
        ("not-json", "no JSON", shards(text="hello")),
        ("list", "a list, which serde takes for a struct", shards(text=json.dumps([MAP]))),
        ("two-documents", "two documents in one", shards(text=json.dumps({"weight_map": MAP}) * 2)),
        ("sparse", "an index of 64 MiB, all but its brace a hole", WHOLE | {INDEX: Sparse(b"{", 2**26)}),
        ("subdirectory", "a shard in a directory below", shards({"x": "sub/three.safetensors"},
            files={"sub/three.safetensors": safetensors.named("x")})),
    ]
]

NAMED = [
    Case("named-safetensors-pickle", "a pickle called .safetensors",
         "unknown truncated header-too-large malformed-header", {"model.safetensors": PICKLE}),
    Case("named-safetensors-gguf", "a GGUF file called .safetensors",
         "unknown truncated header-too-large malformed-header", {"model.safetensors": gguf.WHOLE}),
    Case("named-safetensors-empty", "an empty file called .safetensors", "truncated", {"model.safetensors": b""}),
    Case("named-safetensors-pointer", "a pointer of Git LFS called .safetensors", "header-too-large",
         {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}),
    Case("named-gguf-zip", "an archive called .gguf", "unknown", {"m.gguf": pytorch.one(pytorch.GOOD)}),
    Case("named-gguf-safetensors", "a safetensors file called .gguf", "unknown", {"m.gguf": safetensors.WHOLE}),
    Case("broken-beside-good", "a broken safetensors file beside a good one", "truncated",
         {**GOOD, "other.safetensors": safetensors.WHOLE[:20]}),
    Case("broken-other-name", "a broken GGUF file under another name", "truncated",
         {**GOOD, "other.bin": gguf.WHOLE[:40]}),
    Case("symlink", "a link to a file outside", "tree", {**GOOD, "link": Link("/etc/passwd")}),
    Case("symlink-shard", "a shard that is a link to another", "tree",
         {**GOOD, "two.safetensors": Link("model.safetensors")}),
    Case("symlink-directory", "a link to the directory itself", "tree", {**GOOD, "sub": Link(".")}),
    Case("name-backslash", "a file name with a backslash", "tree", {**GOOD, "a\\b": b""}),
    Case("shards-huge", "a shard index of 1 GiB", "tree shard-index header-too-large",
         WHOLE | {INDEX: Sparse(b"{", 2**30)}),
    Case("deep", "directories 70 deep", "tree", {**GOOD, "d/" * 70 + "f": b""}),
]

SPLITS = [
    Case("split-part-missing", "one part of two", "shard-index", {FIRST: part(0)}),
    Case("split-first-missing", "the second part of two", "shard-index", {SECOND: part(1)}),
    Case("split-count-differs", "parts that disagree how many they are", "shard-index",
         {FIRST: part(0), SECOND: part(1, count=3, name="b")}),
    Case("split-tensors-differ", "parts that disagree how many tensors they hold", "shard-index",
         {FIRST: part(0), SECOND: part(1, tensors=3, name="b")}),
    Case("split-tensors-more", "parts that claim a tensor more than they hold", "shard-index",
         {FIRST: part(0, tensors=3), SECOND: part(1, tensors=3, name="b")}),
    Case("split-number-twice", "two parts of one number", "shard-index", {FIRST: part(0), SECOND: part(0, name="b")}),
    Case("split-number-beyond", "the third part of two", "shard-index",
         {**PARTS, "m-00003-of-00002.gguf": part(2, name="c")}),
    Case("split-number-max", "part 65,535 of two", "shard-index",
         {FIRST: part(0), "m-65536-of-00002.gguf": part(65535, name="b")}),
    Case("split-name", "a part under a name of its own", "shard-index",
         {FIRST: part(0), "second.gguf": part(1, name="b")}),
    Case("split-name-swapped", "two parts under each other's names", "shard-index",
         {FIRST: part(1), SECOND: part(0, name="b")}),
    Case("split-keys-missing", "a part that does not say that it is one", "shard-index",
         {FIRST: part(0), SECOND: part(1, name="b", keys=False)}),
    Case("split-name-twice", "a tensor in both parts", "shard-index duplicate", {FIRST: part(0), SECOND: part(1)}),
]

EXTERNALS = [
    Case("external-missing", "data in a file that is not there", "external", MODEL),
    Case("external-short", "data beyond the end of their file", "external", {**MODEL, "w.bin": onnx.DATA[:-1]}),
    Case("external-outside", "data in a file outside", "external",
         {"sub/m.onnx": onnx.one(onnx.external(location="../w.bin")), **DATA}),
    Case("external-other-model", "the weights of another model as data", "external",
         {"m.onnx": onnx.one(onnx.external(location="model.safetensors", offset="8")), **GOOD}),
    Case("external-closed", "a checkpoint with code, left closed, as data", "external", {
        "m.onnx": onnx.one(onnx.external(location="pytorch_model.bin")), "pytorch_model.bin": PICKLE + bytes(16)}),
    Case("external-index", "a shard index as data", "external reads", {
        **WHOLE, "m.onnx": onnx.one(onnx.external(location=INDEX, length="16"))},
        {**HELD_SHARDS, f"{INDEX}:a": "F32 [4] " + WHOLE[INDEX][:16].hex()}),
    Case("external-self", "the model itself as data", "external",
         {"m.onnx": onnx.one(onnx.external(location="m.onnx"))}),
    Case("external-by-case", "data in a file by another case", "external",
         {"m.onnx": onnx.one(onnx.external(location="W.BIN")), **DATA}),
    Case("external-directory", "a directory for the data", "external",
         {"m.onnx": onnx.one(onnx.external(location="w")), "w/x.bin": onnx.DATA}),
    Case("external-overlap", "two models whose data in one file overlap", "external",
         {"a.onnx": onnx.one(onnx.external()), "b.onnx": onnx.one(onnx.external(offset="4"), name="b"),
          "w.bin": onnx.DATA * 2}),
    Case("external-link", "a link for the data", "tree", {**MODEL, "w.bin": Link("/etc/passwd")}),
    Case("external-overlap", "two tensors that share a part of the data", "external span", {"m.onnx": onnx.file(
        onnx.tensor(onnx.external()), onnx.tensor(onnx.external(offset="8"), name="b")), "w.bin": onnx.DATA * 2}),
    Case("external-twice-differently", "two models that see one name at two places", "duplicate",
         {**MODEL, "n.onnx": onnx.one(onnx.external(offset="16")), "w.bin": onnx.DATA * 2}),
]

ODD = [
    Case("whole", "two shards, their index, and files that hold no tensors", READS, WHOLE, HELD_SHARDS),
    Case("shards-deep", "an unknown field 20,000 lists deep: skipped without descending, or refused",
         READS + " shard-index",
         shards(text=json.dumps({"weight_map": MAP})[:-1] + ',"x":' + "[" * 20_000 + "]" * 20_000 + "}"), HELD_SHARDS),
    Case("split", "a split GGUF file", READS, PARTS, {f"{FIRST}:a": gguf.HELD["a"], f"{SECOND}:b": gguf.HELD["a"]}),
    Case("external", "a model and its external data", READS, {**MODEL, **DATA}, {"w.bin:a": onnx.HELD["a"]}),
    Case("external-shared", "two models of the same data", READS, {**MODEL, "n.onnx": MODEL["m.onnx"], **DATA},
         {"w.bin:a": onnx.HELD["a"]}),
    Case("external-below", "data in a directory below", READS,
         {"m.onnx": onnx.one(onnx.external(location="d/w.bin")), "d/w.bin": onnx.DATA}, {"d/w.bin:a": onnx.HELD["a"]}),
    Case("external-same-place", "two tensors of one place", READS, {"m.onnx": TWO, **DATA},
         {"w.bin:a": onnx.HELD["a"], "w.bin:b": onnx.HELD["a"]}),
    Case("empty", "a directory of a text", READS, {"README.md": b"hello"}, {}),
    Case("pickle-beside-good", "a pickle with code beside good weights is left closed", READS,
         {**GOOD, "pytorch_model.bin": PICKLE}, HELD, {"pytorch_model.bin": "executable"}),
    Case("code-in-checkpoint", "a checkpoint with code beside good weights is left closed", READS,
         {**GOOD, "pytorch_model.bin": pytorch.beside(pytorch.call("os", "system",
             pytorch.text("id")))}, HELD, {"pytorch_model.bin": "executable"}),
    Case("old-gguf-beside-good", "a GGUF file of version 1 beside good weights is left closed", READS,
         {**GOOD, "old.gguf": gguf.file([], [gguf.A], gguf.DATA, version=1)}, HELD, {"old.gguf": "unsupported"}),
    Case("checkpoint", "a checkpoint called .bin", READS, {"pytorch_model.bin": pytorch.one(pytorch.GOOD)},
         {"pytorch_model.bin:a": pytorch.HELD["a"]}),
    Case("one-name-in-two", "one name in two files: whoever asks for it by name alone gets none", READS,
         {**GOOD, "other.safetensors": safetensors.one()},
         {**HELD, "other.safetensors:a": safetensors.HELD_A["a"]}),
    Case("names-by-case", "files whose names differ in case are two", READS,
         {"a.safetensors": safetensors.one(), "A.safetensors": safetensors.one()},
         {"a.safetensors:a": safetensors.HELD_A["a"], "A.safetensors:a": safetensors.HELD_A["a"]}),
    Case("sparse-beside-good", "a hole of 1 GiB beside good weights is a file like another", READS,
         {**GOOD, "data.raw": Sparse(b"", 2**30)}, HELD),
    Case("bin-beside-good", "what is called as pickles are, and ends every unpickler at once, is a file like another", READS,
         {**GOOD, "data.bin": Sparse(b"", 2**30)}, HELD),
    Case("long-bin-beside-good", "a megabyte of opcodes that do nothing, and who knows what behind it", READS,
         {**GOOD, "data.bin": b"N" * (2**20 + 1)}, HELD, {"data.bin": "executable"}),
    Case("old-pickle-beside-good", "a pickle of protocol 0, which nothing at its start tells", READS,
         {**GOOD, "pytorch_model.bin": b"cposix\nsystem\n(S'id'\ntR."}, HELD, {"pytorch_model.bin": "executable"}),
    Case("bare-body-beside-good", "a pickle without the opcode that says its protocol", READS,
         {**GOOD, "pytorch_model.bin": PICKLE[2:]}, HELD, {"pytorch_model.bin": "executable"}),
    Case("upper-case-beside-good", "a checkpoint whose pickle is called DATA.PKL, which PyTorch finds", READS,
         {**GOOD, "weights.raw": archive([Member("archive/DATA.PKL", PICKLE)])}, HELD, {"weights.raw": "unsupported"}),
    Case("package-beside-good", "an archive of another pickle", READS,
         {**GOOD, "weights.raw": archive([Member("model/x.pickle", PICKLE)])}, HELD, {"weights.raw": "unsupported"}),
    Case("objects-beside-good", "an archive of an array of objects, and something else", READS,
         {**GOOD, "weights.raw": archive([Member("a.txt", b"x"), Member("b.npy", b"x")])}, HELD,
         {"weights.raw": "unsupported"}),
    Case("python-beside-good", "a script beside good weights is a file like another", READS,
         {**GOOD, "modeling_x.py": b"import os\n"}, HELD),
    Case("name-upper-case", "a safetensors file by another case is told by its content", READS,
         {"MODEL.SAFETENSORS": safetensors.one()}, {"MODEL.SAFETENSORS:a": safetensors.HELD_A["a"]}),
]

CASES = ODD + SHARD_INDICES + NAMED + SPLITS + EXTERNALS
