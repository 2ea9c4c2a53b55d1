"""Text that is everywhere: the documentation in Python's own library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path


def paragraphs() -> Iterator[str]:
    """Paragraphs of some length, always in the same order."""
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                for text in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                    if len(text.split()) >= 16:
                        yield " ".join(text.split())
