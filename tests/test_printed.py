"""What a result prints: one short line whatever it holds, a table in a notebook, a data frame in pandas."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import chat
from test_errors import ROOT

import workbench as wb
from stores.printed import LONGEST, Printed, brief, record
from workbench.statistics import Interval
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.erase import leace
from workbench.subspace.grassmann import FrameOverlap

HELD = re.compile(r"ndarray|Tensor|Mapping|Sequence|tuple|dict|list|Directions|Subspace|Eraser")


@dataclass(frozen=True)
class Cell(Printed):
    name: str
    value: float
    interval: Interval | None = None
    band: tuple[float, float] = (0.0, 1.0)
    draws: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outer:
    site: wb.Site
    cell: Cell
    weights: np.ndarray = field(default_factory=lambda: np.zeros(3))


@dataclass(frozen=True, eq=False)
class Grid(Printed):
    _items = "cells"

    cells: tuple[Cell, ...]
    overlap: np.ndarray
    shares: Mapping[str, float]
    note: str = ""
    missing: Any = None
    _cache: Any = None


def grid(n: int) -> Grid:
    cells = tuple(Cell(f"c{i}", i / 7, Interval(0.1, 0.25, "Wilson 95%"), draws=tuple([0.5] * n)) for i in range(n))
    shares = {f"part {i}": i / 3 for i in range(n)}
    return Grid(cells, np.arange(n * 2.0).reshape(n, 2), shares, "x" * n, _cache=np.zeros(n))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.123456, "0.1235"),
        (np.float32(2), "2"),
        (True, "True"),
        (np.int64(3), "3"),
        (wb.Site(3), "resid_post:3"),
        (np.array([[1.0, -2.5], [3.0, 0.0]]), "[2x2] -2.5..3"),
        (np.array([1.0, np.nan, np.inf]), "[3] 1..1 (2 not finite)"),
        (np.array([np.nan]), "[1] no finite value"),
        (np.array([], int), "[0] int64"),
        (np.array(["a"]), "[1] <U1"),
        (torch.zeros(2, 3, dtype=torch.bfloat16), "[2, 3] torch.bfloat16"),
        ({"a": 1, "b": 0.5}, "{a 1, b 0.5}"),
        (dict.fromkeys(map(str, range(9)), 1.0), "{0 1, 1 1, 2 1, 3 1, and 5 more}"),
        ({f"long name {i}" * 2: np.zeros(4) for i in range(2)}, "{long name 0long name 0, long name 1long name 1}"),
        ({"key" * 30: 1, "kex" * 30: 2}, "2 str"),
        ((1.0, 2), "[1, 2]"),
        ([], "[]"),
        (tuple(Cell("c", 0.0) for _ in range(30)), "[Cell, Cell, Cell, Cell, and 26 more]"),
        (["word " * 9] * 5, "5 str"),
        ("x" * 200, "'" + "x" * 60 + "..."),
        ("\x1b[2J\n", r"'\x1b[2J\n'"),
        ({"\x1b[2J": 1}, r"{'\x1b[2J' 1}"),
        (Interval(0.1, 0.25, "Wilson 95%"), "[0.1, 0.25] (Wilson 95%)"),
        (lambda: 1, "function"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_a_value_is_said_briefly(value, said):
    assert brief(value) == said


@pytest.mark.parametrize("n", [1, 1000])
def test_a_result_is_one_short_line_whatever_it_holds(n):
    said = repr(grid(n))
    assert len(said) <= LONGEST + 30 and "\n" not in said and said.startswith("Grid(cells ")
    assert "_cache" not in said and "missing" not in said and f"[{n}x2] 0..{2 * n - 1:.3g}" in said


def test_more_fields_than_fit_are_counted():
    wide = type("Wide", (Printed,), {"__annotations__": {f"field_{i:02}": str for i in range(30)}})
    said = repr(dataclass(wide)(*["y" * 30] * 30))
    shown = said.count(" 'yyy")
    assert 0 < shown < 30 and said.endswith(f"and {30 - shown} more fields)") and len(said) <= LONGEST + 30


def test_a_repr_of_its_own_stays_and_is_inherited():
    @dataclass(frozen=True)
    class Own(Printed):
        a: int = 1

        def __repr__(self) -> str:
            return "mine"

    @dataclass(frozen=True)
    class Heir(Own):
        b: int = 2

    assert repr(Own()) == "mine" == repr(Heir())


def test_scalars_intervals_and_what_is_nested_become_columns():
    assert record(grid(2).cells[1]) == {
        "name": "c1", "value": 1 / 7, "interval_low": 0.1, "interval_high": 0.25, "band_low": 0.0, "band_high": 1.0,
        "draws_low": 0.5, "draws_high": 0.5,
    }  # fmt: skip
    assert record(Outer(wb.Site(2), Cell("c", 0.5))) == {
        "site": "resid_post:2", "cell_name": "c", "cell": 0.5, "cell_interval": None, "cell_band_low": 0.0,
        "cell_band_high": 1.0,
    }  # fmt: skip


def test_tables_in_a_notebook_and_in_pandas():
    found = grid(30)
    frame, shown = found.to_pandas(), found._repr_html_()
    assert list(frame["name"]) == [f"c{i}" for i in range(30)] and frame["interval_high"].unique() == [0.25]
    assert shown.count("<tr>") == 21 and "and 10 more rows" in shown and "Grid(cells" in shown
    hostile = Grid((Cell("<script>alert(1)</script>", 0.0),), np.zeros(1), {}, "<img src=x>")
    assert "<script>" not in hostile._repr_html_() and "<img" not in hostile._repr_html_()


def test_mappings_with_the_same_keys_are_columns():
    names = ("mean_cos2", "chordal")
    found = FrameOverlap(dict.fromkeys(names, 0.5), dict.fromkeys(names, (0.1, 0.2)), dict.fromkeys(names, 0.01),
                         "isotropic", 99, (2, 2))  # fmt: skip
    frame = found.to_pandas()
    assert list(frame["name"]) == list(names) and list(frame["p"]) == [0.01, 0.01] and "value" in frame
    assert "p {mean_cos2 0.01, chordal 0.01}" in repr(found)


def test_objects_of_a_session_say_what_they_are():
    rows = np.random.default_rng(0).normal(size=(40, 6))
    halves = [ArrayRows({wb.Site(1): part}, [f"{i}" for i in range(20)]) for part in (rows[:20], rows[20:] + 1)]
    v = wb.difference_of_means(halves[1], halves[0])
    assert "20 rows, resid_post:1; variants base, in memory" in repr(halves[0])
    assert repr(wb.Ablate(v, layer=1, to="zero")).startswith("Ablate(direction difference of means")
    assert "layer 1, to 'zero', at 'all')" in repr(wb.Ablate(v, layer=1, to="zero"))
    assert "coefficient -2" in repr(wb.Steer(v, layer=1, coefficient=-2.0))
    eraser = leace(*halves)
    assert "LEACE at resid_post:1" in repr(wb.Erase(eraser, layer=1)) and list(eraser.to_pandas()["rank"]) == [1]
    moments = wb.Moments.of(halves[0], wb.Site(1))
    assert "scatter [6x6]" in repr(moments) and len(repr(moments)) < 120
    assert repr(wb.Budget(2.5)) == "Budget(cap 2.5, spent 0, at risk 0)"


def test_a_prompt_says_who_says_what(picture):
    prompt = chat("q", "what is ", picture, response="a dog " * 40, label="on", tags={"family": "x"})
    assert repr(prompt) == (
        "Prompt('q': user 'what is ', response '" + ("a dog " * 40)[:57] + "...', 1 images, label 'on', tags 'family')"
    )


def test_what_a_model_gives_says_its_shapes(llama):
    batch = llama.encode([chat("a", "hi"), chat("b", "longer")])
    said = repr(batch)
    assert said.startswith("Batch([row, pos] [2, ") and len(said) < 120
    trace = llama.run(batch, {wb.Site(1): lambda resid, where: resid[:, -1]})
    assert repr(trace).startswith("Trace(resid_post:1 [2, 32]; logits [2, ") and "edits at 0 sites" in repr(trace)
    generated = llama.generate(batch, max_new_tokens=2)
    assert repr(generated).startswith("Generation(2 answers, ") and len(repr(generated)) < 300
    assert "prompt tokens, 0 of a response, 0 images" in repr(batch.encoded[0])


def test_what_public_functions_return_prints_itself():
    """Every dataclass that a public name leads to and that holds more than scalars is Printed, or has its own words."""
    assert {place for place in public_classes() if is_bare(*place)} - INSIDE == set()


# Parts of results that no user holds by themselves.
INSIDE = {
    ("hooks/acting.py", "Acting"),
    ("hooks/layout.py", "Layout"),
    ("hooks/model.py", "Tally"),
    ("hooks/positions.py", "Tokens"),
    ("hooks/prompt.py", "Message"),
    ("hooks/stream.py", "ResidualStream"),
    ("workbench/organisms/world.py", "Domain"),
}


def test_a_result_that_would_print_all_is_noticed():
    assert ("workbench/subspace/grassmann.py", "FrameOverlap") in public_classes() and len(public_classes()) > 150
    assert is_bare("hooks/stream.py", "ResidualStream") and not is_bare(
        "workbench/subspace/grassmann.py", "FrameOverlap"
    )
    assert not is_bare("workbench/statistics/permutation.py", "Significance"), "scalars alone"


@cache
def parts(file: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """The classes of a file, and where the names that it imports come from."""
    nodes = list(ast.walk(ast.parse((ROOT / file).read_text())))
    imported = {
        alias.name: f"{(node.module or '').replace('.', '/')}.py"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}, imported


def found_as(file: str, name: str) -> tuple[str, str] | None:
    """Where the class lies that a file means by a name; None for what is no class of ours."""
    if not (ROOT / file).is_file() or file.startswith("workbench/reporting"):
        return None
    classes, imported = parts(file)
    return (file, name) if name in classes else found_as(imported[name], name) if name in imported else None


@cache
def public_classes() -> set[tuple[str, str]]:
    """The classes that are public or that a public function returns, and those of what their fields hold."""
    homes = {name: f"{home.replace('.', '/')}.py" for name, home in wb._HOME.items()}
    asked = [(home, name) for name, home in homes.items()]
    for home in {home for home in homes.values() if (ROOT / home).is_file()}:
        for node in ast.parse((ROOT / home).read_text()).body:
            if isinstance(node, ast.FunctionDef) and homes.get(node.name) == home and node.returns is not None:
                asked += [(home, name) for name in re.findall(r"\w+", ast.unparse(node.returns))]
    out: set[tuple[str, str]] = set()
    while asked:
        place = found_as(*asked.pop())
        if place is not None and place not in out:
            out.add(place)
            asked += [(place[0], name) for held in held_by(*place) for name in re.findall(r"\w+", held)]
    return out


def held_by(file: str, name: str) -> list[str]:
    return [ast.unparse(part.annotation) for part in parts(file)[0][name].body if isinstance(part, ast.AnnAssign)]


def is_bare(file: str, name: str) -> bool:
    """Whether it is a dataclass with @dataclass's own repr that holds arrays or collections."""
    node = parts(file)[0][name]
    bases = [ast.unparse(base) for base in node.bases]
    own = any(isinstance(part, ast.FunctionDef) and part.name == "__repr__" for part in node.body)
    above = [place for base in bases if (place := found_as(file, base)) is not None]
    if own or "Printed" in bases or any(not is_bare(*place) for place in above):
        return False
    is_dataclass = any("dataclass" in ast.unparse(one) for one in node.decorator_list)
    return is_dataclass and any(map(HELD.search, held_by(file, name)))
