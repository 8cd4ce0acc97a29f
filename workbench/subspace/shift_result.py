"""ShiftPCA: one named decomposition of what fine-tuning changed, with what belongs beside a spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import Significance
from workbench.subspace.basis import UNCHANGED, Subspace
from workbench.subspace.directions import Directions
from workbench.subspace.overlap import Overlap, mean_overlap
from workbench.subspace.rows import site_among
from workbench.subspace.shift_null import marchenko_pastur_edge
from workbench.subspace.shift_rows import VARIANTS

SHARES = (0.5, 0.8, 0.9, 0.95)
_WHERE_MADE = ("between", "shrinkage", "null_together", "null_together_p")
UNSCALED = "none"


@dataclass(frozen=True, eq=False)
class ShiftPCA(Printed):
    """What `wb.shift_pca` found, a site: the spectrum of the matrix that `variant` names, and the shift around it.

    `spectrum` is a Subspace in the coordinates of that matrix: those of the stream under scale "none", where it is
    `subspace`, else scaled ones, in which nothing may be edited. `shift` [site, d_model] is the mean shift in the
    stream, tuned - base; `mean_test` asks of each site whether it is longer than chance makes it (None without draws).
    `reads` and `writes` [site, k, d_model] are each component as read-out and as write vector (the same under "none").
    `matched` pairs were found, `only_base` and `only_tuned` rows had no partner, `left_out` were dropped for equal n.
    `null_together` [site, k, 2] is the 5 % and 95 % quantile of what the first 1, 2, .. k components explain together
    in data without structure, `null_together_p` [site, k] the p (both None without a null). `between` [site] is the
    share of all variance that lies between the classes (variant `between_class` only),
    `shrinkage` [site] the weight of the identity in the whitening. `skipped` names sites without a spectrum: a frozen
    tower is "unchanged".
    """

    variant: str
    scale: str
    spectrum: Subspace
    shift: Float[np.ndarray, "site d_model"]
    scaled_shift: Float[np.ndarray, "site d_model"]
    reads: Float[np.ndarray, "site k d_model"]
    writes: Float[np.ndarray, "site k d_model"]
    origin: Float[np.ndarray, "site d_model"]
    matched: int
    only_base: int
    only_tuned: int
    left_out: int = 0
    model: str = ""
    mean_test: Mapping[Site, Significance] | None = None
    between: Float[np.ndarray, " site"] | None = None
    shrinkage: Float[np.ndarray, " site"] | None = None
    null_together: Float[np.ndarray, "site k 2"] | None = None
    null_together_p: Float[np.ndarray, "site k"] | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.spectrum.sites

    @property
    def k(self) -> int:
        return self.spectrum.k

    @property
    def n(self) -> int:
        """Rows of the matrix that was decomposed."""
        return self.spectrum.n

    @property
    def skipped(self) -> Mapping[Site, str]:
        return self.spectrum.skipped

    @property
    def unchanged(self) -> tuple[Site, ...]:
        """Sites at which every matched row is exactly what it was before: nothing to decompose."""
        return tuple(site for site, reason in self.skipped.items() if reason == UNCHANGED)

    @property
    def subspace(self) -> Subspace:
        """The components as a Subspace of the stream, for Ablate and KeepOnly; its origin is the mean of the base rows.

        Raises ValueError under another scale than "none": those components are read-outs, and a projection on them
        would write along vectors that are only to be read.
        """
        if self.scale != UNSCALED:
            raise ValueError(
                f"the components under scale={self.scale!r} are read-outs, and no subspace to edit: use read_out(i) to "
                "read, write(i) for the vector that the covariance gives, or decompose with scale='none'."
            )
        return self.spectrum

    def read_out(self, index: int) -> Directions:
        """Component `index` (from 0) to be dotted with the stream: role "read"."""
        return self._component(self.reads, index, "read")

    def write(self, index: int) -> Directions:
        """What to add to the stream to raise component `index` (from 0): role "write".

        Under scale "none" the component itself, as long as the standard deviation of the rows along it. Under the
        others the covariance of the reference rows times the read-out, which moves it by one standard deviation.
        """
        if self.scale == UNSCALED:
            return self.spectrum.component(index)
        return self._component(self.writes, index, "write")

    def _component(self, vectors: np.ndarray, index: int, role: Any) -> Directions:
        if not 0 <= index < self.k:
            raise ValueError(f"component {index}: expected 0..{self.k - 1}; components count from 0.")
        kind = f"{self.variant} component {index}, scale {self.scale}"
        facts = {"origin": self.origin, "role": role, "kind": kind, "model": self.model, "scope": self.spectrum.scope}
        return Directions.of(self.sites, vectors[:, index], **facts)

    @property
    def cos_shift(self) -> Float[np.ndarray, "site k"]:
        """|cosine| of each component with the mean shift, in the coordinates of the spectrum; 0 without a shift."""
        length = np.linalg.norm(self.scaled_shift, axis=1, keepdims=True)
        unit = np.divide(self.scaled_shift, length, out=np.zeros_like(self.scaled_shift), where=length > 0)
        return np.abs(np.einsum("skd,sd->sk", self.spectrum.basis, unit))

    @property
    def k_for(self) -> dict[float, Int[np.ndarray, " site"]]:
        """The number of components for 50, 80, 90 and 95 % of the decomposed variance, a site."""
        return {share: self.spectrum.k_for(share) for share in SHARES}

    @property
    def few_rows(self) -> bool:
        """Fewer rows than d_model: at most n components exist, and noise fills them unevenly; see the null."""
        return self.n < self.spectrum.d_model

    @property
    def edge(self) -> Float[np.ndarray, " site"] | None:
        """Marchenko-Pastur edge in units of `spectrum.variance`: a guide, not a test (see `marchenko_pastur_edge`).
        None for the scatter between classes, which has other laws."""
        if self.variant == "between_class":
            return None
        return marchenko_pastur_edge(self.spectrum.variance, self._freedom, self.spectrum.d_model)

    @property
    def above_edge(self) -> Int[np.ndarray, " site"] | None:
        """How many eigenvalues lie above the edge."""
        return None if self.edge is None else (self.spectrum.variance > self.edge[:, None]).sum(axis=1)

    @property
    def _freedom(self) -> int:
        return self.n - 1 if self.spectrum.centred else self.n

    def top_channels(self, count: int = 10) -> Float[np.ndarray, " site"]:
        """Share of ‖mean shift‖² in its `count` largest coordinates, in the stream as it is; 0 without a shift."""
        return channel_share(self.shift, count)

    def component_channels(self, count: int = 10) -> Float[np.ndarray, "site k"]:
        """Share of the squared norm of each component, as it is read from the stream, in its `count` largest
        coordinates."""
        return channel_share(self.reads, count)

    @property
    def largest_channel(self) -> Int[np.ndarray, " site"]:
        """The coordinate in which the mean shift is largest."""
        return np.abs(self.shift).argmax(axis=1)

    def overlap(self, other: ShiftPCA) -> dict[Site, Overlap]:
        """Mean squared cosine of the principal angles with the components of another shift of the same model, beside
        chance. Both under scale "none", else ValueError."""
        return mean_overlap(self.subspace, other.subspace)

    def __getitem__(self, site: Site | str | int) -> ShiftPCA:
        """The result at one site or layer."""
        place = self.sites.index(site_among(self.sites, site))
        rows = slice(place, place + 1)
        cut = {name: getattr(self, name)[rows] for name in ("shift", "scaled_shift", "reads", "writes", "origin")} | {
            name: value[rows] for name in _WHERE_MADE if (value := getattr(self, name)) is not None
        }
        tests = None if self.mean_test is None else {self.sites[place]: self.mean_test[self.sites[place]]}
        return type(self)(**{**vars(self), **cut, "spectrum": self.spectrum[self.sites[place]], "mean_test": tests})

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site, skipped ones included, with every number that belongs beside this spectrum: for a table."""
        counts = {name: getattr(self, name) for name in ("matched", "only_base", "only_tuned", "left_out")}
        facts = {"variant": self.variant, "matrix": VARIANTS[self.variant].matrix, "scale": self.scale, "n": self.n}
        facts |= {"d_model": self.spectrum.d_model, "few_rows": self.few_rows, **counts}
        null = {"null": self.spectrum.null_kind, "draws": self.spectrum.draws}
        out = []
        for i, site in enumerate(self.sites):
            test = None if self.mean_test is None else self.mean_test[site]
            above = self.spectrum.above_null
            row = {"site": str(site), "state": "decomposed", **facts, **null}
            row |= {"shift_norm": float(np.linalg.norm(self.shift[i])), "shift_p": None if test is None else test.p}
            row |= {f"k_{round(100 * share)}": int(found[i]) for share, found in self.k_for.items()}
            row |= {"participation_ratio": float(self.spectrum.participation_ratio[i])}
            row |= {"effective_rank": float(self.spectrum.effective_rank[i])}
            row |= {"above_null": None if above is None else _leading(above[i])}
            row |= {"above_edge": None if self.above_edge is None else int(self.above_edge[i])}
            row |= {"top_1": float(self.top_channels(1)[i]), "top_10": float(self.top_channels(10)[i])}
            row |= {"largest_channel": int(self.largest_channel[i])}
            row |= {"between": None if self.between is None else float(self.between[i])}
            out.append(row)
        return out + [{"site": str(site), "state": reason, **facts, **null} for site, reason in self.skipped.items()]

    def __repr__(self) -> str:
        less = f", n < d_model {self.spectrum.d_model}" if self.few_rows else ""
        lone = f", {self.only_base} only in base, {self.only_tuned} only in tuned"
        lone += f", {self.left_out} left out for equal n" if self.left_out else ""
        unchanged = f", unchanged: {', '.join(map(str, self.unchanged))}" if self.unchanged else ""
        return (
            f"ShiftPCA({self.variant}, scale {self.scale}, k {self.k}, {len(self.sites)} sites, n {self.n}{less}; "
            f"{self.matched} pairs{lone}{unchanged}; null {self.spectrum.null_kind} x{self.spectrum.draws})"
        )


def channel_share(vectors: Float[np.ndarray, "*many d_model"], count: int) -> Float[np.ndarray, "*many"]:
    """Share of the squared norm of each vector in its `count` largest coordinates; 0 for a vector of zeros. One outlier
    channel can hold half of a difference of means; of an isotropic vector 10 of d_model coordinates hold little."""
    squares = np.sort(vectors**2, axis=-1)
    if not 1 <= count <= squares.shape[-1]:
        raise ValueError(f"count={count}: expected 1 to {squares.shape[-1]} coordinates.")
    total = squares.sum(axis=-1)
    return np.divide(squares[..., -count:].sum(axis=-1), total, out=np.zeros_like(total), where=total > 0)


def _leading(above: np.ndarray) -> int:
    """How many components, counted from the first, exceed their null without a gap."""
    return int(np.cumprod(above).sum())
