"""Vectors that others saved: plain tensors in `.pt` or `.safetensors`, given the sites that their rows stand for.

A tensor does not say what its rows are, and the field's conventions differ by one layer, so the convention is always
asked for, never guessed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hooks.site import Site
from hooks.weight_files import tensors_of
from workbench.subspace.array_files import LARGEST_FILE, torch_tensors
from workbench.subspace.directions import Directions, Role

LARGEST = 2**28  # numbers in one tensor: 1,000 layers of width 16,384 have a sixteenth of it
HIDDEN_STATES = ("persona_vectors", "hidden_states")


def imported_directions(
    path: str | Path,
    *,
    convention: str | Site,
    model: Any = "",
    scope: str = "",
    role: Role = "write",
    key: str | None = None,
) -> Directions:
    """Directions of a tensor in a file, [row, d_model] or [d_model].

    `convention` says what its rows are. `"persona_vectors"` (or `"hidden_states"`): transformers' hidden_states of a
    model with L layers, L + 1 rows. Row 0 is the embedding (`resid_pre:0`), row l + 1 follows block l (`resid_post:l`);
    the last one stands behind the final norm, where no block writes, and is left out (`kind` says so).
    `"resid_post"`, `"resid_pre"`: row l belongs to block l. A site, such as `"resid_post:14"`: one vector.

    `model` is the model (from load_model: depth and width are checked) or its name. The vectors carry no mean: ablation
    to the mean needs `wb.with_mean`. `key` chooses among several tensors. Raises ValueError for anything else, NaN
    included; a `.pt` file is read without running code from it.
    """
    path = Path(path)
    values = _values(path, key)
    named = model if isinstance(model, str) else str(model.identity["model"])
    rows = np.atleast_2d(values)
    sites, notes = _sites(path, convention, rows, values.ndim)
    rows = rows[: len(sites)]
    if not isinstance(model, str):
        _refuse_misfit(path, rows, sites, model)
    return Directions.of(sites, rows, model=named, scope=scope, role=role, kind=f"imported from {path.name}{notes}")


def _values(path: Path, key: str | None) -> np.ndarray:
    """The tensor as float64."""
    import torch

    held = torch_tensors(path) if path.suffix in (".pt", ".pth", ".bin") else _tensors(path)
    if isinstance(held, dict):
        if key is None and len(held) == 1:
            key = next(iter(held))
        if key is None or key not in held:
            raise ValueError(
                f"{path} holds {len(held)} tensors: expected key= one of {', '.join(map(str, held))[:300]}."
            )
        held = held[key]
    if not isinstance(held, torch.Tensor):
        raise ValueError(f"{path} holds a {type(held).__name__}: expected a tensor [row, d_model] or [d_model].")
    plain = held.layout == torch.strided and held.is_floating_point() and held.device.type == "cpu"
    if not plain or held.dim() not in (1, 2) or not 0 < held.numel() <= LARGEST:
        raise ValueError(
            f"{path} holds {tuple(held.shape)} {held.dtype}: expected floating numbers, [row, d_model] or [d_model], "
            f"at most {LARGEST} of them."
        )
    values = held.detach().double().numpy()
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(np.atleast_2d(values)).all(axis=1)).tolist()
        raise ValueError(
            f"{path}: rows {bad} hold NaN or infinite values, expected finite ones (a model "
            "that overflowed in float16?)."
        )
    return values


def _tensors(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        raise ValueError(f"{path.name}: expected .pt, .pth, .bin or .safetensors.")
    return tensors_of(path, LARGEST_FILE)


def _sites(path: Path, convention: str | Site, rows: np.ndarray, axes: int) -> tuple[list[Site], str]:
    """The sites of the first rows, and what is to be said of the others."""
    n = len(rows)
    if convention in HIDDEN_STATES:
        if n < 3 or axes != 2:
            raise ValueError(
                f"{path}: {n} rows came under {convention!r}: expected one for the embedding and one a layer. One "
                "vector needs its site as convention, such as 'resid_post:14'."
            )
        kept = [Site(0, "resid_pre"), *(Site(layer) for layer in range(n - 2))]
        return kept, f" (hidden_states 0..{n - 2}; the last of {n} rows, behind the final norm, left out)"
    if convention in ("resid_post", "resid_pre"):
        if axes != 2:
            raise ValueError(f"{path}: one vector came: expected its site as convention, such as '{convention}:14'.")
        return [Site(layer, str(convention)) for layer in range(n)], ""
    try:
        site = Site.parse(convention)
    except ValueError as error:
        raise ValueError(
            f"convention {convention!r} is unknown: expected 'persona_vectors', 'resid_post', 'resid_pre', or a site."
        ) from error
    if n != 1:
        raise ValueError(f"{path}: {n} rows came for the one site {site}: expected a convention for all rows.")
    return [site], ""


def _refuse_misfit(path: Path, rows: np.ndarray, sites: list[Site], model: Any) -> None:
    one_a_layer = len(rows) > 1
    depth = max(site.layer for site in sites) + 1
    # Under hidden_states the last block's own row is the one that was left out.
    expected = (
        model.n_layers - 1 if sites[0].point == "resid_pre" and sites[-1].point == "resid_post" else model.n_layers
    )
    fits = depth == expected if one_a_layer else depth <= model.n_layers
    if rows.shape[1] != model.d_model or not fits:
        raise ValueError(
            f"{path} gives vectors for {len(rows)} sites up to {sites[-1]}, of width {rows.shape[1]}; this model has "
            f"{model.n_layers} layers of width {model.d_model}: expected the model, and the convention, of these "
            "vectors."
        )
