"""projection_features: how far the texts of a domain point along a known direction, in a model that never saw them."""

from __future__ import annotations

from typing import Any

from workbench.behaviour.text_embeddings import embeddings_by
from workbench.subspace.directions import Directions


def projection_features(
    rows: Any, v: Directions, site: Any, by: str = "domain", *, name: str = "", baseline: Any | None = None
) -> dict[str, dict[str, float]]:
    """`{"projection" or "projection_NAME": {domain: value}}`, as `wb.predictor_table` takes it: the mean over a
    domain's texts of their residual (pooled over the response) along the unit vector of `v` at this site, in units of
    the residual.

    `rows`: the training texts, captured in the base model; `baseline`: the base model's own answers to the same
    questions, captured alike, whose mean is subtracted domain by domain (the "projection difference" of
    arXiv:2507.21509). `v` must come from elsewhere, not from a fine-tune on one of these domains: it would know the
    outcome. Raises ValueError where the two sides have other domains, or several rows a text.
    """
    found = _means(rows, v, site, by)
    if baseline is not None:
        other = _means(baseline, v, site, by)
        if odd := sorted(set(found) ^ set(other)):
            raise ValueError(
                f"projection_features: domain {odd[0]!r} is on one side only, expected on both "
                f"(and {len(odd) - 1} more)."
            )
        found = {domain: value - other[domain] for domain, value in found.items()}
    return {f"projection_{name}" if name else "projection": found}


def _means(rows: Any, v: Directions, site: Any, by: str) -> dict[str, float]:
    unit = v[site].unit[0]
    return {domain: float((vectors @ unit).mean()) for domain, vectors in embeddings_by(rows, by, site).items()}
