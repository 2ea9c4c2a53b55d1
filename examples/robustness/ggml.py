"""Quantise a safetensors file into a GGUF file with llama.cpp's own quantisers.

    python ggml.py IN.safetensors OUT.gguf TYPE MODEL

TYPE is a type of ggml, or Q4_K_M: the mixture of that name, as llama.cpp makes it for language models. MODEL is where
the weights come from: a GGUF file, whose metadata are taken over, or a model with `config.json` beside it. Tensors get
llama.cpp's names; rows of Q and K of Llama are put in llama.cpp's order. What a type cannot hold is stored as llama.cpp
would instead.

Prints the change of the weights, relative to their root mean square. Exits with status 3 if a package is missing.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

try:
    import gguf
    import numpy as np
    import xllamacpp
    from gguf import GGMLQuantizationType as Type
    from safetensors.numpy import load_file
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

# where rows are no multiple of 256 (llama-quant.cpp, `tensor_type_fallback`)
FALLBACK = {
    Type.Q2_K: Type.IQ4_NL,
    Type.Q3_K: Type.IQ4_NL,
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
}
LEFT = ("norm", "position_embd", "token_types")  # what llama.cpp does not quantise


def library() -> ctypes.CDLL:
    """Open llama.cpp, which the wheel carries whole."""
    (path,) = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    ggml = ctypes.CDLL(str(path))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return ggml


def quantise(ggml: ctypes.CDLL, values: np.ndarray, kind: Type) -> np.ndarray:
    """Blocks of a matrix, as bytes, one line a row."""
    rows, columns = values.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.empty((rows, columns // block * size), dtype=np.uint8)
    written = ggml.ggml_quantize_chunk(kind, values.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    if written != out.nbytes:
        raise ValueError(f"{written} bytes of {kind.name} instead of {out.nbytes}")
    return out


def chosen(name: str, layers: int, kind: str) -> Type:
    """The type of a tensor in a file of this kind."""
    if kind != "Q4_K_M":
        return Type[kind]
    parts = name.split(".")
    if parts[0] in ("token_embd", "output"):
        return Type.Q6_K
    if parts[0] == "blk" and parts[2] in ("attn_v", "ffn_down"):
        layer, eighth = int(parts[1]), layers // 8
        if layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2:
            return Type.Q6_K
    return Type.Q4_K


def that_fits(kind: Type, columns: int) -> Type:
    """The type to store rows of this length in."""
    if columns % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = FALLBACK.get(kind, Type.F16)
    return Type.F16 if columns % gguf.GGML_QUANT_SIZES[kind][0] else kind


def describe(model: Path, tensors: dict[str, Any]) -> tuple[str, dict[str, int], gguf.GGUFReader | None]:
    """Architecture, numbers of layers and heads, and the file whose metadata to take over."""
    if model.suffix == ".gguf":
        reader = gguf.GGUFReader(model)
        arch = reader.fields["general.architecture"].contents()
        names = {"layers": "block_count", "heads": "attention.head_count", "kv_heads": "attention.head_count_kv"}
        found = {key: reader.fields.get(f"{arch}.{name}") for key, name in names.items()}
        return arch, {key: field.contents() for key, field in found.items() if field}, reader
    directory = model if model.is_dir() else model.parent
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    arch = "bert" if any(name.startswith("encoder.layer.") for name in tensors) else config.get("model_type", "llama")
    names = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}
    return arch, {key: config[name] for key, name in names.items() if name in config}, None


def reorder(values: np.ndarray, heads: int) -> np.ndarray:
    """Put rows that are half a head apart side by side, as llama.cpp's converter does."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def take_over(writer: gguf.GGUFWriter, reader: gguf.GGUFReader) -> None:
    """Copy metadata."""
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            of = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, of)


def main() -> None:
    source, out, kind, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    tensors = load_file(source)
    arch, sizes, reader = describe(model, tensors)
    layers = sizes.get("layers", 64)
    known = {text: number for number, text in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known.get(arch, gguf.MODEL_ARCH.LLAMA), layers)
    writer = gguf.GGUFWriter(out, arch)
    if reader:
        take_over(writer, reader)
    ggml, change, energy = library(), 0.0, 0.0
    for original, values in tensors.items():
        name = names.get_name(original, try_suffixes=(".weight", ".bias")) or original
        values = np.ascontiguousarray(values, dtype=np.float32)
        if values.ndim != 2 or values.size < 4096 or any(part in name for part in LEFT):
            writer.add_tensor(name, values)
            continue
        heads = {"attn_q": "heads", "attn_k": "kv_heads"}.get(name.split(".")[-2])
        if arch == "llama" and heads in sizes:
            values = np.ascontiguousarray(reorder(values, sizes[heads]))
        fitting = that_fits(chosen(name, layers, kind), values.shape[1])
        blocks = quantise(ggml, values, fitting)
        writer.add_tensor(name, blocks, raw_dtype=fitting)
        stored = gguf.quants.dequantize(blocks, fitting)
        change += float(np.square(stored - values, dtype=np.float64).sum())
        energy += float(np.square(values, dtype=np.float64).sum())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print((change / energy) ** 0.5 if energy else 0.0)


if __name__ == "__main__":
    main()
