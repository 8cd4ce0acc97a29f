"""The steps of a dry run as a table, with their sum and what of it is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.planning.estimates import Estimate

Steps = Sequence[tuple[Estimate, int]]  # with how many replies a judge would read
HEAD = ("step", "batches", "forwards", "tokens read", "written", "judged", "disk bytes", "peak GiB")
NOTE = """Exact: batches, tokens read, the disk bytes of adapters and of captured values, and the forwards of training
and of whatever writes nothing. At most (≤): tokens written, and the forwards that write them, since answers may end
sooner. Disk bytes of captures bound the files around their values; tables, figures and pages are not counted, nor what
judges take. Peak memory is an estimate; speed is never predicted: a run measures and reports it."""


def totals(steps: Steps) -> dict[str, Any]:
    """Sums over the steps; the peak is the largest of theirs."""
    said = [one for one, _ in steps]
    return {
        "batches": sum(one.batches for one in said),
        "forwards": sum(one.forwards for one in said),
        "tokens": sum(one.tokens for one in said),
        "written": sum(one.written for one in said),
        "replies_judged": sum(replies for _, replies in steps),
        "disk_bytes": sum(one.disk_bytes for one in said),
        "at_most": any(one.at_most for one in said),
        "peak_memory_bytes": max((one.memory.peak for one in said), default=0),
    }


def step_table(steps: Steps, model: str, device: str) -> str:
    """One line a step, the totals, what is exact, and each step in words."""
    rows = [HEAD, *(_row(f"{n + 1} {one.what}", vars(one) | {"peak": one.memory.peak}, replies)
                    for n, (one, replies) in enumerate(steps))]  # fmt: skip
    sums = totals(steps)
    rows.append(_row("total", sums | {"peak": sums["peak_memory_bytes"]}, sums["replies_judged"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    said = [f"{n + 1}. {one}" for n, (one, _) in enumerate(steps)]
    return "\n".join([f"what the run would take: {model} on {device}, nothing was run", *lines, NOTE, "", *said])


def _row(name: str, facts: dict[str, Any], replies: int) -> tuple[str, ...]:
    most = "≤ " if facts["at_most"] else ""
    return (
        name,
        f"{facts['batches']:,}",
        f"{most}{facts['forwards']:,}",
        f"{facts['tokens']:,}",
        f"≤ {facts['written']:,}" if facts["written"] else "0",
        f"{replies:,}",
        f"{facts['disk_bytes']:,}",
        f"{facts['peak'] / 2**30:.3g}",
    )
