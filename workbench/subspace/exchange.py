"""Directions and subspaces to and from `.safetensors`, whole: vectors, norms, role, origin and where they came from."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from hooks.plain_files import parsed
from hooks.site import Site
from hooks.weight_files import header_of
from stores.files import write_file
from workbench.subspace.array_files import LARGEST_FILE
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions

FORMAT, VERSION = "workbench", "1"
_ARRAYS = {
    "Directions": ("unit", "norm", "origin", "reliability", "positive_mean", "residual_norm"),
    "Subspace": ("basis", "variance", "mean", "total", "origin", "null", "null_p", "bound"),
}
_FACTS: dict[str, dict[str, type]] = {
    "Directions": {
        "role": str, "model": str, "scope": str, "kind": str, "n_positive": int, "n_negative": int, "matched": int,
    },
    "Subspace": {
        "n": int, "null_kind": str, "draws": int, "centred": bool, "model": str, "scope": str, "skipped": dict,
    },
}  # fmt: skip


def save_directions(v: Directions | Subspace, path: str | Path) -> Path:
    """Writes directions, or a subspace, to a `.safetensors` file (float64, no pickle; an old file of that name is
    replaced), and returns its path. `load_directions` gives back the same, bit for bit."""
    from safetensors.numpy import save

    path, kind = Path(path), type(v).__name__
    if path.suffix != ".safetensors" or kind not in _ARRAYS:
        raise ValueError(
            f"save_directions({kind}, {path.name}): expected Directions or a Subspace, and a name that ends in "
            ".safetensors."
        )
    # safetensors writes memory as it lies, whatever the strides say.
    arrays = {name: np.ascontiguousarray(value) for name in _ARRAYS[kind] if (value := getattr(v, name)) is not None}
    facts = {name: _plain(getattr(v, name)) for name in _FACTS[kind]}
    if kind == "Subspace":
        facts["skipped"] = {str(site): reason for site, reason in facts["skipped"].items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "class": kind,
        "sites": json.dumps([str(site) for site in v.sites]),
        "facts": json.dumps(facts),
        "written_with": json.dumps({name: _version(name) for name in ("misalignment-workbench", "numpy")}),
    }
    return write_file(path, save(arrays, metadata=header))


def load_directions(path: str | Path, *, convention: str | Site | None = None, **imported: Any) -> Any:
    """What `save_directions` wrote, Directions or a Subspace. With `convention=`, plain vectors of others, in
    `.safetensors` or `.pt`: `"persona_vectors"` (rows as transformers' hidden_states), `"resid_post"`, `"resid_pre"`,
    or the site of one vector; `model=`, `scope=`, `role=`, `key=` as in `imported_directions`.

    Raises FileNotFoundError, and ValueError for a file that is no such thing, is damaged, or holds what does not fit
    together (another version, unknown fields, wrong shapes, NaN).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a .safetensors file of directions, or a .pt tensor.")
    if convention is not None or imported:
        from workbench.subspace.imported import imported_directions

        return imported_directions(path, convention=convention or "", **imported)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is a plain tensor, and nothing in it says what its rows are: expected "
            "convention='persona_vectors' (rows as transformers' hidden_states, the embedding first), 'resid_post' or "
            "'resid_pre' (one row a layer), or a site such as 'resid_post:14' for one vector."
        )
    header, arrays = _read(path)
    try:
        return _built(header, arrays)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{path} holds no directions that fit together: {error}") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    header_of(path, LARGEST_FILE)
    try:
        with safe_open(path, framework="numpy") as file:
            header = dict(file.metadata() or {})
            if header.get("format") != FORMAT:
                raise ValueError(
                    f"{path} was not written by save_directions: expected convention=..., which says what its rows are "
                    "('persona_vectors', 'resid_post', 'resid_pre', or a site)."
                )
            if header.get("version") != VERSION or header.get("class") not in _ARRAYS:
                raise ValueError(
                    f"{path} holds a {header.get('class')!r} of version {header.get('version')!r}: expected "
                    f"{' or '.join(_ARRAYS)} of version {VERSION}, from this version of the workbench."
                )
            strange = sorted(set(file.keys()) - set(_ARRAYS[header["class"]]))
            wrong = [name for name in file.keys() if file.get_slice(name).get_dtype() != "F64"]  # noqa: SIM118
            if strange or wrong:
                raise ValueError(
                    f"{path}: unknown arrays {strange}, or not float64: {wrong}. Expected what save_directions writes."
                )
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole .safetensors file ({error}).") from error


def _built(header: dict[str, str], arrays: dict[str, np.ndarray]) -> Directions | Subspace:
    kind, facts, sites = header["class"], parsed(header["facts"]), parsed(header["sites"])
    if not isinstance(facts, dict) or not isinstance(sites, list):
        raise ValueError("its facts are no table, or its sites no list, as expected")
    for name, value in facts.items():
        expected = _FACTS[kind].get(name)
        optional = name == "matched" and value is None
        if expected is None or not (optional or type(value) is expected):
            raise ValueError(
                f"fact {name}={value!r} came: expected {expected.__name__ if expected else 'no such fact'}"
            )
    sites = tuple(Site.parse(str(site)) for site in sites)
    if kind == "Directions":
        return Directions(sites, **arrays, **facts)
    facts["skipped"] = {Site.parse(site): str(reason) for site, reason in facts["skipped"].items()}
    missing = {field.name for field in dataclasses.fields(Subspace) if field.default is dataclasses.MISSING}
    if lost := sorted((missing & set(_ARRAYS[kind])) - set(arrays)):
        raise ValueError(f"arrays {', '.join(lost)} are missing")
    if arrays["basis"].ndim != 3:
        raise ValueError(f"basis has shape {arrays['basis'].shape}: expected [site, k, d_model]")
    return Subspace(sites, **arrays, **facts)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
