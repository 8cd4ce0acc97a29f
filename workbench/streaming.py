"""moments: means, covariances and split halves of prompts, layer by layer and class by class, with nothing stored but
the sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hooks.accumulate import Accumulator
from hooks.answered import PromptsAsWritten
from hooks.backends.hf import HuggingFaceModel
from hooks.encode import Batch
from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site, parse_sites
from stores import NoRows, StoreMismatch, content_key, provenance
from stores.canonical import differences, plain
from workbench.captures.plan import kept_streams, scopes_named, scopes_of, variants_of
from workbench.progress import followed
from workbench.streaming_plan import Grouping, Layout, grouped, refuse_too_large
from workbench.subspace.streamed import StreamedMoments
from workbench.subspace.streamed_file import load_moments, save_moments
from workbench.units import budget_on, kinds_of, length_sorted

MOMENTS_VERSION = 1  # raised when the same arguments would give other numbers
CHECKPOINT_SECONDS, CHECKPOINT_COST = 60.0, 20  # between two checkpoints at least, and so many times what one takes
_NOT_COMPARED = ("units", "provenance")


def moments(
    model: HuggingFaceModel,
    prompts: str | Path | Iterable[Prompt],
    *,
    sites: str | Site | Iterable[str | Site] = "resid_post",
    at: Scope | Mapping[str, Scope] = "last",
    pool: str = "none",
    by: str | Sequence[str] | Callable[[Prompt], Any] | None = "label",
    variants: Sequence[str] | None = None,
    minus: str | None = None,
    covariance: str | None = "within",
    sketch: int | None = None,
    splits: int = 50,
    seed: int = 0,
    to: str | Path | None = None,
    memory: float | int | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> StreamedMoments:
    """Means and covariances of the residuals that `wb.capture` would store, summed on the model's device while the
    prompts pass; memory does not grow with their number.

    `sites`, `at`, `pool` and `variants` as in `wb.capture`, but position 0 is left out under the scope `all`. Classes
    are told apart by the label, by tags (`by="topic"`, `by=("label", "topic")`: then `stats.where(topic=...)`), or by a
    function of the prompt (`stats.where(group=...)`). With `minus="base"` the rows are the differences of each other
    variant and that one, row by row. Rows weigh the same: under a scope of many positions long prompts weigh more;
    `pool="mean"` makes each prompt one row.

    `covariance="within"` adds up one scatter a variant (about the means of its classes, so that within, between and
    total follow), `"groups"` one a variant and class, None none; each takes d_model² · 8 bytes a site. `sketch=r` keeps
    2 · r rows in place of each, and the result says by how much they are wrong at most (frequent directions). Sums
    that do not fit into `memory` bytes (default: half of what the device has free) are refused, with what would fit.

    `splits` random halves of the prompts, balanced within each class, give `wb.difference_of_means` its reliability.
    With `to` (an .h5 file) a run that was stopped goes on from its last checkpoint, and gives the same numbers to the
    bit (the order of float64 sums is that of the plan). Raises StoreMismatch when `to` holds something else, NoRows
    when no prompt has a row.
    """
    listed = as_prompts(prompts)
    wanted = parse_sites(sites, n_layers=model.depths)
    scopes = scopes_of(at, wanted, listed)
    asked = variants_of(model, variants)
    grouping = grouped(listed, by, asked, minus, covariance, splits, seed)
    streams = kept_streams(model, wanted, scopes, pool, listed)
    layouts = [Layout(part.sites, part.stream.d_model, scopes[part.tower], pool == "mean") for part in streams]
    refuse_too_large(layouts, grouping, sketch, memory, model.device)

    encoded = PromptsAsWritten(model.encoder, listed)
    units = length_sorted(
        encoded.lengths, max_tokens or budget_on(model.device), kinds_of(model, listed, encoded.lengths)
    )
    info = plain(
        {
            "moments": MOMENTS_VERSION,
            "model": model.identity["model"],
            "identity": model.identity,
            "n_layers": model.n_layers,
            "sites": [str(site) for site in wanted],
            "scope": scopes_named(scopes),
            "pool": pool,
            "by": list(grouping.names),
            "variants": list(asked),
            "minus": minus,
            "covariance": covariance,
            "sketch": sketch if covariance else None,
            "splits": splits,
            "seed": seed,
            "prompts": content_key([[p.record(), int(c)] for p, c in zip(listed, grouping.class_of, strict=True)]),
            "plan": content_key(units),
            "provenance": provenance.collect(**model.facts),
        }
    )
    run = _Run(model, grouping, layouts, sketch, info, [prompt.id for prompt in listed], len(units))
    done = 0 if to is None else run.resumed(Path(to))
    lengths = [len(asked) * sum(encoded.lengths[i] for i in unit) for unit in units]
    checkpoint = _Checkpoint(None if to is None else Path(to), run)
    name = "moments" if to is None else f"moments {Path(to).name}"
    for number, unit in enumerate(
        followed(units[done:], name, show=progress, tokens=lengths[done:], done=sum(lengths[:done])), start=done + 1
    ):
        run.read(model.encoder.collate(encoded.taken(unit)), np.array(unit))
        checkpoint.offered(number)
    return run.finished()


class _Run:
    """The accumulators of a run, and whose rows went into them."""

    def __init__(
        self,
        model: HuggingFaceModel,
        grouping: Grouping,
        layouts: Sequence[Layout],
        sketch: int | None,
        info: dict[str, Any],
        ids: Sequence[str],
        units: int,
    ) -> None:
        self.model, self.grouping, self.layouts, self.info, self.ids = model, grouping, layouts, info, ids
        self.accumulators = [
            Accumulator(
                part.sites,
                part.d_model,
                grouping.groups,
                scope=part.scope,
                mean=part.mean,
                cells=grouping.cells,
                rank=sketch if grouping.cells else None,
                splits=grouping.half.shape[1],
                device=model.device,
            )
            for part in layouts
        ]
        self.rows_of = [np.zeros((len(ids), len(grouping.variants)), np.int64) for _ in layouts]
        self.units = units

    def read(self, batch: Batch, prompts: np.ndarray) -> None:
        """One unit: a forward for each variant, folded into the sums."""
        # Text alone does not pass the vision tower: such a unit has no rows there.
        seen = [i for i, part in enumerate(self.layouts) if part.tower == "language" or batch.image_rows]
        tokens = {i: batch.tokens if self.layouts[i].tower == "language" else None for i in seen}
        classes, half = self.grouping.class_of[prompts], self.grouping.half[prompts]
        if not seen:
            return
        if self.grouping.minus is not None:
            keep = {k: v for i in seen for k, v in self.accumulators[i].subtrahend(classes, tokens[i]).items()}
            self._forward(self.grouping.minus, batch, keep)
        for place, variant in enumerate(self.grouping.passing):
            group = classes + place * len(self.grouping.classes)
            keep = {k: v for i in seen for k, v in self.accumulators[i].keeps(group, half, tokens[i]).items()}
            self._forward(variant, batch, keep)
            for i in seen:
                self.rows_of[i][prompts, place] = self.accumulators[i].fold(batch.ids)

    def _forward(self, variant: str, batch: Batch, keep: Any) -> None:
        self.model.variant(variant).run(batch, keep, logits=False, must_edit=False)

    def result(self, done: int) -> StreamedMoments:
        """The moments of the first `done` units; on a CPU it shares their memory."""
        info = {**self.info, "units": [done, self.units]}
        states = [accumulator.state() for accumulator in self.accumulators]
        return self.grouping.result(self.layouts, states, self.rows_of, self.ids, info)

    def finished(self) -> StreamedMoments:
        if not any(rows.any() for rows in self.rows_of):
            raise NoRows(f"no prompt has a position of the scope {self.info['scope']!r}: there is nothing to sum.")
        return self.result(self.units)

    def resumed(self, path: Path) -> int:
        """Goes on from the file, if it is there; returns how many units it has. Raises StoreMismatch for another
        run's."""
        if path.suffix != ".h5":
            raise ValueError(f"to={path}: expected the name of an .h5 file, such as runs/moments.h5.")
        if not path.exists():
            return 0
        found = load_moments(path, unfinished=True)
        theirs, ours = ({k: v for k, v in one.items() if k not in _NOT_COMPARED} for one in (found.info, self.info))
        if lines := list(differences(theirs, ours)):
            raise StoreMismatch(
                f"{path} holds the moments of another run: {'; '.join(lines[:3])}. Use another file, or the same "
                "arguments."
            )
        for accumulator, rows, part in zip(self.accumulators, self.rows_of, found.parts, strict=True):
            accumulator.restore(part.arrays(), part.counts > 0)
            rows[:] = part.rows_of
        return found.info["units"][0]


class _Checkpoint:
    """Writes what is summed so far, so seldom that it costs at most a twentieth of the run; and at the end."""

    def __init__(self, path: Path | None, run: _Run) -> None:
        self.path, self.run = path, run
        self.last, self.took = time.monotonic(), 0.0

    def offered(self, done: int) -> None:
        due = time.monotonic() - self.last >= max(CHECKPOINT_SECONDS, CHECKPOINT_COST * self.took)
        if self.path is None or not (due or done == self.run.units):
            return
        began = time.monotonic()
        save_moments(self.run.result(done), self.path)
        self.last = time.monotonic()
        self.took = self.last - began
