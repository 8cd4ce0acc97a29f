"""evaluate: how one model answers, judged; a sweep without interventions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.prompt import Prompt
from stores import ResultTable
from workbench.behaviour.judging import Judge
from workbench.interventions.cells import Intervention
from workbench.interventions.sweep import sweep


def evaluate(
    model: HuggingFaceModel,
    prompts: str | Path | Sequence[Prompt],
    judge: Judge,
    *,
    intervention: Intervention | None = None,
    to: str | Path | None = None,
    **options: Any,
) -> ResultTable:
    """Every prompt answered greedily and judged, one row a prompt (columns as in `sweep`): the model as it is, and
    under one intervention where that is given. Resumes in `to`."""
    cells = [] if intervention is None else [intervention]
    return sweep(model, prompts, cells, judge=judge, to=to, **options)
