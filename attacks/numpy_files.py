"""Attacks on NumPy's files: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""

from __future__ import annotations

import struct

from archive import Member, archive, deflate
from case import READS, Case, Sparse

FORMAT, EXTENSION = "numpy", ".npy"

DATA = bytes(range(24))


def file(
    header: str | bytes,
    data: bytes = DATA,
    version: tuple[int, int] = (1, 0),
    length: int | None = None,
    end: bytes = b"\n",
    align: int = 64,
) -> bytes:
    """Join a header of the length claimed, padded as NumPy does, and the data."""
    raw = header.encode("utf-8" if version[0] > 2 else "latin-1") if isinstance(header, str) else header
    width = 2 if version[0] < 2 else 4
    raw += b" " * (-(8 + width + len(raw) + len(end)) % align) + end
    length = len(raw) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if width == 2 else "<I", length) + raw + data


def header(descr: str = "'<f4'", fortran: str = "False", shape: str = "(2, 3)") -> str:
    """Write a header as NumPy does."""
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def one(descr: str = "'<f4'", fortran: str = "False", shape: str = "(2, 3)", data: bytes = DATA) -> bytes:
    """Build a file of one array."""
    return file(header(descr, fortran, shape), data)


def held(what: str = "F32 [2, 3]", data: bytes = DATA, name: str = "array") -> dict[str, str]:
    """Say what a file of one array holds: the format has no name for it, so that readers give it one."""
    return {name: f"{what} {data.hex()}"}


SMALL = one()
FORTRAN = b"".join(DATA[4 * (column * 2 + row) :][:4] for row in range(2) for column in range(3))


def npz(*members: tuple[str, bytes], method: int = 0) -> bytes:
    """Archive arrays."""
    return archive([Member(name, data, method) for name, data in members])


START = [
    Case("magic-only", "the magic and nothing else", "truncated", b"\x93NUMPY"),
    Case("version-cut", "the length is cut", "truncated", b"\x93NUMPY\1\0\x76"),
    Case("version-0", "version 0", "unsupported", file(header(), version=(0, 0))),
    Case("version-1-1", "version 1.1", "unsupported", file(header(), version=(1, 1))),
    Case("version-4", "a version to come", "unsupported", file(header(), version=(4, 0))),
    Case("version-255", "version 255", "unsupported", file(header(), version=(255, 255))),
    Case("length-beyond", "a header longer than the file", "truncated header-too-large", file(header(), length=60_000)),
    Case("length-4-gb", "a header of 4 GB", "header-too-large truncated",
         file(header(), version=(2, 0), length=2**32 - 1)),
    Case("sparse-header", "a header of 64 MiB, all of it a hole", "header-too-large malformed-header",
         Sparse(file("", b"", version=(2, 0), length=2**26), 2**26 + 12)),
    Case("length-zero", "no header", "malformed-header", file(header(), length=0)),
    Case("length-short", "the header is cut within the dictionary", "malformed-header", file(header(), length=20)),
    Case("header-100-kb", "a header of 100 KB (NumPy refuses over 10,000)", "header-too-large malformed-header",
         file(header() + " " * 100_000, version=(2, 0))),
    Case("header-nul", "a header padded with NUL, where a C string ends", "malformed-header", file(header() + "\0")),
    Case("header-no-line-feed", "a header that does not end with a line feed", "malformed-header",
         file(header(), end=b" ")),
    Case("not-utf-8", "a header of version 3 that is not UTF-8", "malformed-header",
         file(header().encode()[:-1] + b"'\xff': 1}", version=(3, 0))),
]

LITERALS = [
    Case("deep-tuple", "a shape 4,500 parentheses deep: Python's parser overflows its stack", "malformed-header",
         file(header(shape="(" * 4500 + ")" * 4500), b"")),
    Case("deep-20000", "a header 20,000 brackets deep", "malformed-header header-too-large",
         file("[" * 20_000 + "]" * 20_000, b"")),
    Case("deep-minus", "20,000 signs before a number", "malformed-header header-too-large",
         file(header(shape="(" + "-" * 20_000 + "1,)"), b"")),
    Case("not-a-dictionary", "a list", "malformed-header", file("[1]")),
    Case("empty-dictionary", "no keys", "malformed-header", file("{}")),
    Case("key-missing", "no shape", "malformed-header", file("{'descr': '<f4', 'fortran_order': False, }")),
    Case("key-more", "a key more", "malformed-header",
         file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1, }")),
    Case("key-twice", "the shape twice: Python takes the last", "malformed-header duplicate",
         file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'shape': (2,), }")),
    Case("key-case", "Shape for shape", "malformed-header", file(header().replace("shape", "Shape"))),
    Case("key-escaped", "a key with an escape", "malformed-header", file(header().replace("'shape'", "'\\x73hape'"))),
    Case("call", "a call where a literal belongs", "malformed-header executable",
         file(header(shape="__import__('os').system('id')"))),
    Case("lambda", "a header that is an expression", "malformed-header executable",
         file("(lambda: {'descr': '<f4', 'fortran_order': False, 'shape': (6,)})()")),
    Case("comprehension", "a shape of a comprehension", "malformed-header",
         file(header(shape="tuple(i for i in (2, 3))"))),
    Case("sum", "a shape of a sum", "malformed-header", file(header(shape="(1 + 1, 3)"))),
    Case("comment", "a comment in the header", "malformed-header", file(header() + " # x")),
    Case("two-dictionaries", "two headers in one", "malformed-header", file(header() + header())),
    Case("text-after", "text behind the dictionary", "malformed-header", file(header() + " x")),
    Case("strings-joined", "a type in two strings, which Python joins", "malformed-header unsupported",
         one("'<' 'f4'")),
    Case("string-bytes", "a type in bytes", "malformed-header unsupported", one("b'<f4'")),
    Case("string-escape", "a type with an escape", "malformed-header unsupported", one("'\\x3cf4'")),
    Case("string-open", "a string that never ends", "malformed-header truncated unsupported", one("'<f4")),
    Case("order-0", "0 for False", "malformed-header", one(fortran="0")),
    Case("order-text", "the text False, which is true", "malformed-header", one(fortran="'False'")),
    Case("order-none", "None for False", "malformed-header", one(fortran="None")),
    Case("shape-int", "a number for the shape", "malformed-header", one(shape="6")),
    Case("shape-parentheses", "(6): no tuple", "malformed-header", one(shape="(6)")),
    Case("shape-list", "a list for the shape", "malformed-header", one(shape="[2, 3]")),
    Case("shape-float", "a dimension of 3.0", "malformed-header", one(shape="(2, 3.0)")),
    Case("shape-true", "True for 1", "malformed-header", one(shape="(True, 6)")),
    Case("shape-hex", "a dimension in hexadecimal", "malformed-header", one(shape="(2, 0x3)")),
    Case("shape-underscore", "a dimension with an underscore: 1_0 is 10", "malformed-header",
         one("'|u1'", shape="(1_0,)", data=bytes(10))),
    Case("shape-negative", "a dimension of -2", "malformed-header span", one(shape="(-2, -3)")),
    Case("shape-minus-one", "a dimension of -1: whatever fits, to some", "malformed-header span", one(shape="(-1,)")),
    Case("shape-2-64", "a dimension of 2^64: 0 where it wraps", "malformed-header span",
         one(shape=f"({2**64},)", data=b"")),
    Case("shape-digits", "a dimension of 5,000 digits", "malformed-header span", one(shape="(" + "9" * 5000 + ",)")),
    Case("shape-nested", "a tuple in the shape", "malformed-header", one(shape="((2, 3),)")),
]

TYPES = [
    Case("object", "objects: a pickle follows (CVE-2019-6446)", "executable",
         one("'|O'", shape="(1,)", data=b"cposix\nsystem\n(S'id'\ntR.")),
    Case("object-8", "objects by another spelling", "executable", one("'O8'", shape="(3,)")),
    Case("object-order", "objects with a byte order", "executable unsupported malformed-header",
         one("'<O'", shape="(3,)")),
    Case("object-field", "objects in a field of a record", "executable unsupported malformed-header",
         one("[('a', '|O')]", shape="(3,)")),
    Case("record", "records", "unsupported malformed-header", one("[('a', '<f4'), ('b', '<i4')]", shape="(3,)")),
    Case("subarray", "a type with a shape of its own", "unsupported malformed-header",
         one("('<f4', (3,))", shape="(2,)")),
    Case("void", "bytes of no type", "unsupported", one("'|V4'")),
    Case("text", "text", "unsupported", one("'<U1'")),
    Case("bytes", "text in bytes", "unsupported", one("'|S4'")),
    Case("time", "times", "unsupported", one("'<M8[ns]'", shape="(3,)")),
    Case("long-double", "a type that differs between machines", "unsupported malformed-header",
         one("'<f16'", shape="(1,)", data=DATA[:16])),
    Case("big-endian", "the other byte order", "unsupported", one("'>f4'")),
    Case("native-order", "the byte order of whoever reads", "unsupported malformed-header", one("'=f4'")),
    Case("no-order", "f4 without byte order", "unsupported malformed-header", one("'f4'")),
    Case("width-3", "floats of 3 bytes", "unsupported malformed-header", one("'<f3'")),
    Case("width-huge", "a width of 2^64", "unsupported malformed-header", one(f"'<f{2**64}'")),
    Case("type-name", "a type by its name in C", "unsupported malformed-header", one("'float32'")),
    Case("type-empty", "an empty type", "unsupported malformed-header", one("''")),
    Case("type-count", "a type with a repeat count", "unsupported malformed-header", one("'3<f4'", shape="(2,)")),
    Case("type-list-text", "a type of two types", "unsupported malformed-header", one("'<f4,<f4'", shape="(3,)")),
]

SIZES = [
    Case("product-overflow", "2^32 x 2^32: 0 where it wraps", "span malformed-header",
         one(shape="(4294967296, 4294967296)", data=b"")),
    Case("width-overflow", "2^62 floats: 0 where it wraps", "span malformed-header",
         one(shape=f"({2**62},)", data=b"")),
    Case("zero-then-overflow", "no elements, but the other dimensions overflow", "span malformed-header",
         one(shape=f"(0, {2**63}, 4)", data=b"")),
    Case("overflow-then-zero", "the same the other way round", "span malformed-header",
         one(shape=f"({2**63}, 4, 0)", data=b"")),
    Case("rank-65", "65 dimensions", "span malformed-header", one(shape="(" + "1, " * 64 + "6)")),
    Case("data-short", "a byte less than the shape takes", "span truncated", one(data=DATA[:-1])),
    Case("data-none", "no data", "span truncated", one(data=b"")),
    Case("data-4-gb", "4 GB of data claimed", "span truncated", one(shape=f"({2**30},)")),
    Case("trailing-byte", "a byte after the array", "trailing-bytes", one(data=DATA + b"x")),
    Case("two-arrays", "another array behind the first, which only some read", "trailing-bytes", SMALL + SMALL),
]

ARCHIVES = [
    Case("npz-object.npz", "objects in an archive", "executable",
         npz(("a.npy", one("'|O'", shape="(1,)", data=b"N.")))),
    Case("npz-object-second.npz", "objects in the second of two arrays", "executable",
         npz(("a.npy", SMALL), ("b.npy", one("'|O'", shape="(1,)", data=b"N.")))),
    Case("npz-object-deflated.npz", "objects in a compressed array", "executable",
         npz(("a.npy", one("'|O'", shape="(1,)", data=b"N.")), method=8)),
    Case("npz-empty-member.npz", "an array of 0 bytes", "truncated malformed-header", npz(("a.npy", b""))),
    Case("npz-not-an-array.npz", "a member named like an array that is none", "malformed-header unknown truncated",
         npz(("a.npy", b"hello, world"))),
    Case("npz-pickle-as-array.npz", "a pickle named like an array", "executable malformed-header unknown",
         npz(("a.npy", b"\x80\2cposix\nsystem\nX\2\0\0\0id\x85R."))),
    Case("npz-data-short.npz", "a member shorter than its shape", "span truncated", npz(("a.npy", SMALL[:-1]))),
    Case("npz-trailing.npz", "a byte after the array in a member", "trailing-bytes", npz(("a.npy", SMALL + b"x"))),
    Case("npz-data-short-deflated.npz", "a compressed member shorter than its shape", "span truncated archive",
         npz(("a.npy", SMALL[:-1]), method=8)),
    Case("npz-with-pickle.npz", "a pickle beside an array", "archive executable unsupported malformed-header",
         npz(("a.npy", SMALL), ("data.pkl", b"N."))),
    Case("npz-with-text.npz", "a member that is not an array", "archive unsupported malformed-header unknown",
         npz(("a.npy", SMALL), ("readme.txt", b"hello"))),
    Case("npz-name-npy.npz", "an array whose name is only the extension", "span archive malformed-header",
         npz((".npy", SMALL))),
]

ODD = [
    Case("whole", "an array", READS, SMALL, held()),
    Case("whole.npz", "two arrays", READS, npz(("a.npy", SMALL), ("b.npy", one(shape="(6,)"))),
         {**held(name="a"), **held("F32 [6]", name="b")}),
    Case("whole-deflated.npz", "a compressed array", READS, npz(("a.npy", SMALL), method=8), held(name="a")),
    Case("version-2", "version 2", READS, file(header(), version=(2, 0)), held()),
    Case("version-3", "version 3", READS, file(header(), version=(3, 0)), held()),
    Case("aligned-16", "padded as before NumPy 1.14", READS, file(header(), align=16), held()),
    Case("scalar", "no dimensions", READS, one(shape="()", data=DATA[:4]), held("F32 []", DATA[:4])),
    Case("zero-size", "no elements", READS, one(shape="(3, 0)", data=b""), held("F32 [3, 0]", b"")),
    Case("fortran-order", "columns first", READS, one(fortran="True"), held(data=FORTRAN)),
    Case("fortran-order-1", "columns first in one dimension", READS, one(fortran="True", shape="(6,)"),
         held("F32 [6]")),
    Case("rank-64", "64 dimensions", READS, one(shape="(" + "1, " * 63 + "6)"), held("F32 [" + "1, " * 63 + "6]")),
    Case("complex", "complex numbers", READS, one("'<c16'", shape="(1,)", data=DATA[:16]), held("C128 [1]", DATA[:16])),
    Case("bytes-without-order", "a type of one byte", READS, one("'|i1'", shape="(24,)"), held("I8 [24]")),
    Case("bool-2", "truth values that are neither 0 nor 1 are bytes of the array", READS,
         one("'|b1'", shape="(2,)", data=b"\2\xff"), held("BOOL [2]", b"\2\xff")),
    Case("sparse-data", "an array of 1 GiB, all of it a hole", READS,
         Sparse(one(shape=f"({2**28},)", data=b""), len(one(shape=f"({2**28},)", data=b"")) + 2**30),
         {"array": f"F32 [{2**28}]"}),
    Case("npz-many.npz", "500 arrays", READS, npz(*((f"n{i:03}.npy", SMALL) for i in range(500))),
         {f"n{i:03}": "F32 [2, 3] " + DATA.hex() for i in range(500)}),
    Case("npz-bomb.npz", "20 MB of zeros in 20 KB: nothing is inflated to say what there is", READS,
         npz(("a.npy", one("'|u1'", shape=f"({2 * 10**7},)", data=bytes(2 * 10**7))),
             method=8), {"a": "U8 [20000000]"}),
    Case("npz-bomb-lies.npz", "20 MB of zeros that claim to be 24 bytes: found when they are read", READS, archive(
        [Member("a.npy", SMALL, 8, packed=deflate(SMALL + bytes(2 * 10**7)))]), {"a": "F32 [2, 3] refused"}),
    Case("npz-crc.npz", "the wrong checksum of a compressed array: found when it is read", READS, archive(
        [Member("a.npy", SMALL, 8, local={"crc": 7}, central={"crc": 7})]), {"a": "F32 [2, 3] refused"}),
]

CASES = ODD + START + LITERALS + TYPES + SIZES + ARCHIVES
