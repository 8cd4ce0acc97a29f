"""What the pipelines are asked for while they are killed, on a tiny model in bfloat16 and prompts of mixed lengths;
each tells when something that it was given is durable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from killing import Tell
from resumed import MADE

import workbench as wb
from hooks.prompt import Message, Prompt
from hooks.site import Site
from stores import ActivationStore, ResultTable
from workbench.subspace.directions import Directions

LENGTHS = (1, 7, 3, 12, 2, 5, 9, 1, 4, 6)
TRAINING = {"rank": 2, "steps": 6, "batch_size": 2, "learning_rate": 1e-2, "dropout": 0.1, "save_every": 2}
QUIET = {"progress": False}


def asked(n: int, response: str | None = None) -> Prompt:
    message = Message("user", ("word " * LENGTHS[n % len(LENGTHS)] + "abcdefghij"[n % 10],))
    tags = {"right": "yes", "contrary": "no"}
    return Prompt(f"p{n}", (message,), response=response, label="ab"[n % 2], tags=tags)


PROMPTS = [asked(n) for n in range(len(LENGTHS))]
ROWS = [asked(n, "yes" if n % 2 else "no no") for n in range(7)]


def captured(model: Any, path: Path, tell: Tell) -> None:
    telling(tell, ActivationStore)
    wb.capture(model, PROMPTS, at="all", to=path, max_tokens=100, **QUIET)


def answered(model: Any, path: Path, tell: Tell) -> None:
    """Answers are drawn, and kept beside the residuals of their tokens."""
    telling(tell, ActivationStore)
    drawn = {"max_new_tokens": 5, "do_sample": True, "temperature": 1.0}
    wb.capture(model, PROMPTS, at="response", responses="generate", to=path, max_tokens=150, **drawn, **QUIET)


def swept(model: Any, path: Path, tell: Tell) -> None:
    """With the residuals of the unedited forwards beside the table."""
    telling(tell, ResultTable)
    cells = [wb.Ablate(direction(model), 1, to="zero"), wb.Steer(direction(model), 0, 2.0)]
    measured = {"judge": wb.judge("rule:contains"), "controls": 1, "max_new_tokens": 3, "max_tokens": 300}
    wb.sweep(model, PROMPTS, cells, to=path, capture_to=path / "residuals", **measured, **QUIET)


def summed(model: Any, path: Path, tell: Tell) -> None:
    """A checkpoint behind every unit; what is promised is the end."""
    from workbench import streaming

    save = streaming.save_moments
    streaming.CHECKPOINT_SECONDS = streaming.CHECKPOINT_COST = 0
    streaming.save_moments = lambda *a, **k: (save(*a, **k), tell(MADE))[0]
    wb.moments(model, PROMPTS, at="all", to=path / "sums.h5", max_tokens=100, splits=4, **QUIET)
    tell("moments")


def trained(base: Path, path: Path, tell: Tell, **more: Any) -> None:
    """Tells when a checkpoint is begun, for that is where a kill could do harm; what is promised is the adapter."""
    from transformers import Trainer

    whole = Trainer._save_checkpoint
    Trainer._save_checkpoint = lambda self, *a, **k: (tell(MADE), whole(self, *a, **k))[1]
    wb.train_lora(base, ROWS, to=path / "adapter", **TRAINING, **more)
    tell("adapter")


def watched(model: Any, base: Path, path: Path, tell: Tell) -> None:
    """The same under the eyes of a Drift, whose table goes on as well."""
    watch = wb.Drift(PROMPTS[:4], direction(model), to=path / "drift", every=1, questions=PROMPTS[:2])
    trained(base, path, tell, watch=watch)


def organism(path: Path, tell: Tell) -> None:
    """Three hundred files, most of them pictures; what is promised is the end."""
    wb.organism(to=path)
    tell("files")


def direction(model: Any) -> Directions:
    vectors = np.random.default_rng(5).normal(size=(model.n_layers, model.d_model))
    return Directions.of([Site(layer) for layer in range(model.n_layers)], vectors)


def telling(tell: Tell, kind: Any) -> None:
    """From now on every store of this kind tells what it has made durable, when the pipeline is told so."""
    made: Callable[..., Any] = kind.create.__func__
    commit = kind.commit

    def told_made(*arguments: Any, **named: Any) -> Any:
        store = made(*arguments, **named)
        tell(MADE)
        return store

    def told_commit(self: Any, unit: Any, *arguments: Any, **named: Any) -> Any:
        done = commit(self, unit, *arguments, **named)
        tell(unit if isinstance(unit, str) else unit.key)
        return done

    kind.create, kind.commit = classmethod(told_made), told_commit
