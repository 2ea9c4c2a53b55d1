"""One job of a peer, timed inside of Python so that its start does not count: prints milliseconds.

    python peers.py safetensors|cryptotensors|tensorizer save|load|tensor|rows MODEL THEIRS

`save` writes MODEL, a safetensors file, as the peer does, to THEIRS, unless it is there; the others read THEIRS: all
tensors, one of 8 MiB, or three rows of one of 128 MiB.
"""

import os
import sys
import time

peer, job, model, theirs = sys.argv[1:]


class Safetensors:
    """Plain safetensors: what CryptoTensors starts from."""

    def __init__(self):
        """Read from memory maps, as its users do."""
        from safetensors import safe_open

        self.open = lambda: safe_open(model, framework="numpy")

    def save(self, tensors):
        """Nothing to do: it reads MODEL."""

    def load(self):
        """Copy every tensor out of the map."""
        with self.open() as file:
            return {name: file.get_tensor(name) for name in file.keys()}

    def tensor(self):
        """Open, and read one tensor."""
        with self.open() as file:
            return file.get_tensor("t20")

    def rows(self):
        """Open, and read three rows."""
        with self.open() as file:
            return file.get_slice("t0")[1001:1004]


class Cryptotensors(Safetensors):
    """CryptoTensors: per-tensor keys under one symmetric key."""

    def __init__(self):
        """Keys are fixed: only speed is measured."""
        import cryptotensors

        octets = 43 * "A" + "="
        enc = {"kty": "oct", "alg": "aes256gcm", "use": "enc", "kid": "e", "k": octets}
        sign = {"kty": "okp", "alg": "ed25519", "use": "sig", "kid": "s", "d": octets,
                "x": "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="}  # fmt: skip
        self.config = {"enc_key": enc, "sign_key": sign}
        cryptotensors.register_direct_key_provider(keys=[enc, sign])
        self.open = lambda: cryptotensors.safe_open(theirs, framework="numpy")

    def save(self, tensors):
        """Encrypt and sign."""
        from cryptotensors.numpy import save_file

        save_file(tensors, theirs, config=self.config)


class Tensorizer(Safetensors):
    """tensorizer with encryption: each tensor as a whole, by libsodium."""

    def __init__(self):
        """A random key of the kind it recommends, kept beside the file."""
        from tensorizer import DecryptionParams, EncryptionParams

        self.encryption, self.decryption = EncryptionParams, DecryptionParams

    def save(self, tensors):
        """Encrypt."""
        import torch
        from tensorizer import TensorSerializer

        params = self.encryption.random()
        with open(theirs + ".key", "wb") as file:
            file.write(params.key)
        serializer = TensorSerializer(theirs, encryption=params)
        serializer.write_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
        serializer.close()

    def deserializer(self, **options):
        """Open lazily, to the CPU."""
        from tensorizer import TensorDeserializer

        with open(theirs + ".key", "rb") as file:
            params = self.decryption.from_key(file.read())
        return TensorDeserializer(theirs, device="cpu", encryption=params, **options)

    def load(self):
        """Load everything."""
        tensors = self.deserializer()
        return {name: tensors[name] for name in tensors}

    def tensor(self):
        """Load one tensor."""
        return self.deserializer(lazy_load=True)["t20"]

    def rows(self):
        """Load the tensor: it has no rows."""
        return self.deserializer(lazy_load=True)["t0"][1001:1004]


it = {"safetensors": Safetensors, "cryptotensors": Cryptotensors, "tensorizer": Tensorizer}[peer]()
if job == "save":
    import safetensors.numpy

    if not os.path.exists(theirs):
        it.save(safetensors.numpy.load_file(model))
    print(0)
else:
    getattr(it, job)()  # what it imports and warms up does not count either
    start = time.perf_counter()
    result = getattr(it, job)()
    elapsed = time.perf_counter() - start
    arrays = result.values() if job == "load" else [result]
    assert all(float(array[-1][-1]) == float(array[-1][-1]) for array in arrays)  # it is there
    print(1000 * elapsed)
