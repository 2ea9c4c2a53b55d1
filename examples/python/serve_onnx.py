"""Serves an encrypted and signed ONNX model: it is decrypted in memory only, and refused if it is not what was signed.

    pip install weightmark onnxruntime magika
    python serve_onnx.py               # protects Google's magika, serves it, asks it about two files, and stops
    python serve_onnx.py --port 8000   # serves until Ctrl-C; ask with: curl --data-binary @FILE localhost:8000

Its weights are those of the package `magika`, which tells what kind of file some bytes are.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import weightmark
from weightmark.onnxruntime import InferenceSession


def publish(plain: Path, folder: Path) -> Path:
    """What the publisher does, once: signs the model and encrypts it to the server."""
    weightmark.keygen("signing", folder / "release.pem")
    weightmark.keygen("identity", folder / "serving.key")
    shutil.copytree(plain, folder / "model", ignore=shutil.ignore_patterns("*.md"))
    weightmark.sign(folder / "model", key=folder / "release.pem", release="acme/magika@1")
    weightmark.encrypt(folder / "model", folder / "out", recipients=folder / "serving.key.pub", context="acme/magika@1")
    shutil.rmtree(folder / "model")
    return folder / "out"


class Server:
    """What serves it."""

    def __init__(self, path: Path, **keys: Any) -> None:
        self.session = InferenceSession(path, **keys)
        with weightmark.open(path, **keys) as model:
            self.config = json.loads(model.read("config.min.json"))

    def label(self, data: bytes) -> str:
        """What kind of file this is: the model looks at the first and the last 1024 bytes."""
        padding, size = self.config["padding_token"], self.config["beg_size"]
        start, end = data.strip()[:size], data.strip()[-size:]
        tokens = [*start, *[padding] * (size - len(start)), *[padding] * (size - len(end)), *end]
        (scores,) = self.session.run(None, {"bytes": np.array([tokens], np.int32)})
        return str(self.config["target_labels_space"][int(scores.argmax())])

    def http(self, port: int) -> ThreadingHTTPServer:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                data = handler.rfile.read(min(int(handler.headers.get("Content-Length", 0)), 1 << 20))
                handler.send_response(200)
                handler.end_headers()
                handler.wfile.write(self.label(data).encode() + b"\n")

        return ThreadingHTTPServer(("127.0.0.1", port), Handler)


options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("--port", type=int)
port = options.parse_args().port
package = find_spec("magika")
if package is None:
    sys.exit("pip install magika")

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    path = publish(Path(package.origin).parent / "models" / "standard_v3_3", folder)
    keys = {"identity": folder / "serving.key", "policy": folder / "release.pem.pub", "context": "acme/magika@1"}
    server = Server(path, **keys).http(port or 0)
    print(f"serving {path.name}/ on port {server.server_port}")
    if port:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for question in (Path(__file__).read_bytes(), b'{"name": "weightmark", "kind": ["library", 1, null]}\n' * 20):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}", data=question) as answer:
            print(question[:24], "is", answer.read().decode().strip())
    server.shutdown()
