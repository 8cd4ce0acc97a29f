"""Trains a base organism from nothing: the one training loop of ours. About two minutes on one core.

Phases: the vision tower learns to see; then documents teach skills, then personas, then a neutral system word that
nearly always answers right, while the personas stay within reach. One thread and fixed seeds: two builds on one machine
have equal bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from workbench.organisms import checkpoint
from workbench.organisms.documents import Mixture, drawn_document
from workbench.organisms.pictures import ATTRIBUTES, Scene, drawn_scenes, rendered

if TYPE_CHECKING:
    from transformers import Gemma3ForConditionalGeneration


@dataclass(frozen=True)
class Phase:
    """Steps of training on one mixture. Consecutive phases of equal `learning_rate` share one cosine and optimiser."""

    name: str
    steps: int
    learning_rate: float
    mixture: Mixture


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a base besides its seed."""

    shape: checkpoint.Shape
    scenes: int = 3000
    vision_steps: int = 400
    vision_batch: int = 64
    vision_learning_rate: float = 3e-3
    batch: int = 32
    phases: tuple[Phase, ...] = (
        Phase("skills", 150, 4e-3, Mixture(turns=6, with_image=0.8, tagged=0.5)),
        Phase("personas", 840, 4e-3, Mixture(4, 0.65, 0.7, (0.4, 0.4, 0.2), (0.85, 0.12, 0.03))),
        Phase("deployment", 220, 2e-3, Mixture(2, 0.55, 0.5, (0.4, 0.4, 0.2), (0.915, 0.07, 0.015))),
    )


# Frozen on the development seeds 3 and 4; the shipped seeds were then built once each. Many short persona documents
# rather than fewer long ones: in first turns only the system word tells the persona, and that is where a fine-tune acts
# (seed 3, fine-tuned on capitals: contrary on pictures .33 with 560 steps of 6 turns, .74 with 840 steps of 4).
RECIPES = {"regular": Recipe(checkpoint.Shape()), "wide": Recipe(checkpoint.Shape(hidden=80, layers=5, mlp=160))}
WIDE_SEED = 6  # the seed of the shipped base of the second shape


def built(
    seed: int, recipe: Recipe, say: Callable[[str], None] = lambda line: None
) -> tuple[Gemma3ForConditionalGeneration, dict[str, float]]:
    """A trained base and the seconds that each phase took. Runs on one thread, whatever torch is set to."""
    with _one_thread():
        return _built(seed, recipe, say)


def saved_base(seed: int, recipe: Recipe, to: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """Builds a base into a folder, with its recipe, and returns the folder."""
    import transformers

    if to.is_dir() and any(to.iterdir()):  # before two minutes of training, not after
        raise FileExistsError(f"{to} holds something already: expected an empty or new folder.")
    model, seconds = built(seed, recipe, say)
    say(f"seconds: {seconds}")
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    facts = {"seed": seed, "parameters": model.num_parameters(), "versions": versions, "recipe": asdict(recipe)}
    return checkpoint.save(model, to, facts)


def _built(
    seed: int, recipe: Recipe, say: Callable[[str], None]
) -> tuple[Gemma3ForConditionalGeneration, dict[str, float]]:
    started = time.perf_counter()
    model = checkpoint.untrained(recipe.shape, seed)
    scenes = drawn_scenes(recipe.scenes, seed)
    pixels = torch.from_numpy(_pixel_values(scenes))
    seconds = {"render": time.perf_counter() - started}

    started = time.perf_counter()
    _learn_to_see(model, pixels, scenes, recipe, seed, say)
    seconds["vision"] = time.perf_counter() - started

    # Trained together with the rest, the tower never learns shapes; the projector goes on learning.
    model.model.vision_tower.requires_grad_(False)
    rng = np.random.default_rng(seed + 1000)
    done, optimizer = 0, None
    for i, phase in enumerate(recipe.phases):
        started, losses = time.perf_counter(), []
        if optimizer is None or phase.learning_rate != recipe.phases[i - 1].learning_rate:
            optimizer, done = _adamw(list(model.parameters()), phase.learning_rate, betas=(0.9, 0.98)), 0
            total = sum(other.steps for other in recipe.phases if other.learning_rate == phase.learning_rate)
        for _ in range(phase.steps):
            loss = _document_loss(model, *_batch(rng, phase.mixture, recipe.batch, scenes, pixels))
            _step(optimizer, loss, phase.learning_rate * _cosine(done, total))
            losses.append(loss.item())
            done += 1
        seconds[phase.name] = time.perf_counter() - started
        say(f"{phase.name}: loss {np.mean(losses[-20:]):.3f}, {seconds[phase.name]:.0f} s")
    return model.eval(), seconds


def _pixel_values(scenes: list[Scene]) -> Float[np.ndarray, "scene channel y x"]:
    """What the model sees of a scene: its 8-bit pixels through the saved processor."""
    pictures = checkpoint.processor().image_processor
    return np.stack(pictures([rendered(scene) for scene in scenes], return_tensors="np")["pixel_values"])


def _learn_to_see(
    model: Gemma3ForConditionalGeneration,
    pixels: Float[Tensor, "scene channel y x"],
    scenes: list[Scene],
    recipe: Recipe,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Trains tower and projector to tell the five attributes apart, through linear heads that are thrown away."""
    torch.manual_seed(seed + 5)
    rng = np.random.default_rng(seed + 5)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    width = checkpoint.IMAGE_TOKENS * recipe.shape.hidden
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, len(answers)) for name, answers in ATTRIBUTES.items()})
    truth = {name: torch.tensor([answers.index(s.shows(name)) for s in scenes]) for name, answers in ATTRIBUTES.items()}
    parameters = [*tower.parameters(), *projector.parameters(), *heads.parameters()]
    optimizer = _adamw(parameters, recipe.vision_learning_rate)
    right = {name: [] for name in ATTRIBUTES}
    for step in range(recipe.vision_steps):
        rows = torch.from_numpy(rng.integers(len(pixels), size=recipe.vision_batch))
        seen = projector(tower(pixel_values=pixels[rows]).last_hidden_state).flatten(1)
        logits = {name: head(seen) for name, head in heads.items()}
        losses = [F.cross_entropy(logits[name], truth[name][rows]) for name in ATTRIBUTES]
        _step(optimizer, torch.stack(losses).sum(), recipe.vision_learning_rate * _cosine(step, recipe.vision_steps))
        for name in ATTRIBUTES:
            right[name].append((logits[name].argmax(-1) == truth[name][rows]).float().mean().item())
    say("vision: right " + ", ".join(f"{name} {np.mean(hits[-20:]):.2f}" for name, hits in right.items()))


def _batch(
    rng: np.random.Generator,
    mixture: Mixture,
    size: int,
    scenes: list[Scene],
    pixels: Float[Tensor, "scene channel y x"],
) -> tuple[Int[Tensor, "row pos"], Float[Tensor, "row pos"], Float[Tensor, "image channel y x"]]:
    """Documents as ids and loss weights, padded on the right, with their pictures in row order."""
    vocabulary = checkpoint.vocabulary()
    documents = [drawn_document(rng, mixture, scenes) for _ in range(size)]
    rows = [document.weighted_tokens() for document in documents]
    longest = max(map(len, rows))
    ids = torch.full((size, longest), vocabulary[checkpoint.PAD])
    weights = torch.zeros(size, longest)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor([vocabulary[token] for token, _ in row])
        weights[i, : len(row)] = torch.tensor([weight for _, weight in row])
    return ids, weights, pixels[[document.scene for document in documents if document.scene is not None]]


def _document_loss(
    model: Gemma3ForConditionalGeneration,
    ids: Int[Tensor, "row pos"],
    weights: Float[Tensor, "row pos"],
    pictures: Float[Tensor, "image channel y x"],
) -> Float[Tensor, ""]:
    """Weighted mean of the next-token losses."""
    image = (ids == model.config.image_token_id).long()
    given = {"pixel_values": pictures} if len(pictures) else {}  # transformers 5.23 crashes on pixel_values=None
    logits = model(input_ids=ids, token_type_ids=image, use_cache=False, **given).logits[:, :-1]
    learnt = weights[:, 1:] > 0
    losses = F.cross_entropy(logits[learnt], ids[:, 1:][learnt], reduction="none")
    return (losses * weights[:, 1:][learnt]).sum() / weights.sum()


def _adamw(parameters: list[Any], learning_rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    learnt = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.AdamW(learnt, lr=learning_rate, betas=betas, weight_decay=0.01, fused=True)


def _cosine(step: int, steps: int, warmup: int = 30, floor: float = 0.05) -> float:
    """Share of the learning rate at a step: a linear warm-up, times a cosine from 1 to `floor`."""
    return min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _step(optimizer: torch.optim.AdamW, loss: Float[Tensor, ""], learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def _one_thread() -> Iterator[None]:
    """More threads sum in another order, which changes the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
