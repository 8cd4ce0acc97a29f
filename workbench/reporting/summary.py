"""Reads `summary.json`: one flat list of results, and what is needed to make it again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from hooks.plain_files import Refused, json_file
from workbench.behaviour.projected import Projected
from workbench.reporting.summary_checks import refuse_entry, refuse_rest

LARGEST_FILE = 64 * 2**20  # bytes of a summary: a geometry of all layers of the organism has 2.5 million


@dataclass(frozen=True)
class Control:
    """What `N` control runs gave: their values where they were kept (`draws`), and the p computed from them."""

    kind: str
    N: int = 0
    p: float | None = None
    draws: tuple[float, ...] = ()


@dataclass(frozen=True)
class Tested:
    """The p of a test that belongs to a number, and how it was computed. A p without a value is none at all."""

    p: float
    method: str = ""


@dataclass(frozen=True)
class Result:
    """One number with all that it takes to read it. Rates are fractions; `layer` None means all layers, or no layer.

    The fields from `test` on come with judged answers: `unscored` of the n answers had no score, for the `reasons`
    counted, and `bounds` is the value if all of these had been lowest, or highest; `companions` are other means of the
    same answers (coherent, refusal, relevance; None: not judged); `floor` is the value of the base condition; `judges`
    says who measured what; `doses` the mean of every dose of a trend; `dropped` what had no pair.
    `series` are curves that belong to the number, by name: the share of every component, and what chance gives.
    """

    metric: str
    value: float
    condition: str
    split: str = "none"
    modality: str = "all"
    layer: int | None = None
    coefficient: float | None = None
    interval: tuple[float, float] | None = None
    interval_method: str | None = None
    n: int | None = None
    clusters: int | None = None
    control: Control | None = None
    detail: str | None = None
    target: str | None = None
    test: Tested | None = None
    bounds: tuple[float, float] | None = None
    unscored: int | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    companions: Mapping[str, float | None] = field(default_factory=dict)
    floor: float | None = None
    judges: Mapping[str, str] = field(default_factory=dict)
    doses: Mapping[str, float] = field(default_factory=dict)
    dropped: int | None = None
    equivalence: str | None = None
    series: Mapping[str, Sequence[float | int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A run's results. `question`: what the study asks, empty for a summary that is no study's; `whole`: its page also
    says which of the usual sections have no numbers; `samples`: generations, from `samples.json`; `projections`: what a
    direction reads at every token, from `projections.json`; `unmeasured`: how many results had no value."""

    results: tuple[Result, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    schema: Any = None
    hashes: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    command: str = ""
    cosines: tuple[tuple[str, ...], np.ndarray] | None = None
    samples: tuple[Mapping[str, Any], ...] = ()
    projections: tuple[Projected, ...] = ()
    unmeasured: int = 0
    question: str = ""
    whole: bool = False

    @property
    def is_organism(self) -> bool:
        """True when the model is one of our organisms, whose effect is there by construction."""
        return "organism" in str(self.model.get("kind", "")).lower()

    def where(self, **conditions: Any) -> list[Result]:
        """Results whose fields equal the conditions; a tuple or set as value means any of its members."""

        def fits(result: Result) -> bool:
            return all(
                getattr(result, name) in wanted
                if isinstance(wanted, tuple | set | frozenset)
                else getattr(result, name) == wanted
                for name, wanted in conditions.items()
            )

        return [result for result in self.results if fits(result)]

    def first(self, **conditions: Any) -> Result | None:
        """The first such result, or None. Layer, coefficient and target are None unless asked for."""
        found = self.where(**{"layer": None, "coefficient": None, "target": None} | conditions)
        return found[0] if found else None

    def controls(self, result: Result) -> dict[str, np.ndarray]:
        """Control draws that belong to a result, by kind: those stored with it, or with its twins of condition random.

        Twins agree in metric, split, modality, layer, coefficient and target; a control written as several `random`
        results (one a draw, or one with all draws) names its kind in `control.kind` or else in `detail`.
        """
        cell = ("metric", "split", "modality", "layer", "coefficient", "target")
        same = {name: getattr(result, name) for name in cell}
        draws: dict[str, list[float]] = {}
        for twin in self.where(**same, condition=result.condition, detail=result.detail):
            if twin.control and twin.control.draws and twin.control.kind not in draws:
                draws[twin.control.kind] = list(twin.control.draws)
        loose: dict[str, list[float]] = {}
        for twin in self.where(**same, condition="random"):
            kind = (twin.control.kind if twin.control else twin.detail) or "isotropic"
            loose.setdefault(kind, []).extend((twin.control.draws if twin.control else ()) or (twin.value,))
        found = {**loose, **draws}
        # The control that counts stands first, in figures and in words.
        return {
            kind: np.asarray(found[kind], dtype=float) for kind in sorted(found, key=lambda k: k != "energy_matched")
        }


def read_summary(
    source: str | Path | Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]] = (),
    projections: Sequence[Mapping[str, Any]] = (),
) -> Summary:
    """The summary of a run folder, of a `summary.json`, or of the same data as a dict; sections may be missing.

    `samples.json` and `projections.json` beside the file are read when they are there. Unknown fields are ignored;
    results without a value are counted, not kept. Raises FileNotFoundError or ValueError (expected, came, mend) for
    what is no summary.
    """
    if isinstance(source, Mapping):
        return _summary(source, samples, projections, "the summary")
    path = Path(source)
    path = path / "summary.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"expected a summary at {path}: there is none. Give a run folder or its summary.json.")
    samples = samples or _beside(path, "samples.json")
    projections = projections or _beside(path, "projections.json")
    return _summary(_parsed(path), samples, projections, str(path))


def _beside(path: Path, name: str) -> list[Mapping[str, Any]]:
    """The list of objects in a file beside the summary; empty where there is none."""
    file = path.with_name(name)
    found = _parsed(file) if file.is_file() else []
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise ValueError(f"{file}: expected a list of objects, came {_kind(found)}.")
    return found


def _parsed(path: Path) -> Any:
    try:
        return json_file(path, LARGEST_FILE, infinite=True)  # a result may be infinite, and has no value then
    except Refused as error:
        raise ValueError(f"{path} is no JSON ({error}) Was the run cut off? Run it again; it resumes.") from error


def _summary(
    data: Any, samples: Sequence[Mapping[str, Any]], projections: Sequence[Mapping[str, Any]], name: str
) -> Summary:
    if not isinstance(data, Mapping) or not isinstance(data.get("results"), list):
        raise ValueError(f"{name}: expected an object with a list `results`, came {_kind(data)}.")
    refuse_rest(data, name)
    kept, unmeasured = [], 0
    for number, entry in enumerate(data["results"]):
        result = _result(entry, f"{name}, results[{number}]")
        if result is None:
            unmeasured += 1
        else:
            kept.append(result)
    return Summary(
        results=tuple(kept),
        model=data.get("model") or {},
        seed=data.get("seed"),
        schema=data.get("schema"),
        hashes=data.get("hashes") or {},
        seconds=data.get("seconds") or {},
        command=_command(data.get("command")),
        cosines=_cosines((data.get("directions") or {}).get("cosines")),
        samples=tuple(samples or ()),
        projections=tuple(Projected.of(one) for one in projections),
        unmeasured=unmeasured,
        question=str(data.get("question") or ""),
        whole=bool(data.get("whole", not data.get("question"))),
    )


def _result(entry: Any, name: str) -> Result | None:
    if not isinstance(entry, Mapping) or not {"metric", "condition"} <= entry.keys():
        raise ValueError(f"{name}: expected an object with at least metric, condition and value, came {_kind(entry)}.")
    refuse_entry(entry, name)
    value = entry.get("value")
    if value is None or not math.isfinite(value):
        return None
    known = {item.name for item in fields(Result)}
    given = {key: entry[key] for key in known & entry.keys() if entry[key] is not None}
    interval = given.pop("interval", None)
    control = given.pop("control", None)
    for key, ends in (("interval", interval), ("bounds", given.pop("bounds", None))):
        if ends is not None and all(end is not None and math.isfinite(end) for end in ends):
            low, high = ends
            given[key] = (float(low), float(high))
    if (test := given.pop("test", None)) is not None and test.get("p") is not None:
        given["test"] = Tested(float(test["p"]), str(test.get("method") or ""))
    if control is not None:
        draws = tuple(float(draw) for draw in control.get("draws") or () if draw is not None)
        given["control"] = Control(
            str(control.get("kind", "random")), int(control.get("N") or len(draws)), control.get("p"), draws
        )
    if given.get("coefficient") is not None:  # JSON keeps whole numbers whole
        given["coefficient"] = float(given["coefficient"])
    return Result(**{**given, "value": float(value)})


def _cosines(data: Any) -> tuple[tuple[str, ...], np.ndarray] | None:
    if not data or not data.get("labels"):
        return None
    return tuple(str(label) for label in data["labels"]), np.asarray(data["matrix"], dtype=float)


def _command(command: Any) -> str:
    import shlex

    return shlex.join(str(word) for word in command) if isinstance(command, list) else str(command or "")


def _kind(data: Any) -> str:
    return f"an object with {sorted(data)[:8]}" if isinstance(data, Mapping) else f"{type(data).__name__}: {data!r:.60}"
