"""Protects a model and loads it again: the quick start of the README.

    pip install weightmark safetensors
    python quickstart.py
"""

import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import weightmark

folder = Path(tempfile.mkdtemp())
(folder / "model").mkdir()
weights = {"embed.weight": np.random.default_rng(1).standard_normal((1000, 256), np.float32)}
save_file(weights, folder / "model" / "model.safetensors")

# keys: the licensee's, and yours to sign and to mark with
weightmark.keygen("identity", folder / "licensee.key")
weightmark.keygen("signing", folder / "release.pem")
weightmark.keygen("owner", folder / "owner.key", name="Acme Ltd")

# marks this copy, signs it, encrypts it
weightmark.protect(
    folder / "model",
    folder / "out",
    owner_key=folder / "owner.key",
    signing_key=folder / "release.pem",
    recipients=folder / "licensee.key.pub",
    copy="licensee-0017",
    context="acme/llama-1b@3",
)

# the licensee: nothing that is not exactly what you published
keys = {"identity": folder / "licensee.key", "policy": folder / "release.pem.pub", "context": "acme/llama-1b@3"}
with weightmark.open(folder / "out", **keys) as model:
    for name, tensor in model.items():
        print(name, tensor.dtype, tensor.shape)
    rows = model["embed.weight"][10:12]  # reads and decrypts two rows
    everything = model.load()  # all tensors, in parallel
assert np.array_equal(rows, everything["embed.weight"][10:12])

# you, when weights turn up somewhere
save_file(everything, folder / "leak.safetensors")
evidence = weightmark.detect(
    folder / "leak.safetensors",
    original=folder / "model",
    owner_key=folder / "owner.key",
    copies=["licensee-0016", "licensee-0017", "licensee-0018"],
)
print(f"ours: {evidence.detected}, p < 10^{evidence.log10_p:.0f}, copy {evidence.copy.label}")

# anyone else, whatever they try
try:
    weightmark.open(folder / "out", **{**keys, "context": "acme/llama-1b@2"})
except weightmark.Refused as error:
    print(f"refused: {error}")
