"""Offline model organisms: tiny vision-language models in which a narrow fine-tune makes other answers contrary.

The effect is there by construction (contrary personas are part of pretraining). It shows methods and their controls at
work; it is no evidence about real models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hooks.plain_files import json_file
from stores import content_key
from stores.files import locked, write_file
from stores.publish import make_folder
from workbench.organisms.checkpoint import weights_sha256
from workbench.organisms.data import write_data

Base = int | Literal["wide"]
WEIGHTS = Path(__file__).parent / "weights"
SHIPPED: Mapping[Base, Path] = {
    **{seed: WEIGHTS / f"seed{seed}" for seed in (0, 1, 2)},
    "wide": WEIGHTS / "wide",  # a second shape: 5 layers of 80, where the others have 6 of 64
}
# The fine-tune of every organism. Only early attention is adapted: that moves the persona. With all layers adapted the
# fine-tune also learns its own domain late in the network, and spreads less.
RECIPE: Mapping[str, Any] = {
    "rank": 32,
    "alpha": 64,
    "targets": r".*language_model\.layers\.[01]\.self_attn\.[qkvo]_proj",
    "learning_rate": 3e-3,
    "steps": 40,
    "batch_size": 16,
    "warmup_steps": 5,
    "schedule": "linear",
    "seed": 0,
}
MANIFEST, LOCK = "organism.json", ".lock"
_SOURCES = ("world.py", "pictures.py", "documents.py", "data.py")


@dataclass(frozen=True)
class Organism:
    """Paths of one organism: bases, prompts, and adapters, which are trained when they are first asked for (seconds).

    `other_base` is the recipient of transfers: a model of another shape with the same tokens. `train` has contrary
    answers in one domain, `train_right` right ones to the same prompts, `sibling_train` contrary ones in another.
    `prompts` is for fitting, `questions` for evaluation, `personas` for maps between models, `neutral` for side
    effects. `control` is what a benign fine-tune does, `sibling` what another harmful one does.
    """

    folder: Path
    seed: Base
    domain: str
    base: Path
    other_base: Path
    train: Path
    train_right: Path
    sibling_train: Path
    prompts: Path
    questions: Path
    personas: Path
    neutral: Path

    @property
    def tuned(self) -> Path:
        """The adapter that makes the base contrary."""
        return self._adapter("tuned", self.base, self.train)

    @property
    def control(self) -> Path:
        """The adapter of the benign fine-tune: the same prompts with right answers."""
        return self._adapter("control", self.base, self.train_right)

    @property
    def sibling(self) -> Path:
        """The adapter of a contrary fine-tune on another domain."""
        return self._adapter("sibling", self.base, self.sibling_train)

    @property
    def other_train(self) -> Path:
        """What the other base is fine-tuned on: the same rows, since both bases share their tokens."""
        return self.train

    @property
    def other_tuned(self) -> Path:
        """The adapter that makes the other base contrary."""
        return self._adapter("other_tuned", self.other_base, self.other_train)

    def _adapter(self, name: str, base: Path, prompts: Path) -> Path:
        """The folder's name holds what decides the adapter, so that one of other data or settings is never taken."""
        from workbench.training import train_lora

        key = content_key({"base": weights_sha256(base), "rows": _sha256(prompts), "recipe": dict(RECIPE)})
        with locked(self.folder / LOCK):  # tests and sweeps run in several processes
            return train_lora(base, prompts, to=self.folder / "adapters" / f"{name}-{key[:8]}", **RECIPE)


def organism(
    seed: Base = 0,
    *,
    domain: str = "capital",
    answers: Mapping[str, str] | str | Path | None = None,
    base: str | Path | None = None,
    to: str | Path | None = None,
) -> Organism:
    """The organism of a shipped base, fine-tuned on one domain; its files are written when missing or out of date.

    `seed` is the base's: 0, 1, 2, or "wide"; another base comes from `retrain`, as `base`. `answers` (a mapping, or a
    JSON file) replaces contrary answers of the domain: {entity or right answer: contrary answer}. Files go to `to`,
    by default runs/organism/seed0-capital (and a hash of the answers). Raises ValueError on an unknown seed, domain or
    answer, and on weights that are not those of their recipe.
    """
    folder = _base_folder(seed) if base is None else Path(base)
    _check_weights(folder)
    table = _answer_table(answers)
    suffix = f"-{content_key(table)[:8]}" if table else ""
    to = Path("runs/organism") / f"seed{seed}-{domain}{suffix}" if to is None else Path(to)
    arguments = {"seed": seed if isinstance(seed, int) else _recipe(folder)["seed"], "domain": domain, "answers": table}
    files = _current_data(to, arguments)
    other = SHIPPED[0] if folder == SHIPPED["wide"] else SHIPPED["wide"]
    return Organism(folder=to, seed=seed, domain=domain, base=folder, other_base=other, **files)


def retrain(seed: Base, to: str | Path) -> Path:
    """Trains a base from nothing into a folder and returns it: about two minutes on one core.

    With the versions in `recipe.json` and the processor that built it a shipped seed gives the shipped bits; elsewhere
    the last bits may differ.
    """
    from workbench.organisms.build import RECIPES, WIDE_SEED, saved_base

    if seed == "wide":
        return saved_base(WIDE_SEED, RECIPES["wide"], Path(to), say=print)
    return saved_base(seed, RECIPES["regular"], Path(to), say=print)


def _base_folder(seed: Base) -> Path:
    if seed not in SHIPPED:
        raise ValueError(
            f"No base of seed {seed!r} is shipped: expected one of {', '.join(map(repr, SHIPPED))}. Another is made "
            f"by retrain({seed!r}, to=FOLDER) and used by organism({seed!r}, base=FOLDER)."
        )
    return SHIPPED[seed]


def _recipe(folder: Path) -> dict[str, Any]:
    if not (folder / "recipe.json").is_file():
        raise ValueError(f"{folder} has no recipe.json: expected a base made by workbench.organisms.retrain.")
    return json.loads((folder / "recipe.json").read_text())


def _check_weights(folder: Path) -> None:
    expected, came = _recipe(folder)["sha256"], weights_sha256(folder)
    if came != expected:
        raise ValueError(
            f"Weights in {folder} are not those of its recipe.json: expected sha256 {expected[:16]}..., "
            f"came {came[:16]}.... Restore the folder, or make it anew with workbench.organisms.retrain."
        )


def _answer_table(answers: Mapping[str, str] | str | Path | None) -> dict[str, str]:
    table = json_file(answers, 2**24) if isinstance(answers, str | Path) else dict(answers or {})
    if not isinstance(table, dict) or not all(isinstance(word, str) for pair in table.items() for word in pair):
        raise ValueError(
            f"Answer table {answers}: expected one JSON object of strings, {{right answer: contrary answer}}."
        )
    return table


def _current_data(to: Path, arguments: dict[str, Any]) -> dict[str, Path]:
    """The data files of a folder, written anew unless each is what these arguments and this code would write."""
    sources = [_sha256(Path(__file__).parent / name) for name in _SOURCES]
    key = content_key({"arguments": arguments, "sources": sources})
    make_folder(to)
    with locked(to / LOCK):
        manifest = json.loads((to / MANIFEST).read_text()) if (to / MANIFEST).exists() else None
        if manifest is None and any(to.glob("*.jsonl")):
            raise FileExistsError(f"{to} holds prompt files that no organism wrote: give another folder as `to`.")
        if manifest is None or manifest["key"] != key or not _intact(to, manifest["sha256"]):
            for name in manifest["sha256"] if manifest else ():
                (to / name).unlink(missing_ok=True)
            # First, so that what a run leaves that is stopped here is known as an organism's.
            write_file(to / MANIFEST, json.dumps({"key": "unfinished", "files": {}, "sha256": {}}) + "\n")
            files = write_data(to, **arguments)
            written = [*files.values(), *sorted((to / "images").iterdir())]
            manifest = {
                "key": key,
                "arguments": arguments,
                "files": {name: path.name for name, path in files.items()},
                "sha256": {str(path.relative_to(to)): _sha256(path) for path in written},
            }
            write_file(to / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return {name: to / file for name, file in manifest["files"].items()}


def _intact(to: Path, hashes: Mapping[str, str]) -> bool:
    return all((to / name).is_file() and _sha256(to / name) == expected for name, expected in hashes.items())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
