"""The section on convergence: one direction or several, in which groups, near what is known, and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.convergence_figure import AgreementLine, agreement_by_layer, domain_cosines
from workbench.reporting.convergence_parts import effects, general_parts
from workbench.reporting.convergence_weights import weights
from workbench.reporting.summary import Result, Summary
from workbench.statistics import format_p

HEADING = "Whether the domains' directions converge"
ALPHA = 0.05


def convergences(summary: Summary) -> list[Block]:
    """Sentences, the matrix of cosines, agreement by layer; components, known directions and overlaps in tables; then
    the general and narrow parts, and what the weights say."""
    means = summary.where(metric="convergence_mean")
    if not means:
        return []
    arms = list(dict.fromkeys(one.condition for one in means))
    blocks: list[Block] = [Text(HEADING, [line for arm in arms for line in _sentences(summary, arm)])]
    blocks += [block for arm in arms for block in _matrix(summary, arm)]
    blocks.append(_by_layer(summary, arms))
    blocks += [_components(summary, arms), *_known(summary)]
    blocks.append(Details("Every layer", [_layers(summary, arms), *_overlaps(summary)]))
    return [*blocks, *general_parts(summary), *effects(summary), *weights(summary)]


def p_said(result: Result) -> str | None:
    """The p of the result's control draws; None where it has none."""
    control = result.control
    return None if control is None or control.p is None else f"p {format_p(control.p, control.N)}"


def number(value: float | None) -> str | None:
    """Two digits, without a signed zero."""
    return None if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")


def span(ends: Sequence[float | int] | None) -> str | None:
    """Both ends of a range, where there is one."""
    return None if not ends else f"{number(ends[0])} to {number(ends[1])}"


def shown_layer(summary: Summary, arm: str) -> int | None:
    """The layer whose pairs are in the summary."""
    return next((one.layer for one in summary.where(metric="convergence_cosine", detail=arm)), None)


def _null(result: Result) -> tuple[str, Sequence[float | int]]:
    """The hardest null of a result, its name and ends: the last one that is stated."""
    kinds = {name.removeprefix("null "): ends for name, ends in result.series.items() if name.startswith("null ")}
    return list(kinds.items())[-1] if kinds else ("", ())


def _sentences(summary: Summary, arm: str) -> list[str]:
    layer = shown_layer(summary, arm)
    own = summary.where(metric="convergence_mean", condition=arm)
    mean = next((one for one in own if one.layer == layer), own[0])
    shared = {one.layer: one for one in summary.where(metric="convergence_shared", condition=arm)}
    here, (kind, ends) = shared[mean.layer], _null(mean)
    ceiling = mean.series.get("between seeds")
    prompts = next((one.series["prompts"][0] for one in own if "prompts" in one.series), None)
    interval = "" if mean.interval is None else f" (95 % over domains {span(mean.interval)})"
    said = (
        f"Fine-tunes ({arm}), layer {mean.layer}: the mean cosine of two of the {mean.n} domains' "
        f"directions is {number(mean.value)}{interval}; of random directions {kind} {span(ends)}, {p_said(mean)}"
        + ("" if ceiling is None else f"; of two fine-tunings of one domain {number(float(ceiling[0]))}")
        + ("." if prompts is None else f". Each was fitted on at least {prompts:.0f} prompts about other domains.")
    )
    count = int(here.value)
    alike, of = (int(one) for one in here.series.get("seeds_alike", (0, 0)))
    if count == 0:
        verdict = "No direction that two domains share is shown there, which does not show that there is none."
    else:
        one = "one direction" if count == 1 else f"{count} directions"
        fine = f" Each fine-tuning seed alone gives these groups in {alike} of {of} cases." if of > 1 else ""
        verdict = f"{one[:1].upper()}{one[1:]} that two or more domains share: {_grouped(here)}.{fine}"
    counts = ", ".join(f"{one.value:.0f}" for one in shared.values())
    return [said, f"{verdict} Shared directions by layer: {counts}."]


def _grouped(shared: Result) -> str:
    groups, _, apart = (shared.detail or "").partition("; apart: ")
    said = "; ".join(f"{{{', '.join(group.split())}}}" for group in groups.split(" | "))
    return said + (f"; with no more in common than chance: {', '.join(apart.split())}" if apart else "")


def _matrix(summary: Summary, arm: str) -> list[Block]:
    pairs = summary.where(metric="convergence_cosine", detail=arm)
    layer = shown_layer(summary, arm)
    shared = next((one for one in summary.where(metric="convergence_shared", condition=arm, layer=layer)), None)
    domains = list(dict.fromkeys(one.condition for one in pairs))
    order = [name for part in ((shared.detail or "") if shared else "").replace(";", " ").split("|")
             for name in part.split() if name in domains]  # fmt: skip
    domains = [*dict.fromkeys([*order, *domains])]
    if len(domains) < 2:
        return []
    place = {name: i for i, name in enumerate(domains)}
    values = np.full((len(domains), len(domains)), np.nan)
    for one in pairs:
        values[place[one.condition], place[str(one.target)]] = one.value
    above = sum(one.condition < str(one.target) and (one.control is not None and (one.control.p or 1) <= ALPHA)
                for one in pairs)  # fmt: skip
    count = len(domains) * (len(domains) - 1) // 2
    caption = (
        f"Fine-tunes ({arm}), layer {layer}: cosines of the domains' directions, domains in their "
        f"groups; diagonal: between fine-tunings of one domain. {above} of {count} pairs agree more than the largest "
        "of as many random pairs does (p ≤ .05, familywise)."
    )
    return [Picture(domain_cosines(domains, values), caption, caption)]


def _by_layer(summary: Summary, arms: Sequence[str]) -> Picture:
    lines: dict[str, AgreementLine] = {}
    for arm in arms:
        own = summary.where(metric="convergence_mean", condition=arm)
        ends = [one.interval or (np.nan, np.nan) for one in own]
        nulls = [tuple(_null(one)[1]) or (np.nan, np.nan) for one in own]
        values = np.array([one.value for one in own])
        lines[arm] = AgreementLine([one.layer or 0 for one in own], values, np.array(ends), np.array(nulls))
    caption = (
        "Mean cosine of two domains' directions by layer; bars: 95 % over domains; shaded: 5 to 95 % of random "
        "directions of the same stream."
    )
    return Picture(agreement_by_layer({"Agreement of domains": lines}), caption, caption)


def _components(summary: Summary, arms: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for arm in arms:
        layer = shown_layer(summary, arm)
        for one in summary.where(metric="convergence_component", condition=arm, layer=layer):
            names = (one.target or "").split(", ")
            loads = sorted(zip(one.series.get("loadings", ()), names, strict=False), key=lambda pair: -abs(pair[0]))
            said = ", ".join(f"{name} {number(float(load))}" for load, name in loads[:4])
            # Shared or not is decided by p, which stands beside: the last one tested is the first that is not.
            rows.append(
                [arm, layer, int(one.coefficient or 0), number(one.value), p_said(one), one.detail, said, one.n]
            )
    heads = ["fine-tunes", "layer", "component", "share", "shared by two domains", "the two", "largest loadings", "n"]
    return Table(heads, rows, "Principal axes of the domains' unit vectors, each tested after the ones before it.")


def _known(summary: Summary) -> list[Block]:
    layer = shown_layer(summary, "plain")
    found = summary.where(metric="convergence_landmark", layer=layer)
    if not found:
        return []
    marks = list(dict.fromkeys(str(one.target) for one in found))
    cells: dict[str, dict[str, Result]] = {}
    for one in found:
        cells.setdefault(one.condition, {})[str(one.target)] = one
    rows = [_known_row(domain, own, marks) for domain, own in cells.items()]
    heads = ["domain", *(word for mark in marks for word in (mark, "p"))]
    nulls = "; ".join(f"{mark} {span(next(iter(cells.values()))[mark].series.get('null'))}" for mark in marks)
    note = (
        f"Layer {layer}: cosines with directions that are known. Random directions, 5 to 95 %: {nulls}; p familywise."
    )
    return [Table(heads, rows, note)]


def _known_row(domain: str, own: Mapping[str, Result], marks: Sequence[str]) -> list[Cell]:
    return [domain, *(word for mark in marks for word in (number(own[mark].value), p_said(own[mark])))]


def _layers(summary: Summary, arms: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for arm in arms:
        shared = {one.layer: one for one in summary.where(metric="convergence_shared", condition=arm)}
        ranks = {one.layer: one for one in summary.where(metric="convergence_rank", condition=arm)}
        for one in summary.where(metric="convergence_mean", condition=arm):
            rank = ranks[one.layer]
            rows.append(
                [arm, one.layer, number(one.value), span(one.interval), span(_null(one)[1]), p_said(one),
                 number(rank.value), span(_null(rank)[1]), int(shared[one.layer].value), shared[one.layer].detail]
            )  # fmt: skip
    heads = [
        "fine-tunes",
        "layer",
        "mean cosine",
        "95 %",
        "chance",
        "p",
        "effective rank",
        "chance ",
        "shared",
        "groups",
    ]
    return Table(heads, rows)


def _overlaps(summary: Summary) -> list[Block]:
    rows: list[list[Cell]] = []
    for one in summary.where(metric="convergence_overlap"):
        nulls = {name: ends for name, ends in one.series.items() if name.startswith("null ")}
        own = [one.series.get(name, (None,))[0] for name in ("chordal", "geodesic", "binet_cauchy", "between seeds")]
        rows.append([one.layer, int(one.coefficient or 0), number(one.value), *map(number, own),
                     *(span(ends) for ends in list(nulls.values())[:2]), p_said(one)])  # fmt: skip
    if not rows:
        return []
    heads = ["layer", "k", "overlap", "chordal", "geodesic", "Binet-Cauchy", "between seeds", "random frames"]
    heads += ["of the stream"] * (len(rows[0]) - len(heads) - 1) + ["p"]
    note = "Subspaces of the shifts (first k components, mean included): mean cos² over pairs of domains, by layer."
    return [Table(heads, rows, note)]
