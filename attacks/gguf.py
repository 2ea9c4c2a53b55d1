"""Attacks on GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

from __future__ import annotations

import struct

from case import READS, Case, Sparse

FORMAT, EXTENSION = "gguf", ".gguf"

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def text(value: str | bytes, length: int | None = None) -> bytes:
    """Encode a string of the length claimed."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def kv(key: str | bytes, kind: int, value: bytes) -> bytes:
    """Encode an entry of metadata."""
    return text(key) + struct.pack("<I", kind) + value


def u32(value: int) -> bytes:
    """Encode a number of 32 bits."""
    return struct.pack("<I", value)


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    """Encode an array of the count claimed."""
    return struct.pack("<IQ", kind, count) + values


def tensor(name: str | bytes, dims: list[int], kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    """Describe a tensor, dimensions innermost first."""
    rank = len(dims) if rank is None else rank
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", rank, *dims, kind, offset)


def file(
    entries=(), tensors=(), data: bytes = b"", counts=None, version: int = 3, align: int = 32, magic: bytes = b"GGUF"
) -> bytes:
    """Join a file; the data start aligned, and are taken as they are."""
    count_tensors, count_entries = counts or (None, None)
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if count_tensors is None else count_tensors,
        len(entries) if count_entries is None else count_entries,
    )
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % align) + data if data or tensors else head


DATA = bytes(range(32))
HELD = {"a": "F32 [8] " + DATA.hex()}
A = tensor("a", [8])
ARCHITECTURE = kv("general.architecture", STRING, text("llama"))


def with_kv(*entries: bytes, counts=None) -> bytes:
    """Build a file of these entries and one tensor."""
    return file(entries, [A], DATA, counts)


def one(dims: list[int], kind: int = 0, offset: int = 0, data: bytes = DATA, **more) -> bytes:
    """Build a file of one tensor."""
    return file([], [tensor("a", dims, kind, offset, **more)], data)


def two(name: str | bytes = "b", offset: int = 32, data: bytes = DATA * 2) -> bytes:
    """Build a file of a tensor of 32 bytes and another of the name at the offset."""
    return file([], [A, tensor(name, [8], 0, offset)], data)


WHOLE = file(
    [ARCHITECTURE, kv("tokens", ARRAY, array(STRING, 2, text("x") + text(""))),
        kv("sizes", ARRAY, array(U16, 2, b"\1\0\2\0")), kv("flag", BOOL, b"\1"), kv("ratio", F64, bytes(8))],
    [tensor("q", [32, 2], 2, 0), tensor("h", [2, 3], 1, 64), tensor("a", [1], 0, 96)],
    bytes(36) + bytes(28) + DATA[:12] + bytes(20) + DATA[:4],
)

VERSIONS = [
    Case("empty-file", "nothing at all", "truncated", b""),
    Case("magic-only", "the magic and nothing else", "truncated", b"GGUF"),
    Case("magic-lower-case", "another magic", "unknown", file([], [A], DATA, magic=b"gguf")),
    Case("magic-ggjt", "what came before GGUF", "unknown", file([], [A], DATA, magic=b"tjgg")),
    Case("version-0", "version 0", "unsupported", file([], [A], DATA, version=0)),
    Case("version-1", "version 1, whose counts have 32 bits", "unsupported", file([], [A], DATA, version=1)),
    Case("version-4", "a version to come", "unsupported", file([], [A], DATA, version=4)),
    Case("version-max", "version 2^32 - 1", "unsupported", file([], [A], DATA, version=2**32 - 1)),
    Case("big-endian", "a file of the other byte order, which llama.cpp read with lengths of petabytes", "unsupported",
         b"GGUF" + struct.pack(">IQQ", 3, 1, 0)),
]

COUNTS = [
    Case("tensors-2-64", "2^64 - 1 tensors (CVE-2024-21836)", "truncated", file([], [A], DATA, (2**64 - 1, 0))),
    Case("tensors-2-60", "a count that wraps when it is multiplied by the size of an entry (CVE-2024-21836)",
         "truncated", file([], [A], DATA, (2**60, 0))),
    Case("tensors-2-31", "2^31 tensors", "truncated", file([], [A], DATA, (2**31, 0))),
    Case("tensors-one-more", "a tensor more than there are", "truncated", file([], [A], b"", (2, 0))),
    Case("entries-2-64", "2^64 - 1 entries of metadata", "truncated", file([], [A], DATA, (1, 2**64 - 1))),
    Case("entries-2-58", "a count that wraps when it is multiplied by the size of an entry (CVE-2024-23605)",
         "truncated", file([], [A], DATA, (1, 2**58))),
    Case("both-half", "two counts whose sum wraps", "truncated", file([], [A], DATA, (2**63, 2**63))),
    Case("entries-one-more", "an entry more than there are", "truncated", file([kv("k", U8, b"\1")], [], b"", (0, 2))),
    Case("string-2-64", "a text of 2^64 - 1 bytes: 0 with its NUL added (CVE-2024-23496)", "truncated",
         with_kv(kv("k", STRING, text("", 2**64 - 1)))),
    Case("string-4-gb", "a text of 4 GB", "truncated", with_kv(kv("k", STRING, text("x", 2**32)))),
    Case("string-one-more", "a text one byte longer than the file", "truncated", file([kv("k", STRING, text("x", 2))])),
    Case("array-2-64", "an array of 2^64 - 1 bytes", "truncated", with_kv(kv("k", ARRAY, array(U8, 2**64 - 1)))),
    Case("array-2-61", "2^61 numbers of 8 bytes: 0 where it wraps (CVE-2024-21825)", "truncated",
         with_kv(kv("k", ARRAY, array(F64, 2**61)))),
    Case("array-2-62", "2^62 numbers of 4 bytes", "truncated", with_kv(kv("k", ARRAY, array(F32, 2**62)))),
    Case("texts-2-64", "2^64 - 1 texts", "truncated", with_kv(kv("k", ARRAY, array(STRING, 2**64 - 1)))),
    Case("texts-2-61", "2^61 texts: their table wraps (CVE-2024-21825)", "truncated",
         with_kv(kv("k", ARRAY, array(STRING, 2**61)))),
    Case("text-in-array-2-64", "a text of 2^64 - 1 bytes in an array", "truncated",
         with_kv(kv("k", ARRAY, array(STRING, 1, text("", 2**64 - 1))))),
    Case("sparse-texts", "a hole of 512 MiB, all of it empty texts", "truncated header-too-large",
         Sparse(file([kv("k", ARRAY, array(STRING, 2**32))]), 2**29)),
    Case("sparse-numbers", "a hole of 1 GiB that claims more numbers than it has", "truncated",
         Sparse(file([kv("k", ARRAY, array(U64, 2**30))]), 2**30)),
    Case("sparse-tensors", "a hole of 64 MiB, all of it tensors without name", "span malformed-header",
         Sparse(file([], [], b"", (2**21, 0)), 2**26)),
    Case("sparse-entries", "a hole of 64 MiB, all of it entries without key", "malformed-header",
         Sparse(file([], [], b"", (0, 2**22)), 2**26)),
]

METADATA = [
    Case("key-twice", "a key twice", "duplicate", with_kv(kv("k", U8, b"\1"), kv("k", U8, b"\2"))),
    Case("key-twice-types", "a key twice, of two types", "duplicate",
         with_kv(kv("k", U8, b"\1"), kv("k", STRING, text("x")))),
    Case("key-empty", "an empty key", "malformed-header", with_kv(kv("", U8, b"\1"))),
    Case("key-nul", "a NUL in a key, where a C string ends", "malformed-header", with_kv(kv("k\0x", U8, b"\1"))),
    Case("key-line-feed", "a line feed in a key", "malformed-header", with_kv(kv("k\n", U8, b"\1"))),
    Case("key-not-utf-8", "a key that is not UTF-8", "malformed-header", with_kv(kv(b"\xff", U8, b"\1"))),
    Case("key-too-long", "a key of 65,536 bytes, one over the limit of the format", "header-too-large",
         with_kv(kv("k" * 65536, U8, b"\1"))),
    Case("key-2-64", "a key of 2^64 - 1 bytes", "header-too-large truncated", file([text("", 2**64 - 1) + bytes(16)])),
    Case("value-type-13", "a value of a type to come", "malformed-header", with_kv(kv("k", 13, bytes(8)))),
    Case("value-type-max", "a value of type 2^32 - 1", "malformed-header", with_kv(kv("k", 2**32 - 1, bytes(8)))),
    Case("bool-2", "a truth value of 2", "malformed-header", with_kv(kv("k", BOOL, b"\2"))),
    Case("bool-2-in-array", "a truth value of 2 in an array", "malformed-header",
         with_kv(kv("k", ARRAY, array(BOOL, 2, b"\1\2")))),
    Case("bool-2-in-long-array", "a truth value of 2 in an array of 40", "malformed-header",
         with_kv(kv("k", ARRAY, array(BOOL, 40, b"\2" * 40)))),
    Case("text-not-utf-8", "a text that is not UTF-8", "malformed-header", with_kv(kv("k", STRING, text(b"\xff")))),
    Case("array-type-13", "an array of a type to come", "malformed-header",
         with_kv(kv("k", ARRAY, array(13, 1, bytes(8))))),
    Case("array-nested", "an array of arrays, which the format allows and nobody writes",
         "malformed-header unsupported", with_kv(kv("k", ARRAY, array(ARRAY, 1, array(U8, 1, b"\1"))))),
    Case("array-20000-deep", "arrays 20,000 deep", "malformed-header unsupported",
         with_kv(kv("k", ARRAY, array(ARRAY, 1) * 20_000 + array(U8, 0)))),
    *(
        Case(f"alignment-{name}", f"an alignment of {what}", "malformed-header",
             with_kv(kv("general.alignment", kind, value)))
        for name, what, kind, value in [
            ("0", "0: a division by it", U32, u32(0)),
            ("1", "1, which the format forbids", U32, u32(1)),
            ("33", "33: no power of two", U32, u32(33)),
            ("24", "24: a multiple of 8, but no power of two", U32, u32(24)),
            ("2-31", "2^31: offsets of 32 bits wrap", U32, u32(2**31)),
            ("negative", "-32", I32, struct.pack("<i", -32)),
            ("as-u64", "32 in 64 bits, where the format says 32", U64, struct.pack("<Q", 32)),
            ("as-float", "32.0", F32, struct.pack("<f", 32)),
            ("as-text", "the text 32", STRING, text("32")),
            ("as-array", "a list of 32", ARRAY, array(U32, 1, u32(32))),
        ]
    ),
    Case("alignment-twice", "two alignments, and data placed by each", "duplicate",
         with_kv(kv("general.alignment", U32, u32(32)), kv("general.alignment", U32, u32(64)))),
]

TENSORS = [
    Case("rank-5", "five dimensions (ggml has four)", "span", one([1, 1, 1, 1, 8])),
    Case("rank-max", "2^32 - 1 dimensions (CVE-2024-21802)", "span truncated", one([8], rank=2**32 - 1)),
    Case("dim-max", "a dimension of 2^64 - 1: -1 to llama.cpp", "span", one([2**64 - 1])),
    Case("dim-2-63", "a dimension of 2^63", "span", one([2**63], 24)),
    Case("product-overflow", "2^32 x 2^32: 0 where it wraps", "span", one([2**32, 2**32])),
    Case("product-overflow-to-8", "a product that wraps to the size of the data (CVE-2024-21802)", "span",
         one([2**63, 2, 2, 2])),
    Case("width-overflow", "2^62 floats: 0 where it wraps", "span", one([2**62])),
    Case("padding-overflow", "2^64 - 1 bytes: 0 with padding (CVE-2025-53630)", "span", one([2**64 - 1], 24)),
    Case("blocks-overflow", "blocks whose bytes wrap", "span", one([2**63], 2)),
    Case("zero-then-overflow", "no elements, but the other dimensions overflow", "span",
         file([], [tensor("a", [4, 2**63, 0])])),
    Case("overflow-then-zero", "the same the other way round", "span", file([], [tensor("a", [0, 2**63, 4])])),
    Case("type-removed", "a type that was removed (Q4_2)", "malformed-header unsupported", one([32], 4)),
    Case("type-gap", "a type that was removed (Q4_0_4_4)", "malformed-header unsupported", one([32], 31)),
    Case("type-max", "type 2^32 - 1: -1 as an index of a table", "malformed-header unsupported", one([32], 2**32 - 1)),
    Case("type-1000", "a type beyond the table", "malformed-header unsupported", one([32], 1000)),
    Case("half-block", "33 elements in blocks of 32", "span", one([33], 2, data=bytes(64))),
    Case("rows-of-half-blocks", "two rows of 16 in a block of 32", "span", one([16, 2], 2)),
    Case("offset-unaligned", "an offset that is not aligned", "span", one([7], 0, 4)),
    Case("offset-max", "an offset that wraps with the header added", "span", one([8], 0, 2**64 - 32)),
    Case("offset-beyond", "an offset beyond the file", "span", one([8], 0, 2**40)),
    Case("offset-at-end", "a tensor that starts where the file ends", "span", one([8], 0, 32)),
    Case("offset-gap", "a block before the first tensor that belongs to none", "span", one([8], 0, 32, DATA * 2)),
    Case("offset-overlap", "two tensors in one place", "span", two(offset=0)),
    Case("offset-overlap-half", "the second tensor starts within the first", "span",
         file([], [tensor("a", [16]), tensor("b", [8], 0, 32)], DATA * 2)),
    Case("offset-gap-between", "a block between two tensors that belongs to none", "span",
         two(offset=64, data=DATA * 3)),
    Case("data-short", "the data end one byte early", "span truncated", one([8], data=DATA[:-1])),
    Case("data-none", "the file ends with the header", "span truncated", file([], [A])),
    Case("trailing-byte", "a byte after the last tensor", "trailing-bytes", one([8], data=DATA + b"x")),
    Case("trailing-block", "a whole block after the last tensor", "trailing-bytes", one([8], data=DATA * 2)),
    Case("zip-behind", "an empty zip archive behind the last tensor", "trailing-bytes",
         one([8], data=DATA + b"PK\5\6" + bytes(18))),
    Case("name-twice", "two tensors of one name", "duplicate", two("a")),
    Case("name-empty", "a tensor without name", "span", two("")),
    Case("name-nul", "a NUL in a name: a to readers of C strings", "span", two("a\0b")),
    Case("name-escape", "an escape that clears the terminal", "span", two("\x1b[2J")),
    Case("name-not-utf-8", "a name that is not UTF-8", "malformed-header", two(b"\xff")),
    Case("name-2-64", "a name of 2^64 - 1 bytes", "header-too-large truncated",
         file([], [text("", 2**64 - 1) + bytes(40)], DATA)),
    Case("name-too-long", "a name of 65,536 bytes", "header-too-large", two("n" * 65_536)),
]

ODD = [
    Case("whole", "metadata of all kinds, and tensors in blocks, halves and floats", READS, WHOLE,
         {"q": "Q4_0 [2, 32] " + "00" * 36, "h": "F16 [3, 2] " + DATA[:12].hex(), "a": "F32 [1] " + DATA[:4].hex()}),
    Case("version-2", "version 2", READS, file([], [A], DATA, version=2), HELD),
    Case("no-tensors", "a file of metadata", READS, file([ARCHITECTURE]), {}),
    Case("nothing", "no metadata and no tensors", READS, file(), {}),
    Case("rank-0", "no dimensions: one element", READS, one([], data=DATA[:4]), {"a": "F32 [] 00010203"}),
    Case("rank-4", "four dimensions", READS, one([2, 2, 2, 1]), {"a": "F32 [1, 2, 2, 2] " + DATA.hex()}),
    Case("zero-size", "an empty tensor before another", READS, file([], [tensor("z", [0, 5]), A], DATA),
         {"z": "F32 [5, 0] ", **HELD}),
    Case("padded-end", "the last tensor is padded", READS, one([7]), {"a": "F32 [7] " + DATA[:28].hex()}),
    Case("unpadded-end", "the last tensor is not padded", READS, one([7], data=DATA[:28]),
         {"a": "F32 [7] " + DATA[:28].hex()}),
    Case("padding-used", "bytes in the padding are not looked at", READS,
         file([], [tensor("a", [1]), tensor("b", [8], 0, 32)], DATA * 2),
         {"a": "F32 [1] 00010203", "b": "F32 [8] " + DATA.hex()}),
    Case("listed-backwards", "the header lists the second tensor first, which llama.cpp refuses", "span",
         file([], [tensor("b", [8], 0, 32), A], DATA * 2)),
    Case("names-by-case", "names that differ in case are two", READS, two("A"), {"a": HELD["a"], "A": HELD["a"]}),
    Case("name-long", "a name longer than llama.cpp keeps", READS, two("n" * 100),
         {"a": HELD["a"], "n" * 100: HELD["a"]}),
    Case("alignment-64-kib", "an alignment of 65,536", READS,
         file([kv("general.alignment", U32, u32(65536))], [A], DATA, align=65536), HELD),
    Case("texts-many", "20,000 empty texts", READS, with_kv(kv("k", ARRAY, array(STRING, 20_000, bytes(160_000)))),
         HELD),
    Case("entries-many", "10,000 entries", READS, with_kv(*(kv(f"k{i}", U8, b"\1") for i in range(10_000))), HELD),
    Case("tensors-many", "3,000 empty tensors", READS, file([], [tensor(f"n{i:04}", [0]) for i in range(3000)]),
         {f"n{i:04}": "F32 [0]" for i in range(3000)}),
    Case("text-is-pickle", "code in metadata is text", READS,
         with_kv(kv("tokenizer.chat_template", STRING, text("{{ ''.__class__.__mro__[1].__subclasses__() }}"))), HELD),
    Case("sparse-data", "a tensor of 1 GiB, all of it a hole", READS,
         Sparse(one([2**28], data=b""), len(one([2**28], data=b"")) + 2**30), {"a": f"F32 [{2**28}]"}),
    Case("float-nan", "a number that is none", READS, with_kv(kv("k", F32, b"\0\0\xc0\x7f")), HELD),
]

CASES = ODD + VERSIONS + COUNTS + METADATA + TENSORS
