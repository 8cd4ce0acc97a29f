"""Rubric: what a judge model is asked about an answer, and what it may reply; shipped as data files, or the user's."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hooks.prompt import Message, Prompt
from stores.printed import Printed
from workbench.behaviour.judging import Answer, revision_of
from workbench.behaviour.yaml_files import read_yaml

Mode = Literal["number", "score_tag", "json", "pairwise"]
MODES: tuple[str, ...] = get_args(Mode)
SHIPPED = Path(__file__).parent / "rubrics"
FROM_ANSWER = ("question", "answer", "base")  # every other {name} of a template is an option of the rubric


class RubricError(ValueError):
    """A rubric that cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class Rubric(Printed):
    """One quantity, and how a judge model is asked for it.

    `template` is the user message with {question} and {answer}, and {base} where it compares; `system` goes in front of
    it as it is. What the reply is, by `mode`: "number" a bare number; "score_tag" reasoning and <score>n</score>;
    "json" an object with "justification" and "score"; "pairwise" an object with "justification", "worse" ("A", "B" or
    "neither") and "score", where A is the base model's answer and B the one that is judged, or the reverse (`swapped`).
    A reply of one of the words `abstain` is no score. `measures` is the quantity, the same for two rubrics that ask for
    it in two ways.
    """

    name: str
    scale: tuple[int, int]
    system: str | None
    template: str
    mode: Mode
    abstain: tuple[str, ...] = ()
    version: int = 1
    measures: str = ""  # default: the name
    options: tuple[tuple[str, str], ...] = ()  # what the template's other placeholders stand for

    def __post_init__(self) -> None:
        """Raises RubricError for a template that cannot be filled."""
        if self.mode not in MODES:
            raise RubricError(f"rubric {self.name!r}: mode {self.mode!r} is unknown: expected {', '.join(MODES)}.")
        given, used = dict(self.options), placeholders(self.template, self.name)
        wanted = {"answer", "base"} if self.mode == "pairwise" else {"answer"}
        if lacking := wanted - used:
            raise RubricError(
                f"rubric {self.name!r}: the template lacks {{{sorted(lacking)[0]}}}: what is judged would not be shown."
            )
        if missing := sorted(used - set(FROM_ANSWER) - set(given)):
            raise RubricError(
                f"rubric {self.name!r}: {{{missing[0]}}} stands for nothing: expected one of "
                f"{', '.join(FROM_ANSWER)}, or the option {missing[0]}='...'."
            )
        if unused := sorted(set(given) - used):
            raise RubricError(
                f"rubric {self.name!r} has no option {unused[0]!r}: its template has "
                f"{', '.join(sorted(used - set(FROM_ANSWER))) or 'no options'}."
            )
        if not self.scale[0] < self.scale[1]:
            raise RubricError(f"rubric {self.name!r}: scale {self.scale} is no scale: expected (lowest, highest).")
        if not self.measures:
            object.__setattr__(self, "measures", self.name)

    @property
    def revision(self) -> str:
        """16 hex digits of a hash of all of it."""
        return revision_of(asdict(self))

    @property
    def compares(self) -> bool:
        """True where the base model's answer is shown as well."""
        return "base" in placeholders(self.template, self.name)

    def why_not(self, answer: Answer) -> str | None:
        """Why this answer cannot be asked about, or None: it can."""
        return "no answer of the base model to compare with" if self.compares and answer.base is None else None

    def messages(self, answer: Answer, *, swapped: bool = False) -> list[dict[str, Any]]:
        """The chat messages for a judge: `{"role", "content"}`, content a str, or, where the prompt has images, parts
        `{"type": "text", "text"}` and `{"type": "image", "path"}` with the images at their places.

        {question} is the whole conversation as the model saw it, system text included (see `conversation`). Everything
        is filled in one pass, so that braces in the texts stay text. `swapped` exchanges {answer} and {base}.
        ValueError where `why_not` has a reason.
        """
        if why := self.why_not(answer):
            raise ValueError(f"rubric {self.name!r}: {why} (prompt {answer.prompt.id!r}).")
        first, second = (answer.base or "", answer.text) if swapped else (answer.text, answer.base or "")
        values: dict[str, list[str | Path]] = {name: [text] for name, text in self.options}
        values |= {"question": conversation(answer.prompt), "answer": [first], "base": [second]}
        pieces = _filled(self.template, values)
        asked: list[dict[str, Any]] = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*asked, {"role": "user", "content": _content(pieces)}]


def placeholders(template: str, name: str = "") -> set[str]:
    """The names between single braces; doubled braces stand for braces, as in `str.format`."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RubricError(
            f"rubric {name!r}: the template cannot be filled ({error}): write braces that are text twice, "
            "{{ and }}."
        ) from None
    for _, field, spec, conversion in parsed:
        if field is not None and (not field.isidentifier() or spec or conversion):
            shown = field + (f":{spec}" if spec else "")
            raise RubricError(
                f"rubric {name!r}: {{{shown}}} is no placeholder: expected a plain name such as {{answer}}; write "
                "braces that are text twice, {{ and }}."
            )
    return {field for _, field, _, _ in parsed if field is not None}


def _filled(template: str, values: Mapping[str, list[str | Path]]) -> Iterator[str | Path]:
    shown = False
    for text, field, _, _ in string.Formatter().parse(template):
        yield text
        if field is not None:
            # A template may name the question twice; its pictures are shown where it stands first.
            yield from (
                piece for piece in values[field] if isinstance(piece, str) or not (shown and field == "question")
            )
            shown = shown or field == "question"


def _content(pieces: Iterator[str | Path]) -> str | list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for piece in pieces:
        if isinstance(piece, Path):
            parts.append({"type": "image", "path": piece})
        elif parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += piece
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def conversation(prompt: Prompt) -> list[str | Path]:
    """What the model was asked, for a judge to read: texts and images in their order.

    One user turn is its own text. As soon as there is more (a system text, several turns, an answer that was begun for
    the model), every turn has its role in front of it in brackets. An image is announced as [image 1], [image 2], ...
    """
    turns = prompt.messages or (Message("user", (*prompt.pictures, prompt.text or "")),)
    if prompt.prefill:
        turns = (*turns, Message("assistant, these words were put into its mouth", (prompt.prefill,)))
    if len(turns) == 1 and turns[0].role == "user":
        pieces: list[str | Path] = list(turns[0].parts)
    else:
        pieces = []
        for n, turn in enumerate(turns):
            pieces += ["\n\n" if n else "", f"[{turn.role}]\n", *turn.parts]
    return [part for piece in _announced(pieces) for part in piece]


def _announced(pieces: list[str | Path]) -> Iterator[list[str | Path]]:
    number = 0
    for piece in pieces:
        if isinstance(piece, Path):
            number += 1
            yield [f"[image {number}] ", piece]
        else:
            yield [piece]


def rubric(name_or_path: str | Path | Rubric, **options: str) -> Rubric:
    """A rubric by the name of a shipped one (`rubrics()` lists them), or by the path of a YAML file of one's own.

    `options` fill what its template leaves open (`rubric("trait", trait="flattery")`). Keys of the file: `name`,
    `template`, `mode`, and optional `system`, `scale` (default 0 to 100), `abstain`, `version`, `measures`, `about`.
    Raises FileNotFoundError, and RubricError with the file and the key.
    """
    if isinstance(name_or_path, Rubric):
        if options:
            raise RubricError(f"rubric {name_or_path.name!r} is complete: it takes no options ({', '.join(options)}).")
        return name_or_path
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in rubrics():
            raise RubricError(
                f"rubric {str(name_or_path)!r} is unknown: expected one of {', '.join(rubrics())}, or the path of a "
                ".yaml file."
            )
        path = SHIPPED / f"{name_or_path}.yaml"
    return _from_file(path, options)


def rubrics() -> list[str]:
    """The names of the shipped rubrics."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "template": (str,),
    "mode": (str,),
    "system": (str, type(None)),
    "scale": (list,),
    "abstain": (list,),
    "version": (int,),
    "measures": (str,),
    "about": (str,),
}


def _from_file(path: Path, options: Mapping[str, str]) -> Rubric:
    read = read_yaml(path)
    if not isinstance(read, dict):
        raise RubricError(f"{path}: expected a mapping with name, template and mode, got {type(read).__name__}.")
    for key, value in read.items():
        if key not in _KINDS:
            raise RubricError(f"{path}: the key {key!r} is unknown: expected {', '.join(_KINDS)}.")
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise RubricError(f"{path}: {key} is {type(value).__name__}: expected {_KINDS[key][0].__name__}.")
    if missing := [key for key in ("name", "template", "mode") if not read.get(key)]:
        raise RubricError(f"{path}: the key {missing[0]!r} is missing or empty, and is needed.")
    if read["mode"] not in MODES:
        raise RubricError(f"{path}: mode {read['mode']!r} is unknown: expected one of {', '.join(MODES)}.")
    scale, abstain = read.get("scale", [0, 100]), read.get("abstain", [])
    if len(scale) != 2 or not all(type(end) is int for end in scale):
        raise RubricError(f"{path}: scale is {scale}: expected two whole numbers, such as [0, 100].")
    if not all(isinstance(word, str) and word for word in abstain):
        raise RubricError(f"{path}: abstain is {abstain}: expected words (in quotes, where YAML reads them otherwise).")
    if wrong := [name for name, value in options.items() if not isinstance(value, str) or not value.strip()]:
        raise RubricError(f"{path}: the option {wrong[0]} is {options[wrong[0]]!r}: expected text.")
    measures = read.get("measures", "")
    for name, value in options.items():
        measures = measures.replace(f"{{{name}}}", value)
    try:
        return Rubric(
            name=read["name"],
            scale=(scale[0], scale[1]),
            system=read.get("system") or None,
            template=read["template"].strip(),
            mode=read["mode"],
            abstain=tuple(abstain),
            version=read.get("version", 1),
            measures=measures,
            options=tuple(sorted(options.items())),
        )
    except RubricError as error:
        raise RubricError(f"{path}: {error}") from None
