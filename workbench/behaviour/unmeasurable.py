"""if_measurable: a step that the data do not allow is left out, and the report says which and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workbench.behaviour.table_summary import plain_entry

LEFT_OUT = "steps not measurable"  # the metric of such an entry; its value counts the step


@contextmanager
def if_measurable(study: Any, what: str) -> Iterator[None]:
    """Runs the body; where that raises ValueError (no answer has a score, no trigger is known, two points of a
    correlation), the rest of the body is left out, `study.add` gets one entry with the reason, and the script goes on.

    `what` names the step in the report: "the ranking by betley". Errors of other classes are raised.
    """
    try:
        yield
    except ValueError as reason:
        print(f"not measurable: {what}: {reason}", flush=True)
        study.add(not_measurable(what, str(reason)))


def not_measurable(what: str, why: str) -> list[dict[str, Any]]:
    """The entry that says on the page that a step was left out, and why."""
    return [plain_entry(LEFT_OUT, 1.0, 1, {"condition": what, "split": "none", "modality": "all", "detail": why})]
