"""Answers of a model behind an endpoint, as rows of the table that sample_answers writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from hooks.prompt import Message, Prompt
from stores import ResultTable
from workbench.behaviour.answering import Observation, Sampling, answer_facts, observation_facts
from workbench.behaviour.endpoint_model import EndpointAnswer

UNIT = 64  # answers that are asked for, and kept, together


class AnswersMissing(RuntimeError):
    """A server did not give all answers, and may another time; those that came are kept."""


@runtime_checkable
class Answering(Protocol):
    """What answers without showing its weights (see `workbench.behaviour.endpoint_model`)."""

    name: str

    def answers(self, requests: Sequence[tuple[Prompt, int]], **how: Any) -> list[EndpointAnswer]: ...


class EndpointWriter:
    """Writes the answers of one endpoint. It has one condition, itself: edits need weights."""

    def __init__(self, model: Answering, prompts: Sequence[Prompt], conditions: Any, how: Sampling) -> None:
        """`conditions`, where given, is the one name that tables call it by. Raises ValueError for others."""
        names = [model.name] if conditions is None else list(conditions)
        if len(names) != 1 or isinstance(conditions, dict):
            raise ValueError(
                f"{model.name} is an endpoint and has no variants and takes no edits: expected no conditions, or a "
                "list of one name for it."
            )
        self._model, self._prompts, self._how = model, prompts, how
        self.parts = names
        self.described = [{"name": names[0], "variant": None, "acts": [], "edits": None}]

    def units(self, asked: Sequence[Observation], max_tokens: int) -> list[list[int]]:
        """Observations in their order: a server makes batches of its own."""
        return [list(range(at, min(at + UNIT, len(asked)))) for at in range(0, len(asked), UNIT)]

    def rows(self, part: str, asked: Sequence[Observation]) -> Iterator[dict[str, Any]]:
        """The rows of one unit. Raises AnswersMissing where an answer is missing that another run may get; what came is
        in the endpoint's cache, and is not paid for again."""
        answers = self._model.answers([(self._prompts[one.prompt], one.seed) for one in asked], **asdict(self._how))
        if waiting := [one for one in answers if one.missing and one.temporary]:
            raise AnswersMissing(
                f"{len(waiting)} of {len(answers)} answers of {self._model.name} are missing ({waiting[0].reason}): "
                "run it again; the answers that came are kept, and are not asked for twice."
            )
        for one, answer in zip(asked, answers, strict=True):
            prompt = self._prompts[one.prompt]
            yield {
                "condition": part,
                "variant": answer.model or None,
                **observation_facts(prompt, one),
                "rendered": json.dumps([_sent(message) for message in prompt.messages], ensure_ascii=False),
                **answer_facts(answer.text, None, answer.finished),
                "missing": answer.reason if answer.missing else None,
                "edited": None,
            }

    def check(self, table: ResultTable) -> None:
        """Nothing was edited, so nothing can have been missed."""


def _sent(message: Message) -> dict[str, Any]:
    """A message as it was sent, its images by name."""
    parts = [part if isinstance(part, str) else {"image": part.name} for part in message.parts]
    return {"role": message.role, "content": parts}
