"""read_choices: the smooth twin of a rate, the probability of the contrary answer at the token that decides.

A rate moves only where an answer flips; this number moves before. It needs prompts with the tags `right` and
`contrary`, is read without sampling, and is no judgement of a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.encoded_prompts import EncodedPrompts
from hooks.prompt import Prompt
from stores import ResultTable, content_key, provenance
from workbench.behaviour.answering import Observation, observation_facts
from workbench.behaviour.judged import Judged
from workbench.behaviour.judging import revision_of
from workbench.behaviour.metrics import P_CONTRARY
from workbench.behaviour.scoring import text_hash
from workbench.interventions.readout import choice_of, prefilled
from workbench.units import kinds_of, length_sorted

__all__ = ["P_CONTRARY", "read_choices"]
READINGS_VERSION = 1
FACTS = ("condition", "prompt", "sample", "text_hash", "judge", "judge_revision", "kind", "measures", "score",
         "category", "reason")  # fmt: skip


def read_choices(
    model: HuggingFaceModel,
    prompts: Sequence[Prompt],
    conditions: Mapping[str, str],
    *,
    to: str | Path | None = None,
    max_tokens: int = 8192,
) -> Judged:
    """P(contrary), over the vocabulary, at the deciding token of each prompt, for every condition (name -> variant), as
    judged answers: `misalignment`, `dose_trend` and `difference` take them with the metric `wb.P_CONTRARY`.

    One forward a batch and condition; the table lies in the folder `to`, where it resumes. Raises PromptError for
    prompts without the tags `right` and `contrary`, or whose two answers begin with the same token.
    """
    begun = [prefilled(prompt) for prompt in prompts]
    choice = choice_of(prompts, model.encoder)
    encoded = EncodedPrompts(model.encoder, begun)
    units = length_sorted(encoded.lengths, max_tokens, kinds_of(model, begun, encoded.lengths))
    spec = {
        "table": "readings",
        "version": READINGS_VERSION,
        "model": model.identity,
        "conditions": dict(conditions),
        "prompts": content_key([prompt.record() for prompt in prompts]),
        "max_tokens": max_tokens,
    }
    plan = [f"{condition}.batch{u}" for u in range(len(units)) for condition in conditions]
    table = ResultTable.create(to, spec=spec, plan=plan, provenance=provenance.collect(**model.facts))
    missing = set(table.missing())
    for u, unit in enumerate(units):
        wanted = {name: variant for name, variant in conditions.items() if f"{name}.batch{u}" in missing}
        if not wanted:
            continue
        batch = model.encoder.collate(encoded.taken(unit))
        for name, variant in wanted.items():
            logits = model.variant(variant).run(batch).logits
            assert logits is not None
            read = choice.of(unit).read(logits)
            rows = [_row(prompts[i], name, found) for i, found in zip(unit, read, strict=True)]
            table.commit(f"{name}.batch{u}", rows)
    rows = table.rows()
    scores = [{fact: row[fact] for fact in FACTS} for row in rows]
    return Judged(_in_memory(rows), _in_memory(scores))


def _row(prompt: Prompt, condition: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """One reading as an answer and its score: the text is the answer that greedy decoding would begin."""
    revision = revision_of("reading:p_contrary", READINGS_VERSION)
    judged = {"judge": "reading:p_contrary", "judge_revision": revision, "kind": "reading", "measures": "p_contrary"}
    said = {"text": found["choice"], "text_hash": text_hash(found["choice"]), "category": found["choice"]}
    facts = {"condition": condition, **observation_facts(prompt, Observation(0, 0, 0)), **said, **judged}
    return {**facts, "score": float(found["p_contrary"]), "reason": "read at the deciding token"}


def _in_memory(rows: Sequence[Mapping[str, Any]]) -> ResultTable:
    table = ResultTable.create(None, spec={"table": "readings"}, plan=["all"], provenance={})
    table.commit("all", list(rows))
    return table
