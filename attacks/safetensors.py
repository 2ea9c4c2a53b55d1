"""Attacks on safetensors: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import json
import struct

from case import READS, Case, Sparse

FORMAT, EXTENSION = "safetensors", ".safetensors"

DATA = bytes(range(8))
A = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
HELD_A = {"a": "F32 [2] 0001020304050607"}


def file(header: str | bytes, data: bytes = DATA, length: int | None = None) -> bytes:
    """Join a header of the length claimed and the data."""
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(name: str, dtype: str, shape: str, start: object, end: object) -> str:
    """Describe one tensor; the name is JSON without its quotes."""
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}'


def one(shape: str = "[2]", start: object = 0, end: object = 8, dtype: str = "F32", data: bytes = DATA) -> bytes:
    """Build a file of one tensor called a."""
    return file("{" + entry("a", dtype, shape, start, end) + "}", data)


def named(name: str) -> bytes:
    """Build a file of one tensor of this name."""
    return file("{" + entry(name, "F32", "[2]", 0, 8) + "}")


def two(first: str, second: str) -> bytes:
    """Build a file of two tensors of these names."""
    return file("{" + entry(first, "U8", "[4]", 0, 4) + "," + entry(second, "U8", "[4]", 4, 8) + "}")


def held(name: str) -> dict[str, str]:
    """Say what a file of one tensor of this name holds."""
    return {name: HELD_A["a"]}


def held_two(first: str, second: str) -> dict[str, str]:
    """Say what a file of two tensors of these names holds."""
    return {first: "U8 [4] 00010203", second: "U8 [4] 04050607"}


WHOLE = two("b", "c").replace(b'{"b"', b'{"__metadata__":{"format":"pt"},"b"', 1)
WHOLE = file(WHOLE[8:-8])

LENGTHS = [
    Case("empty-file", "nothing at all", "truncated", b""),
    Case("seven-bytes", "the length of the header is cut", "truncated", b"\x02" + bytes(6)),
    Case("length-2-64", "a header of 2^64 - 1 bytes", "header-too-large", file("{}", b"", 2**64 - 1)),
    Case("length-2-63", "a header of 2^63 bytes: negative where lengths are signed", "header-too-large",
         file("{}", b"", 2**63)),
    Case("length-overflow", "8 + length is 0 in 64 bits", "header-too-large", file("{}", b"", 2**64 - 8)),
    Case("length-over-limit", "one byte over the limit of the reference", "header-too-large",
         file("{}", b"", 100_000_001)),
    Case("length-at-limit", "100 MB of header claimed, two there", "truncated", file("{}", b"", 100_000_000)),
    Case("length-one-more", "the header ends one byte after the file", "truncated", file("{}", b"", 3)),
    Case("length-zero", "no header", "malformed-header", file("", DATA)),
    Case("length-one", "a header of one brace", "malformed-header", file("{", b"")),
    Case("length-short", "the header is cut within the JSON, and the rest called data", "malformed-header",
         file("{" + A + "}", DATA, 20)),
    Case("length-big-endian", "the length in the other order", "header-too-large", struct.pack(">Q", 2) + b"{}"),
    Case("sparse-header", "a header of 100 MB, all but its brace a hole", "malformed-header",
         Sparse(struct.pack("<Q", 10**8) + b"{", 10**8 + 8)),
]

JSON = [
    Case("utf-8-bom", "a byte order mark before the header", "malformed-header", file("\ufeff{" + A + "}")),
    Case("utf-16", "a header in UTF-16", "malformed-header", file(("{" + A + "}").encode("utf-16-le"))),
    Case("not-utf-8", "a name in Latin-1", "malformed-header", file(b'{"\xe9":' + A[4:].encode() + b"}")),
    Case("overlong-utf-8", "a name whose letter is encoded in two bytes too many", "malformed-header",
         file(b'{"\xc1\xa1":' + A[4:].encode() + b"}")),
    Case("lone-surrogate", "half of a surrogate pair as a name", "malformed-header", named("\\ud800")),
    Case("raw-control", "a line feed in a name, not escaped", "malformed-header", named("a\n")),
    Case("leading-space", "a blank before the header, which some readers skip", "malformed-header",
         file(" {" + A + "}")),
    Case("trailing-line-feed", "a line feed after the header", "malformed-header", file("{" + A + "}\n")),
    Case("trailing-nul", "the header padded with NUL, where a C string ends", "malformed-header",
         file("{" + A + "}\0\0")),
    Case("trailing-tab", "the header padded with a tab", "malformed-header", file("{" + A + "}\t")),
    Case("two-objects", "two headers one after the other", "malformed-header", file("{" + A + "}{}")),
    Case("text-after", "text behind the closing brace", "malformed-header", file("{" + A + "} x")),
    Case("brace-after", "text behind the closing brace that ends with another", "malformed-header",
         file("{" + A + "} }")),
    Case("trailing-comma", "a comma before the closing brace", "malformed-header", file("{" + A + ",}")),
    Case("comment", "a comment, which lax parsers skip", "malformed-header", file("{/*x*/" + A + "}")),
    Case("single-quotes", "a Python dictionary", "malformed-header", file(("{" + A + "}").replace('"', "'"))),
    Case("header-list", "a list of tensors", "malformed-header", file("[" + A[4:] + "]")),
    Case("header-text", "a string", "malformed-header", file('"a"')),
    Case("header-null", "null", "malformed-header", file("null")),
    Case("tensor-list", "the fields of a tensor as a list, which serde takes for a struct", "malformed-header",
         file('{"a":["F32",[2],[0,8]]}')),
    Case("tensor-null", "null for a tensor", "malformed-header", file('{"a":null}', b"")),
    Case("tensor-empty", "a tensor without fields", "malformed-header", file('{"a":{}}', b"")),
    Case("no-dtype", "a tensor without type", "malformed-header", file('{"a":{"shape":[2],"data_offsets":[0,8]}}')),
    Case("no-shape", "a tensor without shape", "malformed-header", file('{"a":{"dtype":"F32","data_offsets":[0,8]}}')),
    Case("no-offsets", "a tensor without place", "malformed-header", file('{"a":{"dtype":"F32","shape":[2]}}')),
    Case("field-unknown", "a field that the reference skips", "malformed-header",
         file("{" + A.replace('"dtype"', '"x":1,"dtype"') + "}")),
    Case("field-twice", "the type twice", "malformed-header duplicate",
         file("{" + A.replace('"dtype"', '"dtype":"F16","dtype"') + "}")),
    Case("field-escaped-twice", "the type twice, once with an escape", "malformed-header duplicate",
         file("{" + A.replace('"dtype"', '"\\u0064type":"F16","dtype"') + "}")),
    Case("field-case", "Dtype for dtype", "malformed-header", file("{" + A.replace("dtype", "Dtype") + "}")),
    Case("dtype-unknown", "an unknown type", "malformed-header", one(dtype="F33")),
    Case("dtype-lower-case", "a type in lower case", "malformed-header", one(dtype="f32")),
    Case("dtype-nul", "a NUL after the type, where a C string ends", "malformed-header", one(dtype="F32\\u0000")),
    Case("dtype-of-gguf", "a type of another format", "malformed-header", one("[32]", 0, 18, "Q4_0", bytes(18))),
    Case("dtype-object", "an object for the type, which serde takes for an enum", "malformed-header",
         file("{" + A.replace('"F32"', '{"F32":null}') + "}")),
    Case("deep-tensor", "a tensor that is 20,000 objects deep", "malformed-header",
         file('{"a":' * 20_000 + "1" + "}" * 20_000)),
    Case("deep-unknown", "an unknown field that is 20,000 lists deep", "malformed-header",
         file('{"a":{"x":' + "[" * 20_000 + "]" * 20_000 + "}}")),
    Case("deep-metadata", "metadata 20,000 lists deep", "malformed-header",
         file('{"__metadata__":{"x":' + "[" * 20_000 + "]" * 20_000 + "}}", b"")),
    Case("deep-open", "20,000 braces that never close", "malformed-header", file("{" * 20_000 + "}", b"")),
]

NUMBERS = [
    Case("dim-negative", "a dimension of -2", "malformed-header", one("[-2]")),
    Case("dim-float", "a dimension of 2.0", "malformed-header", one("[2.0]")),
    Case("dim-exponent", "a dimension of 2e0", "malformed-header", one("[2e0]")),
    Case("dim-text", "a dimension in quotes", "malformed-header", one('["2"]')),
    Case("dim-true", "true for 1", "malformed-header", one("[2,true]")),
    Case("dim-leading-zero", "02: octal to some", "malformed-header", one("[02]")),
    Case("dim-plus", "+2", "malformed-header", one("[+2]")),
    Case("dim-nan", "NaN", "malformed-header", one("[NaN]")),
    Case("dim-2-64", "a dimension of 2^64: 0 where it wraps", "malformed-header", one(f"[{2**64}]", 0, 0, data=b"")),
    Case("dim-1e400", "a dimension beyond every number", "malformed-header", one("[1e400]")),
    Case("dim-digits", "a dimension of 20,000 digits", "malformed-header", one("[" + "9" * 20_000 + "]")),
    Case("dim-max", "a dimension of 2^64 - 1", "span", one(f"[{2**64 - 1}]")),
    Case("product-overflow", "2^32 x 2^32: 0 where it wraps", "span", one("[4294967296,4294967296]", 0, 0, data=b"")),
    Case("product-overflow-9", "a product that wraps to the size of the data", "span", one(f"[{2**63},2,2,1]", 0, 8)),
    Case("width-overflow", "2^61 elements of 8 bytes: 0 where it wraps", "span", one(f"[{2**61}]", 0, 0, "F64", b"")),
    Case("zero-then-overflow", "0 elements, but the other dimensions overflow", "span",
         one(f"[0,{2**63},4]", 0, 0, data=b"")),
    Case("overflow-then-zero", "the same the other way round", "span", one(f"[{2**63},4,0]", 0, 0, data=b"")),
    Case("rank-65", "65 dimensions", "malformed-header span", one("[" + "1," * 64 + "2]")),
    Case("rank-20000", "20,000 dimensions", "malformed-header span", one("[" + "1," * 20_000 + "2]")),
    Case("half-bytes", "three elements of half a byte", "span", one("[3]", 0, 1, "F4", b"1")),
    Case("six-bits", "three elements of six bits", "span", one("[3]", 0, 2, "F6_E2M3", b"12")),
]

PLACES = [
    Case("offset-reversed", "the end before the start", "span", one(start=8, end=0)),
    Case("offset-negative", "a start of -8", "malformed-header", one(start=-8, end=0)),
    Case("offset-float", "an end of 8.0", "malformed-header", one(end="8.0")),
    Case("offset-one", "one offset", "span malformed-header",
         file('{"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}}')),
    Case("offset-three", "three offsets", "span malformed-header", one(end="8,8")),
    Case("offset-start-max", "a start that wraps with the header added", "span", one(start=2**64 - 1, end=7)),
    Case("offset-both-max", "both wrap", "span", one("[0]", 2**64 - 1, 2**64 - 1)),
    Case("offset-end-max", "an end of 2^64 - 1", "span", one(f"[{2**62 - 1}]", 3, 2**64 - 1)),
    Case("offset-beyond", "one byte beyond the end", "span", one(dtype="U8", shape="[9]", end=9)),
    Case("size-short", "the place is smaller than the shape", "span", one(end=7)),
    Case("size-long", "the place is larger than the shape", "span", one("[1]")),
    Case("gap-first", "a byte before the first tensor that belongs to none", "span",
         one(start=1, end=9, data=bytes(9))),
    Case("gap-between", "a byte between two tensors", "span",
         file("{" + entry("a", "U8", "[3]", 0, 3) + "," + entry("b", "U8", "[4]", 4, 8) + "}")),
    Case("overlap-by-one", "two tensors share a byte", "span",
         file("{" + entry("a", "U8", "[4]", 0, 4) + "," + entry("b", "U8", "[5]", 3, 8) + "}")),
    Case("overlap-whole", "two tensors share all", "span", file("{" + A + "," + A.replace('"a"', '"b"') + "}")),
    Case("overlap-inside", "a tensor inside of another", "span",
         file("{" + A + "," + entry("b", "U8", "[2]", 3, 5) + "}")),
    Case("empty-inside", "an empty tensor inside of another", "span",
         file("{" + A + "," + entry("b", "U8", "[0]", 4, 4) + "}")),
    Case("trailing-byte", "a byte after the last tensor", "trailing-bytes", one(data=bytes(9))),
    Case("trailing-without-tensors", "data, and no tensor", "trailing-bytes", file("{}", b"x")),
    Case("zip-behind", "an empty zip archive behind the last tensor: a zip to readers that start at the end",
         "trailing-bytes", one(data=DATA + b"PK\5\6" + bytes(18))),
]

NAMES = [
    Case("name-twice", "one name twice: the reference takes the last, others the first", "duplicate", two("a", "a")),
    Case("name-twice-escaped", "one name twice, once with an escape", "duplicate", two("a", "\\u0061")),
    Case("name-twice-slash", "one name twice, the slash escaped once", "duplicate", two("a/b", "a\\/b")),
    Case("name-twice-surrogates", "one name twice, once as a surrogate pair", "duplicate",
         two("\U0001f600", "\\ud83d\\ude00")),
    Case("name-twice-far", "one name at both ends of 500", "duplicate",
         file("{" + ",".join(entry(f"n{i % 499}", "U8", "[0]", 0, 0) for i in range(500)) + "}", b"")),
    Case("metadata-twice", "two metadata objects", "duplicate",
         file('{"__metadata__":{},"__metadata__":{},' + A + "}")),
    Case("metadata-twice-escaped", "two metadata objects, one with an escape", "duplicate",
         file('{"__metadata__":{},"\\u005f_metadata__":{},' + A + "}")),
    Case("metadata-key-twice", "a key of metadata twice", "duplicate",
         file('{"__metadata__":{"k":"1","\\u006b":"2"},' + A + "}")),
    Case("metadata-number", "a number in metadata", "malformed-header", file('{"__metadata__":{"k":1},' + A + "}")),
    Case("metadata-null", "null for metadata, which the reference takes for none", "malformed-header",
         file('{"__metadata__":null,' + A + "}")),
    Case("metadata-nested", "an object in metadata", "malformed-header", file('{"__metadata__":{"k":{}},' + A + "}")),
    Case("metadata-list", "a list for metadata", "malformed-header", file('{"__metadata__":["k","v"],' + A + "}")),
    Case("metadata-tensor", "a tensor called __metadata__", "malformed-header", named("__metadata__")),
    Case("name-empty", "a tensor without name", "span", named("")),
    Case("name-nul", "a NUL in a name, where a C string ends", "span", named("a\\u0000b")),
    Case("name-line-feed", "a line feed in a name, which forges lines of output", "span", named("a\\nb")),
    Case("name-escape", "an escape that clears the terminal", "span", named("\\u001b[2J")),
    Case("name-delete", "U+007F in a name", "span", named("a\\u007f")),
    Case("name-c1", "U+009B: an escape in one character", "span", named("a\\u009b2J")),
]

ODD = [
    Case("whole", "two tensors and metadata", READS, WHOLE, held_two("b", "c")),
    Case("no-tensors", "no tensors", READS, file("{}", b""), {}),
    Case("only-metadata", "metadata and no tensors", READS, file('{"__metadata__":{"k":"v"}}', b""), {}),
    Case("metadata-escaped", "the key of metadata with an escape is metadata", READS,
         file('{"\\u005f_metadata__":{"k":"v"},' + A + "}"), HELD_A),
    Case("metadata-pickle", "code in metadata is text", READS,
         file('{"__metadata__":{"k":"cos\\nsystem\\n(S\'id\'\\ntR."},' + A + "}"), HELD_A),
    Case("padded", "a header padded with blanks", READS, file("{" + A + "}   "), HELD_A),
    Case("padded-much", "200 KB of blanks", READS, file("{" + A + "}" + " " * 200_000), HELD_A),
    Case("blanks-inside", "blanks and line feeds between tokens", READS, file("{ \n\t" + A + "\r\n }"), HELD_A),
    Case("scalar", "no dimensions", READS, one("[]", 0, 4, data=DATA[:4]), {"a": "F32 [] 00010203"}),
    Case("rank-64", "64 dimensions", READS, one("[" + "1," * 63 + "2]"),
         {"a": "F32 [" + "1, " * 63 + "2] 0001020304050607"}),
    Case("zero-size", "empty tensors, at the start, between and at the end", READS,
         file("{" + entry("x", "F32", "[0]", 0, 0) + "," + entry("y", "I8", "[3,0]", 8, 8) + "," + A + "}"),
         {"x": "F32 [0] ", "y": "I8 [3, 0] ", **HELD_A}),
    Case("zero-size-many", "2,000 empty tensors in one place", READS,
         file("{" + ",".join(entry(f"n{i:04}", "U8", "[0]", 0, 0) for i in range(2000)) + "}", b""),
         {f"n{i:04}": "U8 [0]" for i in range(2000)}),
    Case("two-tensors-unsorted", "the header lists the second tensor first", READS,
         file("{" + entry("b", "U8", "[4]", 4, 8) + "," + entry("a", "U8", "[4]", 0, 4) + "}"), held_two("a", "b")),
    Case("names-by-case", "names that differ in case are two", READS, two("a", "A"), held_two("a", "A")),
    Case("names-by-accent", "names that differ in the composition of an accent are two", READS,
         two("\u00e9", "e\u0301"), held_two("\u00e9", "e\u0301")),
    Case("names-by-look", "a Cyrillic letter makes another name", READS, two("a", "\u0430"), held_two("a", "\u0430")),
    Case("name-path", "a name is no path", READS, named("../../etc/passwd"), held("../../etc/passwd")),
    Case("name-bidi", "a name that turns the direction of text is a name, and printed escaped", READS,
         named("a\u202eb"), held("a\u202eb")),
    Case("name-like-field", "names of fields as names", READS, two("dtype", "shape"), held_two("dtype", "shape")),
    Case("name-proto", "what JavaScript takes for the prototype", READS, named("__proto__"), held("__proto__")),
    Case("name-long", "a name of 100,000 letters", READS, named("n" * 100_000), held("n" * 100_000)),
    Case("sparse-data", "a tensor of 1 GiB, all of it a hole", READS,
         Sparse(one(f"[{2**28}]", 0, 2**30, data=b""), len(one(f"[{2**28}]", 0, 2**30, data=b"")) + 2**30),
         {"a": f"F32 [{2**28}]"}),
    Case("half-bytes-even", "two elements of half a byte", READS, one("[2]", 0, 1, "F4", b"1"), {"a": "F4 [2] 31"}),
    Case("bool-2", "truth values that are neither 0 nor 1 are bytes of the tensor", READS,
         one("[2]", 0, 2, "BOOL", b"\x02\xff"), {"a": "BOOL [2] 02ff"}),
    Case("unaligned", "a wide type at an odd place", READS, file("{" + entry("a", "U8", "[1]", 0, 1) + "," + entry("b",
         "F64", "[1]", 1, 9) + "}", bytes(9)),
         {"a": "U8 [1] 00", "b": "F64 [1] " + "00" * 8}),
    Case("zip-inside", "an empty zip archive as the last tensor: told by its first bytes, it is none", READS,
         one("[22]", 0, 22, "U8", b"PK\5\6" + bytes(18)),
         {"a": "U8 [22] 504b0506" + "00" * 18}),
]

CASES = ODD + LENGTHS + JSON + NUMBERS + PLACES + NAMES
assert json.loads(WHOLE[8:-8])
