"""What a ranking reads of judged answers: the value of every adapter of a domain on every family of questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.behaviour.judged import Judged
from workbench.behaviour.measured import COMPANIONS, family_of, mean_of, points_of, values_of
from workbench.behaviour.metrics import Metric
from workbench.behaviour.scoring import Key, key_of

Row = Mapping[str, Any]
Groups = Mapping[str, Sequence[str]]  # domain -> the conditions of its adapters, one a fine-tuning seed
Keep = Callable[[str, Row], bool]  # whether a domain is measured on a row


@dataclass(frozen=True)
class Replicates:
    """The adapters of one domain, which differ by their fine-tuning seed. `values` are means over the answers to one
    family of questions; `dropped` families lack a score under some seed, and count under none. `unscored` of `answers`
    have no value; `companions` are means of what else was measured of them."""

    domain: str
    conditions: tuple[str, ...]
    families: tuple[str, ...]
    values: Float[np.ndarray, "seed family"]
    answers: int
    unscored: int
    dropped: int
    companions: Mapping[str, float | None]

    @property
    def seeds(self) -> int:
        return len(self.conditions)

    def on(self, families: Sequence[str]) -> Float[np.ndarray, "seed family"]:
        """The values on some of the families."""
        place = {name: at for at, name in enumerate(self.families)}
        return self.values[:, [place[name] for name in families]]


def replicates_of(
    judged: Judged,
    rule: Metric,
    groups: Groups,
    *,
    judge: str | None = None,
    keep: Keep = lambda domain, row: True,
    against: Groups | None = None,
) -> dict[str, Replicates]:
    """The values of every domain's adapters on the rows that are kept; with `against` (domain -> as many conditions)
    the differences from these, answer by answer of the same prompt and draw. Raises ValueError for conditions that
    are not there, or are in two domains."""
    listed = [name for names in groups.values() for name in names]
    if strange := [name for name in [*listed, *_flat(against)] if name not in judged.conditions]:
        raise ValueError(f"there is no condition {strange[0]!r}: expected some of {', '.join(judged.conditions)}.")
    if not listed or len(set(listed)) < len(listed) or not all(groups.values()):
        raise ValueError("expected at least one condition for each domain, and each condition in one domain only.")
    values, _ = values_of(judged, rule, judge)
    rows: dict[str, dict[Key, Row]] = {}
    for row in judged.rows:
        rows.setdefault(str(row["condition"]), {})[key_of(row)] = row
    beside = {name: judged.scores_of(name, judged.judges_of(name)[0])[1] for name in COMPANIONS
              if judged.judges_of(name)}  # fmt: skip
    out: dict[str, Replicates] = {}
    for domain, names in groups.items():
        kept = {name: {key: row for key, row in rows[name].items() if keep(domain, row)} for name in names}
        other = dict(zip(names, against[domain], strict=True)) if against is not None else {}
        by_seed = [_by_family(kept[name], other.get(name), values, rule) for name in names]
        everywhere = [family for family in by_seed[0] if all(family in one for one in by_seed)]
        keys = [key for name in names for key in kept[name]]
        out[domain] = Replicates(
            domain=domain,
            conditions=tuple(names),
            families=tuple(everywhere),
            values=np.array([[one[family] for family in everywhere] for one in by_seed]).reshape(len(names), -1),
            answers=len(keys),
            unscored=sum(values[key] is None for key in keys),
            dropped=len(set().union(*by_seed)) - len(everywhere),
            companions={name: mean_of([found[key]["score"] for key in keys]) for name, found in beside.items()},
        )
    return out


def _by_family(
    rows: Mapping[Key, Row], against: str | None, values: Mapping[Key, float | None], rule: Metric
) -> dict[str, float]:
    """The mean of each family, of its answers or of their differences from the twins in `against`."""
    family = {key: family_of(row) for key, row in rows.items()}
    if against is None:
        return _means(points_of({key: values[key] for key in rows}, family, rule))
    pairs = {key: (against, *key[1:]) for key in rows}
    whole = {key: twin for key, twin in pairs.items() if values[key] is not None and values.get(twin) is not None}
    mine = _means(points_of({key: values[key] for key in whole}, family, rule))
    twins = {twin: family[key] for key, twin in whole.items()}
    theirs = _means(points_of({twin: values[twin] for twin in twins}, twins, rule))
    return {name: value - theirs[name] for name, value in mine.items()}


def _means(points: Sequence[tuple[str, float]]) -> dict[str, float]:
    of: dict[str, list[float]] = {}
    for family, value in points:
        of.setdefault(family, []).append(value)
    return {family: float(np.mean(each)) for family, each in of.items()}


def _flat(groups: Groups | None) -> list[str]:
    return [name for names in (groups or {}).values() for name in names]
