"""Accumulator: means and covariances of a stream of prompts, summed on the residual's own device; nothing is kept of a
forward but its sums.

Every group (a variant and a class) has a pilot, the mean of the first rows that came of it, and everything is summed
about the pilot: in float32 a raw sum of squares is wrong by more than the variance beside a dimension whose mean is a
few hundred times its spread. What a forward gives is added up in float32 and folded into float64, in the order of the
forwards: the same forwards in the same order give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks.model import Keep, Where
from hooks.points import Points, moved, points_of, summed
from hooks.positions import Scope, Tokens
from hooks.site import Site
from hooks.sketch import Sketch

OCTAVES, STEPS = 80, 128  # the histogram of norms: from 2^-40 to 2^40 in steps of 2^(1/128), 0.54 %
BINS = OCTAVES * STEPS


class Accumulator:
    """The sums over the rows of one stream, at `sites`, by group. `state()` gives them as arrays:

    `pilot` [site, group, d_model]; about it `sums` [site, group, d_model], `halves` (the sums of the first half of each
    of `splits` splits of the prompts) [site, group, split, d_model], `energy` [site, group] (of squared lengths) and,
    where `cells` says so, `scatter` [site, cell, d_model, d_model] (of outer products), or sketches of it of a `rank`;
    `norms` [site, group, bin], how many rows have a length of that bin. `cells` gives every group the scatter that its
    rows are added to; empty: none.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        d_model: int,
        groups: int,
        *,
        scope: Scope,
        mean: bool = False,
        cells: Sequence[int] = (),
        rank: int | None = None,
        splits: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sites, self.scope, self.mean = list(sites), scope, mean
        self.cells, n_cells = list(cells), len(set(cells))
        shape = (len(self.sites), groups)

        def zeros(*size: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(*size, dtype=dtype, device=device)

        self._sums = {
            "pilot": zeros(*shape, d_model, dtype=torch.float32),
            "sums": zeros(*shape, d_model),
            "halves": zeros(*shape, splits, d_model),
            "energy": zeros(*shape),
            "norms": zeros(*shape, BINS, dtype=torch.int64),
        }
        if n_cells and rank is None:
            self._sums["scatter"] = zeros(shape[0], n_cells, d_model, d_model)
        self._sketches = [[Sketch(rank, d_model, device) for _ in range(n_cells)] for _ in sites] if rank else []
        self._seen = np.zeros(groups, bool)
        self._asked: list[tuple[Tensor, torch.cuda.Event | None, np.ndarray, Sequence[str]]] = []
        self._begin(np.zeros(0, np.int64), np.zeros((0, splits), bool), {})

    # One forward

    def keeps(
        self, group: Int[np.ndarray, " row"], half: Bool[np.ndarray, "row split"], tokens: Tokens | None = None
    ) -> dict[Site, Keep]:
        """The keeps of the next forward, whose prompts belong to these groups and halves. Call `fold` behind it. Where
        `tokens` (on the CPU) are known before, nothing in the forward waits for the device."""
        self._begin(group, half, self._subtrahend, tokens)
        return {site: partial(self._counted, number) for number, site in enumerate(self.sites)}

    def subtrahend(self, group: Int[np.ndarray, " row"], tokens: Tokens | None = None) -> dict[Site, Keep]:
        """The keeps of a forward of the same batch whose rows are taken off those of the forwards behind it, one by
        one. They are held until the next call, [point, d_model] a site."""
        self._begin(group, self._half[:0], {}, tokens)
        return {site: partial(self._held, number) for number, site in enumerate(self.sites)}

    def fold(self, names: Sequence[str]) -> Int[np.ndarray, " row"]:
        """Adds the forward of the prompts `names` to the totals; returns how many rows each had. Raises ValueError for
        NaN or infinite values, which would spoil every sum."""
        counts = np.zeros(len(self._group), np.int64)
        points = self._points
        if points is not None and self._by_prompt:
            counts[points.prompts] = points.counts
            with torch.inference_mode():
                self._fold(points, names)
        return counts

    def _begin(
        self, group: np.ndarray, half: np.ndarray, subtrahend: dict[int, Tensor], tokens: Tokens | None = None
    ) -> None:
        self._group, self._half, self._subtrahend = group, half, subtrahend
        self._shape: torch.Size | None = None
        self._points: Points | None = None
        self._expected = tokens
        self._by_prompt: dict[int, Tensor] = {}
        self._lengths: dict[int, tuple[Tensor, Tensor]] = {}

    def _rows(self, resid: Tensor, where: Where) -> Tensor | None:
        if self._shape is None:  # all sites of a stream have the same rows: looked at once a forward
            tokens = self._expected or where.tokens
            self._points = points_of(self.scope, tokens, self._group, mean=self.mean, device=resid.device)
            self._shape = resid.shape
        if resid.shape != self._shape:
            raise RuntimeError(
                f"{where.site} has rows of shape {tuple(resid.shape)}, {self.sites[0]} of {tuple(self._shape)}: "
                "expected one shape for all sites of a stream. Take such sites one at a time."
            )
        return None if self._points is None else self._points.of(resid)

    def _held(self, number: int, resid: Tensor, where: Where) -> None:
        if (rows := self._rows(resid, where)) is not None:
            self._subtrahend[number] = rows.float()

    def _counted(self, number: int, resid: Tensor, where: Where) -> None:
        rows, points = self._rows(resid, where), self._points
        if rows is None or points is None:
            return
        if self._subtrahend:
            rows = rows.float() - self._subtrahend[number]
        about = self._centred(number, rows, points)
        self._by_prompt[number] = points.by_prompt(about)
        self._lengths[number] = _length(rows), _length(about)
        if not self.cells:
            return
        for cell, chosen in self._stretches(points):
            part = about[chosen]
            if self._sketches:
                self._sketches[number][cell].add(part)
            else:
                self._sums["scatter"][number, cell] += summed(part.T, part)

    def _centred(self, number: int, rows: Tensor, points: Points) -> Tensor:
        """The rows about the pilots of their groups: in float32, or in their own dtype where that is `_narrow`."""
        pilot, narrow = self._sums["pilot"][number], _narrow(rows, points)
        for run in points.runs:
            if not self._seen[run.group]:
                pilot[run.group] = _pilot(rows[run.points], narrow)
        dtype = rows.dtype if narrow else torch.float32
        return rows.to(dtype) - pilot.to(dtype).index_select(0, points.group_of)

    def _stretches(self, points: Points) -> list[tuple[int, slice]]:
        """(cell, its rows): rows of one cell that lie next to each other are one product."""
        out: list[tuple[int, slice]] = []
        for run in points.runs:
            cell = self.cells[run.group]
            if out and out[-1][0] == cell:
                out[-1] = (cell, slice(out[-1][1].start, run.points.stop))
            else:
                out.append((cell, run.points))
        return out

    def _fold(self, points: Points, names: Sequence[str]) -> None:
        total = self._sums
        sums = torch.stack([self._by_prompt[number] for number in range(len(self.sites))]).double()
        lengths, energy = (
            torch.stack([self._lengths[number][kind] for number in range(len(self.sites))]) for kind in (0, 1)
        )
        self._note(lengths, points, names)
        energy = energy.double().square()
        bins = ((lengths.nan_to_num().log2() + OCTAVES / 2) * STEPS).floor().clamp(0, BINS - 1).long()
        half = moved(torch.from_numpy(self._half[points.prompts]), sums.device).double()
        for run in points.runs:
            part, group = sums[:, run.prompts], run.group
            total["sums"][:, group] += part.sum(dim=1)
            total["halves"][:, group] += torch.einsum("ps,lpd->lsd", half[run.prompts], part)
            total["energy"][:, group] += energy[:, run.points].sum(dim=1)
            ones = torch.ones_like(bins[:, run.points])
            total["norms"][:, group].scatter_add_(1, bins[:, run.points], ones)  # integers: in any order the same
            self._seen[group] = True
        self._settle(but=int(sums.is_cuda))

    def _note(self, lengths: Tensor, points: Points, names: Sequence[str]) -> None:
        """Asks which rows are finite. On a GPU the answer is read behind the next forward, so that nobody waits."""
        finite, event = torch.isfinite(lengths), None
        if finite.is_cuda:
            finite = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._asked.append((finite, event, np.repeat(points.prompts, points.counts), names))

    def _settle(self, but: int = 0) -> None:
        """Raises ValueError for a row that is not finite, of all forwards but the last `but`."""
        while len(self._asked) > but:
            finite, event, prompts, names = self._asked.pop(0)
            if event is not None:
                event.synchronize()
            if len(wrong := (~finite).nonzero()):
                site, point = wrong[0].tolist()
                raise ValueError(
                    f"prompt {names[int(prompts[point])]!r} has values at {self.sites[site]} that are NaN or infinite, "
                    "and one would spoil every sum: expected finite residuals (float16 overflows above 65504; bfloat16 "
                    "does not)."
                )

    # All of them

    def state(self) -> dict[str, np.ndarray]:
        """What was summed so far, on the CPU (of an accumulator there, the very memory that is summed into). Sketches:
        `rows` [site, cell, 2 · rank, d_model] (zeros behind those that are filled), `filled` and `slack` [site, cell].
        """
        self._settle()
        out = {name: value.cpu().numpy() for name, value in self._sums.items()}
        if self._sketches:
            cells = [[(one.padded, one.filled, one.slack) for one in of_site] for of_site in self._sketches]
            out["rows"] = np.stack([[rows.cpu().numpy() for rows, _, _ in of_site] for of_site in cells])
            out["filled"] = np.array([[filled for _, filled, _ in of_site] for of_site in cells])
            out["slack"] = np.array([[float(slack) for _, _, slack in of_site] for of_site in cells])
        return out

    def restore(self, state: Mapping[str, np.ndarray], seen: Bool[np.ndarray, " group"]) -> None:
        """Goes on from a state, to the bit; `seen` are the groups that have rows in it."""
        for name, value in self._sums.items():
            value.copy_(torch.from_numpy(state[name].copy()))
        self._seen[:] = seen
        for number, of_site in enumerate(self._sketches):
            for cell, sketch in enumerate(of_site):
                filled = int(state["filled"][number, cell])
                rows = torch.from_numpy(state["rows"][number, cell, :filled].copy())
                sketch.restore(rows, float(state["slack"][number, cell]))


def _narrow(rows: Tensor, points: Points) -> bool:
    """Whether rows stay in their own dtype: many half-precision rows on a GPU, whose product of float32 is ten times
    slower. Their products are added up in float32, and `_pilot` sees to it that centring rounds next to nothing."""
    return rows.is_cuda and rows.dtype != torch.float32 and points.prompt_of is not None


def _pilot(rows: Tensor, narrow: bool) -> Tensor:
    """The mean of the first rows of a group, as a number of their dtype. With `narrow`, 0 where the mean is within
    eight standard deviations of 0, so that nothing is taken off there; elsewhere rows lie between half and twice the
    pilot, and differences of such numbers are exact. (Taking the mean off everywhere would round, and not at random:
    variances came out wrong by up to 1.8e-3; so they are right to 5e-6. Lemma of Sterbenz, 1974.)"""
    values = rows.float()
    mean = values.mean(dim=0)
    if narrow:
        mean = torch.where(mean.abs() < 8 * values.std(dim=0, correction=0), 0, mean)
    return mean.to(rows.dtype).float()


def _length(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
