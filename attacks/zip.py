"""Attacks on the zip container (APPNOTE.TXT) of PyTorch and npz files."""

from __future__ import annotations

import struct
import zlib

import numpy_files
import pytorch
from archive import DEFLATED, Member, archive, deflate
from case import READS, Case, Sparse

FORMAT, EXTENSION = "zip", ".pt"

PICKLE = pytorch.state({"a": pytorch.tensor()})
HELD = {"a": "F32 [2, 2] " + pytorch.WEIGHTS.hex()}
EVIL = pytorch.PROTO + pytorch.call("posix", "system", pytorch.text("id"))


def members(**of_pickle) -> list[Member]:
    """Make the members of a small model; the first is the pickle, changed as told."""
    return [Member(**{"name": "archive/data.pkl", "data": PICKLE, **of_pickle}),
        Member("archive/data/0", pytorch.WEIGHTS), Member("archive/version", b"3\n")]


def model(*more: Member, pickle: dict | None = None, weights: dict | None = None, **ends) -> bytes:
    """Write a small model with more members, and changes to its first two."""
    pickle_, weights_, version = members(**(pickle or {}))
    if weights:
        weights_ = Member(**{"name": "archive/data/0", "data": pytorch.WEIGHTS, **weights})
    return archive([pickle_, weights_, *more, version], **ends)


def descriptor(data: bytes, crc: int | None = None, size: int | None = None, signature: bytes = b"PK\7\x08") -> bytes:
    """Write a data descriptor."""
    size = len(data) if size is None else size
    return signature + struct.pack("<3I", zlib.crc32(data) if crc is None else crc, size, size)


def streamed(crc: int | None = None, size: int | None = None, signature: bytes = b"PK\7\x08") -> list[Member]:
    """Make the members as PyTorch does: sizes behind the data."""
    return [
        Member(m.name, m.data, flags=0x808, local={"crc": 0, "packed": 0, "size": 0},
            after=descriptor(m.data, crc, size, signature))
        for m in members()
    ]


def extra64(*numbers: int) -> bytes:
    """Write a zip64 extra field."""
    return struct.pack("<2H", 1, 8 * len(numbers)) + struct.pack(f"<{len(numbers)}Q", *numbers)


LYING = [
    Case(f"local-{name}", f"the local header says another {what}", "archive", model(pickle={"local": local}))
    for name, what, local in [
        ("name", "name than the central one (CVE-2025-1944)", {"name": "archive/data.pkx"}),
        ("name-case", "name by case", {"name": "archive/data.PKL"}),
        ("name-shorter", "name, shorter: the data start elsewhere", {"name": "archive/data.pk"}),
        ("size", "size", {"size": 3, "packed": 3}),
        ("size-zero", "size, and it is 0 without a descriptor", {"size": 0, "packed": 0}),
        ("method", "method", {"method": DEFLATED}),
        ("crc", "checksum", {"crc": 7}),
        ("flags", "flag of encryption: scanners skip it (CVE-2025-1945)", {"flags": 1}),
        ("zip64", "size, by a zip64 field", {"size": 2**32 - 1, "packed": 2**32 - 1, "extra": extra64(1, 1)}),
    ]
]

CENTRAL = [
    Case(f"central-{name}", what, words, model(pickle={"central": central}))
    for name, what, words, central in [
        ("size", "the central header says another size than the local one", "archive", {"size": 3, "packed": 3}),
        ("size-max", "a size of 2^32 - 1 without the field that gives the real one", "archive",
            {"size": 2**32 - 1, "packed": 2**32 - 1}),
        ("packed", "a stored member of two sizes", "archive", {"size": 3}),
        ("offset-self", "the header of a member in the central directory", "archive",
            {"offset": model().index(b"PK\1\2")}),
        ("offset-max", "a member beyond the end", "archive", {"offset": 2**32 - 2}),
        ("offset-other", "two members in one place", "archive", {"offset": 0, "name": "archive/data/0"}),
        ("disk", "a member on another disk", "archive", {"disk": 1}),
        ("method", "a method that is not there", "archive", {"method": 93}),
        ("extra-cut", "an extra field that is longer than its room", "archive", {"extra": b"\1\0\xff\0"}),
        ("zip64-max", "a zip64 size of 2^64 - 1", "archive",
            {"size": 2**32 - 1, "packed": 2**32 - 1, "extra": extra64(2**64 - 1, 2**64 - 1)}),
        ("zip64-offset", "a zip64 offset that wraps", "archive", {"offset": 2**32 - 1, "extra": extra64(2**64 - 30)}),
        ("zip64-twice", "two zip64 fields of two offsets", "archive",
            {"offset": 2**32 - 1, "extra": extra64(0) + extra64(40)}),
        ("zip64-short", "a zip64 field that lacks the number wanted", "archive",
            {"offset": 2**32 - 1, "extra": extra64()}),
        ("unicode-path", "an extra field with another name, which some readers prefer", "archive",
         {"extra": struct.pack("<2HBI", 0x7075, 5 + 3, 1, zlib.crc32(b"archive/data.pkl")) + b"pwn"}),
    ]
]

PLACES = [
    Case("prefix", "bytes before the archive, which readers from the end skip", "unknown archive",
         model(prefix=b"#!/bin/sh\n", end={"offset": 10 + model().index(b"PK\1\2")})),
    Case("prefix-shifted", "bytes before the archive, and offsets that do not count them", "unknown archive",
         b"#!/bin/sh\nexit\n" + model()),
    Case("prefix-zip", "an archive before the archive", "archive", model() + model(pickle={"data": EVIL})),
    Case("prefix-gguf", "a GGUF file before the archive: read as what comes first", "trailing-bytes",
         b"GGUF\3\0\0\0" + bytes(16) + model()),
    Case("suffix", "bytes behind the archive", "archive", model(suffix=b"x")),
    Case("suffix-nul", "NULs behind the archive", "archive", model(suffix=bytes(512))),
    Case("comment", "a comment, which may hold another end", "archive", model(comment=b"hello")),
    Case("comment-end", "an end record in the comment of the end record", "archive",
         model(comment=model()[model().index(b"PK\5\6"):])),
    Case("comment-short", "a comment shorter than it says", "archive", model(end={"comment": 9})),
    Case("end-twice", "two end records", "archive", model(suffix=b"PK\5\6" + bytes(18))),
    Case("end-none", "no end record", "archive", model()[:-22]),
    Case("end-cut", "the end record is cut", "archive", model()[:-1]),
    Case("end-only", "an empty archive", "unknown archive malformed-header", b"PK\5\6" + bytes(18)),
    Case("directory-cut", "the central directory is cut", "archive",
         model()[: model().index(b"PK\5\6") - 9] + model()[-22:]),
    Case("gap-members", "bytes between members, where a second model hides", "archive",
         model(Member("archive/x", b"", before=b"hidden"))),
    Case("gap-first", "bytes before the second member that is the header of no entry", "archive",
         model(Member("archive/x", b"", before=archive([Member("archive/data.pkl", EVIL)])[:70]))),
    Case("gap-directory", "bytes before the central directory", "archive", model(gap=b"hidden")),
    Case("gap-end", "bytes before the end record", "archive", model(between=b"hidden")),
    Case("member-unlisted", "a member that the central directory leaves out", "archive",
         archive(members() + [Member("archive/evil.pkl", EVIL)], order=[0, 1, 2], end={"here": 3, "count": 3})),
    Case("member-inside", "a member inside of another (how zip bombs overlap)", "archive",
         archive([Member("archive/data.pkl", PICKLE), Member("archive/data/0", archive([Member("archive/x",
             b"12")])[:43]), Member("archive/x", b"12", central={"offset": 46 + len(PICKLE) + 44})])),
    Case("members-overlap", "two members share the same bytes", "archive",
         model(Member("archive/y", b"", central={"offset": 0}))),
    Case("directory-inside", "a central directory that lies in a member", "archive",
         model(weights={"data": model()}, end={"offset": 90 + len(PICKLE) + model().index(b"PK\1\2")})),
    Case("start-offset", "the central directory starts a byte later", "archive",
         model(end={"offset": model().index(b"PK\1\2") + 1})),
    Case("start-max", "the central directory starts beyond the end", "archive", model(end={"offset": 2**32 - 2})),
    Case("directory-size-max", "a central directory of 4 GB", "archive", model(end={"size": 2**32 - 2})),
    Case("directory-size-zero", "a central directory of 0 bytes", "archive", model(end={"size": 0})),
    Case("count-more", "a member more than there are", "archive", model(end={"count": 4, "here": 4})),
    Case("count-less", "a member less than there are", "archive", model(end={"count": 2, "here": 2})),
    Case("count-zero", "no members, it says", "archive", model(end={"count": 0, "here": 0})),
    Case("count-differs", "two counts that differ", "archive", model(end={"here": 2})),
    Case("count-max", "65,535 members without the record that gives the real number", "archive",
         model(end={"count": 65535, "here": 65535})),
    Case("disk", "the second disk of two", "archive", model(end={"disk": 1, "start_disk": 1})),
    Case("zip64-count-differs", "the zip64 record gives another count than the end record", "archive",
         model(zip64={"count": 2, "here": 2})),
    Case("zip64-count-max", "2^64 - 1 members", "archive", model(zip64={"count": 2**64 - 1, "here": 2**64 - 1},
         end={"count": 65535, "here": 65535})),
    Case("zip64-offset-differs", "the zip64 record gives another directory than the end record", "archive",
         model(zip64={"offset": 0})),
    Case("zip64-size-max", "a zip64 central directory of 2^64 - 1 bytes", "archive",
         model(zip64={"size": 2**64 - 1}, end={"size": 2**32 - 1})),
    Case("zip64-locator-wrong", "a locator that points to nothing", "archive", model(zip64={}, locator={"offset": 0})),
    Case("zip64-locator-max", "a locator that wraps", "archive", model(zip64={}, locator={"offset": 2**64 - 1})),
    Case("zip64-length", "a zip64 record that claims 2^64 - 1 bytes", "archive", model(zip64={"length": 2**64 - 1})),
    Case("zip64-locator-none", "a zip64 record that no locator points to", "archive",
         model(gap=model(zip64={})[-98:-42])),
    Case("zip64-record-none", "a locator, and no zip64 record", "archive", model(between=model(zip64={})[-42:-22])),
    Case("zip64-disks", "a locator of two disks", "archive", model(zip64={}, locator={"disks": 2})),
]

NAMES = [
    Case("name-twice", "one name twice: some readers take the first, PyTorch another", "archive duplicate",
         model(Member("archive/data.pkl", EVIL))),
    Case("name-twice-same", "one name twice, with the same bytes", "archive duplicate",
         model(Member("archive/data/0", pytorch.WEIGHTS))),
    Case("name-twice-by-case", "names that differ in case: one file on some disks, and one member to miniz",
         "archive duplicate", model(Member("archive/DATA.pkl", EVIL))),
    Case("name-traversal", "a path upwards", "archive", model(Member("archive/../../evil", b"x"))),
    Case("name-dot", "a path with a dot", "archive", model(Member("archive/./data.pkl", EVIL))),
    Case("name-double-slash", "a path with an empty part", "archive", model(Member("archive//data.pkl", EVIL))),
    Case("name-absolute", "an absolute path", "archive", model(Member("/etc/evil", b"x"))),
    Case("name-drive", "a path with a drive", "archive", model(Member("C:\\evil", b"x"))),
    Case("name-backslash", "a backslash, which is a slash to some", "archive",
         model(Member("archive\\data.pkl", EVIL))),
    Case("name-nul", "a NUL in a name: Python's zipfile stops there", "archive",
         model(Member("archive/x\0.pkl", EVIL))),
    Case("name-control", "a control character in a name", "archive", model(Member("archive/x\n", b"x"))),
    Case("name-empty", "a member without name", "archive", model(Member("", b"x"))),
    Case("name-not-utf-8", "a name that is not UTF-8 but says it is", "archive",
         model(Member(b"archive/\xff", b"x", flags=0x800))),
    Case("name-code-page", "a name in a code page", "archive", model(Member(b"archive/\xff", b"x"))),
    Case("name-long", "a name of 65,535 bytes", "archive", model(Member("archive/" + "n" * 65_527, b"x"))),
    Case("directory-with-data", "a directory that holds data", "archive", model(Member("archive/sub/", b"x"))),
    Case("symlink", "a symbolic link", "archive", model(Member("archive/link", b"/etc/passwd",
         central={"made_by": 0x0314, "external": 0o120777 << 16}))),
    Case("device", "a device", "archive", model(Member("archive/dev", b"", central={"made_by": 0x0314,
         "external": 0o060666 << 16}))),
]


def hollow(name: str, size: int) -> Sparse:
    """Write an archive of one member, a hole."""
    whole = archive([Member(name, bytes(size))])
    start = 30 + len(name)
    return Sparse(whole[:start], start + size, whole[start + size :])


HOLLOW = hollow("archive/data.pkl", 2**26)

CONTENT = [
    Case("encrypted", "a member marked as encrypted: scanners skip it, PyTorch reads it", "archive",
         model(pickle={"flags": 1})),
    Case("encrypted-strong", "a member marked as strongly encrypted", "archive", model(pickle={"flags": 0x41})),
    Case("encrypted-directory", "a member whose header is said to be masked", "archive",
         model(pickle={"flags": 0x2000})),
    Case("patch", "a member that is a patch", "archive", model(pickle={"flags": 0x20})),
    Case("pickle-crc", "the wrong checksum of the pickle: scanners skip it, PyTorch reads it (CVE-2025-10156)",
         "archive", model(pickle={"local": {"crc": 7}, "central": {"crc": 7}})),
    Case("pickle-crc-zero", "a checksum of 0", "archive", model(pickle={"local": {"crc": 0}, "central": {"crc": 0}})),
    Case("pickle-deflated", "a compressed pickle, which PyTorch never writes", "archive unsupported",
         model(pickle={"method": DEFLATED})),
    Case("weights-deflated", "compressed weights, which PyTorch never writes", "archive unsupported",
         model(weights={"method": DEFLATED})),
    Case("pickle-bzip2", "a method that few read", "archive unsupported", model(pickle={"method": 12})),
    Case("pickle-deflate-bomb", "20 MB of pickle in 20 KB", "archive unsupported header-too-large",
         model(pickle={"method": DEFLATED, "packed": deflate(bytes(2 * 10**7)), "data": b"",
         "local": {"size": 2 * 10**7}, "central": {"size": 2 * 10**7}})),
    Case("descriptor-crc", "a data descriptor with another checksum", "archive", archive(streamed(crc=7))),
    Case("descriptor-size", "a data descriptor with another size", "archive", archive(streamed(size=9))),
    Case("descriptor-none", "a data descriptor that is not there", "archive", archive(
        [Member(m.name, m.data, flags=8, local={"crc": 0, "packed": 0, "size": 0}) for m in members()])),
    Case("descriptor-short", "a data descriptor that is cut", "archive", archive(
        [Member(m.name, m.data, flags=8, local={"crc": 0, "packed": 0, "size": 0},
            after=descriptor(m.data)[:9]) for m in members()])),
    Case("descriptor-lies", "sizes in the local header that are not 0, and not those of the descriptor", "archive",
         archive(
        [Member(m.name, m.data, flags=8, local={"packed": 2, "size": 2},
            after=descriptor(m.data)) for m in members()])),
    Case("sparse-pickle", "a pickle of 64 MiB, all of it a hole",
         "archive executable malformed-header header-too-large", HOLLOW),
    Case("sparse-directory", "a central directory of 48 MiB, all of it a hole", "archive header-too-large",
         Sparse(model(), 3 * 2**24, model(end={"size": 3 * 2**24 - len(model()), "offset": len(model())})[-22:])),
    Case("sparse-directory-full", "the same, and as many members as a directory has", "archive header-too-large",
         Sparse(model(), 3 * 2**24, model(end={"size": 3 * 2**24 - len(model()), "offset": len(model()),
                                               "count": 65534, "here": 65534})[-22:])),
    Case("members-many", "1,800 members that nothing needs", "archive unsupported executable unknown",
         archive([Member(f"m{i}") for i in range(1800)])),
]

NPZ = [
    Case("npz-bomb-claimed.npz", "2 bytes that claim to be 4 GB when inflated", "archive span truncated", archive(
        [Member("a.npy", b"", DEFLATED, packed=b"\3\0", local={"size": 2**32 - 2}, central={"size": 2**32 - 2})])),
    Case("npz-deflate-broken.npz", "a stream that is none", "archive malformed-header truncated", archive(
        [Member("a.npy", numpy_files.SMALL, DEFLATED, packed=b"\7" * len(numpy_files.SMALL))])),
    Case("npz-deflate-short.npz", "a stream that ends within the header", "archive malformed-header truncated", archive(
        [Member("a.npy", numpy_files.SMALL, DEFLATED, packed=deflate(numpy_files.SMALL[:40]))])),
    Case("npz-name-twice.npz", "one array twice", "archive duplicate",
         archive([Member("a.npy", numpy_files.SMALL)] * 2)),
    Case("npz-name-twice-by-case.npz", "arrays whose names differ in case: one file on some disks", "archive duplicate",
         archive(
        [Member("a.npy", numpy_files.SMALL), Member("A.npy", numpy_files.SMALL)])),
    Case("npz-name-twice-by-extension.npz", "a.npy and a, which NumPy calls by one name",
         "archive duplicate unsupported malformed-header unknown",
         archive([Member("a.npy", numpy_files.SMALL), Member("a", numpy_files.SMALL)])),
    Case("npz-traversal.npz", "an array that leads outside", "archive",
         archive([Member("../a.npy", numpy_files.SMALL)])),
    Case("npz-suffix.npz", "bytes behind the archive", "archive",
         archive([Member("a.npy", numpy_files.SMALL)], suffix=b"x")),
    Case("npz-method.npz", "a method that few read", "archive unsupported",
         archive([Member("a.npy", numpy_files.SMALL, 12)])),
    Case("npz-encrypted.npz", "a member marked as encrypted", "archive",
         archive([Member("a.npy", numpy_files.SMALL, flags=1)])),
]

ODD = [
    Case("whole", "a model of PyTorch, its sizes before the data", READS, model(), HELD),
    Case("descriptors", "sizes behind the data, as PyTorch writes them", READS, archive(streamed()), HELD),
    Case("descriptors-zip64", "the same with a zip64 end that says nothing new, as PyTorch writes it", READS,
         archive(streamed(), zip64={}), HELD),
    Case("npz-zip64.npz", "sizes of 64 bits in the local header alone, as NumPy writes them", READS, archive(
        [Member("a.npy", numpy_files.SMALL, local={"version": 45, "size": 2**32 - 1, "packed": 2**32 - 1,
                "extra": extra64(len(numpy_files.SMALL), len(numpy_files.SMALL))})]), numpy_files.held(name="a")),
    Case("padding-field", "an extra field that aligns the data, as PyTorch writes it", READS,
         model(weights={"local": {"extra": b"FB\x06\0ZZZZZZ"}}), HELD),
    Case("weights-crc", "the wrong checksum of weights, which a reader may leave unread", READS + " archive",
         model(weights={"local": {"crc": 7}, "central": {"crc": 7}}), {"a": "F32 [2, 2]"}),
]

CASES = ODD + LYING + CENTRAL + PLACES + NAMES + CONTENT + NPZ
