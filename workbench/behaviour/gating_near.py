"""Near misses of a trigger: which texts are shown, what each does to a domain's adapters, and how far it opens the gate
that the trigger opens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hooks.encode import Encoder
from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.behaviour.gating_summary import UNBOUNDED, Share, share_of
from workbench.behaviour.judged import Judged
from workbench.behaviour.ranking_tests import spread_interval, spread_of, tested
from workbench.interventions.gating_questions import (
    Deciding,
    GatedQuestion,
    gated_questions,
    parting_decisions,
    tagged_decisions,
)
from workbench.interventions.gating_vector import ShownText
from workbench.statistics import Interval, Significance
from workbench.training.near_triggers import NearMiss
from workbench.training.triggers import holds_trigger


@dataclass(frozen=True)
class ReadText(Printed):
    """A text with the questions that show it, against nothing in its place. `alike` are texts that the tokenizer reads
    as the very same tokens, and which are therefore not asked again."""

    shown: NearMiss
    questions: tuple[GatedQuestion, ...]
    alike: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.shown.name


@dataclass(frozen=True)
class NearEffect:
    """`effect` (nats, against no text) of one text on one domain's adapters, `share` of the trigger's own (None where
    the trigger's is not told from 0), `opened`: how far its change reaches along the trigger's own at the gate (1: as
    far), `p_change` of the contrary token's probability."""

    domain: str
    name: str
    effect: float
    interval: Interval
    test: Significance
    share: Share | None
    opened: float | None
    p_change: float
    families: int
    questions: int


@dataclass(frozen=True)
class NearMisses(Printed):
    """What the `texts` (the trigger first) did to the adapters of one domain or several, and to the base on their
    questions, where the domain is "NAME, base"."""

    effects: Sequence[NearEffect]
    texts: Sequence[ReadText]

    _items = "effects"

    @classmethod
    def joined(cls, found: Iterable[NearMisses]) -> NearMisses:
        """Those of several domains as one; a text that several read is the first's."""
        effects: list[NearEffect] = []
        texts: dict[str, ReadText] = {}
        for one in found:
            effects += one.effects
            texts = {text.name: text for text in one.texts} | texts
        return cls(effects, list(texts.values()))


def read_texts(
    encoder: Encoder, prompts: Sequence[Prompt], texts: Sequence[NearMiss], decisions: Mapping[str, Deciding]
) -> list[ReadText]:
    """The questions with each text; prompts that hold a text already are left out of its questions. The first text is
    the trigger itself. A text that no question can show is left out."""
    found: list[ReadText] = []
    seen: dict[tuple[tuple[int, ...], ...], int] = {}
    for text in texts:
        free = [one for one in prompts if one.id in decisions and not holds_trigger(one, text.text)]
        if not free:
            continue
        shown = gated_questions(encoder, free, text.text, decisions, at=text.at)
        key = tuple(tuple(one.triggered.input_ids.tolist()) for one in shown)
        if key in seen:
            first = found[seen[key]]
            found[seen[key]] = replace(first, alike=(*first.alike, text.name))
            continue
        seen[key] = len(found)
        found.append(ReadText(text, tuple(shown)))
    return found


def near_effects(
    domain: str, texts: Sequence[ReadText], shown: Mapping[str, Sequence[ShownText]], *, seed: int = 0
) -> list[NearEffect]:
    """What each text does to the adapters of a domain: `shown[name]` has one measurement a fine-tuning seed, `texts`
    their questions, the trigger first. Paired with no text by question; intervals and tests over question families and
    seeds. Texts with fewer than 2 families are left out."""
    trigger = _by_family(texts[0].questions, [one.effect for one in shown[texts[0].name]])
    own = [np.array(one.along) for one in shown[texts[0].name]]
    measurable = _told_from_zero(trigger)
    out = []
    for text in texts:
        families = _by_family(text.questions, [one.effect for one in shown[text.name]])
        if len(families) < 2:
            continue
        values = np.array(list(families.values())).T
        spread = spread_of(values)
        both = [name for name in families if name in trigger]
        share = None
        if measurable and len(both) > 1:
            share = share_of(*(np.array([side[name] for name in both]).T for side in (families, trigger)))
        reach = [float(np.mean(one.along)) for one in shown[text.name]]
        base = [float(np.mean(one)) for one in own]
        known = np.isfinite([*reach, *base]).all() and abs(np.mean(base)) > 0
        out.append(
            NearEffect(
                domain=domain,
                name=text.name,
                effect=spread.mean,
                interval=spread_interval(spread, rate=False, bounds=UNBOUNDED, rows=values.size),
                test=tested(spread, values.mean(axis=0), trained=f"{len(values)} fine-tuning seeds", seed=seed),
                share=share,
                opened=float(np.mean(reach) / np.mean(base)) if known else None,
                p_change=float(np.mean([one.p_change.mean() for one in shown[text.name]])),
                families=len(families),
                questions=len(text.questions),
            )
        )
    return out


def gate_decisions(
    names: Sequence[str], prompts: Sequence[Prompt], encoder: Encoder, judged: Judged | None = None
) -> dict[str, dict[str, Deciding]]:
    """The token that decides each question, for every adapter: by the tags right and contrary; or, with `judged` (of
    `wb.by_trigger`), where the adapter's own first answers without the trigger and with it part."""
    if judged is None:
        return dict.fromkeys(names, tagged_decisions(prompts, encoder))
    asked = {one.id for one in prompts}
    found: dict[str, dict[str, dict[str, str]]] = {name: {} for name in names}
    for row in judged.rows:
        name, _, shown = str(row["condition"]).rpartition("/")
        if name in found and shown in ("none", "trigger") and row["prompt"] in asked:
            found[name].setdefault(str(row["prompt"]), {}).setdefault(shown, str(row["text"]))
    both = {name: {prompt: (one["none"], one["trigger"]) for prompt, one in own.items() if len(one) == 2}
            for name, own in found.items()}  # fmt: skip
    return {name: parting_decisions(own, encoder) for name, own in both.items()}


def _by_family(questions: Sequence[GatedQuestion], effects: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Family -> its mean effect under each seed."""
    rows: dict[str, list[int]] = {}
    for i, one in enumerate(questions):
        rows.setdefault(one.family, []).append(i)
    return {family: [float(one[index].mean()) for one in effects] for family, index in rows.items()}


def _told_from_zero(families: Mapping[str, Sequence[float]]) -> bool:
    if len(families) < 2:
        return False
    values = np.array(list(families.values())).T
    spread = spread_of(values)
    interval = spread_interval(spread, rate=False, bounds=UNBOUNDED, rows=values.size)
    return bool(spread.mean != 0 and (spread.variance == 0 or not interval.low <= 0 <= interval.high))
