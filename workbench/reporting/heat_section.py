"""Section: what a direction reads at every token of some prompts and answers, pictures included, in colours."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.behaviour.projected import Projected, colour_scale
from workbench.reporting.blocks import Block, Details, Heat, Patches, Text, Token
from workbench.reporting.summary import Summary

SHOWN = 4
"""Texts of each direction shown at once; the others are folded away."""


def heats(summary: Summary) -> list[Block]:
    """Every direction's texts in one scale of colours, a prompt's together; [] where none were projected."""
    if not summary.projections:
        return []
    by_direction: dict[tuple[str, str, str], list[Projected]] = {}
    for one in summary.projections:
        by_direction.setdefault((one.direction, one.site, one.scale), []).append(one)
    blocks: list[Block] = [
        Text(
            "The direction, token by token",
            [
                "The coordinate of every token along a direction: warm with a whole line above zero, cool with a "
                "dotted line below. Answers are bold, what the chat template writes is small. A direction was fitted "
                "at one place of a prompt; what it reads elsewhere is description, no test."
            ],
        )
    ]
    for (direction, site, scale), listed in by_direction.items():
        top = colour_scale(listed)
        said = f"{direction.replace('_', ' ').capitalize()}, {site}. {scale[:1].upper()}{scale[1:]}."
        shown = [_heat(one, top) for one in _in_turn(listed)]
        blocks += [Text("", [said]), *shown[:SHOWN]]
        if shown[SHOWN:]:
            blocks.append(Details(f"{len(shown) - SHOWN} more texts", shown[SHOWN:]))
    return blocks


def _in_turn(listed: Sequence[Projected]) -> list[Projected]:
    """Those of one prompt together; prompts without and with pictures in turn, so that both are among the first."""
    places: dict[str, tuple[int, bool]] = {}
    for one in listed:
        seen = bool(one.pictures)
        places.setdefault(one.prompt, (sum(kind == seen for _, kind in places.values()), seen))
    return sorted(listed, key=lambda one: places[one.prompt])


def _heat(one: Projected, top: float) -> Heat:
    pictures = [
        Patches(seen.uri, [float(v) for v in one.values[seen.start : seen.start + seen.count]], seen.columns)
        for seen in one.pictures
    ]
    return Heat(f"{one.condition.replace('_', ' ')}: {one.title}", _tokens(one), top, pictures)


def _tokens(one: Projected) -> Sequence[Token]:
    """The tokens as they are read; a picture's patches are one mark here, since they are shown on the picture."""
    shown: list[Token] = []
    pictures = 0
    for place, (text, value, part) in enumerate(zip(one.tokens, one.values, one.parts, strict=True)):
        if part != "image":
            shown.append(Token(text.replace("\n", "⏎\n"), float(value), part))
        elif not place or one.parts[place - 1] != "image" or place in {seen.start for seen in one.pictures}:
            pictures += 1
            shown.append(Token(f" ▦ picture {pictures} ", None, part))
    return shown
