"""fit_probe: a probe between two classes of rows, and how it does on families of prompts that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from workbench.subspace.directions import Directions
from workbench.subspace.probe import ProbeMethod, ProbeScale, ProbeSettings, read_out_vector
from workbench.subspace.probe_result import Probe, ProbeScore, score_of
from workbench.subspace.probe_rows import Families, family_of, refuse_few, sides_of
from workbench.subspace.rows import RowSource, Sites, chosen_sites, narrowed, one_width


def fit_probe(
    positive: RowSource,
    negative: RowSource,
    /,
    *,
    method: ProbeMethod = "lda",
    sites: Sites = None,
    families: Families = None,
    scale: ProbeScale = "none",
    shrinkage: float | int | None = None,
    strength: float | int = 1.0,
    held_out: float | int = 0.25,
    seed: int = 0,
) -> Probe:
    """One read-out vector and threshold a site that tell positive rows from negative ones.

    `method`: "difference_of_means" (θ), "mass_mean" (Σ⁺θ), "lda" (Σ⁻¹θ, Σ shrunk by Ledoit and Wolf's estimate or
    `shrinkage`) or "logistic" (L2 penalty 1/`strength`), with Σ the covariance within the classes; fewer rows than
    d_model will do for each. `scale="std"` standardises the coordinates first. `held_out` is the share of the prompts
    whose families (a tag's name, a mapping of prompt ids; by default the tag `family`, else `question`, else the prompt
    itself) are kept from the fit to score it; 0 fits on all rows. Every row weighs the same.

    Raises ValueError when a class is empty or too small to score, widths differ, or both classes are the same rows.
    Sources: Marks & Tegmark 2023, arXiv:2310.06824; Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4.
    """
    settings = ProbeSettings(method, scale, shrinkage, strength)
    wanted = chosen_sites(positive, sites)
    chosen_sites(negative, wanted)
    if (width := one_width(positive, wanted)) != (other := one_width(negative, wanted)):
        raise ValueError(f"the classes have widths {width} and {other}: expected rows of one residual space.")
    positive, negative = narrowed(positive, wanted), narrowed(negative, wanted)
    _refuse_same(positive, negative)
    answers = np.repeat([True, False], [len(positive), len(negative)])
    names = [*map(family_of(positive, families), range(len(positive))),
             *map(family_of(negative, families), range(len(negative)))]  # fmt: skip
    fitted = _fitted_rows([*positive.prompt_ids, *negative.prompt_ids], names, answers, held_out, seed)

    found, scores = [], []
    origins = np.zeros((len(wanted), width))
    for place, site in enumerate(wanted):
        values = np.concatenate([np.asarray(rows.values(site, np.float64)) for rows in (positive, negative)])
        one = read_out_vector(values[fitted], answers[fitted], settings)
        found.append(one)
        origins[place] = values[fitted & ~answers].mean(axis=0)
        if not fitted.all():
            rest = [name for name, used in zip(names, fitted, strict=True) if not used]
            scores.append(score_of(values[~fitted] @ one.vector - one.threshold, answers[~fitted], rest))
    read = Directions.of(
        wanted,
        np.stack([one.vector for one in found]),
        origin=origins,
        role="read",
        model=str(positive.info.get("model", "")),
        scope=str(positive.info.get("scope", "")),
        kind=probe_kind(settings),
        n_positive=int((fitted & answers).sum()),
        n_negative=int((fitted & ~answers).sum()),
    )
    return Probe(
        method,
        scale,
        read,
        np.array([one.threshold for one in found]),
        np.array([np.nan if one.shrinkage is None else one.shrinkage for one in found]),
        len({name for name, used in zip(names, fitted, strict=True) if used}),
        tuple[ProbeScore, ...](scores) or None,
    )


def probe_kind(settings: ProbeSettings) -> str:
    """What the directions of such a probe are called."""
    return f"{settings.method} probe" + ("" if settings.scale == "none" else f", scale {settings.scale}")


def _fitted_rows(
    ids: Sequence[str], families: Sequence[str], positive: Bool[np.ndarray, " row"], held_out: float | int, seed: int
) -> Bool[np.ndarray, " row"]:
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out={held_out} is the share of prompts kept from the fit: expected 0 or more, below 1.")
    if held_out == 0:
        if positive.all() or not positive.any():
            raise ValueError(f"a probe needs two classes: {positive.sum()} positive of {len(positive)} rows came.")
        return np.ones(len(positive), dtype=bool)
    sides = sides_of(ids, families, (1 - held_out, 0), seed)
    fitted = np.array([sides[family] == "train" for family in families])
    for side, here in (("fitted", fitted), ("held-out", ~fitted)):
        some = [family for family, used in zip(families, here, strict=True) if used]
        refuse_few("fit_probe", some, positive[here], side)
    return fitted


def _refuse_same(positive: RowSource, negative: RowSource) -> None:
    names = [
        (str(one.info.get("model")), list(one.prompt_ids), list(one.variants), np.asarray(one.positions).tolist())
        for one in (positive, negative)
    ]
    if names[0] == names[1] and len(positive):
        raise ValueError(
            f"positive and negative are the same {len(positive)} rows: nothing tells them apart. Select different "
            "variants or labels, as in store.where(label='on'), store.where(label='off')."
        )
