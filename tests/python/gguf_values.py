"""What the package `gguf` finds in a GGUF file, and files that it writes.

    python gguf_values.py read FILE                  one line for each tensor: name, type, shape, SHA-256 of its numbers
    python gguf_values.py convert SAFETENSORS TYPE OUT   the matrices of BERT in TYPE under the names of llama.cpp
    python gguf_values.py split DIR                  a model in three parts, as llama.cpp splits it

Numbers are float32, little-endian, as `gguf.quants.dequantize` gives them.
"""

import hashlib
import sys

import gguf
import numpy as np
from gguf.quants import dequantize, quantize


def read(path):
    """Print what is there."""
    for tensor in gguf.GGUFReader(path).tensors:
        shape = [int(dim) for dim in reversed(tensor.shape)]
        numbers = dequantize(tensor.data, tensor.tensor_type).astype("<f4")
        print(tensor.name, tensor.tensor_type.name, shape, hashlib.sha256(numbers.tobytes()).hexdigest(), sep="\t")


def convert(source, kind, out):
    """Do what llama.cpp's converter does to BERT, for the tensors that it quantises."""
    from safetensors.numpy import load_file

    kind = gguf.GGMLQuantizationType[kind]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 64)
    writer = gguf.GGUFWriter(out, "bert")
    for name, values in load_file(source).items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            continue
        if values.ndim == 2:
            writer.add_tensor(new, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(new, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def split(folder):
    """Three tensors, one a part."""
    writer = gguf.GGUFWriter(f"{folder}/m.gguf", "llama", split_max_tensors=1)
    for i in range(3):
        writer.add_tensor(f"t{i}", np.full((4, 8), i, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


{"read": read, "convert": convert, "split": split}[sys.argv[1]](*sys.argv[2:])
