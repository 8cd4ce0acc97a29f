"""watched_runs: fine-tunes of several kinds and seeds, each under the same watch; and what a rule saves and costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt
from stores import ResultTable
from stores.printed import Printed
from workbench.interventions.drift import Drift
from workbench.progress import Progress
from workbench.training.adapters import train_lora
from workbench.training.drift_rules import EarlyStop, Lead, Signal, lead_time
from workbench.training.population_plan import in_part
from workbench.training.published import record_of


@dataclass(frozen=True)
class WatchedRun:
    """One fine-tune: what kind it is, its seed, the adapter's folder and its drift table."""

    kind: str
    seed: int
    adapter: Path
    table: ResultTable

    @property
    def last_step(self) -> int:
        """The step at which its training ended, by the schedule or by a rule."""
        (end,) = self.table.rows(measure="end")
        step: Any = end["step"]
        return int(step)


def watched_runs(
    base: str | Path,
    kinds: Mapping[str, str | Path | Sequence[Prompt]],
    drift: Drift,
    *,
    to: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    scout: str | Path | None = None,
    until: EarlyStop | None = None,
    part: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> dict[str, WatchedRun]:
    """Trains one LoRA adapter for each kind of rows and fine-tuning seed under the drift, and returns the runs as
    "KIND-seedN". Each has a folder of that name in `to`; finished ones are taken as they are.

    The drift's own `to` has no meaning here; `until` is its rule. `part="2/3"` trains every third run, from the second;
    ValueError while those of other parts are missing. `scout` is the adapter that the drift's directions were taken
    from: ValueError where its seed is one of `seeds`, since a direction must not be taken from the run that it is to
    foresee.
    """
    if scout is not None and (seed := record_of(Path(scout)).get("seed")) in seeds:
        raise ValueError(
            f"the directions come from a fine-tune with seed {seed}, and so does one of the runs that they are to "
            f"foresee (seeds {', '.join(map(str, seeds))}): expected another seed."
        )
    names = {f"{kind}-seed{seed}": (kind, seed) for kind in kinds for seed in seeds}
    mine = in_part(list(names), part)
    with Progress("watched fine-tunes", len(mine), show=progress, unit="adapter") as bar:
        for name in mine:
            (kind, seed), folder = names[name], Path(to) / name
            watch = replace(drift, to=folder / "drift", until=until)
            train_lora(base, kinds[kind], to=folder / "adapter", seed=seed, watch=watch, **settings)
            bar.update()
    if missing := [name for name in names if not record_of(Path(to) / name / "adapter")]:
        raise ValueError(
            f"{len(missing)} runs are not finished (first: {missing[0]}): expected all parts to be trained."
        )
    return {
        name: WatchedRun(kind, seed, Path(to) / name / "adapter", ResultTable.open(Path(to) / name / "drift"))
        for name, (kind, seed) in names.items()
    }


def retention(whole: ResultTable | Iterable[Mapping[str, Any]], stopped_at: int) -> float | None:
    """Which share of what a whole training gained on its task (drop of the loss on held-out rows of it) it had gained
    at a measured step: 0 at the beginning, 1 at the end, more where going on made it worse. None where the training
    gained nothing; ValueError when the step was not measured."""
    losses = dict(Signal("task").series(whole.rows() if isinstance(whole, ResultTable) else list(whole)))
    if stopped_at not in losses:
        raise ValueError(f"step {stopped_at} was not measured: expected one of {', '.join(map(str, losses))}.")
    gained = losses[min(losses)] - losses[max(losses)]
    return (losses[min(losses)] - losses[stopped_at]) / gained if gained > 0 else None


@dataclass(frozen=True)
class LeadTimes(Printed):
    """What a rule did in every run: `leads` by the name of the run; `behaviour` is what flips."""

    runs: Mapping[str, WatchedRun]
    leads: Mapping[str, Lead]
    behaviour: Signal

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: signal at {one.signal_step}, flip at {one.flip_step}, stopped at {one.stop_step}"
            for name, one in self.leads.items()
        )


def lead_times(
    runs: Mapping[str, WatchedRun], rule: EarlyStop, behaviour: Signal | None = None, **flip: Any
) -> LeadTimes:
    """`wb.lead_time` of every run (with its options `flips_at`, `falling`, `lasting`, `window`)."""
    behaviour = behaviour or Signal()
    leads = {name: lead_time(run.table, rule, behaviour, **flip) for name, run in runs.items()}
    return LeadTimes(runs, leads, behaviour)


@dataclass(frozen=True)
class Retentions(Printed):
    """Which share of its task's gain each stopped run has (see `retention`), by name; None where there was no gain."""

    values: Mapping[str, float | None]


def retentions(stopped: Mapping[str, WatchedRun], whole: Mapping[str, WatchedRun], kind: str) -> Retentions:
    """The retention of every stopped run at its last step, against the run of the same seed in `whole` that was left to
    its schedule, of the `kind` whose rows it was trained on."""
    return Retentions(
        {name: retention(whole[f"{kind}-seed{run.seed}"].table, run.last_step) for name, run in stopped.items()}
    )
