"""The workbench: capture residual streams, find directions, ablate, steer and transfer them, with controls.

`import workbench as wb` is light: each name below is imported where it is first used.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_LINE = re.compile(r"^(?:# (?P<subject>.+)|from (?P<home>[\w.]+) import (?P<name>\w+) as \w+)$", flags=re.MULTILINE)


def _refuse_shadowed_rooms() -> None:
    """A `hooks.py` or `stores/` beside a user's script would be imported in place of ours: refused, with the mend."""
    home = Path(__file__).resolve().parent.parent
    for room in ("hooks", "stores"):
        spec = importlib.util.find_spec(room)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found is None or found.parent.parent != home:
            raise ImportError(
                f"workbench needs its own package '{room}' (in {home}), but Python finds {found or 'none'} first. "
                "Rename that file or folder, or run the script from another folder."
            )


_refuse_shadowed_rooms()


def _public_names() -> tuple[dict[str, str], dict[str, list[str]]]:
    """The module of every public name, and the names by subject: from the stub beside this file, which type checkers
    read, so that both are one list."""
    homes: dict[str, str] = {}
    subjects: dict[str, list[str]] = {}
    for line in _LINE.finditer(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")):
        if line["subject"]:
            subjects[line["subject"]] = []
        else:
            homes[line["name"]] = line["home"]
            subjects[next(reversed(subjects))].append(line["name"])
    return homes, subjects


_HOME, _SUBJECTS = _public_names()
__doc__ = (__doc__ or "") + "".join(f"\n{subject}:\n    {', '.join(names)}\n" for subject, names in _SUBJECTS.items())
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        from difflib import get_close_matches

        close = get_close_matches(name, _HOME, 3)
        mend = f"is {' or '.join(close)} meant?" if close else "help(workbench) lists its names by subject."
        raise AttributeError(f"module 'workbench' has no attribute {name!r}: {mend}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
