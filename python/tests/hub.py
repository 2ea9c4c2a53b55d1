"""As much of the Hugging Face Hub as its client needs for a snapshot, over a directory."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class Hub(BaseHTTPRequestHandler):
    """Answers for `acme/llama`, in one commit."""

    root: Path
    commit = "0" * 39 + "1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/acme/llama/tree/"):
            files = [
                {"type": "file", "path": name, "size": size, "oid": digest} for name, size, digest in self.files()
            ]
            self.reply(json.dumps(files).encode(), body, {"Content-Type": "application/json"})
        elif path.startswith("/api/models/acme/llama"):
            info = {
                "id": "acme/llama",
                "sha": self.commit,
                "private": False,
                "tags": [],
                "siblings": [{"rfilename": name} for name, _, _ in self.files()],
            }
            self.reply(json.dumps(info).encode(), body, {"Content-Type": "application/json"})
        elif path.startswith("/acme/llama/resolve/"):
            name = path.split("/", 5)[5]
            data = (self.root / name).read_bytes()
            digest = hashlib.sha1(data).hexdigest()
            self.reply(data, body, {"ETag": f'"{digest}"', "X-Repo-Commit": self.commit})
        else:
            self.send_error(404)

    def files(self) -> list[tuple[str, int, str]]:
        found = sorted(path for path in self.root.rglob("*") if path.is_file())
        return [
            (str(path.relative_to(self.root)), path.stat().st_size, hashlib.sha1(path.read_bytes()).hexdigest())
            for path in found
        ]

    def reply(self, data: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
