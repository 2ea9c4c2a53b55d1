"""Write linear layers packed as GPTQ and AWQ pack them, and their weights.

    python int4_layers.py OUTPUT_DIR

Starts from codes, zeros and scales as plain matrices and packs them, the other way round from a reader. Prints one
JSON list of layers: the kind, its sizes, and the prefix of its files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack(codes: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Packs each eight successive columns into an int32: nibble `p` holds column `order[p]`."""
    eights = codes.reshape(codes.shape[0], -1, 8).astype(np.uint32)
    words = np.zeros(eights.shape[:2], np.uint32)
    for position, column in enumerate(order):
        words |= eights[:, :, column] << np.uint32(4 * position)
    return words.view(np.int32)


def layer(kind: str, inputs: int, outputs: int, groups: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    codes = random.integers(0, 16, (inputs, outputs))
    zeros = random.integers(1 if kind == "gptq" else 0, 16, (groups, outputs))
    scales = (0.01 * random.standard_normal((groups, outputs))).astype(np.float16)
    index = np.arange(inputs) // (inputs // groups)
    parts = {}
    if kind == "awq":
        parts["qweight"], parts["qzeros"] = pack(codes, AWQ_ORDER), pack(zeros, AWQ_ORDER)
    else:
        if kind == "gptq":  # the older format, here with the inputs in any order of groups
            random.shuffle(index)
            parts["g_idx"] = index.astype(np.int32)
        parts["qweight"] = np.ascontiguousarray(pack(codes.T).T)
        parts["qzeros"] = pack(zeros - 1 if kind == "gptq" else zeros)
    parts["scales"] = scales
    parts["codes"] = codes.T.astype(np.uint8)
    weights = (codes - zeros[index]).astype(np.float32) * scales.astype(np.float32)[index]
    parts["weights"] = weights.T
    return parts


def main() -> None:
    output = Path(sys.argv[1])
    random = np.random.default_rng(12)
    layers = []
    for kind in ("gptq", "gptq_v2", "awq"):
        for inputs, outputs, groups in ((8, 8, 1), (64, 24, 2), (256, 512, 8)):
            prefix = f"{kind}-{inputs}"
            for name, part in layer(kind, inputs, outputs, groups, random).items():
                (output / f"{prefix}.{name}").write_bytes(np.ascontiguousarray(part).tobytes())
            layers.append(dict(kind=kind, prefix=prefix, inputs=inputs, outputs=outputs, groups=groups))
    print(json.dumps({"layers": layers}))


if __name__ == "__main__":
    main()
