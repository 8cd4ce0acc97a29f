"""Sizes, fonts and colours of figures are decided once, and what is written in them can be read in a printed column."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench.reporting import cosine_matrix, style
from workbench.reporting.gating_panels import GatePanel, gate_panels
from workbench.reporting.routing_panels import RoutingPanel, routing_panels

FOLDER = Path(style.__file__).parent
READABLE = 5.0  # points in print, the least that journals take


def points_in_print(size: float) -> float:
    return size * style.PRINTED / style.COLUMN


def sizes_of_its_own(source: str) -> list[str]:
    """Font sizes as numbers, sizes of figures, and colours as hexadecimals."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in ("fontsize", "labelsize", "figsize", "dpi", "width"):
            found += [ast.unparse(node)] if isinstance(node.value, ast.Constant | ast.Tuple) else []
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("set_size_inches"):
            found += [ast.unparse(node)] if isinstance(node.args[0], ast.Constant) else []
        if isinstance(node, ast.Constant) and re.fullmatch(r"#[0-9a-fA-F]{6}", str(node.value)):
            found.append(str(node.value))
    return found


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_no_figure_decides_for_itself(file):
    assert file.stem == "style" or sizes_of_its_own(file.read_text()) == []


def test_a_size_of_its_own_is_noticed():
    assert sizes_of_its_own("this.text(0, 0, 'a', fontsize=6)") == ["fontsize=6"]
    assert sizes_of_its_own("Figure(figsize=(7, 3))") == ["figsize=(7, 3)"]
    assert sizes_of_its_own("figure.set_size_inches(6.4, 2)") and sizes_of_its_own("color = '#d55e00'")
    assert sizes_of_its_own("this.text(0, 0, 'a', fontsize=style.SMALL)") == []


def test_every_size_of_type_can_be_read_in_print():
    sizes = [style.RC[name] for name in style.RC if "size" in name and ("label" in name or "font" in name)]
    assert len(sizes) >= 5 and points_in_print(min(style.SMALL, *map(float, map(str, sizes)))) >= READABLE


def drawn() -> dict[str, Figure]:
    cells = np.linspace(-1, 1, 6).reshape(2, 3)
    gate = GatePanel([f"{i}" for i in range(2)], ["trigger", "question", "last"], cells)
    routed = RoutingPanel(
        ["text", "image"],
        ["text", "image", "all"],
        cells,
        np.stack([cells - 0.111, cells + 0.111], axis=-1),
        [[""] * 3] * 2,
    )
    return {
        "cosines": cosine_matrix([f"domain {i}" for i in range(12)], np.full((12, 12), -0.85)),
        "gates": gate_panels({"patched in": gate, "ordinary text in": gate, "patched out": gate}),
        "routes": routing_panels({"Text questions": routed, "Image questions": routed}),
    }


@pytest.mark.parametrize("name", ["cosines", "gates", "routes"])
def test_numbers_in_cells_stay_in_their_cells_and_can_be_read(name):
    figure = drawn()[name]
    assert figure.get_figwidth() == style.COLUMN
    with style.applied():
        figure.draw_without_rendering()
    assert all(points_in_print(text.get_fontsize()) >= READABLE for text in figure.findobj(Text) if text.get_text())
    panel = figure.axes[0]
    boxes = [text.get_window_extent() for text in panel.texts]
    assert len(boxes) >= 6 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_matrix_too_wide_for_numbers_has_none():
    assert not cosine_matrix([str(i) for i in range(20)], np.eye(20)).axes[0].texts
