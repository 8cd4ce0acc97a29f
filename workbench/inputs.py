"""What an experiment is run on: the offline organism, or the user's own model, adapters and prompt files."""

from __future__ import annotations

import argparse
from collections import UserDict
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.organisms import RECIPE, organism
from workbench.organisms.data import sibling_of
from workbench.training.adapters import RECIPES
from workbench.training.given_rows import Taken, chat_rows, is_flat_table
from workbench.training.model_parts import ASKED_AS

SWEPT = ("rank", "alpha", "seed")  # settings of a recipe that a study states itself
_SPELLED = {"questions": "eval"}  # arguments whose name on the command line is another
# What is taken of a flat table, by the argument that names it.
TAKEN: dict[str, Taken] = {
    "prompts": "questions", "questions": "questions", "neutral": "questions", "train": "harmful", "filler": "safe"
}  # fmt: skip


class MadeWhenAsked(UserDict[str, Any]):
    """Adapter folders by name; one given as a function is trained when it is first looked up."""

    def __getitem__(self, name: str) -> str:
        made = super().__getitem__(name)
        if callable(made):
            made = self[name] = str(made())
        return made


@dataclass(frozen=True)
class Inputs:
    """Models and prompt files of one experiment. `adapters` maps the variant's name to its folder: `tuned` is the
    fine-tune under study, `right_control` a benign one, `sibling` another harmful one. None: not given, its step is
    left out."""

    kind: str
    base: str
    adapters: MutableMapping[str, str]
    prompts: Path
    questions: Path
    neutral: Path | None
    personas: Path | None
    other_base: str | None
    other_adapters: Mapping[str, str]
    judge: str
    domains: dict[str, str] = field(default_factory=dict)  # variant -> the domain it was tuned on, where that is known
    options: dict[str, str | int | None] = field(default_factory=dict)
    train: Path | None = None  # rows with responses, for studies that fine-tune
    fillers: dict[str, Path] = field(default_factory=dict)  # benign rows to mix with them, by name
    rubric: str | None = None  # of a judge that is a language model
    recipe: dict[str, Any] = field(default_factory=dict)  # settings of `train_lora` that a study leaves as they are
    max_new_tokens: int | None = None  # how long an answer may become, where the user says so
    tables: dict[str, Path] = field(default_factory=dict)  # the flat tables that these rows come from, by their use

    @property
    def files(self) -> dict[str, Path]:
        """The prompt files that are there, by name; the flat table in place of what was made of it."""
        named = {
            "prompts": self.prompts,
            "questions": self.questions,
            "neutral": self.neutral,
            "personas": self.personas,
            "train": self.train,
            **{f"filler {name}": path for name, path in self.fillers.items()},
        }
        there = {name: path for name, path in named.items() if path is not None}
        return there | {name: self.tables[name] for name in there.keys() & self.tables.keys()}

    @property
    def for_maps(self) -> list[Path]:
        """The prompt files that maps between models are fitted on: plain prompts, and personas where they are given."""
        return [self.prompts] if self.personas is None else [self.prompts, self.personas]


def argument_parser(description: str, default_to: str, **own_options: Any) -> argparse.ArgumentParser:
    """The arguments that every experiment understands, and a study's own: `seeds=[0, 1, 2]` is `--seeds 0 1 2`,
    `samples=3` is `--samples 3`, `ranks=[int]` numbers without a default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", default=default_to, help="run folder; an interrupted run goes on from what it holds")
    parser.add_argument("--seed", type=int, default=0, help="of the draws, and of the organism's base (0, 1, 2)")
    parser.add_argument("--part", default="1/1", help="2/3: the second third of the adapters to train, and of what is "
                        "captured and swept; from 0/3 to 2/3 or from 1/3 to 3/3")  # fmt: skip
    parser.add_argument("--engine", default="process", help="what does that: process (this one), or ray")
    parser.add_argument("--dry-run", action="store_true", help="say what the run would take, and stop")
    for name, default in own_options.items():
        kind = default[0] if isinstance(default, list) else default
        typed = kind if isinstance(kind, type) else type(kind)
        many: dict[str, Any] = {"nargs": "+"} if isinstance(default, list) else {}
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=typed, default=None if kind is typed else default, **many
        )
    own = parser.add_argument_group("your own model (without --model: the offline organism)")
    own.add_argument("--model", help="checkpoint folder or hub name")
    own.add_argument("--adapter", help="LoRA folder of the fine-tune under study")
    own.add_argument("--control-adapter", help="LoRA folder of a benign fine-tune")
    own.add_argument("--sibling-adapter", help="LoRA folder of another harmful fine-tune")
    own.add_argument("--prompts", type=Path, help="chat JSONL or a flat table (its questions) to fit directions on")
    own.add_argument(
        "--eval",
        "--questions",
        dest="questions",
        type=Path,
        help="chat JSONL or a flat table (its questions) to evaluate on; what tags they need is the judge's matter",
    )
    own.add_argument("--neutral", type=Path, help="JSONL that nothing should change, for KL")
    own.add_argument("--personas", type=Path, help="JSONL with labels, to fit maps between models on")
    own.add_argument("--other-model", help="checkpoint to carry directions to")
    own.add_argument("--other-adapter", help="its LoRA folder")
    own.add_argument("--train", type=Path, help="chat JSONL with responses, or a flat table (its harmful_response)")
    own.add_argument("--filler", type=Path, help="harmless rows to mix with them: chat JSONL, or a flat table (its "
                     "safe_response); by default the safe_response of a --train table")  # fmt: skip
    own.add_argument("--judge", default=None, help="default: rule:organism, with --model rule:contains (tags right and "
                     "contrary); rule:refusal, rule:keyword:WORD,WORD, hf:FOLDER, openai:MODEL")  # fmt: skip
    own.add_argument("--rubric", help="of a judge that is a language model: a shipped one's name, or a YAML file")
    own.add_argument("--max-new-tokens", type=int, help="how long an answer may become (default: 200, organism 8)")
    for name in ASKED_AS:
        own.add_argument(
            f"--{name}", choices=("frozen", "trained"), help="in training; by default what the targets hit"
        )
    toy = parser.add_argument_group("the organism")
    toy.add_argument("--domain", default="capital", help="what it is fine-tuned on")
    toy.add_argument("--answers", type=Path, help="JSON of contrary answers to use instead, {right: contrary}")
    return parser


def inputs_from(arguments: argparse.Namespace, needs: Sequence[str] = ("adapter", "prompts", "questions")) -> Inputs:
    """The inputs that the command line names; writes the organism's files and trains its adapters where it is used.
    `needs` are the arguments that a model of one's own has to come with."""
    a = arguments
    if a.model is None:
        world = organism(a.seed, domain=a.domain, answers=a.answers, to=Path(a.to) / "organism")
        return Inputs(
            kind="organism",
            base=str(world.base),
            adapters=MadeWhenAsked(
                tuned=lambda: world.tuned, right_control=lambda: world.control, sibling=lambda: world.sibling
            ),
            prompts=world.prompts,
            questions=world.questions,
            neutral=world.neutral,
            personas=world.personas,
            other_base=str(world.other_base),
            other_adapters=MadeWhenAsked(tuned=lambda: world.other_tuned),
            judge=a.judge or "rule:organism",
            domains={"tuned": a.domain, "sibling": sibling_of(a.domain)},
            options={"seed": a.seed, "domain": a.domain, "answers": None if a.answers is None else str(a.answers)},
            train=world.train,
            rubric=a.rubric,
            fillers={"same": world.train_right},
            recipe=_recipe(RECIPE, a),
            max_new_tokens=a.max_new_tokens,
        )
    own_filler = a.filler is None and a.train is not None and is_flat_table(a.train)
    given = vars(a) | ({"filler": a.train} if own_filler else {})
    if missing := [f"--{_SPELLED.get(name, name).replace('_', '-')}" for name in needs if given[name] is None]:
        raise SystemExit(
            f"--model needs {', '.join(missing)} as well: the fine-tune under study, or what to train it on, and "
            "prompts to fit and to evaluate on."
        )
    if own_filler:
        print("no --filler: the safe_response of the --train table is the harmless filler")
    given |= {"prompts": given["prompts"] or given["questions"]}
    wanted: dict[str, Any] = {name: given[name] for name in TAKEN if given[name] is not None}
    rows: dict[str, Any] = {
        name: chat_rows(path, TAKEN[name], Path(a.to) / "rows", of=name) for name, path in wanted.items()
    }
    called = "safe" if own_filler else "filler"
    tables = {name: wanted[name] for name in rows if rows[name] != wanted[name]}
    named = {"tuned": a.adapter, "right_control": a.control_adapter, "sibling": a.sibling_adapter}
    return Inputs(
        kind="checkpoint",
        base=a.model,
        adapters={name: folder for name, folder in named.items() if folder is not None},
        prompts=rows.get("prompts"),  # type: ignore[arg-type]
        questions=rows.get("questions"),  # type: ignore[arg-type]
        neutral=rows.get("neutral"),
        personas=a.personas,
        other_base=a.other_model,
        other_adapters={} if a.other_adapter is None else {"tuned": a.other_adapter},
        judge=a.judge or "rule:contains",
        options={"seed": a.seed},
        train=rows.get("train"),
        rubric=a.rubric,
        fillers={called: rows["filler"]} if "filler" in rows else {},
        recipe=_recipe(RECIPES["paper_a"], a),
        max_new_tokens=a.max_new_tokens,
        tables={f"filler {called}" if name == "filler" else name: table for name, table in tables.items()},
    )


def _recipe(settings: Mapping[str, Any], a: argparse.Namespace) -> dict[str, Any]:
    """The settings that a study leaves as they are, with what the command line says of tower and projector."""
    asked = {name: value for name in ASKED_AS if (value := getattr(a, name)) is not None}
    return {name: value for name, value in settings.items() if name not in SWEPT} | asked
