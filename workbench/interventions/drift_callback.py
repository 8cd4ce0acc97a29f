"""The TrainerCallback of a Drift: measures between two steps, commits, and stops where its rule says so."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import TrainerCallback

from hooks.adapter_rows import lora_layers
from hooks.site import Site
from stores import ResultTable, provenance
from workbench.interventions.drift import END, Drift
from workbench.interventions.drift_measured import EVERYONE, Measured
from workbench.interventions.drift_snapshots import Snapshots
from workbench.interventions.drift_written import Written
from workbench.training.factors import LoraFactors
from workbench.training.lora_files import lora_factors
from workbench.training.rotation import rotation
from workbench.training.undisturbed import undisturbed

TABLE_VERSION = 1


class DriftCallback(TrainerCallback):
    """Made by `Drift.callback(model)`. `table` is the ResultTable (from the beginning of the training on), `stopped`
    the step at which the rule stopped it, None while it did not."""

    table: ResultTable

    def __init__(self, drift: Drift, model: Any, run: str | None) -> None:
        self.drift, self.model, self.run = drift, model, run
        self.stopped: int | None = None
        self._snapshots = Snapshots(drift.to)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._refuse_other_training(args, kwargs.get("model"))
        with undisturbed(self.model.module):
            drift = self.drift
            self._measured = Measured(
                self.model, drift.read, drift.asked, drift.named, drift.at, drift.max_tokens, drift.judge is None
            )
            self._written = Written(self.model, drift)
        steps = [*range(0, state.max_steps, drift.every), state.max_steps]
        self.table = self._created([*map(_key, steps), END])
        begun = len(self.table.missing()) < len(self.table.plan)
        if begun and self.run is None and state.global_step == 0:
            raise FileExistsError(
                f"{drift.to} holds the drift of a training that was begun before, and this one begins at step 0: "
                "expected another folder, or a training that resumes from its checkpoint."
            )
        if state.global_step and _key(0) in self.table.missing():
            raise ValueError(
                f"the training resumes at step {state.global_step}, and {drift.to} holds no step 0 to measure the "
                "shift from: expected a Drift that was there from the beginning, or a training that begins anew."
            )
        self._measure(state.global_step)
        self._apply_rule(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.drift.every == 0 or state.global_step == state.max_steps:
            self._measure(state.global_step)
            self._apply_rule(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if _key(state.global_step) not in self.table.plan:  # somebody else stopped it between two measurements
            self.table = self._created([*self.table.plan, _key(state.global_step)])
        self._measure(state.global_step)
        if END in self.table.missing():
            end = {"measure": END, "step": state.global_step, "group": EVERYONE, "stopped": self.stopped is not None}
            self.table.commit(END, [end, *self._rotations_to_the_end(state.global_step)])
        self._snapshots.remove()

    def _created(self, plan: list[str]) -> ResultTable:
        spec = {"table": "drift", "version": TABLE_VERSION, "model": self.model.identity, "run": self.run}
        return ResultTable.create(
            self.drift.to,
            spec={**spec, **self.drift.describe()},
            plan=plan,
            provenance=provenance.collect(**self.model.facts),
        )

    def _measure(self, step: int) -> None:
        if _key(step) not in self.table.missing():
            return
        with undisturbed(self.model.module):
            now = self._measured.residuals()
            for site, rows in now.items():
                if not np.isfinite(rows).all():
                    raise ValueError(
                        f"step {step}: residuals at {site} are not finite: the training has "
                        "diverged. Try a smaller learning rate."
                    )
            start = self._start(now, step)
            rows = self._measured.projections(now, start)
            rows += self._measured.spectra(now, start, self.drift.k)
            rows += self._measured.behaviour() + self._written.answers() + self._written.task()
            rows += self._rotations(step)
        self.table.commit(_key(step), [{"step": step, **row} for row in rows])

    def _start(self, now: dict[Site, np.ndarray], step: int) -> dict[Site, np.ndarray]:
        if step == 0:
            self._snapshots.put("start", {str(site): rows for site, rows in now.items()})
            return now
        stored = self._snapshots.get("start")
        return {site: stored[str(site)] for site in now}

    def _factors(self) -> LoraFactors | None:
        layers: dict[str, Any] = lora_layers(self.model.module)
        names = sorted({name for layer in layers.values() for name in layer.scaling})
        if len(names) > 1:
            raise ValueError(
                f"the model carries the adapters {', '.join(names)}, and which of them is trained is unclear: expected "
                "one, or Drift(rotation=False)."
            )
        return lora_factors(self.model, names[0]) if names else None

    def _rotations(self, step: int) -> list[dict[str, Any]]:
        now = self._factors() if self.drift.rotation else None
        if now is None:
            return []
        since = max((n for n in self._snapshots.steps() if n < step), default=None)
        self._snapshots.put_factors(step, now)
        then = None if since is None else self._snapshots.factors(since, like=now)
        facts = {"measure": "rotation", "against": "previous", "since": since, "group": EVERYONE}
        return [{**facts, **row} for row in rotation(now, then)]

    def _rotations_to_the_end(self, last: int) -> list[dict[str, Any]]:
        steps = self._snapshots.steps()
        if last not in steps:
            return []
        with undisturbed(self.model.module):
            like = self._factors()
        assert like is not None
        end, out = self._snapshots.factors(last, like=like), []
        for step in (step for step in steps if step < last):
            facts = {"step": step, "measure": "rotation", "against": END, "since": last, "group": EVERYONE}
            out += [{**facts, **row} for row in rotation(self._snapshots.factors(step, like=like), end)]
        return out

    def _apply_rule(self, state: Any, control: Any) -> None:
        rule = self.drift.until
        if rule is None:
            return
        rows = self.table.rows(step=lambda step: step <= state.global_step)  # a run that begins anew finds later ones
        self.stopped = rule.stops_at(rule.signal.series(rows))
        if self.stopped is not None:
            control.should_training_stop = True

    def _refuse_other_training(self, args: Any, trained: Any) -> None:
        if args.world_size > 1:
            raise ValueError(
                f"Drift measures in one process, and this training has {args.world_size}: expected a single process."
            )
        if trained is not None and not any(part is self.model.module for part in trained.modules()):
            raise ValueError(
                "Drift was given another model than the Trainer trains: expected drift.callback(model) with "
                "model = load_model(module, tokenizer=...), and that module (in its PeftModel) in the Trainer."
            )


def _key(step: int) -> str:
    return f"step {step}"
