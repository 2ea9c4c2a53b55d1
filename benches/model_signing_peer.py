"""Signs or verifies with the reference tool, timed inside of Python so that its start does not count: prints milliseconds.

    python model_signing_peer.py sign|verify sha256|blake3 MODEL KEY.pem KEY.pub.pem SIGNATURE
"""

import sys
import time
from pathlib import Path

from model_signing import hashing, signing, verifying

job, hash_type, model, key, public_key, signature = sys.argv[1:]
config = hashing.Config().use_file_serialization(hashing_algorithm=hash_type)
config.set_ignored_paths(paths=[Path(signature)], ignore_git_paths=True)


def sign():
    """Hash and sign all files."""
    signing.Config().use_elliptic_key_signer(private_key=Path(key)).set_hashing_config(config).sign(
        Path(model), Path(signature)
    )


def verify():
    """Hash all files and compare."""
    verifying.Config().use_elliptic_key_verifier(public_key=Path(public_key)).set_hashing_config(config).verify(
        Path(model), Path(signature)
    )


work = {"sign": sign, "verify": verify}[job]
sign()  # what it imports and warms up does not count either
start = time.perf_counter()
work()
print(1000 * (time.perf_counter() - start))
