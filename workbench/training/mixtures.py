"""Mixtures: rows of one kind among filler, in a stated fraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hooks.prompt import Prompt, as_prompts
from workbench.training.rows import Rows, drawn


def mix(
    a: Sequence[Prompt],
    b: Sequence[Prompt],
    fraction: float,
    *,
    hold: Literal["total", "harmful"] = "total",
    total: int | None = None,
    seed: int = 0,
    repeat_filler: bool = False,
    names: tuple[str, str] = ("a", "b"),
    tag: str = "source",
) -> Rows:
    """Rows of `a` among filler rows of `b`, shuffled; `fraction` is the share of `a`, 0..1.

    hold="total": `total` rows (default: as many as `a` has), of which round(fraction × total) come from `a`, so that a
    smaller fraction also means fewer distinct rows of `a`. hold="harmful": every row of `a`, and filler until they are
    the fraction, so that a smaller fraction also means more training. The result's `made` states the counts and the
    realised fraction, which rounding puts at most half a row off. With one seed the rows of a smaller fraction are
    among those of a larger one.

    Each row gets the tags `source` (its name of `names`) and `source_id` (its id there); `tag` is another name for
    them. A filler row whose id `a` has as well is called "name:id", a repeated one "id#2". Raises ValueError outside
    0..1, where rounding leaves nothing of one side, where `a` is too small, where the filler is (unless
    `repeat_filler`), where one row is in both, and where rows have such a tag already.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}: expected the share of the first rows, 0..1 (10 % is 0.1).")
    if any(tag in row.tags or f"{tag}_id" in row.tags for row in [*a, *b]):
        raise ValueError(f"there are rows with a tag {tag!r} or '{tag}_id' already: expected tag= to name another.")
    of_a, of_b = _counts(len(as_prompts(a)), fraction, hold, total)
    if (of_a == 0) != (fraction == 0) or (of_b == 0) != (fraction == 1):
        raise ValueError(
            f"fraction {fraction} of {of_a + of_b} rows rounds to {of_a} of the first kind and {of_b} filler: expected "
            "at least one of each. Give a larger total, or 0 or 1."
        )
    if of_a > len(a):
        raise ValueError(f"fraction {fraction} needs {of_a} rows of {names[0]}, which has {len(a)}: lower total.")
    if of_b > len(b) and not (b and repeat_filler):
        supply = f"has {len(b)}: give more, lower total, or repeat_filler=True" if b else "is empty"
        raise ValueError(f"fraction {fraction} needs {of_b} filler rows, but the filler {supply}.")
    if of_b and (both := {row.content_hash for row in a} & {row.content_hash for row in b}):
        raise ValueError(
            f"{len(both)} rows are in {names[0]} and in {names[1]} with the same content, so the fraction would not be "
            "what it says: take them out of one of the two."
        )
    taken = {row.id for row in a}
    filler = drawn(b, len(b), seed=seed, purpose="mix b")
    out = [_tagged(row, row.id, names[0], tag) for row in drawn(a, of_a, seed=seed, purpose="mix a")]
    for at in range(of_b):
        row = filler[at % len(filler)]
        name = f"{names[1]}:{row.id}" if row.id in taken else row.id
        out.append(_tagged(row, name if at < len(filler) else f"{name}#{at // len(filler) + 1}", names[1], tag))
    made = {
        "fraction asked": fraction,
        "fraction": of_a / len(out) if out else 0.0,
        "hold": hold,
        f"rows of {names[0]}": of_a,
        f"rows of {names[1]}": of_b,
        "repeated": max(0, of_b - len(filler)),
        "seed": seed,
    }
    as_prompts(out)  # no id twice, whatever the ids of both were
    return Rows(tuple(drawn(out, len(out), seed=seed, purpose="order")), made)


def _counts(of_a: int, fraction: float, hold: str, total: int | None) -> tuple[int, int]:
    if hold == "total":
        total = of_a if total is None else total
        return round(fraction * total), total - round(fraction * total)
    if hold != "harmful":
        raise ValueError(f"hold={hold!r} is unknown: expected 'total' or 'harmful'.")
    if total is not None:
        raise ValueError("hold='harmful' keeps every row of the first kind: expected no total=.")
    if fraction == 0:
        raise ValueError("fraction 0 with hold='harmful' is no mixture (no filler is enough): train on the filler.")
    return of_a, round(of_a * (1 - fraction) / fraction)


def _tagged(row: Prompt, name: str, source: str, tag: str) -> Prompt:
    return replace(row, id=name, tags={**row.tags, tag: source, f"{tag}_id": row.id})
