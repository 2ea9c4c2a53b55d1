"""Attacks on the gate for plain data: what loaders would run or unpack beside good weights, whatever it is called."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import zlib

import onnx
import pytorch
import safetensors
from archive import Member, archive
from case import READS, Case
from directories import GOOD, HELD, PICKLE

FORMAT, EXTENSION = "gate", ""

HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(88)
SCRIPT = archive([Member("__main__.py", b"import os\n")])
TEXT_PICKLE = b"cposix\nsystem\n(S'id'\ntR."


SAFE_HEAD = safetensors.file('{"a":{"dtype": "U8", "shape": [9999], "data_offsets": [0, 9999]}}', b"")


def message(number: int, data: bytes) -> bytes:
    """Write a field of a protobuf message."""
    return bytes([number << 3 | 2, len(data)]) + data


def tar(name: str, data: bytes) -> bytes:
    """Write a tar archive without the magic of POSIX."""
    head = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2
    head += f"{len(data):011o}\0".encode() + bytes(12)
    total = sum(head) + 8 * ord(" ")
    return (head + f"{total:06o}\0 ".encode()).ljust(512, b"\0") + data.ljust(512, b"\0") + bytes(1024)


def portable(body: bytes) -> bytes:
    """Write the headers of a program of Windows."""
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + body


def carrier(name: str, data: bytes, length: int = 0) -> dict:
    """Write a safetensors file of one tensor, with a header so long, beside good weights, and say what both hold."""
    file = safetensors.file('{"a":' + json.dumps({"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]})
        .ljust(length - len('{"a":}')) + "}", data)
    return {"files": {name: file}, "holds": {**HELD, f"{name}:a": f"U8 [{len(data)}] {data.hex()}"}}


def beside(
    name: str, what: str, gate: str, files: dict, holds: dict | None = None, refused: dict | None = None
) -> Case:
    """Put files beside good weights."""
    return Case(name, what, READS, {**GOOD, **files}, holds or HELD, refused, gate or None)


CODE, ARCHIVE = "executable", "unsupported"

CASES = [
    Case("whole", "good weights, and what belongs to them", READS,
         {**GOOD, "config.json": b"{}", "modeling_x.py": b"import os\n", "chat_template.jinja": b"{{ x }}",
          "vocab.txt": b"MZ\nBZh9\ncat\n(\n",
          "tokenizer.model": message(1, message(1, b"<unk>") + b"\x15\0\0\0\0")}, HELD),
    beside("elf", "native code", CODE, {"kernel.so": b"\x7fELF\2\1\1" + bytes(64)}),
    beside("elf-as-text", "native code called .txt", CODE, {"vocab.txt": b"\x7fELF\2\1\1" + bytes(64)}),
    beside("pe", "native code of Windows", CODE, {"weights.dat": portable(bytes(64))}),
    beside("mach-o", "native code of macOS", CODE, {"weights.dat": b"\xcf\xfa\xed\xfe" + bytes(64)}),
    beside("mach-o-fat", "the same for two machines", CODE, {"weights.dat": b"\xca\xfe\xba\xbe\0\0\0\2" + bytes(64)}),
    beside("llamafile", "a program that is weights", CODE, {"model.llamafile": b"MZqFpD='\n" + bytes(64)}),
    beside("wasm", "WebAssembly", CODE, {"weights.dat": b"\0asm\1\0\0\0"}),
    beside("python-compiled", "a module of Python, compiled", CODE,
           {"__pycache__/x.cpython-311.pyc": b"\xa7\r\r\n" + bytes(12) + b"\xe3"}),
    beside("java-class", "a class of Java", CODE, {"A.class": b"\xca\xfe\xba\xbe\0\0\0\x34"}),
    beside("java-objects", "serialised objects of Java", CODE, {"model.dat": b"\xac\xed\0\5sr\0\1A"}),
    beside("r-objects", "serialised objects of R", CODE, {"model.rds": b"X\n\0\0\0\3\0\4\1\3"}),
    beside("hdf5", "an HDF5 file, where Keras keeps lambdas", CODE, {"model.h5": HDF5}),
    beside("hdf5-as-text", "the same called .txt", CODE, {"model.txt": HDF5}),
    beside("hdf5-user-block", "the same behind 2048 bytes of the user", CODE, {"model.dat": b"{}".ljust(2048) + HDF5}),
    beside("hdf5-in-safetensors", "HDF5 in the tensor of a safetensors file", CODE,
           **carrier("b.safetensors", bytes(2048 - len(SAFE_HEAD)) + HDF5)),
    beside("keras", "a Keras archive", ARCHIVE, {"model.keras": archive([Member("config.json", b"{}"),
           Member("model.weights.h5", HDF5)])}),
    beside("saved-model", "a graph of TensorFlow, which can write files", CODE, {"saved_model.pb": message(2, b"")}),
    beside("saved-model-text", "the same as text", CODE, {"saved_model.pbtxt": b"saved_model_schema_version: 1\n"}),
    beside("saved-model-onnx", "one that is a model of ONNX as well", CODE, {"saved_model.pb": onnx.one(onnx.raw())},
           {**HELD, "saved_model.pb:a": onnx.HELD["a"]}),
    beside("frozen-graph", "a frozen graph", CODE,
           {"frozen.pb": message(1, message(1, b"x") + message(2, b"WriteFile"))}),
    beside("meta-graph", "the graph of a checkpoint of TensorFlow 1", CODE, {"model.ckpt-7.meta": message(2, b"")}),
    beside("onnx-as-pb", "a model of ONNX called .pb passes", "", {"m.pb": onnx.one(onnx.raw())},
           {**HELD, "m.pb:a": onnx.HELD["a"]}),
    beside("pickle-as-text", "a pickle called .json", CODE, {"config.json": PICKLE}, None, {"config.json": CODE}),
    beside("pickle-protocol-1", "a pickle that says protocol 1, which nobody writes", CODE,
           {"data.raw": b"\x80\1" + TEXT_PICKLE}),
    beside("pickle-dill", "a pickle by another library's extension", CODE, {"model.dill": TEXT_PICKLE}, None,
           {"model.dill": CODE}),
    beside("pickle-sav", "a pickle by scikit-learn's custom", CODE, {"model.sav": TEXT_PICKLE}, None,
           {"model.sav": CODE}),
    beside("pickle-as-external-data", "a pickle of protocol 0 that a model of ONNX claims for its data", CODE,
           {"m.onnx": onnx.one(onnx.external(location="pytorch_model.bin")),
            "pytorch_model.bin": TEXT_PICKLE.ljust(32, b".")},
           {**HELD, "pytorch_model.bin:a": "F32 [4] " + TEXT_PICKLE[:16].hex()}),
    beside("safetensors-as-pickle", "a safetensors file called as pickles are: its length can be an opcode", CODE,
           **carrier("pytorch_model.bin", bytes(4), 0x163)),
    beside("old-code", "code in a file from before PyTorch 1.6", CODE,
           {"old.pt": pytorch.old(pytorch.call("posix", "system", pytorch.ID))}, None, {"old.pt": CODE}),
    beside("objects", "an array of objects", CODE, {"a.npy": b"\x93NUMPY\1\0\x76\0" + (
           b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n" + PICKLE)}, None,
           {"a.npy": CODE}),
    beside("jar", "classes of Java in an archive", ARCHIVE,
           {"a.jar": archive([Member("A.class", b"\xca\xfe\xba\xbe")])}),
    beside("zip-of-text", "an archive of what may be anything", ARCHIVE, {"a.zip": archive([Member("a.txt", b"x")])}),
    beside("zip-nested", "an archive in an archive", ARCHIVE, {"a.dat": archive([Member("a.zip", SCRIPT)])}),
    beside("zip-behind-text", "a text that ends as a zip archive: Python runs it", CODE,
           {"README.md": b"# A\n" + SCRIPT}),
    beside("zip-comment", "the same with a comment of 64 KB behind", CODE, {"README.md": b"# A\n" + archive(
           [Member("__main__.py", b"import os\n")], comment=b" " * 65535)}),
    beside("zip-comment-lies", "the same with more behind than the comment says", CODE,
           {"README.md": b"# A\n" + SCRIPT + b"\n" * 1000}),
    beside("zip-in-safetensors", "a tensor that ends as a zip archive", CODE, **carrier("b.safetensors", SCRIPT)),
    beside("tar", "a .nemo of a pickle", ARCHIVE, {"model.nemo": tar("weights.ckpt", PICKLE)}),
    beside("gzip", "a compressed pickle, which joblib unpacks", ARCHIVE, {"m.dat": gzip.compress(PICKLE, mtime=0)}),
    beside("bzip2", "the same by bzip2", ARCHIVE, {"m.dat": bz2.compress(PICKLE)}),
    beside("xz", "the same by xz", ARCHIVE, {"m.dat": lzma.compress(PICKLE)}),
    beside("lzma", "the same by lzma", ARCHIVE, {"m.dat": lzma.compress(PICKLE, lzma.FORMAT_ALONE)}),
    beside("zlib", "the same by zlib, whose first bytes are letters", ARCHIVE, {"m.dat": zlib.compress(PICKLE, 3)}),
    beside("zstd", "the same by zstd", ARCHIVE, {"m.dat": b"\x28\xb5\x2f\xfd" + bytes(16)}),
    beside("lz4", "the same by lz4", ARCHIVE, {"m.dat": b"\x04\x22\x4d\x18" + bytes(16)}),
    beside("7z", "a 7z archive", ARCHIVE, {"m.dat": b"7z\xbc\xaf\x27\x1c" + bytes(26)}),
    beside("rar", "a rar archive", ARCHIVE, {"m.dat": b"Rar!\x1a\7\1\0" + bytes(16)}),
]
