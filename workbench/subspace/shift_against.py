"""The shift of a fine-tune beside that of a benign one, at equal n: the comparison that carries the argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hooks.site import Site
from workbench.subspace.overlap import Overlap
from workbench.subspace.rows import RowSource, Sites, chosen_sites, narrowed
from workbench.subspace.shift import Decomposition, shift_pca
from workbench.subspace.shift_result import UNSCALED, ShiftPCA
from workbench.subspace.shift_rows import available


@dataclass(frozen=True, eq=False)
class ShiftComparison:
    """Two shifts from the same base, `tuned` and `benign`, decomposed alike over equally many rows `n`; `benign` is
    None where there was no such fine-tune."""

    tuned: ShiftPCA
    benign: ShiftPCA | None

    @property
    def n(self) -> int:
        return self.tuned.n

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites that both fine-tunes moved."""
        return tuple(site for site in self.tuned.sites if self.benign is not None and site in self.benign.sites)

    @property
    def overlap(self) -> dict[Site, Overlap] | None:
        """How far the two subspaces agree at each site, beside chance; None under a scale, where they are no subspaces
        of the stream, and where no site was moved by both."""
        if self.benign is None or self.tuned.scale != UNSCALED or not self.sites:
            return None
        return self.tuned.overlap(self.benign)

    @property
    def _both(self) -> dict[str, ShiftPCA]:
        both = {"tuned": self.tuned, "benign": self.benign}
        return {name: found for name, found in both.items() if found is not None}

    def rows(self) -> list[dict[str, Any]]:
        """The rows of both results, with `fine_tune` saying whose they are, site beside site."""
        listed = [{"fine_tune": name, **row} for name, found in self._both.items() for row in found.rows()]
        order = {name: place for place, name in enumerate(dict.fromkeys(row["site"] for row in listed))}
        return sorted(listed, key=lambda row: order[row["site"]])

    def spectra(self, site: Site | str | int) -> list[dict[str, float | int]]:
        """Both spectra at one site side by side: number (from 1), share and variance (squared activation units) of each
        component."""
        parts = {name: found[site].spectrum for name, found in self._both.items()}
        count = min(part.variance.shape[1] for part in parts.values())
        return [
            {"component": j + 1}
            | {f"{name}_share": float(part.explained[0, j]) for name, part in parts.items()}
            | {f"{name}_variance": float(part.variance[0, j]) for name, part in parts.items()}
            for j in range(count)
        ]


def shift_against(
    base: RowSource,
    tuned: RowSource,
    benign: RowSource | None,
    variant: Decomposition = "paired_shift_centered",
    k: int = 10,
    *,
    sites: Sites = None,
    seed: int = 0,
    **options: Any,
) -> ShiftComparison:
    """`shift_pca` of a fine-tune and of a benign one of the same base, at equal n.

    Spectra of different n cannot be compared: fewer rows make every component look larger. Where one fine-tune has more
    rows, as many as the other has are drawn by `seed`, the same keys first; `left_out` counts the rest. `options` are
    those of `shift_pca`. A site that only one of them moved is "unchanged" in the other. Without a benign fine-tune
    (None) the other stands alone.
    """
    wanted = chosen_sites(tuned, sites)
    moved = [rows for rows in (tuned, benign) if rows is not None]
    parts = [narrowed(rows, wanted) for rows in (base, *moved)]
    n = min(available(parts[0], other, variant) for other in parts[1:])
    same = {"at_most": n, "seed": seed, "sites": wanted if sites is not None else None, **options}
    found = [shift_pca(parts[0], other, variant, k, **same) for other in parts[1:]]
    return ShiftComparison(found[0], found[1] if benign is not None else None)
