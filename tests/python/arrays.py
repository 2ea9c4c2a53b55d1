"""Writes arrays with NumPy and prints what is in them, or null for what must be refused.

Usage: arrays.py DIRECTORY"""

import json
import pathlib
import sys
import zipfile

import numpy

here = pathlib.Path(sys.argv[1])
expected = {}
NAMES = {
    "f2": "F16", "f4": "F32", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16",
    "u4": "U32", "u8": "U64", "b1": "BOOL", "c8": "C64", "c16": "C128",
}


def described(array):
    array = numpy.asarray(array)
    return [NAMES[array.dtype.str[1:]], list(array.shape), array.tobytes().hex()]


def one(name, array, is_read=True, **options):
    numpy.save(here / name, array, **options)
    expected[name] = {"array": described(array)} if is_read else None


def many(name, save, arrays, is_read=True):
    save(here / name, **arrays)
    expected[name] = {key: described(array) for key, array in arrays.items()} if is_read else None


random = numpy.random.default_rng(7)
for code in NAMES:
    array = (random.standard_normal((3, 4)) * 50).astype(code)
    one(f"{code}.npy", array)
    one(f"{code}-fortran.npy", numpy.asfortranarray(array))
one("scalar.npy", numpy.float32(3))
one("empty.npy", numpy.zeros((0, 3)))
one("deep.npy", numpy.ones((1,) * 20))
one("sliced.npy", numpy.arange(100).reshape(10, 10)[::2, ::3])
one("cube-fortran.npy", numpy.asfortranarray(numpy.arange(24).reshape(2, 3, 4)))
one("big-endian.npy", numpy.ones(3, ">f4"), is_read=False)
one("text.npy", numpy.array(["a"]), is_read=False)
one("objects.npy", numpy.array([{}]), is_read=False, allow_pickle=True)
one("records.npy", numpy.zeros(2, [("a", "f4")]), is_read=False)
for version in [(2, 0), (3, 0)]:
    with open(here / f"version{version[0]}.npy", "wb") as file:
        numpy.lib.format.write_array(file, numpy.arange(5), version)
    expected[f"version{version[0]}.npy"] = {"array": described(numpy.arange(5))}

arrays = {"a": numpy.arange(6.0).reshape(2, 3), "b/c": random.standard_normal(300_000), "s": numpy.int8(1)}
many("stored.npz", numpy.savez, arrays)
many("deflated.npz", numpy.savez_compressed, arrays)
many("fortran.npz", numpy.savez, {"f": numpy.asfortranarray(numpy.ones((2, 3)))})
many("fortran-deflated.npz", numpy.savez_compressed, {"f": numpy.asfortranarray(numpy.ones((2, 3)))}, is_read=False)
many("objects.npz", numpy.savez_compressed, {"a": numpy.ones(2), "o": numpy.array([{}])}, is_read=False)


class Pipe:
    """A file that cannot seek: sizes then follow the data."""

    def __init__(self, path):
        self.file = open(path, "wb")

    def write(self, data):
        return self.file.write(data)

    def flush(self):
        self.file.flush()


for name, method in [("piped.npz", zipfile.ZIP_STORED), ("piped-deflated.npz", zipfile.ZIP_DEFLATED)]:
    pipe = Pipe(here / name)
    with zipfile.ZipFile(pipe, "w", method) as archive:
        archive.writestr("a.npy", (here / "f4.npy").read_bytes())
        archive.writestr("b.npy", (here / "scalar.npy").read_bytes())
    pipe.flush()
    expected[name] = {"a": described(numpy.load(here / "f4.npy")), "b": described(numpy.load(here / "scalar.npy"))}
with zipfile.ZipFile(here / "commented.npz", "w") as archive:
    archive.writestr("a.npy", (here / "f4.npy").read_bytes())
    archive.comment = b"hello"
(here / "followed.npz").write_bytes((here / "stored.npz").read_bytes() + b"\0")
(here / "preceded.npz").write_bytes(b"PK\3\4" + (here / "stored.npz").read_bytes())
expected |= {"commented.npz": None, "followed.npz": None, "preceded.npz": None}
print(json.dumps(expected))
