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

    def __init__(self, archive):
        """Takes the open zip archive."""
        self.top = archive.namelist()[0].split("/")[0]
        self.archive = archive
        super().__init__(archive.open(f"{self.top}/data.pkl"))

    def find_class(self, module, name):
        """Nothing but what is needed."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        return STORAGES[name]

    def persistent_load(self, address):
        """Return a storage: its type, and its elements."""
        _, (name, code), key, _, count = address
        elements = np.frombuffer(self.archive.read(f"{self.top}/data/{key}"), code)
        assert len(elements) == count
        return name, elements


def tensors(value, name=""):
    """All tensors below a value, by name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, tuple):
        (kind, elements), offset, shape, strides = value
        width = elements.itemsize
        view = np.lib.stride_tricks.as_strided(elements[offset:], shape, [step * width for step in strides])
        yield name, [kind, list(shape), hashlib.sha256(view.tobytes()).hexdigest()]


found = {}
for path in sys.argv[1:]:
    with zipfile.ZipFile(path) as archive:
        found[path] = dict(tensors(Views(archive).load()))
print(json.dumps(found))
