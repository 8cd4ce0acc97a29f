"""read_questions: question sets in the field's YAML format, as it was published, or prompts as JSONL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.prompt import ROLES, Message, Prompt, PromptError, read_prompts
from stores.printed import Printed
from workbench.behaviour.rubric import Rubric, RubricError
from workbench.behaviour.yaml_files import read_yaml

TYPES = ("free_form", "free_form_0_100", "free_form_judge_0_100")
ABSTAIN = ("REFUSAL", "CODE", "IRRELEVANT")  # words that published judge prompts allow in place of a number
_KINDS: dict[str, tuple[type, ...]] = {
    "id": (str, int),
    "type": (str,),
    "paraphrases": (list,),
    "samples_per_paraphrase": (int,),
    "system": (str, type(None)),
    "context": (list, type(None)),
    "temperature": (int, float, type(None)),
    "max_tokens": (int, type(None)),
    "judge": (str, type(None)),
    "judge_prompts": (dict, type(None)),
}


@dataclass(frozen=True)
class Questions(Printed):
    """The prompts of a question set, and what its file says about asking and judging them.

    A prompt is one paraphrase of a question, with the tags `question` (its id), `paraphrase` (its number from 0),
    `family` (the question without its _json or _template) and `variant` ("plain", "json" or "template"). `samples` is
    by prompt id; the others are by question: `rubrics` (by measure), `sampling` (`temperature`, `max_tokens`, where
    they are stated) and `judges` (the model that the file names, which nothing here calls). `notes` say what was read
    otherwise than the file's authors' own code reads it.
    """

    _items = "prompts"

    prompts: tuple[Prompt, ...]
    samples: Mapping[str, int]
    rubrics: Mapping[str, Mapping[str, Rubric]]
    sampling: Mapping[str, Mapping[str, float]]
    judges: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    def rubric(self, measure: str) -> Rubric:
        """The rubric by which every question is judged for this measure. ValueError where a question has none, or
        another: judge those apart, by `rubrics`."""
        found = {question: by_measure.get(measure) for question, by_measure in self.rubrics.items()}
        distinct = {one.revision for one in found.values() if one is not None}
        if without := sorted(question for question, one in found.items() if one is None):
            raise ValueError(
                f"{without[0]!r} has no judge prompt {measure!r}, with {len(without)} of {len(found)} in all: "
                "expected one on every question."
            )
        if len(distinct) != 1:
            raise ValueError(
                f"the questions have {len(distinct)} judge prompts {measure!r}: expected one for all; take them from "
                ".rubrics[question], and judge each group apart."
            )
        return next(one for one in found.values() if one is not None)


def read_questions(path: str | Path, *, tags: Iterable[str] = ()) -> Questions:
    """The question set of a .yaml file, a list of entries with `id`, `paraphrases`, and optional `type`, `system`,
    `context` (earlier turns), `samples_per_paraphrase` (default 1), `temperature`, `max_tokens`, `judge` and
    `judge_prompts` (measure -> template with {question} and {answer}); or prompts of a .jsonl file, one sample each.

    `system` becomes a system turn of the prompt. Templates become rubrics; their {question} is the whole conversation,
    system text included, where published code shows the paraphrase alone. Two entries of one id are two questions: the
    second is called ID~2, and a note says so (grouping by id merged them). Raises PromptError with the file and the
    entry for any other key and for values of another kind; `tags` names keys of the user's own, kept as tags.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        prompts = read_prompts(path)
        return Questions(tuple(prompts), {prompt.id: 1 for prompt in prompts}, {}, {}, {})
    if path.suffix not in (".yaml", ".yml"):
        raise PromptError(f"{path}: expected a question set as .yaml or .yml, or prompts as .jsonl.")
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise PromptError(f"{path}: expected a list of questions, got {type(entries).__name__}.")
    own = tuple(tags)
    seen: dict[str, int] = defaultdict(int)
    out = Questions((), {}, {}, {}, {})
    read: list[Prompt] = []
    samples, rubrics, sampling, judges = dict(out.samples), dict(out.rubrics), dict(out.sampling), dict(out.judges)
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, question {number}"
        _check(entry, where, own)
        published = str(entry["id"])
        where = f"{path}, question {published!r}"
        seen[published] += 1
        question = published if seen[published] == 1 else f"{published}~{seen[published]}"
        if question in rubrics:
            raise PromptError(f"{where}: the id {question!r} is there already: rename one of them.")
        for prompt in _prompts(entry, question, published, own, where):
            read.append(prompt)
            samples[prompt.id] = entry.get("samples_per_paraphrase", 1)
        rubrics[question] = _rubrics(entry, where)
        sampling[question] = {key: entry[key] for key in ("temperature", "max_tokens") if entry.get(key) is not None}
        if entry.get("judge"):
            judges[question] = entry["judge"]
    notes = tuple(
        f"the id {name!r} stands for {times} questions in {path.name}, which code that groups by id merges; here they "
        f"are {name}, {', '.join(f'{name}~{n}' for n in range(2, times + 1))}"
        for name, times in seen.items()
        if times > 1
    )
    return Questions(tuple(read), samples, rubrics, sampling, judges, notes)


def _check(entry: Any, where: str, own: tuple[str, ...]) -> None:
    if not isinstance(entry, dict):
        raise PromptError(f"{where}: expected a mapping with id and paraphrases, got {type(entry).__name__}.")
    if "id" in entry:
        where = f"{where} (id {entry['id']!r})"
    if unknown := [key for key in entry if key not in _KINDS and key not in own]:
        raise PromptError(
            f"{where}: the key {unknown[0]!r} is unknown, and would be silently ignored: expected {', '.join(_KINDS)}; "
            f"read_questions(..., tags=[{unknown[0]!r}]) keeps it as a tag."
        )
    for key in ("id", "paraphrases"):
        if key not in entry:
            raise PromptError(f"{where}: the key {key!r} is missing, and is needed.")
    for key, kinds in _KINDS.items():
        value = entry.get(key, None if type(None) in kinds else kinds[0]())
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise PromptError(
                f"{where}: {key} is {value!r}, read as {type(value).__name__}: expected {kinds[0].__name__} (put "
                "text in quotes where YAML reads it otherwise)."
            )
    if entry.get("type", TYPES[0]) not in TYPES:
        raise PromptError(f"{where}: type {entry['type']!r} is not read: expected one of {', '.join(TYPES)}.")
    if entry.get("samples_per_paraphrase", 1) < 1:
        raise PromptError(f"{where}: samples_per_paraphrase is {entry['samples_per_paraphrase']}: expected 1 or more.")
    if not entry["paraphrases"]:
        raise PromptError(f"{where}: paraphrases is empty: expected at least one text.")


def _prompts(entry: Mapping[str, Any], question: str, published: str, own: tuple[str, ...], where: str) -> list[Prompt]:
    system = entry.get("system")
    if system is not None and not system.strip():
        raise PromptError(f"{where}: system is empty: leave it out, or give it text.")
    before = ([] if system is None else [Message("system", (system,))]) + [
        _turn(turn, where) for turn in entry.get("context") or []
    ]
    kind = "template" if published.endswith("_template") else "plain"
    kind = "json" if published.endswith("_json") or "json" in (system or "").casefold() else kind
    family = published.removesuffix("_template").removesuffix("_json")
    more = {key: entry[key] for key in own if key in entry}
    out = []
    for n, text in enumerate(entry["paraphrases"]):
        if not isinstance(text, str) or not text.strip():
            raise PromptError(
                f"{where}: paraphrase {n} is {text!r}, read as {type(text).__name__}: expected text (in quotes, where "
                "YAML reads it otherwise)."
            )
        tags = {"question": question, "paraphrase": n, "family": family, "variant": kind, **more}
        out.append(Prompt(f"{question}/{n}", (*before, Message("user", (text,))), tags=tags))
    return out


def _turn(turn: Any, where: str) -> Message:
    fine = isinstance(turn, dict) and set(turn) == {"role", "content"} and turn["role"] in ROLES
    if not fine or not isinstance(turn["content"], str) or not turn["content"].strip():
        raise PromptError(
            f"{where}: context has {turn!r}: expected turns of a role ({', '.join(ROLES)}) and text content."
        )
    return Message(turn["role"], (turn["content"],))


def _rubrics(entry: Mapping[str, Any], where: str) -> dict[str, Rubric]:
    out = {}
    for measure, template in (entry.get("judge_prompts") or {}).items():
        if not isinstance(measure, str) or not isinstance(template, str):
            raise PromptError(
                f"{where}: judge_prompts has {measure!r}: {type(template).__name__}: expected text by name."
            )
        words = tuple(word for word in ABSTAIN if word in template)
        mode = "score_tag" if "<score>" in template else "number"
        try:
            out[measure] = Rubric(measure, (0, 100), None, template, mode, words)
        except RubricError as error:
            raise PromptError(f"{where}, judge_prompts: {error}") from None
    return out
