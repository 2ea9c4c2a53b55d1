"""Write blocks of every ggml type, and what ggml's own package makes of them.

    python ggml_blocks.py OUTPUT_DIR

For each type that `gguf` dequantises: TYPE.blocks and TYPE.values, its blocks and their values as float32. For each
of the types that are also written: TYPE.input, float32, and TYPE.output, the blocks of it. Prints the names of
both kinds as one JSON object.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

BLOCKS = 2048
WRITTEN = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
HALVES = np.array(
    # zeros, least and largest subnormals, least and largest normals, one, infinities, NaN
    [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7E00, 0xFE01],
    dtype="<u2",
)


def scale_offsets(name: str, size: int) -> list[int]:
    """Where the half-precision scales of a block lie."""
    if name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K"):
        return [0, 2]
    if name == "Q2_K":
        return [size - 4, size - 2]
    if name in ("Q3_K", "Q6_K", "TQ1_0", "TQ2_0"):
        return [size - 2]
    return [0] if name == "F16" or name.startswith(("Q", "IQ")) and name != "IQ1_M" else []


def blocks_of(name: str, size: int, random: np.random.Generator) -> np.ndarray:
    blocks = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    blocks[0], blocks[1] = 0, 255
    for offset in scale_offsets(name, size):
        scales = random.choice(HALVES, BLOCKS // 4)
        blocks[BLOCKS // 4 : BLOCKS // 2, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
        moderate = (0.01 * random.standard_normal(BLOCKS // 4)).astype("<f2")
        blocks[BLOCKS // 2 : 3 * (BLOCKS // 4), offset : offset + 2] = moderate.view(np.uint8).reshape(-1, 2)
    if name == "IQ1_M":  # its scale lies in the top nibbles of the last four words
        scales = random.choice(HALVES, BLOCKS // 4)
        for k in range(4):
            top = blocks[BLOCKS // 4 : BLOCKS // 2, size - 7 + 2 * k]
            top[:] = (top & 15) | ((scales >> (4 * k)) & 15).astype(np.uint8) << 4
    if name in ("MXFP4", "NVFP4"):
        blocks[: 1 << 8, 0] = np.arange(1 << 8)
    return blocks


def numbers(block: int, random: np.random.Generator) -> np.ndarray:
    """Rows to quantise: ordinary, tied, exactly between codes, constant, huge, tiny, of zeros of both signs."""
    rows, columns = BLOCKS, max(block, 32)
    values = random.standard_normal((rows, columns)).astype(np.float32)
    part = rows // 16
    parts = [values[i : i + part] for i in range(0, rows, part)]
    parts[0] *= np.float32(10.0) ** random.integers(-44, 39, (part, 1)).astype(np.float32)
    parts[1][:] = random.integers(-4, 5, parts[1].shape)  # extremes of both signs, tied
    parts[2][:] = random.integers(-255, 256, parts[2].shape) / 2.0  # halves
    parts[2][:, random.integers(columns)] = 127.0
    parts[3][:] = random.integers(0, 31, parts[3].shape) / 2.0 - 3.0
    parts[4][:] = parts[4][:, :1]
    parts[5][:] = np.float32(3e38) * np.sign(parts[5])
    parts[6] *= np.float32(1e-41)
    parts[7][:] = np.where(parts[7] > 2, parts[7], np.float32(-0.0))  # sparse, among negative zeros
    parts[8][:] = np.where(parts[8] < -2, parts[8], np.float32(0.0))
    parts[9][:] = np.float32(-0.0)
    parts[10][:] = np.float32(0.0)
    parts[11] *= np.float32(65504 * 8)  # scales near the end of half precision
    parts[12] *= np.float32(2.0**-22)  # and of its subnormals
    parts[13][:, random.integers(columns)] = np.float32(np.inf)
    parts[14][:, random.integers(columns)] = np.float32(-np.inf)
    parts[15][:, ::3] = np.abs(parts[15]).max(axis=1, keepdims=True)
    return values


def main() -> None:
    warnings.simplefilter("ignore")
    output = Path(sys.argv[1])
    random = np.random.default_rng(11)
    read = []
    for kind in Type:
        block, size = GGML_QUANT_SIZES[kind]
        blocks = blocks_of(kind.name, size, random)
        try:
            values = dequantize(blocks, kind)
        except NotImplementedError:
            continue
        (output / f"{kind.name}.blocks").write_bytes(blocks.tobytes())
        (output / f"{kind.name}.values").write_bytes(values.astype("<f4").tobytes())
        read.append(kind.name)
    for name in WRITTEN:
        values = numbers(GGML_QUANT_SIZES[Type[name]][0], random)
        (output / f"{name}.input").write_bytes(values.astype("<f4").tobytes())
        (output / f"{name}.output").write_bytes(quantize(values, Type[name]).tobytes())
    print(json.dumps({"read": read, "written": WRITTEN}))


if __name__ == "__main__":
    main()
