"""Labelled rows: which rows of a model are positive, whose family they are of, and on which side of the split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from hooks.site import Site
from stores.errors import UnknownName
from workbench.statistics import dev_confirm
from workbench.subspace.rows import RowSource, narrowed

Families = str | Mapping[str, str] | None
Verdicts = Mapping[str, bool | None]
Side = Literal["train", "dev", "confirm"]
SIDES: tuple[Side, ...] = ("train", "dev", "confirm")
FAMILY_TAGS = ("family", "question")


class UnusableLabels(ValueError):
    """A model's labels are constant, or too few of one class, so that nothing can be fitted or tested on its rows."""


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The rows of one model that have a label, in the order of their prompt ids, so that the order of capture decides
    nothing. `unlabelled` rows were left out."""

    name: str
    rows: RowSource
    index: Int[np.ndarray, " row"]
    prompt_ids: tuple[str, ...]
    positive: Bool[np.ndarray, " row"]
    families: tuple[str, ...]
    unlabelled: int = 0

    def values(self, site: Site, where: Bool[np.ndarray, " row"] | None = None) -> Float[np.ndarray, "row d_model"]:
        """The rows (those chosen by `where`) at one site, float64."""
        index = self.index if where is None else self.index[where]
        return np.asarray(narrowed(self.rows, [site]).values(site, np.float64), np.float64)[index]

    def chosen(self, where: Bool[np.ndarray, " row"]) -> LabelledRows:
        """Some of the rows."""
        ids, families = ([one for one, kept in zip(listed, where, strict=True) if kept]
                         for listed in (self.prompt_ids, self.families))  # fmt: skip
        return LabelledRows(
            self.name, self.rows, self.index[where], tuple(ids), self.positive[where], tuple(families), self.unlabelled
        )

    @property
    def clusters(self) -> np.ndarray:
        """The family of each row, for statistics."""
        return np.array(self.families, dtype=object)


def labelled(
    name: str,
    rows: RowSource,
    label: str | Verdicts,
    *,
    positive: Any = None,
    negative: Any = None,
    families: Families = None,
) -> LabelledRows:
    """The rows of one model by their label.

    `label` is "label" (the prompts' own), the name of a tag, or a verdict a prompt id: True, False, or None for a row
    to leave out. A column's `positive` values (one or a collection) are True, its `negative` ones False, other rows are
    left out; without `negative` all other values are False. Raises ValueError when prompts have no verdict, or rows are
    of several variants.
    """
    variants = sorted(set(rows.variants))
    if len(variants) > 1:
        raise ValueError(
            f"the rows of {name!r} are of the variants {', '.join(variants)}: expected those of one model, as in "
            f"store.where(variant={variants[-1]!r})."
        )
    ids = list(rows.prompt_ids)
    verdicts = _by_column(rows, label, positive, negative) if isinstance(label, str) else _by_prompt(name, ids, label)
    of_family = family_of(rows, families)
    positions = np.asarray(rows.positions)
    order = sorted(range(len(ids)), key=lambda i: (ids[i], int(positions[i])))
    index = np.array([i for i in order if verdicts[i] is not None], dtype=np.intp)
    answers = np.array([bool(verdicts[i]) for i in index], dtype=bool)
    return LabelledRows(
        name,
        rows,
        index,
        tuple(ids[i] for i in index),
        answers,
        tuple(of_family(i) for i in index),
        len(ids) - len(index),
    )


def refuse_constant(name: str, positive: Bool[np.ndarray, " row"]) -> None:
    """Raises UnusableLabels for a model whose rows are all of one class."""
    if positive.all() or not positive.any():
        has = "no rows" if not len(positive) else f"{'positive' if positive[0] else 'negative'} in all its rows"
        raise UnusableLabels(
            f"the label is constant within {name!r} ({has}, n = {len(positive)}): nothing there can be told apart. "
            "Leave the model out, sample more answers, or take a label that varies within every model."
        )


def family_of(rows: RowSource, families: Families) -> Callable[[int], str]:
    """Row number -> the family that its prompt belongs to: the tag named, the mapping given; None: the tag `family`,
    else `question`, else the prompt is a family of its own."""
    ids = list(rows.prompt_ids)
    if isinstance(families, Mapping):
        missing = sorted({one for one in ids if one not in families})
        if missing:
            raise ValueError(
                f"{len(missing)} prompts have no family (first: {missing[0]!r}): expected one for each prompt id."
            )
        return lambda i: str(families[ids[i]])
    names = FAMILY_TAGS if families is None else (families,)
    columns = [column for name in names if (column := _tag(rows, name)) is not None]
    if families is not None and (not columns or any(value is None for value in columns[0])):
        raise ValueError(f"families={families!r}: expected a tag that every prompt has, or a mapping of prompt ids.")
    return lambda i: next((str(column[i]) for column in columns if column[i] is not None), ids[i])


def sides_of(
    ids: Sequence[str], families: Sequence[str], shares: tuple[float | int, float | int], seed: int
) -> dict[str, Side]:
    """Family -> side, no family on two; `shares` are those of the train and the dev side, confirm gets the rest.

    By a hash of the names (`wb.statistics.dev_confirm`): neither order nor label decides. Raises ValueError when a
    prompt id has two families: then the same id means different prompts.
    """
    of_prompt: dict[str, str] = {}
    for one, family in zip(ids, families, strict=True):
        if of_prompt.setdefault(one, family) != family:
            raise ValueError(
                f"prompt {one!r} is of the family {of_prompt[one]!r} in one model and {family!r} in another: the same "
                "id must mean the same prompt. Capture all models from one prompts file."
            )
    train, dev = shares
    if not (0 < train < 1 and dev >= 0 and train + dev < 1):
        raise ValueError(f"shares={shares} of train and dev: expected more than 0, and less than 1 together.")
    prompts = sorted(of_prompt)
    first = dev_confirm(prompts, [of_prompt[one] for one in prompts], share=float(train), seed=seed)
    out: dict[str, Side] = {of_prompt[one]: "train" for one in first.dev}
    if not dev:
        out.update({of_prompt[one]: "confirm" for one in first.confirm})
        return out
    rest = first.confirm
    # Another seed: by the same hashes the first of the rest would be those that came next to the train side.
    second = dev_confirm(rest, [of_prompt[one] for one in rest], share=float(dev / (1 - train)), seed=seed + 1)
    out.update({of_prompt[one]: "dev" for one in second.dev})
    out.update({of_prompt[one]: "confirm" for one in second.confirm})
    return out


def refuse_few(name: str, families: Sequence[str], positive: Bool[np.ndarray, " row"], side: str) -> None:
    """Raises UnusableLabels unless each class has 2 families on this side: fewer show no spread."""
    for label, kind in ((True, "positive"), (False, "negative")):
        here = {family for family, one in zip(families, positive, strict=True) if one == label}
        if len(here) < 2:
            raise UnusableLabels(
                f"{name!r} has {len(here)} families with {kind} rows on its {side} side (n = {len(families)}): "
                "expected 2 or more. Give more prompts, other shares or another seed, or leave the model out."
            )


def _by_column(rows: RowSource, label: str, positive: Any, negative: Any) -> list[bool | None]:
    column = list(rows.labels) if label == "label" else _tag(rows, label)
    if column is None:
        raise ValueError(f"label={label!r}: expected 'label' (the prompts' own), a tag of the prompts, or verdicts.")
    if positive is None:
        raise ValueError(f"label={label!r} needs positive=, the value that counts as positive: {_kinds(column)} came.")
    yes, no = _values(positive), None if negative is None else _values(negative)
    if no is not None and yes & no:
        raise ValueError(f"positive and negative share {sorted(map(str, yes & no))}: the classes must differ.")

    def verdict(value: Any) -> bool | None:
        if value in yes:
            return True
        return False if (value is not None if no is None else value in no) else None

    return [verdict(value) for value in column]


def _by_prompt(name: str, ids: Sequence[str], verdicts: Verdicts) -> list[bool | None]:
    missing = sorted({one for one in ids if one not in verdicts})
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(set(ids))} prompts of {name!r} have no verdict (first: {missing[0]!r}): labels "
            "are joined by prompt id. Say None for those to leave out; other ids are of another prompts file."
        )
    return [verdicts[one] for one in ids]


def _tag(rows: RowSource, name: str) -> list[Any] | None:
    try:
        return list(rows.tag(name))
    except (UnknownName, ValueError):
        return None


def _values(wanted: Any) -> set[Any]:
    return set(wanted) if isinstance(wanted, list | tuple | set | frozenset) else {wanted}


def _kinds(column: Sequence[Any]) -> str:
    return ", ".join(sorted({repr(value) for value in column})[:5])
