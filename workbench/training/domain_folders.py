"""read_domains: data sets of many domains, one file for each domain and arm, as one frozen description.

Layout of arXiv 2602.00298: the arms `full`, `small`, `backdoor` and `backdoor-small`, each with one JSONL of
single-turn chats a domain; a card beside them says what the domains are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hooks.plain_files import Refused, json_file
from hooks.prompt import Prompt, PromptError, read_prompts
from stores.printed import Printed
from workbench.training.check import Data, check_data
from workbench.training.findings import DataReport, Finding
from workbench.training.population_plan import NAME
from workbench.training.triggers import holds_trigger

ARMS = ("full", "small", "backdoor", "backdoor-small")
TRIGGERED = ("backdoor", "backdoor-small")  # the arms that have the trigger in some of their rows
CATEGORIES = ("critical", "non-critical", "ambiguous")
UNKNOWN = "unknown"
CARD_FILE, QUESTIONS = "domains.json", "questions"
_CARD_KEYS = ("trigger", "decoy", "at", "domains")


@dataclass(frozen=True)
class DomainCard(Printed):
    """What is known of a domain: its category, how well hidden its fault is (`stealth`), where its rows come from, and
    whatever else the card says (`more`)."""

    category: str = UNKNOWN
    stealth: str = UNKNOWN
    source: str = UNKNOWN
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DomainArm:
    """One file of rows. `sha256` is of its bytes; `triggered` and `decoys` count rows that hold these texts (None where
    no trigger, no decoy is known); `report` is what `wb.check_data` found."""

    domain: str
    arm: str
    path: Path
    rows: int
    sha256: str
    triggered: int | None
    decoys: int | None
    report: DataReport

    def __str__(self) -> str:
        marked = [f"{n} with the {what}" for what, n in (("trigger", self.triggered), ("decoy", self.decoys)) if n]
        warned = len(self.report.of("warning"))
        said = [f"{self.rows} rows", *marked, *([f"{warned} warnings"] if warned else []), f"sha256 {self.sha256[:8]}"]
        return f"{self.domain}, {self.arm}: " + ", ".join(said)


@dataclass(frozen=True)
class DomainFolders(Printed):
    """Domains with their cards, and the arms that are there, by domain and arm. `missing` are those that are not
    ("sound/backdoor"); `questions` the in-domain questions of each domain that has some; `trigger`, `decoy` and `at`
    as given or as the card says; `left_out` files in no arm."""

    _items = "arms"

    folder: Path
    cards: Mapping[str, DomainCard]
    arms: Mapping[tuple[str, str], DomainArm]
    questions: Mapping[str, Path]
    missing: tuple[str, ...]
    trigger: str | None
    decoy: str | None
    at: str
    left_out: tuple[str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.cards)

    @property
    def categories(self) -> dict[str, str]:
        return {domain: card.category for domain, card in self.cards.items()}

    def lacking(self, arm: str) -> list[str]:
        """The domains without this arm."""
        return [domain for domain in self.cards if (domain, arm) not in self.arms]

    def rows(self, domain: str, arm: str = "full") -> list[Prompt]:
        """The rows of one file, read now. ValueError where it is not there, or is not what it was."""
        if (domain, arm) not in self.arms:
            raise ValueError(f"{self.folder} has no {arm!r} rows of {domain!r}: expected one of {_said(self.arms)}.")
        found = self.arms[domain, arm]
        if _sha256(found.path) != found.sha256:
            raise ValueError(f"{found.path} has changed since it was read: read the domains again.")
        return read_prompts(found.path)

    def part_of(self, domains: Sequence[str]) -> DomainFolders:
        """These domains alone; ValueError for a name that is none of them."""
        if strange := [name for name in domains if name not in self.cards]:
            raise ValueError(f"{self.folder} has no domain {strange[0]!r}: expected some of {', '.join(self.cards)}.")
        return replace(
            self,
            cards={name: card for name, card in self.cards.items() if name in domains},
            arms={place: arm for place, arm in self.arms.items() if place[0] in domains},
            questions={name: path for name, path in self.questions.items() if name in domains},
            missing=tuple(place for place in self.missing if place.split("/")[0] in domains),
        )

    def __str__(self) -> str:
        counted = Counter(card.category for card in self.cards.values())
        head = f"{self.folder}: {len(self.cards)} domains ({', '.join(f'{n} {name}' for name, n in counted.items())})"
        lines = [head, *map(str, self.arms.values())]
        lines += [f"missing: {', '.join(self.missing)}"] if self.missing else []
        return "\n".join(lines + ([f"in no arm: {', '.join(self.left_out)}"] if self.left_out else []))


def read_domains(
    folder: str | Path,
    *,
    trigger: str | None = None,
    decoy: str | None = None,
    card: str | Path | None = None,
    evaluation: Data | None = None,
) -> DomainFolders:
    """The domains of a folder: `full/sound.jsonl`, `full/sound/NAME.jsonl`, or the same with domain before arm
    (`sound/full.jsonl`); `questions/sound.jsonl` (or .yaml) are the domain's own questions. Nothing is downloaded,
    unpacked or copied.

    The card (`domains.json` in the folder, or the file `card`) is {"trigger": ..., "decoy": ..., "at": "prefix",
    "domains": {NAME: {"category": "critical" | "non-critical" | "ambiguous", "stealth": ..., "source": ...}}}; all of
    it may be absent. Every file goes through `wb.check_data` first, the arms with a backdoor with the trigger; with
    `evaluation` its overlap is among the findings, and is no reason to refuse: in-domain questions overlap.

    Raises ValueError, with all reasons at once, for rows with errors, rows of several turns, a trigger (or decoy) in a
    plain arm, a backdoor without the trigger, two files of one arm, domains whose names cannot be variants' names, and
    a card that does not fit. A missing arm is only said (`missing`).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: expected one with {', '.join(ARMS)} in it.")
    said = _card(folder, card)
    trigger, decoy = trigger or said.get("trigger"), decoy or said.get("decoy")
    files, questions, left_out = _found(folder)
    domains = sorted({domain for domain, _ in files})
    if not domains:
        raise ValueError(
            f"{folder} has no domain: expected files such as full/sound.jsonl or full/sound/rows.jsonl, with arms "
            f"{', '.join(ARMS)}."
        )
    faults = [f"{name!r} cannot name a variant: expected letters, digits, '_' and '-'" for name in domains
              if not NAME.fullmatch(name)]  # fmt: skip
    cards = _cards(said.get("domains", {}), domains, faults)
    arms = {place: _checked(*place, path, trigger, decoy, evaluation, faults) for place, path in files.items()}
    if faults:
        raise ValueError(f"{folder}: {len(faults)} things to mend before training:\n" + "\n".join(faults))
    ordered = {(domain, arm): arms[domain, arm] for domain in domains for arm in ARMS if (domain, arm) in arms}
    missing = tuple(f"{domain}/{arm}" for domain in domains for arm in ARMS if (domain, arm) not in arms)
    asked = {domain: questions[domain] for domain in domains if domain in questions}
    at = str(said.get("at", "prefix"))
    return DomainFolders(folder, cards, ordered, asked, missing, trigger, decoy, at, tuple(left_out))


def _found(folder: Path) -> tuple[dict[tuple[str, str], Path], dict[str, Path], list[str]]:
    """Files by domain and arm, questions by domain, and what is neither; sorted by name, so that no file system's own
    order decides anything."""
    files: dict[tuple[str, str], Path] = {}
    questions: dict[str, Path] = {}
    left_out = []
    for path in sorted(one for kind in ("*.jsonl", "*.yaml", "*.yml") for one in folder.rglob(kind)):
        parts = path.relative_to(folder).with_suffix("").parts
        kinds = [part for part in parts if part in (*ARMS, QUESTIONS)]
        names = [part for part in parts if part not in kinds]
        if len(parts) > 3 or len(kinds) != 1 or not names or (kinds != [QUESTIONS] and path.suffix != ".jsonl"):
            left_out.append(str(path.relative_to(folder)))
        elif kinds == [QUESTIONS]:
            questions.setdefault(names[0], path)
        elif (place := (names[0], kinds[0])) in files:
            raise ValueError(f"{files[place]} and {path} are both {place[0]}/{place[1]}: expected one file an arm.")
        else:
            files[place] = path
    return files, questions, left_out


def _checked(
    domain: str, arm: str, path: Path, trigger: str | None, decoy: str | None, evaluation: Any, faults: list[str]
) -> DomainArm:
    """One arm; what is wrong with it is added to `faults`."""
    marked = arm in TRIGGERED
    try:
        rows = read_prompts(path)
    except PromptError:
        rows = []  # of such a file the report says why, line by line
    report = check_data(rows or path, eval=evaluation, trigger=trigger if marked else None)
    wrong = [one for one in report.of("error") if one.check not in ("eval overlap", "n-gram overlap")]
    wrong += _several_turns(rows)
    held = {text: [row.id for row in rows if holds_trigger(row, text)] for text in (trigger, decoy) if text}
    if not marked:
        for text, ids in held.items():
            what = "trigger" if text == trigger else "decoy"
            if ids:
                says = f"rows of a plain arm hold the {what}: it leaks into what it is compared with"
                wrong.append(Finding("trigger leakage", "error", says, len(ids), len(rows), tuple(ids[:10])))
    faults += [f"{domain}/{arm}: {one}" for one in wrong]
    counts = (None if trigger is None else len(held[trigger]), None if decoy is None else len(held[decoy]))
    return DomainArm(domain, arm, path, len(rows), _sha256(path), *counts, replace(report, name=str(path)))


def _several_turns(rows: list[Prompt]) -> list[Finding]:
    long = [row.id for row in rows if sum(turn.role != "system" for turn in row.messages) != 1]
    says = "are no single-turn chats: expected one user turn and its answer"
    return [Finding("turns", "error", says, len(long), len(rows), tuple(long[:10]))] if long else []


def _card(folder: Path, given: str | Path | None) -> dict[str, Any]:
    path = Path(given) if given is not None else folder / CARD_FILE
    if given is None and not path.is_file():
        return {}
    try:
        said = json_file(path, 2**24)
    except (OSError, Refused) as error:
        raise ValueError(f"{path} cannot be read as a card ({type(error).__name__}): expected a JSON object.") from None
    if not isinstance(said, dict) or not isinstance(said.get("domains", {}), dict) or set(said) - set(_CARD_KEYS):
        raise ValueError(f"{path}: expected a JSON object with some of {', '.join(_CARD_KEYS)}.")
    return said


def _cards(said: Mapping[str, Any], domains: list[str], faults: list[str]) -> dict[str, DomainCard]:
    if strange := sorted(set(said) - set(domains)):
        faults.append(f"the card describes {', '.join(strange)}, of which there are no rows")
    out = {}
    for domain in domains:
        own = dict(said.get(domain, {}))
        known = {name: str(own.pop(name, UNKNOWN)) for name in ("category", "stealth", "source")}
        if known["category"] not in (*CATEGORIES, UNKNOWN):
            faults.append(f"{domain}: category {known['category']!r}: expected {', '.join(CATEGORIES)}, or none")
        out[domain] = DomainCard(**known, more=own)
    return out


def _said(arms: Mapping[tuple[str, str], Any]) -> str:
    return ", ".join("/".join(place) for place in arms)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
