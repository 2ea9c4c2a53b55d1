"""Run the second verifier over the vectors of signed models.

    python check_signing.py VECTORS_DIR

Each case is laid out in a folder of its own and verified; what is found, or the cause of the refusal, must be what
`cases.json` says. Prints how many were accepted and how many refused; status 1 if any disagrees.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_public_key

# isort: split
from verify_model import RefusedError, key_id, verify

Json = dict[str, Any]


def lay_out(root: Path, case: Json, scratch: Path) -> Path:
    """Copy the model, change what is to be changed, put the signatures where they belong."""
    source, model = root / "models" / case["model"], scratch / case["model"]
    if source.is_dir():
        shutil.copytree(source, model)
    else:
        shutil.copy(source, model)
    for name, change in case.get("changes", {}).items():
        path = model / name
        if path.is_dir():
            shutil.rmtree(path)
        elif not isinstance(change, str):
            path.unlink(missing_ok=change is not None)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(change, str):
            path.write_bytes(change.encode())
        elif change and "link" in change:
            path.symlink_to(change["link"])
        elif change:
            os.mkfifo(path)
    for place, name in case["bundles"].items():
        path = model / place if model.is_dir() else scratch / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "bundles" / f"{name}.sig", path)
    return model


def check(root: Path, keys: Json, usual: Json, case: Json, scratch: Path) -> str | None:
    """Verify one case; return what disagrees."""
    policy = usual | case.get("policy", {})
    policy["rules"] = [rule | {"keys": [keys[name] for name in rule["keys"]]} for rule in policy["rules"]]
    policy["revoked"] = [key_id(keys[name]) for name in policy.get("revoked", [])]
    outside = [root / "bundles" / f"{name}.sig" for name in case.get("outside", [])]
    seen, wanted = case.get("high_water"), case["expect"]
    try:
        found: Any = verify(lay_out(root, case, scratch), outside, policy, seen)
    except RefusedError as error:
        found = str(error)
    if found == wanted and seen == case.get("high_water_after", seen):
        return None
    return f"{case['name']}: {found}, not {wanted}; seen: {seen}"


def main() -> int:
    """Run the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: check_signing.py VECTORS_DIR")
    root = Path(sys.argv[1])
    keys = {path.stem: load_pem_public_key(path.read_bytes()) for path in (root / "keys").glob("*.pem")}
    listed = json.loads((root / "cases.json").read_text(encoding="utf-8"))
    cases, wrong = listed["cases"], []
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(cases):
            place = Path(scratch) / str(number)
            place.mkdir()
            wrong.append(check(root, keys, listed["policy"], case, place))
    wrong = [one for one in wrong if one]
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    good = sum(isinstance(case["expect"], dict) for case in cases)
    print(json.dumps({"ok": good, "refused": len(cases) - good}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
