"""probe_matrix: the probe of each model tested on every other, on families of prompts that no probe was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from hooks.site import Site
from workbench.statistics import auroc, p_value
from workbench.subspace.directions import Directions
from workbench.subspace.erase import SiteEraser, leace_of
from workbench.subspace.probe import ProbeMethod, ProbeScale, ProbeSettings, ReadOutVector, read_out_vector
from workbench.subspace.probe_fit import probe_kind
from workbench.subspace.probe_matrix_result import ProbeCell, ProbeMatrix
from workbench.subspace.probe_null import Design, Permute, design_of, least_p, permuted_aurocs, permuted_labels
from workbench.subspace.probe_result import Probe, score_of
from workbench.subspace.probe_rows import (
    SIDES,
    Families,
    LabelledRows,
    Side,
    UnusableLabels,
    Verdicts,
    labelled,
    refuse_constant,
    refuse_few,
    sides_of,
)
from workbench.subspace.rows import RowSource, Sites, chosen_sites, one_width


def probe_matrix(
    rows: Mapping[str, RowSource],
    label: str | Mapping[str, Verdicts],
    *,
    positive: Any = None,
    negative: Any = None,
    method: ProbeMethod = "lda",
    sites: Sites = None,
    families: Families = None,
    scale: ProbeScale = "none",
    shrinkage: float | int | None = None,
    strength: float | int = 1.0,
    shares: tuple[float | int, float | int] = (0.5, 0.2),
    permute: Permute = "auto",
    draws: int = 999,
    paired: bool | None = None,
    unusable: Literal["refuse", "leave out"] = "refuse",
    seed: int = 0,
) -> ProbeMatrix:
    """Models x models matrices of AUROC, a layer: each model's probe read on each model's rows.

    `rows` are those of each model by name, of one width and variant each. `label` is "label" or a tag, whose `positive`
    and `negative` values count, or verdicts by model and prompt id (True, False, None: leave out), for labels that a
    judge gave to the model's own answers. Prompts are divided by family (see `fit_probe`) into train, dev and confirm,
    alike for all models (`shares` are the first two): probes are fitted on train families, layers chosen on dev
    (`best`), and what is stated comes from confirm, also on the diagonal. Intervals are over the target's families.

    The null exchanges labels of the target's confirm rows `draws` times, the same way at all layers and for all probes:
    within families where labels vary there, whole families otherwise (`permute`; see `design_of`). Since no probe has
    seen these families, nothing is fitted again. `erased` are the same rows after LEACE of themselves, where no linear
    probe can be above chance by more than the shape of its scores; `erased_by_train` after the eraser of the target's
    train rows, which leaves some of the difference on other rows, and much of it with fewer rows than d_model.

    Models should answer the same prompts; where prompts are shared in part, say paired=True (only the shared) or False
    (each its own). `unusable="leave out"` names models whose label is constant, or too few in a class, instead of
    refusing. Raises ValueError for these, for other widths, for a prompt id of two families, or missing verdicts.
    Sources: Marks & Tegmark 2023, arXiv:2310.06824; Belrose et al. 2023, arXiv:2306.03819.
    """
    settings = ProbeSettings(method, scale, shrinkage, strength)
    if unusable not in ("refuse", "leave out"):
        raise ValueError(f"unusable={unusable!r} is unknown: expected 'refuse' or 'leave out'.")
    wanted = _common_sites(rows, sites)
    found = _labelled(rows, label, positive, negative, families, paired)
    families_of = [family for one in found.values() for family in one.families]
    sides = sides_of([key for one in found.values() for key in one.prompt_ids], families_of, shares, seed)
    parts, left_out = _usable(found, sides, shares[1] > 0, unusable)

    names = tuple(parts)
    designs: dict[str, Design] = {name: design_of(one["confirm"], permute) for name, one in parts.items()}
    labels = {name: permuted_labels(one["confirm"], designs[name], draws, seed) for name, one in parts.items()}
    least = {name: least_p(one["confirm"], designs[name], draws) for name, one in parts.items()}
    masks = {name: [np.array([sides[family] == side for family in found[name].families]) for side in SIDES]
             for name in names}  # fmt: skip
    cells: list[ProbeCell] = []
    fitted: dict[str, list[ReadOutVector]] = {name: [] for name in names}
    origins: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for site in wanted:
        held: dict[str, _Held] = {}
        for name, one in parts.items():
            whole, answers = found[name].values(site), one["train"].positive
            train, dev, confirm = (whole[where] for where in masks[name])
            fitted[name].append(read_out_vector(train, answers, settings))
            origins[name].append(train[~answers].mean(axis=0))
            tested = one["confirm"].positive
            erasers = leace_of([confirm[tested], confirm[~tested]]), leace_of([train[answers], train[~answers]])
            held[name] = _Held(dev, confirm, *erasers)
        probes = [fitted[name][-1] for name in names]
        columns = {name: _column(site, names, name, probes, parts[name], held[name], labels[name], least[name])
                   for name in names}  # fmt: skip
        cells += [columns[target][row] for row in range(len(names)) for target in names]
    return ProbeMatrix(
        names,
        wanted,
        method,
        scale,
        tuple(cells),
        {name: _probe(parts[name]["train"], wanted, settings, fitted[name], origins[name]) for name in names},
        designs,
        draws,
        {side: len({key for one in parts.values() for key in one[side].prompt_ids}) for side in SIDES},
        {name: one.unlabelled for name, one in found.items()},
        left_out,
    )


@dataclass(frozen=True, eq=False)
class _Held:
    """What one site of a target is tested with."""

    dev: Float[np.ndarray, "_ d_model"]
    confirm: Float[np.ndarray, "_ d_model"]
    of_confirm: SiteEraser
    of_train: SiteEraser


def _column(
    site: Site,
    names: Sequence[str],
    target: str,
    probes: Sequence[ReadOutVector],
    parts: Mapping[Side, LabelledRows],
    held: _Held,
    labels: Bool[np.ndarray, "draw row"],
    least: float,
) -> list[ProbeCell]:
    """Every model's probe on the rows of one, in the order of the models."""
    vectors = np.stack([one.vector for one in probes])
    thresholds = np.array([one.threshold for one in probes])
    confirm, dev = parts["confirm"], parts["dev"]
    scores = held.confirm @ vectors.T - thresholds
    # Erasing the rows and reading them is reading them less what the read-outs of the eraser carry.
    erased = [
        scores - ((held.confirm - eraser.mean) @ eraser.read.T) @ (eraser.write @ vectors.T)
        for eraser in (held.of_confirm, held.of_train)
    ]
    dev_scores = held.dev @ vectors.T
    null = permuted_aurocs(scores.T, labels)
    out = []
    for n, source in enumerate(names):
        chosen = dev_scores[:, n]
        cell, *left = (score_of(one[:, n], confirm.positive, confirm.families) for one in (scores, *erased))
        out.append(
            ProbeCell(
                site,
                source,
                target,
                confirm=cell,
                erased=left[0],
                erased_by_train=left[1],
                dev_auroc=auroc(chosen[dev.positive], chosen[~dev.positive]) if len(chosen) else float("nan"),
                null=null[:, n],
                p=p_value(cell.auroc, null[:, n]) if len(null) else float("nan"),
                least_p=least,
            )
        )
    return out


def _labelled(
    rows: Mapping[str, RowSource],
    label: str | Mapping[str, Verdicts],
    positive: Any,
    negative: Any,
    families: Families,
    paired: bool | None,
) -> dict[str, LabelledRows]:
    if not isinstance(label, str) and (missing := sorted(set(rows) - set(label))):
        raise ValueError(f"there are no verdicts for {', '.join(missing)}: expected label[model][prompt id].")
    prompts = {name: set(one.prompt_ids) for name, one in rows.items()}
    shared, every = set.intersection(*prompts.values()), set.union(*prompts.values())
    apart = sum(map(len, prompts.values())) == len(every)
    if paired and not shared:
        raise ValueError("paired=True, but no prompt id is in all models. Say paired=False for prompts of their own.")
    if paired is None and not apart and len(shared) < len(every):
        raise ValueError(
            f"{len(shared)} of {len(every)} prompts are in all of the {len(rows)} models, the others only in some: say "
            "paired=True (the shared only) or paired=False (each model its own)."
        )
    out = {}
    for name, source in rows.items():
        verdicts = label if isinstance(label, str) else label[name]
        one = labelled(name, source, verdicts, positive=positive, negative=negative, families=families)
        out[name] = one.chosen(np.array([key in shared for key in one.prompt_ids], dtype=bool)) if paired else one
    return out


def _usable(
    found: Mapping[str, LabelledRows], sides: Mapping[str, Side], needs_dev: bool, unusable: str
) -> tuple[dict[str, dict[Side, LabelledRows]], dict[str, str]]:
    """The rows of each side of each model, and the models that were left out, with the reason."""
    parts: dict[str, dict[Side, LabelledRows]] = {}
    left_out: dict[str, str] = {}
    for name, one in found.items():
        side = np.array([sides[family] for family in one.families])
        mine: dict[Side, LabelledRows] = {each: one.chosen(side == each) for each in SIDES}
        try:
            refuse_constant(name, one.positive)
            for each in (mine["train"], mine["confirm"]):
                refuse_few(name, each.families, each.positive, "train" if each is mine["train"] else "confirm")
            if needs_dev:
                refuse_constant(f"{name} (dev side)", mine["dev"].positive)
        except UnusableLabels as error:
            if unusable == "refuse":
                raise
            left_out[name] = str(error)
        else:
            parts[name] = mine
    if not parts:
        raise ValueError(f"no model can be used: {next(iter(left_out.values()))}")
    return parts, left_out


def _common_sites(rows: Mapping[str, RowSource], sites: Sites) -> tuple[Site, ...]:
    if not rows:
        raise ValueError("probe_matrix needs the rows of one model or more, by name: none came.")
    first = next(iter(rows))
    wanted = chosen_sites(rows[first], sites)
    width = one_width(rows[first], wanted)
    for name, source in rows.items():
        chosen_sites(source, wanted)
        if (other := one_width(source, wanted)) != width:
            raise ValueError(
                f"the rows of {name!r} have width {other} and those of {first!r} {width}: expected models of one "
                "residual space. Between others, map a probe: wb.fit_transfer(...).map(probe.read)."
            )
    return wanted


def _probe(
    train: LabelledRows,
    sites: Sequence[Site],
    settings: ProbeSettings,
    found: Sequence[ReadOutVector],
    origins: Sequence[np.ndarray],
) -> Probe:
    read = Directions.of(
        sites,
        np.stack([one.vector for one in found]),
        origin=np.stack(origins),
        role="read",
        model=str(train.rows.info.get("model", "")),
        scope=str(train.rows.info.get("scope", "")),
        kind=probe_kind(settings),
        n_positive=int(train.positive.sum()),
        n_negative=int((~train.positive).sum()),
    )
    thresholds = np.array([one.threshold for one in found])
    shrinkage = np.array([np.nan if one.shrinkage is None else one.shrinkage for one in found])
    return Probe(settings.method, settings.scale, read, thresholds, shrinkage, len(set(train.families)))
