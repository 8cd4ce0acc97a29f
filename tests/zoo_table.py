"""The table of families in docs/architectures.md, written at the end of a test run that measured every one of them.

`conftest.py` takes the two pytest hooks from here. Rows travel as properties of the test reports, so the table is also
written where pytest-xdist runs the tests in several processes; the file changes only when a result does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
PROPERTY = "zoo row"
COLUMNS = ("capture", "edit", "patch", "generate", "lora", "image", "vision", "product", "sites")
TITLES = {
    "causal": "Causal language models",
    "image-text": "Image-text models",
    "vision": "Image encoders by themselves",
}
HEAD = """# Architectures: what was measured

One tiny random model (64 wide, 4 layers, CPU, float32) of nearly every class behind the Auto mappings of transformers
5.23, built from its config class and examined with plain torch hooks that share no code with `hooks/`. This page is
written by the test run (`pytest tests -k architectures`); do not edit it. One family by name, with the reasons as
measured: `python tests/zoo_report.py causal --only zamba`.

- **capture**: the blocks fire once and in order, each reads exactly what the one before wrote, and the model's own
  `output_hidden_states` agree where they can be compared.
- **edit**: a random vector added after any block changes the logits; the next block reads exactly the edited tensor.
- **patch**: the stream of prompt A after any block, replaced by prompt B's, gives prompt B's logits.
- **generate**: greedy tokens under an edit are the same with the KV cache and without.
- **lora**: with adapters on the Linears of the blocks the same blocks are found, and edits act.
- **image**: another picture gives other logits; with a picture every language block fires and edits after each act.
- **vision**: the blocks of the vision tower fire once, in order, as a chain, and edits reach the output.
- **product**: `load_model` and `run` give the residuals and the edited logits of plain hooks, row by row.
- **sites**: where the product finds `attn_out`, `resid_mid` and `mlp_out` in every block, they add up to the stream
  (never found and wrong; parallel and post-norm blocks have no `resid_mid` and refuse it).

"yes" is a test that passes; "no" and "refused" are tests too, with the reason below the table. A dash: does not apply,
or no input for it (families marked * do not run on text alone and were examined with a picture).
"""


FOUND: dict[tuple[str, str], dict[str, Any]] = {}  # what this session's tests measured


def pytest_runtest_logreport(report: Any) -> None:
    for name, value in report.user_properties if report.when == "call" else ():
        if name == PROPERTY:
            row = json.loads(value)
            FOUND[row["kind"], row["name"]] = row


def pytest_sessionfinish(session: Any) -> None:
    if not FOUND or hasattr(session.config, "workerinput"):
        return  # a process of pytest-xdist: the controller has them all
    from zoo import families
    from zoo_expected import NOT_BUILT

    wanted = {(kind, name) for kind in TITLES for name in families(kind)} - set(NOT_BUILT)
    if wanted <= set(FOUND):
        text = page([FOUND[key] for key in sorted(wanted)])
        if not PAGE.exists() or PAGE.read_text() != text:
            PAGE.write_text(text)


def page(rows: list[dict[str, Any]]) -> str:
    """The whole page; the same rows give the same text."""
    from zoo_expected import NOT_BUILT

    parts = [HEAD, "## Totals\n", *_totals(rows)]
    for kind, title in TITLES.items():
        own = [row for row in rows if row["kind"] == kind]
        columns = [column for column in COLUMNS if any(column in row["results"] for row in own)]
        parts += [f"\n## {title}\n", _line("family", "class", "blocks", *columns), _line(*["---"] * (3 + len(columns)))]
        parts += [_line(*_cells(row, columns)) for row in own]
        parts += ["\nWhy not, and what to know:\n", *_reasons(own)]
        left = [f"- {name}: {why}" for (one, name), why in sorted(NOT_BUILT.items()) if one == kind]
        parts += ["\nNot examined:\n", *left]
    return "\n".join(parts) + "\n"


def _totals(rows: list[dict[str, Any]]) -> list[str]:
    lines = [_line("", "families", "refused", *COLUMNS), _line(*["---"] * (3 + len(COLUMNS)))]
    for kind, title in TITLES.items():
        own = [row for row in rows if row["kind"] == kind]
        counts = []
        for column in COLUMNS:
            cells = [_cell(row, column) for row in own if column in row["results"]]
            counts.append(f"{cells.count('yes')} of {len(cells)}" if cells else "-")
        lines.append(_line(title, str(len(own)), str(sum(bool(row["refused"]) for row in own)), *counts))
    return lines


def _cells(row: dict[str, Any], columns: list[str]) -> list[str]:
    name = row["name"] + ("*" if row["by_picture"] else "")
    return [name, row["model"], row["block"] or "-", *(_cell(row, column) for column in columns)]


def _cell(row: dict[str, Any], column: str) -> str:
    if column in row["results"]:
        good, said = row["results"][column]
        refused = said.startswith("REFUSED") or said.startswith("refused")
        return "refused" if refused else "yes" if good else "no"
    return "refused" if row["refused"] and column in ("capture", "edit", "patch") else "-"


def _reasons(rows: list[dict[str, Any]]) -> list[str]:
    """One line a reason, with the families that it holds for."""
    from zoo_expected import EXPECTED

    families: dict[tuple[str, str], list[str]] = {}  # (checks, why) -> names
    for row in rows:
        known = {check: why for check, (_, why) in EXPECTED.get((row["kind"], row["name"]), {}).items()}
        checks: dict[str, list[str]] = {known["stream"]: ["refused"]} if row["refused"] and "stream" in known else {}
        for check, (good, note) in row["results"].items():
            if not good or (note and check not in ("product", "sites")):
                why = note if good else known.get(check, "not expected, see the test")
                checks.setdefault(why, []).append(check)
        for why, listed in checks.items():
            families.setdefault((", ".join(listed), why), []).append(row["name"])
    return [f"- **{', '.join(names)}** ({checks}): {why}." for (checks, why), names in families.items()]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
