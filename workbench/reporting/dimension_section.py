"""The section on the causal curve: how many dimensions hold the behaviour, from the summary alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.interventions.dimension_result import from_which_on
from workbench.reporting.blocks import Block, Cell, Note, Picture, Table, Text
from workbench.reporting.dimension_curve import DimensionPanel, behaviour_by_dimensions
from workbench.reporting.style import percent
from workbench.reporting.summary import Result, Summary

HEADING = "How many dimensions hold the behaviour"
SHARE = 0.9
BROKEN = 0.1  # ill-formed answers beyond the least of the curve: from there on the model is broken
MODES = {
    "ablate_top_k": "the first k components of the shift are taken out",
    "keep_top_k": "nothing but the first k components is kept, the mean everywhere else",
    "ablate_rest": "all components but the first k are taken out",
}
BESIDE = ("right", "ill_formed")
Key = tuple[str, str, str]  # (mode, variant, modality)


def dimensions(summary: Summary) -> list[Block]:
    """Sentences made from the numbers, a figure for every mode and variant, and every k as a table."""
    curves = _curves(summary)
    if not curves:
        return []
    lines = [said for key in curves for said in (sentence(summary, *key), intact(summary, *key)) if said]
    blocks: list[Block] = [
        Text(
            HEADING,
            [
                "How much variance the first k components hold does not say what the model does with them. Here they "
                "are taken out, or alone kept, and the questions answered and judged again. The control is random "
                "subspaces of as many dimensions that hold as much of the activations' energy: taking so much out does "
                "harm by itself.",
                in_one_sentence(summary),
                *lines,
            ],
        )
    ]
    for mode, variant in dict.fromkeys(key[:2] for key in curves):
        panels = {f"{m.capitalize()} questions": _panel(summary, found) for (*at, m), found in curves.items()
                  if tuple(at) == (mode, variant)}  # fmt: skip
        sizes = sorted({r.n or 0 for key, found in curves.items() if key[:2] == (mode, variant) for r in found})
        draws = max((len(one) for p in panels.values() for one in p.controls.values()), default=0)
        metric = str(next(found[0].target for key, found in curves.items() if key[:2] == (mode, variant)))
        caption = (
            f"{metric.capitalize()} over k where {MODES[mode]} ({variant}). Bars: 95\u00a0% intervals over "
            f"{' to '.join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))} questions. Band: the middle 95\u00a0% of "
            f"{draws} subspaces of equal energy{'' if draws >= 99 else ', too few for a p'}."
        )
        words = [said for key in curves if key[:2] == (mode, variant) and (said := sentence(summary, *key))]
        blocks.append(Picture(behaviour_by_dimensions(panels, ylabel=metric), caption, f"{caption} {' '.join(words)}"))
    broken = [key for key, found in curves.items() if key[0] == "keep_top_k" and _all_broken(summary, found)]
    if broken:
        blocks.append(
            Note("Where nothing but these components was kept, every answer was ill-formed: the contents went with the "
                 "rest, so this says nothing about the behaviour.")
        )  # fmt: skip
    return [*blocks, _table(summary, curves)]


def sentence(summary: Summary, mode: str, variant: str, modality: str) -> str:
    """What the curve says of the least k from which on 90 % of the behaviour is gone (or, kept, there)."""
    here = {"condition": mode, "detail": variant, "modality": modality}
    points = sorted(summary.where(metric="behaviour", **here), key=lambda r: r.coefficient or 0)
    if not points:
        return ""
    effects = sorted(summary.where(metric="effect", **here), key=lambda r: r.coefficient or 0)
    name, asked = points[0].target or "", "" if modality == "all" else f" to {modality} questions"
    last = int(points[-1].coefficient or 0)
    if not effects:
        ends = summary.where(metric="behaviour_base", **here)
        return (
            f"In answers{asked} there is no behaviour to lose: {name} is {_number(ends[0].value)} in the base and in "
            "the fine-tune."
        )
    done = {"ablate_top_k": "gone", "keep_top_k": "there", "ablate_rest": "there"}[mode]
    ks = [int(r.coefficient or 0) for r in effects]
    ends = [[r.value if r.interval is None else r.interval[i] for r in effects] for i in (1, 0)]
    k = from_which_on([r.value for r in effects], ks, SHARE)
    low, high = (from_which_on(each, ks, SHARE) for each in ends)
    if k is None:
        far = "" if low is None else f" (its interval allows it from k = {low} on)"
        return (
            f"In answers{asked}, no k up to {last} leaves {percent(SHARE)} of the behaviour ({name}) {done}, where "
            f"{MODES[mode]} ({variant}){far}."
        )
    span = f"interval {'no end found' if low is None else low} to {f'more than {last}' if high is None else high}"
    here_at = next(r for r in points if r.coefficient == k)
    return (
        f"In answers{asked}, {percent(SHARE)} of the behaviour ({name}) is {done} from k = {k} on ({span}), where "
        f"{MODES[mode]} ({variant}): {_number(here_at.value)} at k = {k}, {_specific(summary, here_at)}"
        f"{_beside(summary, here_at)}."
    )


def intact(summary: Summary, mode: str, variant: str, modality: str) -> str:
    """The same among those k at which answers stay well formed: a broken model has lost its behaviour too. Empty where
    that was not measured, and where no k breaks the model."""
    effects, whole, most = _well_formed(summary, (mode, variant, modality))
    if len(whole) == len(effects) or mode != "ablate_top_k":
        return ""
    asked = "" if modality == "all" else f" to {modality} questions"
    last = int(whole[-1].coefficient or 0) if whole else 0
    start = (
        f"Beyond k = {last} more than {percent(most)} of the answers{asked} are ill-formed, and the "
        f"behaviour goes with all else ({variant}). "
    )
    k = from_which_on([r.value for r in whole], [int(r.coefficient or 0) for r in whole], SHARE)
    if k is None:
        best = max(whole, key=lambda r: r.value)
        return start + f"Up to there at most {percent(best.value)} of it is gone, at k = {best.coefficient:.0f}."
    here = {"condition": mode, "detail": variant, "modality": modality, "coefficient": k}
    point = summary.where(metric="behaviour", **here)[0]
    words = f"Up to there {percent(SHARE)} of it is gone from k = {k} on: {_number(point.value)}, "
    return start + words + f"{_specific(summary, point)}{_beside(summary, point)}."


def in_one_sentence(summary: Summary) -> str:
    """How many dimensions hold the behaviour, and how much of the shift's variance its first components hold."""
    curves = [key for key in _curves(summary) if key[0] == "ablate_top_k"]
    said = []
    for key in curves:
        effects, whole, _ = _well_formed(summary, key)
        if key[1] != curves[0][1] or not effects:
            continue
        k = from_which_on([r.value for r in whole], [int(r.coefficient or 0) for r in whole], SHARE)
        asked = "" if key[2] == "all" else f" in answers to {key[2]} questions"
        formed = "" if len(whole) == len(effects) else " while they stay well formed"
        if k is None:
            last = int(whole[-1].coefficient or 0) if whole else 0
            best = max(whole, key=lambda r: r.value, default=None)
            at_most = "" if best is None else f" (at most {percent(best.value)}, at k = {best.coefficient:.0f})"
            said.append(
                f"no k up to {last} takes {percent(SHARE)} of the behaviour{asked} away for good{formed}{at_most}"
            )
            continue
        here = {"condition": key[0], "detail": key[1], "modality": key[2], "coefficient": k}
        removed = next(r for r in whole if r.coefficient == k)
        said.append(
            f"{k} dimension{'s' if k > 1 else ''} taken out at every layer edited {'remove' if k > 1 else 'removes'} "
            f"{percent(removed.value)} of the behaviour{asked}{formed}, "
            f"{_specific(summary, summary.where(metric='behaviour', **here)[0])}"
        )
    if not said:
        return ""
    held = summary.where(metric="shift_variance", split="last token", condition="tuned", detail=curves[0][1])
    shares = sorted(held, key=lambda r: r.value)
    words = "; ".join(said)
    if shares:
        low, high = percent(shares[0].value), percent(shares[-1].value)
        span = low if low == high else f"{low} to {high}"
        words += (
            f"; the first {shares[0].coefficient:.0f} components hold {span} of the variance of the shift at the last "
            "token, over the layers"
        )
    return f"{words[:1].upper()}{words[1:]} ({curves[0][1]})."


def _well_formed(summary: Summary, key: Key) -> tuple[list[Result], list[Result], float]:
    """The effects of a curve by k, those at which at most so many answers are ill-formed, and how many. All of them
    where ill-formed answers were not counted."""
    here = {"condition": key[0], "detail": key[1], "modality": key[2]}
    effects = sorted(summary.where(metric="effect", **here), key=lambda r: r.coefficient or 0)
    counted = {r.coefficient: _rate(summary, "ill_formed", r) for r in summary.where(metric="behaviour", **here)}
    rates = {k: rate.value for k, rate in counted.items() if rate is not None}
    most = min(rates.values(), default=0.0) + BROKEN
    return effects, [r for r in effects if not rates or rates.get(r.coefficient, 1.0) <= most], most


def _specific(summary: Summary, point: Result) -> str:
    twins = _controls(summary, point)
    if not twins:
        return "without controls"
    unedited, base = (_end(summary, f"behaviour_{name}", point) for name in ("unedited", "base"))
    above = unedited is None or base is None or unedited.value > base.value
    falls = above == (point.condition == "ablate_top_k")
    said = []
    for twin in twins:
        assert twin.control is not None
        low, high = np.quantile(twin.control.draws, [0.025, 0.975])
        beyond = point.value < low if falls else point.value > high
        p = "" if twin.control.p is None else f", p = {twin.control.p:.2g}"
        kind = {"energy_matched": "subspaces of equal energy"}.get(twin.control.kind, twin.control.kind)
        said.append(
            f"{'beyond' if beyond else 'within'} {len(twin.control.draws)} {kind} ({_number(float(low))} to "
            f"{_number(float(high))}{p})"
        )
    return "; ".join(said)


def _beside(summary: Summary, point: Result) -> str:
    found = {kind: _rate(summary, kind, point) for kind in BESIDE}
    said = [f"{percent(r.value)} {kind.replace('_', '-')}" for kind, r in found.items() if r is not None]
    return f"; of these answers {' and '.join(said)}" if said else ""


def _curves(summary: Summary) -> dict[Key, list[Result]]:
    out: dict[Key, list[Result]] = {}
    for r in summary.where(metric="behaviour"):
        if r.condition in MODES:
            out.setdefault((r.condition, r.detail or "", r.modality), []).append(r)
    order = {key: i for i, key in enumerate(dict.fromkeys(key[:2] for key in out))}
    keys = sorted(out, key=lambda key: (list(MODES).index(key[0]), order[key[:2]], key[2] != "text", key[2]))
    return {key: sorted(out[key], key=lambda r: r.coefficient or 0) for key in keys}


def _panel(summary: Summary, points: Sequence[Result]) -> DimensionPanel:
    controls: dict[str, list[tuple[int, tuple[float, ...]]]] = {}
    for place, point in enumerate(points):
        for twin in _controls(summary, point):
            assert twin.control is not None
            controls.setdefault(twin.control.kind, []).append((place, twin.control.draws))
    drawn = {}
    for kind, listed in controls.items():
        drawn[kind] = np.full((max(len(draws) for _, draws in listed), len(points)), np.nan)
        for place, draws in listed:
            drawn[kind][: len(draws), place] = draws
    beside = {}
    if points[0].target == "contrary":
        for kind in BESIDE:
            values = [_rate(summary, kind, point) for point in points]
            if any(r is not None for r in values):
                beside[kind] = np.array([np.nan if r is None else r.value for r in values])
    ends = {name: _end(summary, f"behaviour_{name}", points[0]) for name in ("base", "unedited")}
    return DimensionPanel(
        [int(point.coefficient or 0) for point in points],
        np.array([point.value for point in points]),
        np.array([point.interval or (np.nan, np.nan) for point in points], dtype=float),
        drawn,
        beside=beside,
        **{name: None if end is None else end.value for name, end in ends.items()},
    )


def _controls(summary: Summary, point: Result) -> list[Result]:
    same = {name: getattr(point, name) for name in ("condition", "detail", "modality", "coefficient")}
    return [r for r in summary.where(metric="behaviour_control", **same) if r.control and r.control.draws]


def _end(summary: Summary, metric: str, point: Result) -> Result | None:
    same = {name: getattr(point, name) for name in ("condition", "detail", "modality")}
    return next(iter(summary.where(metric=metric, **same)), None)


def _rate(summary: Summary, kind: str, point: Result) -> Result | None:
    same = {name: getattr(point, name) for name in ("condition", "detail", "modality", "split", "coefficient")}
    if point.coefficient == 0 and point.condition == "ablate_top_k":  # k = 0 takes nothing out: the fine-tune itself
        same |= {"condition": "tuned", "detail": None, "coefficient": None}
    return next((r for r in summary.where(metric=kind, **same) if r.control is None), None)


def _all_broken(summary: Summary, points: Sequence[Result]) -> bool:
    rates = [_rate(summary, "ill_formed", point) for point in points]
    return all(r is not None and r.value > 0.99 for r in rates)


def _table(summary: Summary, curves: dict[Key, list[Result]]) -> Table:
    rows: list[list[Cell]] = []
    for (mode, variant, modality), points in curves.items():
        for point in points:
            same = {"condition": mode, "detail": variant, "modality": modality, "coefficient": point.coefficient}
            effect = next(iter(summary.where(metric="effect", **same)), None)
            twins = [r for r in _controls(summary, point) if r.control]
            band = np.quantile(twins[0].control.draws, [0.025, 0.975]) if twins and twins[0].control else None
            beside = [_rate(summary, kind, point) for kind in BESIDE]
            first = point is points[0]
            rows.append(
                [f"{mode}, {variant}, {modality}" if first else "", int(point.coefficient or 0), _with(point),
                 None if effect is None else _with(effect),
                 None if band is None else f"{_number(float(band[0]))} to {_number(float(band[1]))}",
                 *(None if r is None else percent(r.value) for r in beside), point.n]
            )  # fmt: skip
    heads = ["curve", "k", "behaviour", "share gone, or kept", "equal energy", "right", "ill-formed", "n"]
    return Table(heads, rows, "Every k: value (95\u00a0% interval), and the middle 95\u00a0% of the control subspaces.")


def _with(result: Result) -> str:
    said = _number(result.value)
    return (
        said if result.interval is None else f"{said} ({_number(result.interval[0])} to {_number(result.interval[1])})"
    )


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
