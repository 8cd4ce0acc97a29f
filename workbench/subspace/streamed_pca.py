"""PCA of streamed sums: the same components as from the rows, or from a sketch with the bound of their error."""

from __future__ import annotations

import numpy as np

from hooks.site import Site
from workbench.subspace.basis import CONSTANT, UNCHANGED, Subspace, refuse_skipped, signed, too_few
from workbench.subspace.moments import NO_NULL
from workbench.subspace.rows import Sites, chosen_sites, one_width
from workbench.subspace.streamed import StreamedMoments

# Rows that are all equal lie this far (squared, relative to the mean) from a mean that was rounded to float32.
EQUAL = 1e-13


def pca_of_sums(stats: StreamedMoments, k: int, *, center: bool, sites: Sites) -> Subspace:
    """The k leading components of all rows of the chosen groups; see `wb.pca`. Cost a site: one eigendecomposition of
    side d_model, for a sketch of the side of the sketch."""
    wanted = chosen_sites(stats, sites)
    one_width(stats, wanted)
    stats = stats.at(wanted[0])
    parts: dict[Site, dict[str, np.ndarray]] = {}
    skipped: dict[Site, str] = {}
    for site in wanted:
        found = _decomposed(stats, site, k, center)
        if isinstance(found, str):
            skipped[site] = found
        else:
            parts[site] = found
    refuse_skipped(skipped, asked=sites is not None, left=len(parts))
    stacked = {name: np.stack([part[name] for part in parts.values()]) for name in next(iter(parts.values()))}
    return Subspace(
        sites=tuple(parts),
        n=len(stats),
        origin=None if stats.matched is not None else stacked["mean"],
        null_kind=NO_NULL,
        centred=center,
        model=str(stats.info.get("model", "")),
        scope=str(stats.info.get("scope", "")),
        skipped=skipped,
        basis=stacked["basis"],
        variance=stacked["variance"],
        mean=stacked["mean"],
        total=stacked["total"],
        bound=stacked.get("bound"),
    )


def _decomposed(stats: StreamedMoments, site: Site, k: int, center: bool) -> dict[str, np.ndarray] | str:
    """The arrays of one site, or the reason why it has none."""
    scatter, mean, n = stats.total(site), stats.mean(site), len(stats)
    shift = n * float(mean @ mean)
    if scatter.trace + shift == 0:
        return UNCHANGED
    if center and scatter.trace <= EQUAL * shift:
        return CONSTANT
    freedom = n - 1 if center else n
    values, vectors = (scatter if center else scatter.with_row(np.sqrt(n) * mean)).eigen()
    m = min(freedom, len(values), stats.d_model(site))
    variance = values[:m] / freedom
    if reason := too_few(variance, k):
        return reason
    total = np.array((scatter.trace + (0.0 if center else shift)) / freedom)
    part = {"basis": signed(vectors[:k]), "variance": variance, "mean": mean, "total": total}
    return part if scatter.matrix is not None else part | {"bound": np.array(scatter.slack / freedom)}
