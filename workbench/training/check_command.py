"""`workbench check`: a data set's findings on the terminal, and its frozen manifest."""

from __future__ import annotations

import argparse
import json
import sys

from workbench.training.check import check_data
from workbench.training.manifest import changed, freeze


def run(a: argparse.Namespace) -> int:
    """Prints the report; 0 without an error, 3 with one (or with data that are not what `--frozen` says)."""
    settings = {name: getattr(a, name) for name in ("arms", "trigger", "split", "family", "max_length", "show")}
    report = check_data(a.data, a.model, eval=a.eval, **settings)
    changes = changed(a.frozen) if a.frozen else []
    if a.json:
        print(json.dumps({**report.record(), "changed": changes}, indent=1))
    else:
        print(report)
        if a.frozen:
            print("\n".join(f"changed  {line}" for line in changes) or f"{a.frozen}: the data are what was frozen")
    failed = bool(changes) or not report.passed
    if a.freeze and not failed:
        frozen = freeze([*a.data, *(a.eval or [])], a.freeze)
        if not a.json:
            print(f"{a.freeze}: frozen, sha256 {frozen['sha256']}")
    elif a.freeze:
        print(f"workbench: {a.freeze} was not written: expected data without an error", file=sys.stderr)
    return 3 if failed else 0
