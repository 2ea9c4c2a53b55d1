"""What a PyTorch checkpoint holds, through NumPy: its storages viewed as its pickle says, without PyTorch.

    python torch_views.py FILE ..      one JSON object: file -> tensor -> [type, shape, SHA-256 of the elements]
"""

import hashlib
import json
import pickle
import sys
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {"FloatStorage": ("F32", "<f4"), "HalfStorage": ("F16", "<f2"), "LongStorage": ("I64", "<i8"),
            "IntStorage": ("I32", "<i4"), "ByteStorage": ("U8", "u1"), "BoolStorage": ("BOOL", "?")}  # fmt: skip


class Views(pickle.Unpickler):
    """Knows two functions, and the types of storages by their names."""

    def __init__(self, file, storage):
        """Take the pickle, and what gives the bytes of a storage by its key, type, and number of elements."""
        self.storage = storage
        super().__init__(file, encoding="ascii")

    def find_class(self, module, name):
        """Nothing but what is needed."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        return STORAGES[name]

    def persistent_load(self, address):
        """Return a storage: its type, and its elements."""
        _, (name, code), key, _, count, *_ = address
        return name, self.storage(key, code, count)


def zipped(file):
    """Read a checkpoint that is a zip archive."""
    with zipfile.ZipFile(file) as archive:
        top = archive.namelist()[0].split("/")[0]

        def storage(key, code, count):
            elements = np.frombuffer(archive.read(f"{top}/data/{key}"), code)
            assert len(elements) == count
            return elements

        return Views(archive.open(f"{top}/data.pkl"), storage).load()


def old(file):
    """Read one from before 1.6: pickles, and storages that are filled once their order is known."""
    storages = {}

    def storage(key, code, count):
        return storages.setdefault(key, np.zeros(count, code))

    magic, version, _, value, keys = (Views(file, storage).load() for _ in range(5))
    assert (magic, version) == (0x1950A86A20F9469CFC6C, 1001)
    for key in keys:
        elements = storages.pop(key)
        assert int.from_bytes(file.read(8), "little") == len(elements)
        assert file.readinto(memoryview(elements).cast("B")) == elements.nbytes
    assert not storages
    assert not file.read()
    return value


def tensors(value, name=""):
    """All tensors below a value, by name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, tuple) and isinstance(value[0], tuple):
        (kind, elements), offset, shape, strides = value
        width = elements.itemsize
        view = np.lib.stride_tricks.as_strided(elements[offset:], shape, [step * width for step in strides])
        yield name, [kind, list(shape), hashlib.sha256(view.tobytes()).hexdigest()]


found = {}
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        found[path] = dict(tensors(zipped(file) if is_zip else old(file)))
print(json.dumps(found))
