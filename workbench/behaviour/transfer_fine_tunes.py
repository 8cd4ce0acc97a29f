"""fine_tunes, other_base: what carries directions between models, captured once: the fine-tunes of one base, and a
fine-tune of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.prompt import Prompt
from stores import ActivationStore
from stores.printed import Printed
from workbench.capturing import capture
from workbench.interventions.maps import TransferMap
from workbench.interventions.transfer_matrix_carried import (
    OTHER,
    carried_as_is,
    carried_between,
    carried_within,
    maps_between,
    own_direction,
)
from workbench.interventions.transfer_matrix_cells import OPERATIONS, Carried
from workbench.interventions.transfer_matrix_rows import at_the_choice, rows_outside
from workbench.interventions.transfer_matrix_sweep import Transfers, transfers_into
from workbench.subspace.directions import Directions
from workbench.subspace.means import difference_of_means
from workbench.subspace.rows import RowSource

MATCHED_ON = 48  # prompts, all positions of which matched controls combine
SITES = "resid_post"


@dataclass(frozen=True)
class FineTunes(Printed):
    """The fine-tunes of one base. `donors` and `recipients` are domain -> variant (another training where there is
    one), `shifts` the directions by variant, `held` a store of the base and all of them for each set of prompts, `here`
    the base where the answers to the questions are chosen."""

    model: HuggingFaceModel
    donors: Mapping[str, str]
    recipients: Mapping[str, str]
    sets: Mapping[str, Sequence[Prompt]]
    held: Mapping[str, ActivationStore]
    shifts: Mapping[str, Directions]
    questions: Sequence[Prompt]
    capability: Sequence[Prompt]
    here: RowSource
    to: Path

    def as_is(self, domain: str, **facts: Any) -> list[Carried]:
        """What is carried into the fine-tune on this domain as it is (`carried_as_is`)."""
        return carried_as_is((domain, self.recipients[domain]), self.donors, self.shifts, self.here, **facts)

    def by_maps(self, domain: str, methods: Sequence[str], **facts: Any) -> list[Carried]:
        """What fitted maps carry into it (`carried_within`)."""
        recipient = domain, self.recipients[domain]
        return carried_within(recipient, self.donors, self.shifts, self.held, self.here, methods, **facts)

    def into(self, domain: str, carried: Sequence[Carried], **options: Any) -> Transfers:
        """All of it done to that fine-tune (`transfers_into`, with its options)."""
        tuned, base = (self.model.variant(name) for name in (self.recipients[domain], "base"))
        return self.done_to(domain, tuned, base, carried, domain=domain, **options)

    def done_to(
        self, name: str, tuned: HuggingFaceModel, base: HuggingFaceModel, carried: Sequence[Carried], **options: Any
    ) -> Transfers:
        """The same for any recipient, on the questions of these; controls are matched on its own positions."""
        fit = next(iter(self.sets.values()))[:MATCHED_ON]
        matched = _rows(tuned, fit, self.to / f"positions of {name}", at="all")
        given = {"activations": matched, "capability": self.capability, "to": self.to / f"into {name}", **options}
        return transfers_into(name, tuned, base, carried, self.questions, **given)


def fine_tunes(
    model: HuggingFaceModel,
    groups: Mapping[str, Sequence[str]],
    sets: Mapping[str, Sequence[Prompt]],
    questions: Sequence[Prompt],
    capability: Sequence[Prompt] = (),
    *,
    to: str | Path,
) -> FineTunes:
    """Captures what directions between fine-tunes need: the last token of every set of prompts (the first are plain,
    and directions are fitted on them) in the base and all variants, and of the questions in the base.

    `groups` is domain -> variants by fine-tuning seed: the first of each is the donor, the second, where there is one,
    the recipient. A direction is the variant's mean shift on plain prompts outside its own domain. Resumes in `to`.
    """
    to = Path(to)
    donors = {domain: names[0] for domain, names in groups.items()}
    recipients = {domain: names[min(1, len(names) - 1)] for domain, names in groups.items()}
    members = {name: domain for part in (donors, recipients) for domain, name in part.items()}
    held = {
        name: capture(
            model,
            prompts,
            sites=SITES,
            at="last",
            variants=["base", *members],
            together=True,
            to=to / f"tunes on {name}",
        )
        for name, prompts in sets.items()
    }
    plain = next(iter(held.values()))
    shifts = {
        name: difference_of_means(rows_outside(plain, name, domain), rows_outside(plain, "base", domain))
        for name, domain in members.items()
    }
    chosen = at_the_choice([*questions, *capability])
    here = _rows(model.variant("base"), chosen, to / "base at the choice")
    return FineTunes(model, donors, recipients, sets, held, shifts, questions, capability, here, to)


@dataclass(frozen=True)
class OtherBase(Printed):
    """A fine-tune of another base beside these: its `own` direction, maps into it by rule of matching layers and name,
    and maps `back` into theirs; `rows` are (theirs, its) of each set of prompts, of the bases."""

    tunes: FineTunes
    model: HuggingFaceModel
    own: Directions
    domain: str | None
    maps: Mapping[str, Mapping[str, TransferMap]]
    back: Mapping[str, TransferMap]
    rows: Mapping[str, tuple[RowSource, RowSource]]
    there: RowSource

    @property
    def first(self) -> Mapping[str, TransferMap]:
        """The maps into it by the first rule, which all donors take."""
        return next(iter(self.maps.values()))

    def carried_back(self, domain: str, **facts: Any) -> list[Carried]:
        """What its direction carries into the fine-tune on this domain."""
        shift = self.tunes.shifts[self.tunes.recipients[domain]]
        return carried_between(self.back, {OTHER: self.own}, shift, self.there, domain=domain, of=self.domain, **facts)

    def carried(self, shuffles: int = 0, operations: Sequence[str] = OPERATIONS) -> list[Carried]:
        """What the fine-tunes' directions carry into it, beside its own; layers matched by other rules, and shuffled
        maps, only for the donor that learned the same domain, ablated."""
        tunes, found = self.tunes, [own_direction(self.own, self.there, self.domain, operations=tuple(operations))]
        given = {domain: tunes.shifts[name] for domain, name in tunes.donors.items()}
        same = {domain: v for domain, v in given.items() if domain == self.domain}
        for maps in self.maps.values():
            first = maps is self.first
            options: dict[str, Any] = {"operations": operations, "shuffles": shuffles}
            options = options if first else {"operations": ("ablate",)}
            donors = given if first else same
            found += carried_between(maps, donors, self.own, tunes.here, domain=self.domain, **options)
        return found

    def into(self, carried: Sequence[Carried], **options: Any) -> Transfers:
        """All of it done to this fine-tune."""
        tuned, base = (self.model.variant(name) for name in ("tuned", "base"))
        return self.tunes.done_to(OTHER, tuned, base, carried, domain=self.domain, **options)


def other_base(
    tunes: FineTunes,
    model: HuggingFaceModel,
    own: Directions,
    domain: str | None,
    *,
    methods: Sequence[str],
    rules: Sequence[str] = ("depth",),
) -> OtherBase:
    """Captures the other base on the same prompts and questions, and fits maps both ways by these methods; `rules` say
    how layers are matched (see `wb.fit_transfer`). `model` has the variant "tuned", which learned `domain`."""
    base = model.variant("base")
    theirs: dict[str, Any] = {name: store.where(variant="base") for name, store in tunes.held.items()}
    its = {name: _rows(base, prompts, tunes.to / f"other on {name}") for name, prompts in tunes.sets.items()}
    chosen = at_the_choice([*tunes.questions, *tunes.capability])
    there = _rows(base, chosen, tunes.to / "other at the choice")
    maps = {rule: maps_between(theirs, its, methods, rule) for rule in rules}
    back = maps_between(its, theirs, methods, rules[0])
    rows = {name: (theirs[name], its[name]) for name in theirs}
    return OtherBase(tunes, model, own, domain, maps, back, rows, there)


def _rows(model: HuggingFaceModel, prompts: Sequence[Prompt], to: Path, at: str = "last") -> Any:
    return capture(model, prompts, sites=SITES, at=at, to=to).rows()
