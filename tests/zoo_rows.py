"""The row of one family of the zoo: every check that applies, passed or with the reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import zoo
import zoo_checks as checks
import zoo_pictures
from zoo_encoders import encoder_inputs
from zoo_expected import EXPECTED
from zoo_inputs import text_inputs
from zoo_kinds import kind_of
from zoo_product import check_product, check_sites, loaded
from zoo_table import PROPERTY

from hooks.blocks import UnsupportedArchitecture, find_blocks, unwrapped


@dataclass
class Row:
    """`results`: check -> (passed, note or reason). `refused`: why the product finds no stream."""

    kind: str
    name: str
    model: str = ""
    built: bool = False
    reason: str = ""
    refused: str = ""
    block: str = ""  # the kind of its blocks
    by_picture: bool = False  # the model does not run on text alone
    results: dict[str, tuple[bool, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.built or (self.reason and not self.results):
            return f"{self.kind:11}{self.name:28} {self.model} {self.reason}"
        marks = " ".join(f"{check}:{'yes' if good else 'NO'}" for check, (good, _) in self.results.items())
        notes = " | ".join(f"{check}: {note}" for check, (_, note) in self.results.items() if note)
        refused = f"REFUSED {self.refused} " if self.refused else ""
        return f"{self.kind:11}{self.name:28} {refused}{'(picture) ' if self.by_picture else ''}{marks}  {notes}"

    def as_json(self) -> dict[str, Any]:
        return vars(self)

    def check(self, name: str, run: Callable[..., str], *args: Any) -> None:
        try:
            self.results[name] = True, run(*args)
        except Exception as error:
            kind = "" if isinstance(error, checks.Failed) else f"{type(error).__name__}: "
            self.results[name] = False, f"{kind}{error}".replace("\n", " ")[:300]


def measured(kind: str, name: str) -> Row:
    """Builds the family's tiny model and runs every check that applies to it."""
    row = Row(kind, name, zoo.families(kind)[name][1].__name__)
    try:
        model = zoo.build(kind, name)
    except Exception as error:
        row.reason = f"not built: {type(error).__name__}: {error}".replace("\n", " ")[:200]
        return row
    row.built = True
    if kind == "vision":
        _plain_encoder(row, model)
        return row
    pictured = _runs(row, model, zoo_pictures.image_inputs, name) if kind == "image-text" else None
    blocks = _language(row, model, pictured)
    if pictured:
        row.check(
            "image", checks.check_image, model, pictured, zoo_pictures.image_inputs(model, name, picture=1), blocks
        )
        _tower(row, model, pictured)
    if blocks:
        one = _runs(row, model, text_inputs) or pictured
        row.check("lora", checks.check_lora, model, blocks, one, lambda wrapped: _found(row, wrapped))
    return row


def _runs(row: Row, model: Any, make: Callable[..., Any], *args: Any) -> Any:
    """These inputs, if the model runs on them; else None, and the reason in the row."""
    try:
        inputs = make(model, *args)
        checks.called(model, inputs)
        return inputs
    except Exception as error:
        row.reason = f"{make.__name__}: {type(error).__name__}: {error}".replace("\n", " ")[:200]
        return None


def _found(row: Row, model: Any) -> list[Any]:
    if row.by_picture:
        return find_blocks(model, example=zoo_pictures.example(unwrapped(model), row.name))
    return find_blocks(model)


def _language(row: Row, model: Any, pictured: Any) -> list[Any]:
    """Checks the language stream and returns its blocks: on text alone where the model can, else with a picture."""
    one, other = _runs(row, model, text_inputs), None
    if one is not None:
        other = text_inputs(model, 1)
    elif pictured is not None:
        row.by_picture, one, other = True, pictured, zoo_pictures.image_inputs(model, row.name, words=2)
    else:
        return []
    row.reason = ""
    try:
        blocks = _found(row, model)
    except Exception as error:
        kind = "" if isinstance(error, UnsupportedArchitecture) else f"ERROR {type(error).__name__}: "
        row.refused = f"{kind}{error}".replace("\n", " ")
        return []
    row.block = kind_of(model, blocks, one)
    row.check("edit", checks.check_edit, model, blocks, one)
    row.check("patch", checks.check_patch, model, blocks, one, other)
    row.check("generate", checks.check_generate, model, blocks, one)
    row.check("capture", checks.check_capture, model, blocks, one)
    if not row.by_picture:
        _product(row, model, blocks)
    return blocks


def _product(row: Row, model: Any, blocks: list[Any]) -> None:
    try:
        product = loaded(model)
    except Exception as error:
        row.results["product"] = False, f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        return
    row.check("product", check_product, product, blocks)
    if row.results["product"][0]:
        row.check("sites", check_sites, product)


def _tower(row: Row, model: Any, inputs: Any) -> None:
    example = zoo_pictures.example(model, row.name) if row.kind == "image-text" else lambda rows, length: inputs
    try:
        blocks = find_blocks(model, "vision", example)
    except Exception as error:
        kind = "" if isinstance(error, UnsupportedArchitecture) else f"ERROR {type(error).__name__}: "
        row.results["vision"] = False, f"REFUSED {kind}{error}".replace("\n", " ")
        return
    row.check("vision", checks.check_tower, model, blocks, inputs)


def _plain_encoder(row: Row, model: Any) -> None:
    inputs = _runs(row, model, encoder_inputs)
    if inputs is not None:
        _tower(row, model, inputs)


def examined(kind: str, name: str, record_property: Callable[[str, object], None]) -> None:
    """Measures a family, hands its row to the table, and holds it to `zoo_expected`."""
    row = measured(kind, name)
    if not row.built and not zoo.MEASURED:
        pytest.skip(f"not transformers 5.23, which builds it: {row.reason}. zoo_families.py says what a family needs.")
    record_property(PROPERTY, json.dumps(row.as_json()))
    expected = EXPECTED.get((kind, name), {})
    assert row.built, row.reason
    assert row.refused or row.results, row.reason
    failed = {check: said for check, (good, said) in row.results.items() if not good}
    failed |= {"stream": row.refused} if row.refused else {}
    unexpected = {check: said for check, said in failed.items() if check not in expected}
    assert not unexpected, unexpected
    passed = sorted(set(expected) - set(failed))
    assert not passed, f"{passed} pass now: take them out of zoo_expected.EXPECTED"
    for check, (fragment, _) in expected.items():
        assert fragment in failed[check]
