"""Streamed moments of two sets of prompts as those of both, exactly: sums are added, sketches merged."""

from __future__ import annotations

import dataclasses

import numpy as np

from workbench.subspace.streamed import StreamedMoments
from workbench.subspace.sums import Sums

_WHICH = ("model", "identity", "scope", "pool", "by", "variants", "minus", "covariance", "sketch", "splits", "sites")
_OF_ONE_RUN = ("prompts", "plan", "units", "provenance")
_BY_GROUP = ("pilot", "sums", "halves", "energy", "norms")


def merged(first: StreamedMoments, second: StreamedMoments) -> StreamedMoments:
    """The moments of the prompts of both. The groups of `second` stand behind those of `first` with pilots of their
    own, so that nothing is rounded.

    Raises ValueError when the two were not made with the same settings, or share a prompt.
    """
    for name in _WHICH:
        if first.info.get(name) != second.info.get(name):
            raise ValueError(
                f"these moments differ in {name} ({first.info.get(name)!r} and {second.info.get(name)!r}): expected "
                "two runs of wb.moments that differ in their prompts alone."
            )
    if shared := set(first.prompts) & set(second.prompts):
        raise ValueError(
            f"{len(shared)} prompts are in both (first: {min(shared)!r}): they would count "
            "twice. Leave them out of one."
        )
    if any(len(one.chosen) != len(one.groups) for one in (first, second)):
        raise ValueError("expected whole moments: merge first, then choose with where(...) and at(...).")
    classes = [*first.classes, *(one for one in second.classes if one not in first.classes)]
    place = np.array([classes.index(one) for one in second.classes])
    groups = (*first.groups, *((v, int(place[c])) for v, c in second.groups))
    return StreamedMoments(
        variants=first.variants,
        classes=tuple(classes),
        prompts=(*first.prompts, *second.prompts),
        class_of=np.concatenate([first.class_of, place[second.class_of]]),
        half=np.concatenate([first.half, second.half]),
        groups=groups,
        parts=tuple(
            _joined(a, b, groups, first.info.get("covariance") == "within")
            for a, b in zip(first.parts, second.parts, strict=True)
        ),
        info={name: value for name, value in first.info.items() if name not in _OF_ONE_RUN},
        chosen=tuple(range(len(groups))),
    )


def _joined(a: Sums, b: Sums, groups: tuple[tuple[int, int], ...], by_variant: bool) -> Sums:
    def behind(name: str, axis: int) -> np.ndarray:
        return np.concatenate([getattr(a, name), getattr(b, name)], axis=axis)

    arrays = {name: behind(name, 1) for name in _BY_GROUP}
    arrays |= {name: behind(name, 0) for name in ("counts", "half_counts", "rows_of")}
    if not a.cells:
        return dataclasses.replace(a, **arrays)
    owners = [v if by_variant else (v, c) for v, c in groups]  # whose scatter each group's rows are added to
    cell_of = dict(zip(owners, a.cells, strict=False))
    for owner in owners[len(a.counts) :]:
        cell_of.setdefault(owner, len(cell_of))
    into = [cell_of[owner] for owner in owners[len(a.counts) :]]
    moved = dict(zip(b.cells, into, strict=True))
    return dataclasses.replace(a, **arrays, cells=(*a.cells, *into), **_added(a, b, moved, len(cell_of)))


def _added(a: Sums, b: Sums, moved: dict[int, int], cells: int) -> dict[str, np.ndarray]:
    """Scatters added, or sketches merged, cell by cell; `moved` gives each of b's cells its place."""

    def widened(array: np.ndarray | None) -> np.ndarray:
        assert array is not None
        more = np.zeros((array.shape[0], cells - array.shape[1], *array.shape[2:]), array.dtype)
        return np.concatenate([array, more], axis=1)

    if a.scatter is not None and b.scatter is not None:
        total = widened(a.scatter)
        for theirs, ours in moved.items():
            total[:, ours] += b.scatter[:, theirs]
        return {"scatter": total}
    import torch

    from hooks.sketch import Sketch

    assert b.rows is not None and b.filled is not None and b.slack is not None
    rows, filled, slack = widened(a.rows), widened(a.filled), widened(a.slack)
    for site in range(len(a.sites)):
        for theirs, ours in moved.items():
            sketch = Sketch(rows.shape[2] // 2, a.d_model)
            sketch.restore(torch.from_numpy(rows[site, ours, : filled[site, ours]].copy()), float(slack[site, ours]))
            sketch.add(torch.from_numpy(b.rows[site, theirs, : b.filled[site, theirs]].copy()))
            rows[site, ours], filled[site, ours] = sketch.padded.numpy(), sketch.filled
            slack[site, ours] = float(sketch.slack) + b.slack[site, theirs]
    return {"rows": rows, "filled": filled, "slack": slack}
