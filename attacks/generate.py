"""Write the files that abuse model formats, and the ledger that says what a strict reader answers to each.

    python generate.py OUT        # every file, and OUT/ledger.json
    python generate.py --table    # the tables of README.md

Needs nothing but Python 3.10, and writes the same bytes each time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import directories
import gate
import gguf
import numpy_files
import onnx
import pytorch
import safetensors
import zip as archives
from case import Case, Content, Link, Sparse

MODULES = [safetensors, gguf, archives, pytorch, onnx, numpy_files, directories, gate]


def write(path: Path, content: Content) -> None:
    """Write a file, a file with a hole, a link, or a directory of them."""
    if isinstance(content, dict):
        for name, inner in content.items():
            write(path / name, inner)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Link):
        path.symlink_to(content.target)
    elif isinstance(content, Sparse):
        with path.open("wb") as file:
            file.write(content.head)
            file.truncate(content.size)
            file.seek(content.size)
            file.write(content.tail)
    else:
        path.write_bytes(content)


def file_name(case: Case, extension: str) -> str:
    """Name the file of a case; some bring an extension of their own."""
    return case.name if "." in case.name else case.name + extension


def ledger(out: Path) -> list[dict]:
    """Write every file, and say what each is."""
    rows = []
    for module in MODULES:
        for case in module.CASES:
            path = f"{module.FORMAT}/{file_name(case, module.EXTENSION)}"
            write(out / path, case.content)
            row = {"format": module.FORMAT, "case": case.name, "path": path, "what": case.what,
                "expect": case.expect.split()}
            extra = {"holds": case.holds, "refused": case.refused, "gate": case.gate}
            rows.append(row | {key: value for key, value in extra.items() if value is not None})
    return rows


def tables() -> str:
    """Write the ledger as a table for each format."""
    out = []
    for module in MODULES:
        out += [f"### {module.FORMAT}: {len(module.CASES)}", "", "| case | what | answer |", "|---|---|---|"]
        for case in module.CASES:
            answer = " or ".join(case.expect.split()) + (f", gate: {case.gate}" if case.gate else "")
            out.append(f"| `{case.name}` | {case.what.replace('|', '&#124;')} | {answer} |")
        out.append("")
    return "\n".join(out)


def main() -> None:
    """Run the command line."""
    match sys.argv[1:]:
        case ["--table"]:
            print(tables(), end="")
        case [out]:
            rows = ledger(Path(out))
            (Path(out) / "ledger.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
