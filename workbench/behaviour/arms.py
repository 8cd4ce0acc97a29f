"""Arms: the mitigations that are compared, each at several doses, as conditions of one model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores.printed import Printed
from workbench.behaviour.conditions import Given
from workbench.interventions.ablate import Ablate
from workbench.interventions.cells import Intervention
from workbench.interventions.twins import random_twins
from workbench.subspace.rows import RowSource

Doses = Mapping[float | int, Path | Given]


@dataclass(frozen=True)
class Twins(Printed):
    """Random directions in place of a condition's own: condition -> kind -> name -> what is done."""

    of: Mapping[str, Mapping[str, Mapping[str, Given]]]

    @property
    def conditions(self) -> dict[str, Given]:
        """All of them, as `wb.sample_answers` takes them."""
        return {name: done for kinds in self.of.values() for twins in kinds.values() for name, done in twins.items()}


@dataclass(frozen=True)
class Arms(Printed):
    """Mitigations by name, each with what is done at every dose: the folder of an adapter (a Path, which becomes a
    variant of the model), or a condition as `wb.sample_answers` takes it, `("tuned", wb.Steer(v, 12, -1.0))`.

    Doses stand from the gentlest on: where two do equally well, the first is taken. Raises ValueError for an arm
    without doses, and for adapters that are not finished.
    """

    doses: Mapping[str, Doses]

    def __post_init__(self) -> None:
        if empty := [arm for arm, doses in self.doses.items() if not doses]:
            raise ValueError(f"arm {empty[0]!r} has no dose: expected {{dose: adapter folder or condition}}.")
        if not self.doses:
            raise ValueError("there are no arms: expected {name: {dose: adapter folder or condition}}.")
        paths = [done for _, _, done in self._done() if isinstance(done, Path)]
        if waiting := [path for path in paths if not (path / "adapter_config.json").is_file()]:
            raise ValueError(
                f"{len(waiting)} of {len(paths)} adapters are not finished (first: {waiting[0]}): they belong to other "
                "parts. Run these, then go on without `part`."
            )

    def __iter__(self) -> Iterator[tuple[str, float | int, str]]:
        """Every (arm, dose, name of its condition)."""
        for arm, doses in self.doses.items():
            for dose in doses:
                yield arm, dose, self.name(arm, dose)

    def name(self, arm: str, dose: float | int) -> str:
        """What the condition of an arm at a dose is called in tables."""
        return f"{arm} at {dose:g}"

    @property
    def adapters(self) -> dict[str, Path]:
        """Variant -> adapter folder of the doses that are adapters, as `wb.load_model` takes it."""
        return {self._variant(arm, dose): Path(done) for arm, dose, done in self._done() if isinstance(done, Path)}

    @property
    def conditions(self) -> dict[str, Given]:
        """Name -> condition of every arm and dose, as `wb.sample_answers` takes it."""
        return {
            self.name(arm, dose): self._variant(arm, dose) if isinstance(done, Path) else done
            for arm, dose, done in self._done()
        }

    def variant(self, arm: str, dose: float | int) -> str:
        """The model's variant that an adapter of an arm is; ValueError for a dose that is no adapter."""
        if not isinstance(self.doses[arm][dose], Path):
            raise ValueError(f"{self.name(arm, dose)} is a condition: expected an arm whose doses are adapters.")
        return self._variant(arm, dose)

    def twins(self, names: Iterable[str], n: int = 20, activations: RowSource | None = None, *, seed: int = 0) -> Twins:
        """The same interventions along `n` random directions, of those among the named conditions that are such; an
        adapter has none.

        An ablation's are matched in energy to the rows of `activations` (captured where it acts, on the model that it
        acts on), because projection ignores length; what is added has isotropic twins of equal norm. Raises ValueError
        for an ablation without activations, and for several interventions at once.
        """
        wanted = set(names)
        found = {name: self._twins(name, done, n, activations, seed) for name, done in self.conditions.items()
                 if name in wanted and n and not isinstance(done, str)}  # fmt: skip
        return Twins(found)

    def _twins(
        self, name: str, done: Any, n: int, activations: RowSource | None, seed: int
    ) -> dict[str, dict[str, Given]]:
        parts = [done] if isinstance(done, Intervention) else list(done)
        acts = [one for one in parts if isinstance(one, Intervention)]
        variant = [one for one in parts if isinstance(one, str)]
        if len(acts) != 1:
            raise ValueError(f"{name!r} has {len(acts)} interventions: controls are drawn for one direction at a time.")
        kind = "energy_matched" if isinstance(acts[0], Ablate) else "isotropic"
        twins = random_twins(acts, n, [kind], activations, seed)
        return {kind: {f"{name}, {kind} {one.draw}": (*variant, one.intervention) for one in twins}}

    def _done(self) -> Iterator[tuple[str, float | int, Any]]:
        for arm, dose, _ in self:
            yield arm, dose, self.doses[arm][dose]

    def _variant(self, arm: str, dose: float | int) -> str:
        """Names of variants are parts of module paths, which hold no points and spaces."""
        return f"arm{list(self.doses).index(arm)}dose{list(self.doses[arm]).index(dose)}"
