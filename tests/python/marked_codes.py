"""Compares a marked GGUF file with its original, both read by ggml's own package, and quantises the marked one anew.

marked_codes.py ORIGINAL MARKED OUT: prints the number of codes that moved for each type, and writes OUT, the marked model
dequantised and put through the quantisers Q8_0, Q4_1 and Q4_0 of the package, as OUT.q8_0.gguf and so on.
"""

import json
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFReader, GGUFWriter, quants

original, marked, out = sys.argv[1:]
a, b = GGUFReader(original), GGUFReader(marked)


def parts(data, kind):
    """Codes and all other bytes of blocks of Q4_0, Q4_1 and Q8_0."""
    blocks = data.reshape(-1, {T.Q4_0: 18, T.Q4_1: 20, T.Q8_0: 34}[kind])
    head = 4 if kind == T.Q4_1 else 2
    rest, codes = blocks[:, :head], blocks[:, head:]
    if kind == T.Q8_0:
        return codes.view(np.int8).astype(int), rest
    return np.concatenate([codes & 15, codes >> 4], axis=1).astype(int), rest


moved, total = {}, {}
assert [t.name for t in a.tensors] == [t.name for t in b.tensors]
for x, y in zip(a.tensors, b.tensors):
    name = x.tensor_type.name
    assert x.tensor_type == y.tensor_type and (x.shape == y.shape).all() and x.data_offset == y.data_offset
    if x.tensor_type in (T.Q4_0, T.Q4_1, T.Q8_0):
        (p, r), (q, s) = parts(x.data, x.tensor_type), parts(y.data, y.tensor_type)
        assert (r == s).all() and abs(p - q).max() <= 1, x.name
        moved[name] = moved.get(name, 0) + int((p != q).sum())
        total[name] = total.get(name, 0) + p.size
    else:
        assert (x.data == y.data).all(), x.name
start = min(t.data_offset for t in a.tensors)
with open(original, "rb") as f, open(marked, "rb") as g:
    assert f.read(start) == g.read(start)

for kind in (T.Q8_0, T.Q4_1, T.Q4_0):
    writer = GGUFWriter(f"{out}.{kind.name.lower()}.gguf", "llama")
    for t in b.tensors:
        if len(t.shape) == 2:
            values = quants.dequantize(t.data, t.tensor_type).reshape(tuple(reversed(t.shape.tolist())))
            data = quants.quantize(values.astype(np.float32), kind)
            writer.add_tensor(t.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
print(json.dumps({"moved": moved, "total": total}))
