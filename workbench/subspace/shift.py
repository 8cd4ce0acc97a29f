"""What fine-tuning changed in the residual stream: the PCA of the shift in every sense in which it is reported."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from hooks.site import Site
from workbench.subspace.basis import UNCHANGED, Subspace, refuse_skipped
from workbench.subspace.pca import LEAST_DRAWS, NULLS
from workbench.subspace.rows import RowSource, Sites, chosen_sites, narrowed, one_width
from workbench.subspace.shift_null import MEAN_KEPT, SWAPPED
from workbench.subspace.shift_result import UNSCALED, ShiftPCA
from workbench.subspace.shift_rows import VARIANTS, Pairs, paired
from workbench.subspace.shift_scale import SCALES, Scale
from workbench.subspace.shift_site import Asked, SiteRows, at_site

Decomposition = Literal[
    "paired_shift_centered",
    "paired_shift_raw",
    "stacked",
    "between_class",
    "harmful_only",
    "unpaired",
    "text_minus_base_text",
]
SHIFT_VARIANTS: tuple[Decomposition, ...] = get_args(Decomposition)


def shift_pca(
    base: RowSource,
    tuned: RowSource,
    variant: Decomposition = "paired_shift_centered",
    k: int = 10,
    *,
    scale: Scale = "none",
    null: Literal["signs", "columns"] | None = "signs",
    draws: int = 99,
    seed: int = 0,
    sites: Sites = None,
    classes: str | None = None,
    shrinkage: float | int | None = None,
    at_most: int | None = None,
) -> ShiftPCA:
    """The leading components of what fine-tuning changed, a site, with spectrum, null, ranks and outlier channels.

    "The PCA of the shift" has several meanings, and the number of components depends on it, so each has its name
    (D = tuned - base of the same prompt and position):
    `paired_shift_centered`: D around its mean; how the shift varies, without the mean shift.
    `paired_shift_raw`: D with its mean, which is mostly component 0.
    `stacked`: base and tuned rows together around their common mean; contents vary more than the shift does.
    `between_class`: the means of the classes around the common mean, weighted by their rows: base and tuned (one
    component, the mean shift), or these crossed with `classes` ("label" or a tag). With scale="whiten" this is linear
    discriminant analysis.
    `harmful_only`, `unpaired`: tuned rows around their own mean, or around the mean of the base rows, which need not be
    of the same prompts. Give `tuned.where(...)` to choose prompts.
    `text_minus_base_text`: each model on its own texts, the means over each prompt's rows subtracted; confounds what
    the weights do with what the texts say.

    Rows are joined by prompt id and position, never by order; what found no partner is counted in the result. `scale`
    "std" divides each coordinate by the standard deviation of the base rows, "whiten" multiplies by the inverse root of
    their covariance (`shrinkage` as in `shrunk_covariance`); for `between_class` both are of base and tuned rows
    together. Scaled components are read-outs: see `ShiftPCA.read_out` and `write`.

    `null` and `draws` as in `wb.pca`; a null that keeps the mean is used where the variant does (`null_shares`), and
    base and tuned are swapped prompt by prompt for `between_class`. It asks whether coordinates share anything. For the
    variants that hold contents (stacked, harmful_only, unpaired, text_minus_base_text) they always do: there the
    comparison is the same decomposition of a benign fine-tune (`shift_against`). Rows of one prompt count as
    independent. `mean_test` flips the sign of D prompt by prompt.

    A site where every matched row is exactly equal (a frozen tower) is "unchanged": reported so, never decomposed.
    Where fewer than k components exist there are as many as exist at every site. Other sites that cannot be decomposed
    are named in `.skipped`, and refused when asked for by name. Raises ValueError for unknown names, differences
    instead of rows, no common prompt, or a covariance without inverse. `at_most` keeps that many rows, drawn by `seed`.
    Cost a site: as `wb.pca` (twice its null where the mean is kept); "whiten" adds one of a matrix of side d_model.
    """
    asked = Asked(variant, k, scale, shrinkage, null, draws, seed, classes)
    _refuse_options(asked)
    _refuse_sources(base=base, tuned=tuned)
    wanted = chosen_sites(tuned, sites)
    chosen_sites(base, wanted)
    if (width := one_width(tuned, wanted)) != one_width(base, wanted):
        before = one_width(base, wanted)
        raise ValueError(f"base and tuned rows have widths {before} and {width}: expected a model and its fine-tune.")
    base, tuned = narrowed(base, wanted), narrowed(tuned, wanted)
    pairs = paired(base, tuned, variant, at_most, seed)
    found: dict[Site, dict[str, Any]] = {}
    skipped: dict[Site, str] = {}
    for index, site in enumerate(wanted):
        rng = np.random.default_rng([seed, index])
        part = at_site(SiteRows(base, tuned, pairs, site, classes), asked, rng)
        if isinstance(part, str):
            skipped[site] = part
        else:
            found[site] = part
    faults = {site: reason for site, reason in skipped.items() if reason != UNCHANGED}
    refuse_skipped(faults, asked=sites is not None, left=len(skipped) - len(faults) + len(found))
    return _joined_sites(found, skipped, base, tuned, pairs, asked)


def _joined_sites(
    found: dict[Site, dict[str, Any]],
    skipped: dict[Site, str],
    base: RowSource,
    tuned: RowSource,
    pairs: Pairs,
    asked: Asked,
) -> ShiftPCA:
    variant, scale, null, draws = asked.variant, asked.scale, asked.null, asked.draws
    parts = list(found.values()) or [_nothing(tuned.d_model(next(iter(skipped))))]
    k = min(len(part["basis"]) for part in parts)
    cut = {name: [part[name][:k] for part in parts] for name in ("basis", "reads", "writes")}
    cut |= {name: [part[name][:k] for part in parts] for name in _OF_NULL if null is not None}
    names = [name for name in parts[0] if name not in cut and name not in ("test", *_OF_NULL)]
    stacked = {name: np.stack(values)[: len(found)] for name, values in cut.items()}
    stacked |= {name: np.stack([part[name] for part in parts])[: len(found)] for name in names}
    reads, writes, origin, shift = (stacked.pop(name) for name in ("reads", "writes", "origin", "shift"))
    scaled, shrinkage, between = (stacked.pop(name, None) for name in ("scaled_shift", "shrinkage", "between"))
    together = {f"null_{name}": stacked.pop(name, None) for name in ("together", "together_p")}
    model = str(tuned.info.get("model", "")) or str(base.info.get("model", ""))
    kind = "none" if null is None else SWAPPED if variant == "between_class" else NULLS[null]
    if null == "signs" and VARIANTS[variant].mean and variant != "between_class":
        kind += MEAN_KEPT
    n = len(pairs.tuned) if pairs.joins is None else len(pairs.prompts) * (2 if variant in _BOTH else 1)
    spectrum = Subspace(
        sites=tuple(found),
        n=n,
        # Scaled coordinates are no place of any model's stream, and interventions refuse another model's vectors.
        origin=origin if scale == UNSCALED else None,
        model=model if scale == UNSCALED else f"coordinates under scale={scale!r}, of no model's stream",
        scope=str(tuned.info.get("scope", "")),
        null_kind=kind,
        draws=0 if null is None else draws,
        centred=not VARIANTS[variant].mean,
        skipped=skipped,
        **stacked,
    )
    tests = None if null is None else {site: part["test"] for site, part in found.items()}
    counts = {name: getattr(pairs, name) for name in ("only_base", "only_tuned", "left_out")}
    return ShiftPCA(
        variant=variant,
        scale=scale,
        spectrum=spectrum,
        shift=shift,
        scaled_shift=np.asarray(scaled),
        reads=reads,
        writes=writes,
        origin=origin,
        matched=len(pairs.prompts),
        model=model,
        mean_test=tests,
        between=between,
        shrinkage=shrinkage if scale == "whiten" else None,
        **together,
        **counts,
    )


_BOTH = ("stacked", "between_class")
_OF_NULL = ("null", "null_p", "together", "together_p")


def _nothing(d_model: int) -> dict[str, Any]:
    """The arrays of a result without sites: every one is unchanged."""
    rows = {name: np.zeros((0, d_model)) for name in ("basis", "reads", "writes")}
    rows |= {name: np.zeros(d_model) for name in ("mean", "shift", "origin", "scaled_shift")}
    none = {name: np.zeros(0) if name.endswith("_p") else np.zeros((0, 2)) for name in _OF_NULL}
    return {**rows, **none, "variance": np.zeros(0), "total": np.zeros(()), "shrinkage": np.zeros(())}


def _refuse_options(asked: Asked) -> None:
    known = {"variant": VARIANTS, "scale": SCALES, "null": (*NULLS, None)}
    for name, among in known.items():
        if getattr(asked, name) not in among:
            expected = ", ".join(map(repr, among))
            raise ValueError(f"{name}={getattr(asked, name)!r} is unknown: expected one of {expected}.")
    if asked.null is not None and asked.draws < LEAST_DRAWS:
        raise ValueError(f"draws={asked.draws} is too few for a null: expected at least {LEAST_DRAWS}, or null=None.")
    if asked.k < 1:
        raise ValueError(f"k={asked.k} components: expected at least 1.")
    if asked.classes is not None and asked.variant != "between_class":
        raise ValueError(f"classes= belongs to variant='between_class', and {asked.variant!r} came.")


def _refuse_sources(**sources: RowSource) -> None:
    for name, rows in sources.items():
        if hasattr(rows, "parts"):
            raise ValueError(f"{name} is streamed sums, which keep no rows: expected rows, as wb.capture(...) gives.")
        matched = None if len(getattr(rows, "streams", ())) > 1 else rows.matched
        if matched is not None:
            raise ValueError(f"{name} holds differences already: expected the rows of one variant, store.where(...).")
