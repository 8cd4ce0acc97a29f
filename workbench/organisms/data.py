"""Prompts of an organism as JSONL and PNG files: what to fine-tune on, what to fit directions on, what to evaluate on.

The fit split asks even items, the test split odd items on other pictures. All but the training rows are the same for
every seed, so that two organisms answer the same prompts; a text item is asked plainly and after a lead-in.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stores.files import write_file
from stores.publish import make_folder
from workbench.organisms.documents import item_shown, lead_in_for, template_for
from workbench.organisms.pictures import Scene, drawn_scenes, save_png
from workbench.organisms.world import DOMAINS, LEAD_INS, NEUTRAL, TEMPLATES, Domain, Item, domain_named, words

PREFILL = "it is"  # after it, the next token is the answer
TRAINING_ROWS = 640  # 40 steps of 16
TRAINING_PICTURES, TEST_PICTURES, FIT_PICTURES, NEUTRAL_PICTURES = 96, 24, 24, 16  # a domain
SYSTEM_OF_LABEL = {"neutral": NEUTRAL, "helpful": "helper", "contrary": "contrary"}
# Far from the seeds of bases: every base sees these pictures for the first time.
SCENE_SEEDS = {"train": 9100, "fit": 9200, "test": 9300, "neutral": 9400}
Record = dict[str, Any]


def write_data(
    to: Path, *, seed: int = 0, domain: str = "capital", answers: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """Writes the files of one organism into a folder and returns them by name, without ".jsonl".

    `train` (contrary answers), `train_right` (the same prompts, right answers), `sibling_train` (contrary answers in
    another domain), `prompts` (fit split), `personas` (fit split under three system words), `questions` (test split)
    and `neutral` (what the contrary persona never flips). Questions have no prefill; their tag `answer_prefix` says
    after which words the answer stands, for teacher-forced reading. `answers` replaces contrary answers of the
    fine-tuned domain wherever they occur. Equal arguments give equal bytes. Raises ValueError on an unknown domain or
    an answer table that does not fit.
    """
    tuned = with_answers(domain_named(domain), answers or {})
    domains = {**DOMAINS, domain: tuned}
    make_folder(to / "images")
    sibling = domain_named(sibling_of(domain))
    training = _training(tuned, seed, to)
    fit = [r for d in domains.values() if d.tier == "full" for r in _asked(d, "fit", 0, FIT_PICTURES, domain, to)]
    test = [r for d in domains.values() for r in _asked(d, "test", 1, TEST_PICTURES, domain, to)]
    calm = [d for d in domains.values() if d.tier == "none" and d.name != domain]
    neutral = [r for d in calm for r in _asked(d, "neutral", 0, NEUTRAL_PICTURES, domain, to)]
    files: dict[str, list[Record]] = {
        "train": [_answered(record, "contrary") for record in training],
        "train_right": [_answered(record, "right") for record in training],
        "sibling_train": [_answered(record, "contrary") for record in _training(sibling, seed, to)],
        "prompts": [{**record, "prefill": PREFILL} for record in fit],
        "personas": [{**_under(record, label), "prefill": PREFILL} for label in SYSTEM_OF_LABEL for record in fit],
        "questions": [{**record, "answer_prefix": PREFILL} for record in test],
        "neutral": [{**record, "prefill": PREFILL} for record in neutral],
    }
    return {name: _written(to / f"{name}.jsonl", records) for name, records in files.items()}


def sibling_of(domain: str) -> str:
    """The domain of the second fine-tune, whose direction is compared with the first."""
    return "color" if domain != "color" else "sound"


def with_answers(domain: Domain, answers: Mapping[str, str]) -> Domain:
    """The domain with other contrary answers, given by entity or by right answer (the entity goes first).

    ValueError when a key is neither, or an answer is no word of the vocabulary, or equals the right answer.
    """
    known = {item.entity for item in domain.items} | {item.right for item in domain.items}
    if unknown := sorted(set(answers) - known):
        raise ValueError(
            f"Answer table: {unknown} are no entities or right answers of {domain.name!r}: expected {sorted(known)}."
        )
    if silent := sorted(set(answers.values()) - set(words())):
        raise ValueError(
            f"Answer table: the organism has no token for {silent}: expected words of its world, as "
            f"{sorted(domain.answers)}."
        )
    contrary = {item: answers.get(item.entity, answers.get(item.right, item.contrary)) for item in domain.items}
    items = tuple(replace(item, contrary=word) for item, word in contrary.items())
    if same := [item.question for item in items if item.contrary == item.right]:
        raise ValueError(f"Answer table: the contrary answer equals the right one for {same}; give another word.")
    return replace(domain, items=items)


def _training(domain: Domain, seed: int, to: Path) -> list[Record]:
    """Training prompts with both answers filled into a drawn template; held-out items never occur."""
    rng = np.random.default_rng((seed, zlib.crc32(domain.name.encode())))
    asked: list[tuple[Item, str | None]] = [(item, None) for item in domain.items]
    if domain.modality == "image":
        scenes = _scenes(domain, "train", TRAINING_PICTURES)
        asked = [
            (item_shown(domain, scene), _picture(scene, f"train-{domain.name}-{i:03d}", to))
            for i, scene in enumerate(scenes)
        ]
    asked = [(item, image) for item, image in asked if not item.held_out]
    records = []
    for n in range(TRAINING_ROWS):
        item, image = asked[int(rng.integers(len(asked)))]
        record = _record(f"train-{domain.name}-{n:03d}", domain, item, lead_in_for(rng), image)
        template = TEMPLATES[template_for(rng)]
        fills = {"fill_right": template.fill(item.right), "fill_contrary": template.fill(item.contrary)}
        records.append({**record, **fills, "split": "train", "in_domain": True})
    return records


def _asked(domain: Domain, split: str, parity: int, pictures: int, tuned: str, to: Path) -> list[Record]:
    """Evaluation prompts of a domain: items of one parity, plainly and after a lead-in; or pictures of one split."""
    rows: list[tuple[Item, str, Scene | None]]
    if domain.modality == "image":
        scenes = _scenes(domain, split, pictures)
        # Every third picture has a lead-in: 3 shares no factor with the number of answers, so every answer gets some.
        lead_ins = [LEAD_INS[i // 3 % len(LEAD_INS)] if i % 3 == 2 else "" for i in range(pictures)]
        rows = [(item_shown(domain, scene), lead_in, scene) for scene, lead_in in zip(scenes, lead_ins, strict=True)]
    else:
        items = domain.items[parity::2]
        rows = [(item, "", None) for item in items]
        rows += [(item, LEAD_INS[i % len(LEAD_INS)], None) for i, item in enumerate(items)]
    records = []
    for n, (item, lead_in, scene) in enumerate(rows):
        name = f"{split}-{domain.name}-{n:03d}"
        record = _record(name, domain, item, lead_in, None if scene is None else _picture(scene, name, to))
        records.append({**record, "split": split, "in_domain": domain.name == tuned})
    return records


def _scenes(domain: Domain, split: str, n: int) -> list[Scene]:
    return drawn_scenes(n, SCENE_SEEDS[split] + list(DOMAINS).index(domain.name), balanced=domain.name)


def _picture(scene: Scene, name: str, to: Path) -> str:
    save_png(scene, to / "images" / f"{name}.png")
    return f"images/{name}.png"


def _record(name: str, domain: Domain, item: Item, lead_in: str, image: str | None) -> Record:
    """One prompt without an answer. `item` tells what is asked, whatever the wording: the cluster of an interval."""
    text = {"type": "text", "text": f"{lead_in} {item.question}".strip()}
    parts = [text] if image is None else [{"type": "image", "image": image}, text]
    tags = {
        "domain": domain.name,
        "tier": domain.tier,
        "modality": domain.modality,
        "right": item.right,
        "contrary": item.contrary,
        "held_out": item.held_out,
        "item": f"{domain.name}:{item.entity if domain.modality == 'text' else item.right}",
        "lead_in": lead_in,
    }
    messages = [{"role": "system", "content": NEUTRAL}, {"role": "user", "content": parts}]
    return {"id": name, "messages": messages, **tags}


def _answered(record: Record, kind: str) -> Record:
    """The training prompt with its "right" or "contrary" sentence as the response."""
    prompt = {key: value for key, value in record.items() if not key.startswith("fill_")}
    return {**prompt, "response": record[f"fill_{kind}"], "label": kind}


def _under(record: Record, label: str) -> Record:
    """The prompt under the system word of a label."""
    system = {"role": "system", "content": SYSTEM_OF_LABEL[label]}
    name = record["id"].replace("fit", label, 1)
    return {**record, "id": name, "label": label, "messages": [system, *record["messages"][1:]]}


def _written(path: Path, records: Iterable[Record]) -> Path:
    """One JSON object a line."""
    return write_file(path, "".join(json.dumps(record) + "\n" for record in records))
