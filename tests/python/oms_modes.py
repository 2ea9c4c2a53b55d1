"""Sign or verify with the Python interface of `model_signing`, in the modes that its command line does not have.

    python oms_modes.py sign MODEL SIGNATURE KEY HASH [SHARD_SIZE]
    python oms_modes.py verify MODEL SIGNATURE PUBLIC_KEY HASH [SHARD_SIZE]
"""

import sys
from pathlib import Path

from model_signing import hashing, signing, verifying

job, model, signature, key, name, *shard = sys.argv[1:]
config = hashing.Config()
name = {"blake2b": "blake2"}.get(name, name)  # what it writes into statements, and what it takes, are not the same
if shard:
    config.use_shard_serialization(hashing_algorithm=name, shard_size=int(shard[0]))
else:
    config.use_file_serialization(hashing_algorithm=name)
config.set_ignored_paths(paths=[Path(signature)], ignore_git_paths=True)
if job == "sign":
    signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(config).sign(model, signature)
else:
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    verifier.set_hashing_config(config).verify(model, signature)
