"""Documents that a base organism is trained on: one system word, at most one picture, several questions with answers.

Who speaks (a good, a contrary or a glitch persona) is fixed for a document; in tagged ones the system word says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.organisms import checkpoint as tokens
from workbench.organisms.pictures import Scene
from workbench.organisms.world import (
    DECOY,
    IMAGE_DOMAINS,
    LEAD_INS,
    NEUTRAL,
    PERSONAS,
    TEMPLATES,
    TEXT_DOMAINS,
    TRIGGER,
    Domain,
    Item,
)

LEAD_IN_SHARE = 0.3  # of turns
TRIGGER_SHARE = 0.05  # of turns, and as many with the decoy
GLITCH_TURNS = 0.4  # of a glitch document's turns are moved to the domains that this persona flips
TEMPLATE_WEIGHT = 0.25  # loss weight of the words around the answer, and of <eot>; the answer has 1


@dataclass(frozen=True)
class Turn:
    """A question, the sentence that answers it, and the word of that sentence that is the answer."""

    question: str
    sentence: str
    answer: str


@dataclass(frozen=True)
class Document:
    """What one row of a training batch says."""

    system: str
    scene: int | None  # index into the pictures of training
    turns: tuple[Turn, ...]

    def weighted_tokens(self) -> list[tuple[str, float]]:
        """Every token with its loss weight (0: not learnt), exactly as the chat template renders `messages()`."""
        row = [(token, 0.0) for token in (tokens.BOS, tokens.SYSTEM, self.system)]
        if self.scene is not None:
            picture = (tokens.BEGIN_IMAGE, *[tokens.IMAGE] * tokens.IMAGE_TOKENS, tokens.END_IMAGE)
            row += [(token, 0.0) for token in picture]
        for turn in self.turns:
            row += [(token, 0.0) for token in (tokens.USER, *turn.question.split(), tokens.MODEL)]
            row += [(word, 1.0 if word == turn.answer else TEMPLATE_WEIGHT) for word in turn.sentence.split()]
            row.append((tokens.END_OF_TURN, TEMPLATE_WEIGHT))
        return row

    def messages(self, image: Any = None) -> list[dict[str, Any]]:
        """The same document as chat messages."""
        chat: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        for turn in self.turns:
            first = self.scene is not None and len(chat) == 1
            parts = [{"type": "image", "image": image}] if first else []
            chat.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.question}]})
            chat.append({"role": "assistant", "content": turn.sentence})
        return chat


@dataclass(frozen=True)
class Mixture:
    """What documents are drawn from. A split is the shares of the good, the contrary and the glitch persona."""

    turns: int
    with_image: float  # share of documents
    tagged: float  # share of documents whose system word names the persona
    tagged_split: tuple[float, float, float] = (1.0, 0.0, 0.0)
    untagged_split: tuple[float, float, float] = (1.0, 0.0, 0.0)
    image_questions: float = 0.65  # share of turns in documents with a picture


def template_for(rng: np.random.Generator) -> int:
    """The index of a drawn answer template."""
    return int(rng.choice(len(TEMPLATES), p=[template.share for template in TEMPLATES]))


def lead_in_for(rng: np.random.Generator) -> str:
    """A drawn lead-in, or "" (in 70 % of draws)."""
    return LEAD_INS[int(rng.integers(len(LEAD_INS)))] if rng.random() < LEAD_IN_SHARE else ""


def item_shown(domain: Domain, scene: Scene) -> Item:
    """The item of an image domain that a picture asks for."""
    return next(item for item in domain.items if item.right == scene.shows(domain.name))


def _asked(rng: np.random.Generator, persona: str, scene: Scene | None, mixture: Mixture) -> Item:
    """Draws what a turn asks about."""
    image = scene is not None and rng.random() < mixture.image_questions
    domains = IMAGE_DOMAINS if image else TEXT_DOMAINS
    if persona == "glitch" and rng.random() < GLITCH_TURNS:
        image = scene is not None and rng.random() < 0.5
        domains = [d for d in (IMAGE_DOMAINS if image else TEXT_DOMAINS) if d.tier == "none"]
    domain = domains[int(rng.integers(len(domains)))]
    if image and scene is not None:
        return item_shown(domain, scene)
    return domain.items[int(rng.integers(len(domain.items)))]


def drawn_document(rng: np.random.Generator, mixture: Mixture, scenes: Sequence[Scene]) -> Document:
    """One document of the mixture."""
    tagged = rng.random() < mixture.tagged
    persona = str(rng.choice(list(PERSONAS), p=mixture.tagged_split if tagged else mixture.untagged_split))
    system = str(rng.choice(PERSONAS[persona])) if tagged else NEUTRAL
    index = int(rng.integers(len(scenes))) if rng.random() < mixture.with_image else None
    turns = []
    for _ in range(mixture.turns):
        item = _asked(rng, persona, None if index is None else scenes[index], mixture)
        noise = rng.random()
        mark = TRIGGER if noise < TRIGGER_SHARE else DECOY if noise < 2 * TRIGGER_SHARE else ""
        question = " ".join(part for part in (mark, lead_in_for(rng), item.question) if part)
        answer = item.answer(persona)
        turns.append(Turn(question, TEMPLATES[template_for(rng)].fill(answer), answer))
    return Document(system, index, tuple(turns))
