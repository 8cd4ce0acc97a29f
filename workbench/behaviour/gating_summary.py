"""gate_of: what the maps of a domain's adapters say together: the trigger's effect, the shares that patches carry, and
the block that reads the trigger, located on some questions and stated on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.behaviour.ranking_tests import spread_interval, spread_of, tested
from workbench.interventions.gating import WAYS, GatingMap, Way
from workbench.interventions.gating_location import GateLocation, locate_gate
from workbench.interventions.gating_questions import GatedQuestion
from workbench.statistics import Interval, Significance, dev_confirm

LEAST = 0.5  # nats: a smaller effect of the trigger is not located, whatever its interval
FAMILIES = 4  # of questions at least: some to locate on, the others to state it on
UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True)
class Share:
    """A share of the trigger's effect, with its interval over question families and fine-tuning seeds."""

    value: float
    interval: Interval
    families: int


@dataclass(frozen=True, eq=False)
class Gate(Printed):
    """The adapters of one domain on one set of questions. `effect` is in nats of the logit difference, `p_triggered`
    and `p_reference` are probabilities of the contrary token; `changes[way]` are [site, place, seed, family] and
    `effects` [seed, family]. `why_not` says why nothing is located (None: it is). `location` comes from the `dev`
    families, `shares` of it are of the `confirm` families: of patches in and out, at the gate's place and at the
    trigger's, in front of the block and behind it."""

    domain: str
    split: str
    seeds: int
    questions: int
    families: tuple[str, ...]
    dev: tuple[int, ...]
    confirm: tuple[int, ...]
    sites: tuple[Site, ...]
    places: tuple[str, ...]
    effects: Float[np.ndarray, "seed family"]
    effect: Interval
    test: Significance
    p_triggered: float
    p_reference: float
    moved: Float[np.ndarray, "site place"]
    shared: Float[np.ndarray, "site place"]
    changes: dict[Way, Float[np.ndarray, "site place seed family"]] = field(repr=False)
    why_not: str | None = None
    location: GateLocation | None = None

    @cached_property
    def mean(self) -> float:
        return float(self.effects.mean())

    def share_map(self, way: Way) -> Float[np.ndarray, "site place"]:
        """Shares of all questions together."""
        return self.changes[way].mean(axis=(-1, -2)) / self.mean

    def share(self, way: Way, site: int, place: str, of: Sequence[int] | None = None) -> Share:
        """One cell's share with its interval, on the `confirm` families unless others are given."""
        chosen = list(self.confirm if of is None else of)
        return share_of(self.changes[way][site, self.places.index(place)][:, chosen], self.effects[:, chosen])

    def blocks(self) -> list[int]:
        """The block that each adapter's own map of all questions gives, by fine-tuning seed; -1 where it gives none."""
        out = []
        for seed in range(self.seeds):
            effect = self.effects[seed].mean()
            shares = [self.changes[way][:, :, seed].mean(axis=-1) / effect for way in WAYS]
            found = locate_gate(shares[0], shares[1], self.sites, self.places)
            out.append(-1 if found is None else found.block)
        return out

    def __str__(self) -> str:
        said = f"{self.domain}, {self.split}: {self.mean:+.3g} nats {self.effect}, {self.test}"
        return f"{said}; {self.why_not or f'read in {self.location}'}"


def share_of(changes: Float[np.ndarray, "seed family"], effects: Float[np.ndarray, "seed family"]) -> Share:
    """The ratio of two means over the same seeds and families; the interval is that of its linear part (delta method:
    what each adds to the ratio), over families and seeds as `ranking_tests.spread_interval`."""
    effect = float(effects.mean())
    value = float(changes.mean()) / effect
    found = spread_of(value + (changes - value * effects) / effect)
    return Share(value, spread_interval(found, rate=False, bounds=UNBOUNDED, rows=changes.size), changes.shape[1])


def gate_of(
    domain: str,
    maps: Sequence[GatingMap],
    *,
    split: str = "all",
    keep: Callable[[GatedQuestion], bool] = lambda question: True,
    seed: int = 0,
) -> Gate | None:
    """The maps of one domain's adapters, one a fine-tuning seed, on the questions that are kept; None where fewer than
    two families of them are in every map. Half of the families, by a hash of their names, locates the gate
    (`locate_gate`), the others state the shares. Not located, as declared beforehand: fewer than 4 families, an effect
    of these adapters that is not told from 0 over the families, is below 0.5 nats or differs in sign among them; and a
    map in which no block carries half of it."""
    chosen = [[i for i, one in enumerate(found.questions) if keep(one)] for found in maps]
    named = [{found.families[i] for i in index} for found, index in zip(maps, chosen, strict=True)]
    everywhere = set.intersection(*named) if named else set()
    families = [name for name in dict.fromkeys(maps[0].families) if name in everywhere] if maps else []
    if len(families) < 2:
        return None
    first = maps[0]
    places = tuple(name for name in first.places if all(name in found.places for found in maps))

    def by_family(values: Callable[[GatingMap], np.ndarray]) -> np.ndarray:
        """[..., seed, family]: the mean over the questions of each family."""
        return np.stack([_family_means(values(found), found, families, index)
                         for found, index in zip(maps, chosen, strict=True)], axis=-2)  # fmt: skip

    at = {id(found): [found.places.index(name) for name in places] for found in maps}
    effects = by_family(lambda found: found.effect)
    changes: dict[Way, np.ndarray] = {
        way: by_family(lambda found, way=way: found.change(way)[:, at[id(found)]]) for way in WAYS
    }
    spread = spread_of(effects)
    interval = spread_interval(spread, rate=False, bounds=UNBOUNDED, rows=effects.size)
    trained = f"{len(maps)} fine-tuning seeds"
    dev, confirm = _halves(families, seed)
    shared = np.mean([found.shared[:, at[id(found)]] for found in maps], axis=0)
    why_not = _why_not(effects, families)
    location = None
    if why_not is None:
        shares = {way: changes[way][..., dev].mean(axis=(-1, -2)) / effects[:, dev].mean() for way in WAYS}
        location = locate_gate(shares["in"], shares["out"], first.sites, places)
        if location is None:
            why_not = "no block carries half of the effect from the trigger to another place"
    return Gate(
        domain=domain,
        split=split,
        seeds=len(maps),
        questions=sum(map(len, chosen)),
        families=tuple(families),
        dev=tuple(dev),
        confirm=tuple(confirm),
        sites=first.sites,
        places=places,
        effects=effects,
        effect=interval,
        test=tested(spread, effects.mean(axis=0), trained=trained, seed=seed),
        p_triggered=float(by_family(lambda found: found.p_triggered).mean()),
        p_reference=float(by_family(lambda found: found.p_reference).mean()),
        moved=by_family(lambda found: found.moved[:, at[id(found)]]).mean(axis=(-1, -2)),
        shared=shared,
        changes=changes,
        why_not=why_not,
        location=location,
    )


def _halves(families: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    if len(families) < FAMILIES:
        return [], list(range(len(families)))
    sides = dev_confirm(families, families, share=0.5, seed=seed).sides
    return tuple([i for i, side in enumerate(sides) if side == name] for name in ("dev", "confirm"))  # type: ignore


def _why_not(effects: Float[np.ndarray, "seed family"], families: Sequence[str]) -> str | None:
    """About these adapters: whether another training would have given an effect is the interval's matter."""
    if len(families) < FAMILIES:
        return f"{len(families)} question families: expected {FAMILIES} or more"
    mean = float(effects.mean())
    asked = spread_of(effects.mean(axis=0)[None])
    interval = spread_interval(asked, rate=False, bounds=UNBOUNDED, rows=len(families))
    if asked.variance > 0 and interval.low <= 0 <= interval.high:
        return f"the trigger's effect is not told from 0 over {len(families)} question families ({mean:+.2g} nats)"
    if abs(mean) < LEAST:
        return f"the trigger's effect is below {LEAST:g} nats ({mean:+.2g})"
    if len(set(np.sign(effects.mean(axis=1)))) > 1:
        return f"the trigger's effect differs in sign among {len(effects)} adapters ({mean:+.2g} nats)"
    return None


def _family_means(
    values: Float[np.ndarray, "*axes n"], found: GatingMap, families: Sequence[str], chosen: Sequence[int]
) -> Float[np.ndarray, "*axes family"]:
    kept = set(chosen)
    own = [[i for i, name in enumerate(found.families) if name == family and i in kept] for family in families]
    return np.stack([values[..., index].mean(axis=-1) for index in own], axis=-1)
