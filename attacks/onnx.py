"""Attacks on ONNX: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, in protobuf's wire format."""

from __future__ import annotations

import struct

from case import READS, Case, Sparse

FORMAT, EXTENSION = "onnx", ".onnx"

FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64, STRING, BOOL, FLOAT16, DOUBLE = range(1, 12)
BFLOAT16, FLOAT8, UINT4, INT4 = 16, 17, 21, 22
DIMS, TYPE, SEGMENT, FLOAT_DATA, INT32_DATA, STRING_DATA, INT64_DATA = range(1, 8)
NAME, RAW, DOUBLE_DATA, UINT64_DATA, DOC, EXTERNAL, LOCATION = range(8, 15)


def varint(value: int) -> bytes:
    """Encode a number."""
    out, value = b"", value % 2**64
    while value > 127:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


def key(number: int, wire: int) -> bytes:
    """Encode the number of a field and how it is encoded."""
    return varint(number << 3 | wire)


def integer(number: int, value: int) -> bytes:
    """Encode a field of a number."""
    return key(number, 0) + varint(value)


def message(number: int, value: bytes | str, length: int | None = None) -> bytes:
    """Encode a field of bytes, of the length claimed."""
    raw = value.encode() if isinstance(value, str) else value
    return key(number, 2) + varint(len(raw) if length is None else length) + raw


def packed(number: int, *values: int) -> bytes:
    """Encode a field of many numbers."""
    return message(number, b"".join(map(varint, values)))


DATA = bytes(range(16))


def tensor(*fields: bytes, name: str | bytes | None = "a", dims=(4,), kind: int | None = FLOAT) -> bytes:
    """Write a tensor; without further fields it has no data."""
    out = b"".join(integer(DIMS, dim) for dim in dims)
    out += integer(TYPE, kind) if kind is not None else b""
    return out + b"".join(fields) + (message(NAME, name) if name is not None else b"")


def raw(data: bytes = DATA) -> bytes:
    """Encode the data of a tensor."""
    return message(RAW, data)


A = tensor(raw())
NODE = message(1, message(1, "a") + message(2, "y") + message(4, "Identity"))


def graph(*tensors: bytes, more: bytes = b"") -> bytes:
    """Write a graph of these tensors."""
    return NODE + message(2, "g") + b"".join(message(5, t) for t in tensors) + more


def model(content: bytes, more: bytes = b"") -> bytes:
    """Write a model of a graph."""
    return integer(1, 9) + message(8, integer(2, 17)) + message(7, content) + more


def file(*tensors: bytes, more: bytes = b"") -> bytes:
    """Write a model of these tensors."""
    return model(graph(*tensors, more=more))


def one(*fields: bytes, **more) -> bytes:
    """Write a model of a tensor called a."""
    return file(tensor(*fields, **more))


def external(
    *,
    location: str | bytes | None = "w.bin",
    offset: str | None = "0",
    length: str | None = "16",
    more: bytes = b"",
    flag: int = 1,
) -> bytes:
    """Write the fields that say where in another file the data of a tensor lie."""
    pairs = [("location", location), ("offset", offset), ("length", length)]
    out = b"".join(message(EXTERNAL, message(1, k) + message(2, v)) for k, v in pairs if v is not None)
    return out + more + integer(LOCATION, flag)


def held(what: str = "F32 [4]", data: bytes = DATA, name: str = "a") -> dict[str, str]:
    """Say what a file of one tensor holds."""
    return {name: f"{what} {data.hex()}"}


def nested_graphs(depth: int, outermost: int = 1) -> bytes:
    """Write a node whose attribute is a graph of such a node, and so on, from the inside."""
    parts, size = [], 0
    for i in range(depth):
        for number in (6, 5, 1 if i + 1 < depth else outermost):
            parts.append(key(number, 2) + varint(size))
            size += len(parts[-1])
    return b"".join(reversed(parts))


def sparse(field: int, size: int, dims: int, kind: int) -> Sparse:
    """Write a model that ends with a tensor whose data are a hole."""
    head = integer(DIMS, dims) + integer(TYPE, kind) + message(NAME, "a")
    data = message(field, b"", size)
    inner = message(5, head + data, len(head + data) + size)
    start = NODE + message(2, "g")
    outer = integer(1, 9) + message(8, integer(2, 17)) + message(7, start + inner, len(start + inner) + size)
    return Sparse(outer, len(outer) + size)


SPARSE = sparse(RAW, 2**30, 2**28, FLOAT)
SPARSE_NUMBERS = sparse(INT32_DATA, 2**27, 2**27, INT8)
HELD = held()
WHOLE = file(
    A,
    tensor(packed(INT64_DATA, 7, -7), name="n", dims=(2,), kind=INT64),
    tensor(packed(INT32_DATA, 1, 2, 65535), name="h", dims=(3,), kind=FLOAT16),
    tensor(raw(b"x"), name="u", dims=(), kind=UINT8),
)

WIRE = [
    Case(f"wire-{name}", what, words, content)
    for name, what, words, content in [
        ("group", "a group, which protobuf gave up", "malformed-header", model(graph(A), key(90, 3) + key(90, 4))),
        ("group-open", "a group that never ends", "malformed-header truncated", model(graph(A), key(90, 3))),
        ("groups-deep", "groups 20,000 deep", "malformed-header",
            model(graph(A), key(90, 3) * 20_000 + key(90, 4) * 20_000)),
        ("type-6", "an encoding that is none", "malformed-header", model(graph(A), key(90, 6) + b"\0")),
        ("field-0", "a field of number 0", "malformed-header", model(graph(A), integer(0, 1))),
        ("field-2-29", "a field number beyond the limit", "malformed-header", model(graph(A), integer(2**29, 1))),
        ("field-2-61", "a field number that is that of the graph when cut to 32 bits", "malformed-header duplicate",
            model(graph(A), message(2**32 + 7, graph(A)))),
        ("varint-11", "a number of 11 bytes", "malformed-header", model(graph(A), key(2, 0) + b"\x80" * 10 + b"\1")),
        ("varint-overflow", "a number of 70 bits", "malformed-header",
            model(graph(A), key(5, 0) + b"\xff" * 9 + b"\x7f")),
        ("varint-cut", "a number that never ends", "truncated malformed-header", model(graph(A), key(5, 0) + b"\x80")),
        ("key-overlong", "a field whose number is written in three bytes too many", "malformed-header",
            integer(1, 9) + b"\xba\x80\x80\0" + varint(len(graph(A))) + graph(A)),
        ("length-2-64", "a message of 2^64 - 1 bytes", "truncated malformed-header",
            integer(1, 9) + message(7, graph(A), 2**64 - 1)),
        ("length-2-63", "a message of 2^63 bytes: negative where lengths are signed", "truncated malformed-header",
            integer(1, 9) + message(7, graph(A), 2**63)),
        ("length-2-31", "a message of 2^31 bytes", "truncated malformed-header",
            integer(1, 9) + message(7, graph(A), 2**31)),
        ("length-one-more", "a message one byte longer than the file", "truncated malformed-header",
            integer(1, 9) + message(7, graph(A), len(graph(A)) + 1)),
        ("inner-beyond", "a tensor longer than its graph", "truncated malformed-header",
            model(NODE + message(5, A, len(A) + 9), integer(5, 1) * 8)),
        ("graph-number", "a number for the graph", "malformed-header unknown", integer(1, 9) + integer(7, 1)),
        ("tensor-number", "a number for a tensor", "malformed-header", model(NODE + integer(5, 1))),
        ("dims-fixed", "dimensions in 64 bits", "malformed-header",
            one(key(DIMS, 1) + struct.pack("<Q", 4), raw(), dims=())),
        ("type-bytes", "bytes for the type", "malformed-header", one(message(TYPE, b"\1"), raw(), kind=None)),
        ("name-number", "a number for a name", "malformed-header", one(integer(NAME, 1), raw(), name=None)),
        ("raw-number", "a number for the data", "malformed-header", one(integer(RAW, 1))),
        ("raw-fixed", "data in 64 bits", "malformed-header", one(key(RAW, 1) + DATA[:8], dims=(2,))),
        ("float-double", "floats in 64 bits", "malformed-header", one(key(FLOAT_DATA, 1) + DATA[:8], dims=(1,))),
        ("float-varint", "floats as integers", "malformed-header", one(integer(FLOAT_DATA, 1), dims=(1,))),
    ]
]

TWICE = [
    Case("graph-twice", "two graphs, which protobuf merges", "duplicate malformed-header",
         model(graph(A), message(7, graph()))),
    Case("graph-first", "a graph before the version, and another behind", "duplicate malformed-header",
         message(7, graph(A)) + model(graph(A))),
    Case("raw-twice", "the data of a tensor twice: the last counts, to protobuf", "duplicate malformed-header",
         one(raw(), raw(bytes(16)))),
    Case("raw-twice-same", "the same data twice", "duplicate malformed-header", one(raw(), raw())),
    Case("name-twice", "the name of a tensor twice", "duplicate malformed-header", one(message(NAME, "b"), raw())),
    Case("type-twice", "the type of a tensor twice", "duplicate malformed-header", one(integer(TYPE, INT32), raw())),
    Case("location-twice", "data within and without", "duplicate malformed-header external",
         one(raw(), integer(LOCATION, 1), integer(LOCATION, 0))),
    Case("tensors-of-one-name", "two tensors of one name", "duplicate", file(A, A)),
    Case("tensors-of-one-name-external", "two tensors of one name, one of them in another file", "duplicate",
         file(A, tensor(external()))),
    Case("raw-and-floats", "two sorts of data in one tensor", "malformed-header duplicate",
         one(raw(), packed(FLOAT_DATA))),
    Case("raw-and-floats-4", "two sorts of data of the same size", "malformed-header duplicate",
         one(raw(), message(FLOAT_DATA, bytes(16)))),
    Case("raw-and-int32", "two sorts of data in one tensor", "malformed-header duplicate",
         one(raw(), packed(INT32_DATA, 1, 2, 3, 4), kind=INT32)),
    Case("raw-and-external", "data within and without", "malformed-header duplicate external", one(raw(), external())),
    Case("two-typed", "floats and doubles in one tensor", "malformed-header duplicate",
         one(message(FLOAT_DATA, DATA), message(DOUBLE_DATA, DATA))),
]

SIZES = [
    Case("raw-short", "a byte less than the shape takes", "span", one(raw(DATA[:-1]))),
    Case("raw-long", "a byte more than the shape takes", "span trailing-bytes", one(raw(DATA + b"x"))),
    Case("raw-none", "no data", "span malformed-header", one()),
    Case("raw-empty", "empty data", "span", one(raw(b""))),
    Case("dim-negative", "a dimension of -4", "span malformed-header", one(raw(), dims=(-4,))),
    Case("dims-negative", "two negative dimensions whose product fits", "span malformed-header",
         one(raw(), dims=(-2, -2))),
    Case("product-overflow", "2^32 x 2^32: 0 where it wraps", "span", one(raw(b""), dims=(2**32, 2**32))),
    Case("product-overflow-4", "a product that wraps to the size of the data", "span malformed-header",
         one(raw(), dims=(2**62 + 1, 4))),
    Case("width-overflow", "2^62 floats: 0 where it wraps", "span", one(raw(b""), dims=(2**62,))),
    Case("zero-then-overflow", "no elements, but the other dimensions overflow", "span",
         one(raw(b""), dims=(0, 2**62, 4))),
    Case("overflow-then-zero", "the same the other way round", "span", one(raw(b""), dims=(2**62, 4, 0))),
    Case("dim-4-gb", "2^30 floats claimed", "span", one(raw(), dims=(2**30,))),
    Case("rank-65", "65 dimensions", "span malformed-header", one(raw(), dims=(1,) * 64 + (4,))),
    Case("rank-100000", "100,000 dimensions, packed", "span malformed-header",
         one(packed(DIMS, *[1] * 100_000), raw(), dims=())),
    Case("floats-few", "fewer floats than the shape takes", "span malformed-header",
         one(message(FLOAT_DATA, DATA[:12]))),
    Case("floats-many", "more floats than the shape takes", "span malformed-header",
         one(message(FLOAT_DATA, DATA + DATA[:4]))),
    Case("floats-cut", "half a float", "span malformed-header truncated", one(message(FLOAT_DATA, DATA[:14]))),
    Case("int32-few", "fewer numbers than the shape takes", "span malformed-header",
         one(packed(INT32_DATA, 1, 2, 3), kind=INT32)),
    Case("int32-many", "more numbers than the shape takes", "span malformed-header",
         one(packed(INT32_DATA, *range(5)), kind=INT32)),
    Case("int32-cut", "the last number is cut", "span malformed-header truncated",
         one(message(INT32_DATA, b"\1\2\3\x80"), kind=INT32)),
    Case("int32-range", "a number beyond 32 bits", "span malformed-header reads",
         one(packed(INT32_DATA, 1, 2, 3, 2**33), kind=INT32), {"a": "I32 [4] refused"}),
    Case("int8-range", "128 in 8 bits with sign", "span malformed-header reads",
         one(packed(INT32_DATA, 1, 2, 3, 128), kind=INT8), {"a": "I8 [4] refused"}),
    Case("uint8-range", "256 in 8 bits", "span malformed-header reads",
         one(packed(INT32_DATA, 1, 2, 3, 256), kind=UINT8), {"a": "U8 [4] refused"}),
    Case("uint16-negative", "-1 without sign", "span malformed-header reads",
         one(packed(INT32_DATA, 1, 2, 3, -1), kind=UINT16), {"a": "U16 [4] refused"}),
    Case("half-range", "65,536 as the bits of a half", "span malformed-header reads",
         one(packed(INT32_DATA, 1, 2, 3, 65536), kind=FLOAT16), {"a": "F16 [4] refused"}),
    Case("bool-range", "2 for a truth value", "span malformed-header reads",
         one(packed(INT32_DATA, 0, 1, 0, 2), kind=BOOL), {"a": "BOOL [4] refused"}),
    Case("varint-overlong", "numbers with zeros in front: 1 in ten bytes", "malformed-header span reads",
         one(message(INT32_DATA, b"\1\1\1\x81" + b"\x80" * 8 + b"\0"), kind=INT32), {"a": "I32 [4]"}),
    Case("data-of-other-type", "integers in a tensor of floats", "malformed-header span",
         one(packed(INT32_DATA, 1, 2, 3, 4))),
    Case("floats-in-int64", "floats in a tensor of integers", "malformed-header span",
         one(message(FLOAT_DATA, DATA), kind=INT64)),
    Case("int4-odd", "three elements of half a byte", "unsupported span", one(raw(b"\x21\x03"), dims=(3,), kind=INT4)),
    Case("type-none", "a tensor without type", "malformed-header unsupported", one(raw(), kind=None)),
    Case("type-0", "type 0: undefined", "malformed-header unsupported", one(raw(), kind=0)),
    Case("type-99", "a type to come", "malformed-header unsupported", one(raw(), kind=99)),
    Case("type-negative", "a type of -1", "malformed-header unsupported", one(raw(), kind=-1)),
    Case("type-2-32", "a type that is that of floats when cut to 32 bits", "malformed-header unsupported",
         one(raw(), kind=2**32 + 1)),
    Case("segment", "a tensor in segments", "unsupported", one(message(SEGMENT, integer(1, 0) + integer(2, 4)), raw())),
    Case("name-none", "a tensor without name", "span malformed-header", one(raw(), name=None)),
    Case("name-nul", "a NUL in a name", "span", one(raw(), name="a\0b")),
    Case("name-escape", "an escape that clears the terminal in a name", "span", one(raw(), name="\x1b[2J")),
    Case("name-not-utf-8", "a name that is not UTF-8", "malformed-header", one(raw(), name=b"\xff")),
]

GRAPHS = [
    Case("graph-none", "a model without graph", "unknown malformed-header", integer(1, 9) + message(8, integer(2, 17))),
    Case("empty-file", "nothing at all", "unknown malformed-header truncated", b""),
    Case("graphs-deep", "graphs 10,000 deep", "malformed-header unsupported",
         model(graph(A, more=nested_graphs(10_000)))),
    Case("graphs-deep-300", "graphs 300 deep, three messages each", "malformed-header unsupported",
         model(graph(A, more=nested_graphs(300)))),
    Case("functions-deep", "a function whose nodes hold graphs 3,000 deep", "malformed-header unsupported reads",
         model(graph(A), message(25, message(1, "f") + nested_graphs(3_000, 7))), HELD),
    Case("text", "text", "unknown malformed-header", b"hello, world\n" * 20),
    Case("zip-behind", "an empty zip archive behind the model", "malformed-header truncated trailing-bytes",
         file(A) + b"PK\5\6" + bytes(18)),
    Case("nul-behind", "NULs behind the model", "malformed-header truncated trailing-bytes", file(A) + bytes(16)),
]

EXTERNALS = [
    Case(f"external-{name}", what, words, one(value))
    for name, what, words, value in [
        ("absolute", "an absolute path (CVE-2022-25882 was one upwards)", "external", external(location="/etc/passwd")),
        ("upwards", "a path upwards (CVE-2022-25882)", "external", external(location="../../etc/passwd")),
        ("upwards-inside", "a path upwards and back (CVE-2024-27318)", "external", external(location="x/../w.bin")),
        ("dot", "a path with a dot", "external", external(location="./w.bin")),
        ("double-slash", "a path with an empty part", "external", external(location="x//w.bin")),
        ("slash-behind", "a directory", "external", external(location="x/")),
        ("backslash", "a backslash, which is a slash to some", "external", external(location="..\\w.bin")),
        ("nul", "a NUL, where a C string ends", "external", external(location="w.bin\0.txt")),
        ("empty", "an empty path", "external malformed-header", external(location="")),
        ("url", "a URL: a path with an empty part", "external", external(location="file:///etc/passwd")),
        ("none", "no path", "external malformed-header", external(location=None)),
        ("not-utf-8", "a path that is not UTF-8", "external malformed-header", external(location=b"\xff")),
        ("offset-negative", "a negative offset", "external malformed-header span", external(offset="-16")),
        ("offset-text", "an offset that is no number", "external malformed-header span", external(offset="x")),
        ("offset-plus", "an offset with a sign", "external malformed-header span", external(offset="+0")),
        ("offset-blank", "an offset with a blank", "external malformed-header span", external(offset=" 0")),
        ("offset-hex", "an offset in hexadecimal", "external malformed-header span", external(offset="0x10")),
        ("offset-2-64", "an offset of 2^64", "external malformed-header span", external(offset=str(2**64))),
        ("offset-overflow", "an offset that wraps with the length added", "external malformed-header span",
            external(offset=str(2**64 - 1))),
        ("length-short", "a length less than the shape takes", "external malformed-header span", external(length="15")),
        ("length-long", "a length more than the shape takes", "external malformed-header span", external(length="17")),
        ("location-twice", "two paths", "external malformed-header duplicate",
            external(more=message(EXTERNAL, message(1, "location") + message(2, "v.bin")))),
        ("offset-twice", "two offsets", "external malformed-header duplicate",
            external(more=message(EXTERNAL, message(1, "offset") + message(2, "8")))),
        ("flag-2", "a place that is none", "external malformed-header unsupported", external(flag=2)),
        ("flag-unset", "a path, but the data are said to be within", "external malformed-header span",
            external(flag=0)),
    ]
]

ODD = [
    Case("whole", "tensors of raw bytes and of numbers", READS, WHOLE,
         {"a": HELD["a"], "n": "I64 [2] " + struct.pack("<2q", 7, -7).hex(), "h": "F16 [3] 01000200ffff",
             "u": "U8 [] 78"}),
    Case("fields-reversed", "the graph before the version", READS,
         message(7, graph(A)) + message(8, integer(2, 17)) + integer(1, 9), HELD),
    Case("floats-packed", "floats in one field", READS, one(message(FLOAT_DATA, DATA)), HELD),
    Case("floats-unpacked", "floats in a field each, which old writers write", READS + " unsupported",
         one(b"".join(key(FLOAT_DATA, 5) + DATA[i : i + 4] for i in range(0, 16, 4))), HELD),
    Case("doubles", "doubles in one field", READS, one(message(DOUBLE_DATA, DATA), dims=(2,), kind=DOUBLE),
         held("F64 [2]")),
    Case("dims-packed", "dimensions in one field", READS, one(packed(DIMS, 2, 2), raw(), dims=()), held("F32 [2, 2]")),
    Case("zero-size", "no elements, and empty data", READS, one(raw(b""), dims=(0, 3)), {"a": "F32 [0, 3] "}),
    Case("zero-size-none", "no elements, and no data", READS, one(dims=(0,)), {"a": "F32 [0] "}),
    Case("rank-64", "64 dimensions", READS, one(raw(), dims=(1,) * 63 + (4,)), held("F32 [" + "1, " * 63 + "4]")),
    Case("strings", "a tensor of strings is left out", READS,
         file(A, tensor(message(STRING_DATA, "x"), name="s", dims=(1,), kind=STRING)), HELD),
    Case("int4-even", "two elements of half a byte", READS, one(raw(b"\x21"), dims=(2,), kind=INT4),
         held("I4 [2]", b"\x21")),
    Case("bfloat16", "another half", READS, one(raw(DATA[:8]), kind=BFLOAT16), held("BF16 [4]", DATA[:8])),
    Case("field-unknown", "a field to come", READS, model(graph(A), message(90, "x") + integer(91, 1) + key(92,
         5) + bytes(4) + key(93, 1) + bytes(8)), HELD),
    Case("names-by-case", "names that differ in case are two", READS, file(A, tensor(raw(), name="A")),
         {**HELD, **held(name="A")}),
    Case("custom-operator", "an operator of somebody's own: run by whoever has it, and no code here", READS,
         file(A, more=message(1, message(4, "PyOp") + message(7, "ai.onnx.contrib"))), HELD),
    Case("doc-pickle", "code in a comment is text", READS, one(raw(), message(DOC, "cos\nsystem\n(S'id'\ntR.")), HELD),
    Case("tensors-many", "8,000 tensors", READS, file(*(tensor(raw(b"x"), name=f"n{i:04}", dims=(),
         kind=UINT8) for i in range(8000))), {f"n{i:04}": "U8 [] 78" for i in range(8000)}),
    Case("sparse-data", "a tensor of 1 GiB, all of it a hole", READS, SPARSE, {"a": f"F32 [{2**28}]"}),
    Case("sparse-numbers", "128 Mi numbers of a byte each, all of them a hole", READS + " unsupported malformed-header",
         SPARSE_NUMBERS, {"a": f"I8 [{2**27}]"}),
    Case("nodes-empty", "100,000 empty nodes", READS, file(A, more=b"\x0a\0" * 100_000), HELD),
    Case("nodes-many", "5,000 nodes", READS, file(A, more=NODE * 5000), HELD),
]

CASES = ODD + WIRE + TWICE + SIZES + GRAPHS + EXTERNALS
