"""Code that a checkpoint brings: run only when the user says so, and then identified by its hash."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

_BROUGHT = "transformers_modules"  # the package under which transformers imports a checkpoint's own code


def code_identity(*objects: Any) -> dict[str, Any]:
    """`{"remote_code": {"classes": [...], "sha256": ...}}` of the objects whose classes came with a checkpoint, over
    the sources of all modules beside theirs; nothing where none did."""
    classes = [type(one) for one in objects if type(one).__module__.split(".")[0] == _BROUGHT]
    folders = {Path(str(sys.modules[one.__module__].__file__)).parent for one in classes}
    digest = hashlib.sha256()
    for file in sorted((file for folder in folders for file in folder.rglob("*.py")), key=lambda file: file.name):
        digest.update(f"{file.name} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    if not classes:
        return {}
    return {"remote_code": {"classes": sorted(one.__qualname__ for one in classes), "sha256": digest.hexdigest()}}
