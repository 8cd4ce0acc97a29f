"""What a drift measures of texts at one moment of a training: a judge's score of answers, and the loss on the task."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hooks.token_log_probs import token_log_probs
from workbench.interventions.drift_measured import EVERYONE, by_class, mean_and_sd
from workbench.interventions.generate import generate
from workbench.training.datasets import encoded_rows
from workbench.units import budget_on, kinds_of, length_sorted

if TYPE_CHECKING:
    from workbench.interventions.drift import Drift


class Written:
    """The answers of a model to a drift's questions, and its likelihood of the task's responses. The model must be in
    eval mode while it is asked."""

    def __init__(self, model: Any, drift: Drift) -> None:
        self._model, self._drift = model, drift
        self.groups = by_class(drift.asked)

    def answers(self) -> list[dict[str, Any]]:
        """The judge's scores by class of the questions: mean, sd and n of those that it gave, and how many it did not
        (`unscored`). Nothing without a judge."""
        judge, asked = self._drift.judge, self._drift.asked
        if judge is None or not asked:
            return []
        written = generate(self._model, asked, max_new_tokens=self._drift.max_new_tokens)
        texts, finished = [one.text for one in written], [one.finished for one in written]
        if (together := getattr(judge, "score_texts", None)) is not None:
            verdicts = together(asked, texts, finished)
        else:
            verdicts = [
                judge.score(*parts[:2], finished=parts[2]) for parts in zip(asked, texts, finished, strict=True)
            ]
        rows = []
        for group, index in self.groups.items():
            scores = np.array([verdicts[i].score for i in index if verdicts[i].score is not None], np.float64)
            found = mean_and_sd(scores) if len(scores) else {"n": 0, "mean": None, "sd": None}
            rows.append({"measure": "answers", "group": group, **found, "unscored": len(index) - len(scores)})
        return rows

    @cached_property
    def _task(self) -> list[Any]:
        encoder, rows = self._model.encoder, self._drift.held_out
        encoded = encoded_rows(rows, encoder)
        lengths = [len(one) for one in encoded]
        budget = self._drift.max_tokens or budget_on(self._model.device)
        units = length_sorted(lengths, budget, kinds_of(self._model, rows, lengths))
        return [encoder.collate([encoded[i] for i in unit]) for unit in units]

    def task(self) -> list[dict[str, Any]]:
        """Mean negative log-likelihood of a token, row by row: mean, sd and n over the rows of the task."""
        losses = [
            -float(one.log_prob.double().mean())
            for batch in self._task
            for one in token_log_probs(self._model, batch, "response")[0]
        ]
        return [{"measure": "task", "group": EVERYONE, **mean_and_sd(np.array(losses))}] if losses else []
