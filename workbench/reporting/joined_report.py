"""joined_report: several runs on one page: the claims they decide, their numbers side by side, and each run folded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from workbench.reporting import sections
from workbench.reporting.blocks import Answers, Block, Code, Details, Heat, Note, Table, Text
from workbench.reporting.claims import LEAST_SEEDS, Claim, decided
from workbench.reporting.claims_section import claims as claim_blocks
from workbench.reporting.experiment_report import experiment_blocks
from workbench.reporting.joined_numbers import side_by_side
from workbench.reporting.ledger import flat
from workbench.reporting.page import write_page
from workbench.reporting.summary import Summary, read_summary

Runs = dict[str, dict[int, tuple[Path, Summary]]]
NO_EVIDENCE = (
    "These runs are of organisms: tiny models built for this workbench, with contrary personas put into their training "
    "on purpose. They show the effect by construction. Whatever this page says of a claim is no evidence about real "
    "models: it shows that the analysis runs, and what it would say."
)


def joined_report(
    folders: Iterable[str | Path],
    to: str | Path,
    *,
    title: str = "",
    claims: Sequence[Claim] = (),
    least_seeds: int = LEAST_SEEDS,
    written_before: str = "these runs",
) -> Path:
    """Writes one self-contained page of several run folders, of one script with several base seeds or of many scripts,
    and returns its path.

    In reading order: for organisms, that this is no evidence about real models; the `claims` and which way each fell,
    in at least `least_seeds` base seeds (`written_before`: what the rule was written before); for each script its
    numbers across base seeds side by side, with n, interval and control, and every run's own sections, folded, or of a
    script with one base seed these sections alone; where each run comes from. Raises ValueError for no folder, or two
    runs of one script and base seed.
    """
    runs = read_runs(folders)
    listed = [summary for by_seed in runs.values() for _, summary in by_seed.values()]
    blocks: list[Block] = []
    if any(summary.is_organism for summary in listed):
        blocks.append(Note(NO_EVIDENCE, kind="construction"))
    if claims:
        summaries = {script: {seed: run[1] for seed, run in by_seed.items()} for script, by_seed in runs.items()}
        blocks += claim_blocks(decided(claims, summaries, least=least_seeds), written_before)
    for script, by_seed in runs.items():
        blocks += _script(script, by_seed)
    blocks += _provenance(runs)
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    words = f"{len(runs)} scripts · base seeds {', '.join(map(str, seeds))} · {len(listed)} runs"
    return write_page(title or "Runs side by side", blocks, to, subtitle=words)


def read_runs(folders: Iterable[str | Path]) -> Runs:
    """The runs by script and base seed, scripts in the order of the folders."""
    runs: Runs = {}
    for folder in map(Path, folders):
        summary = read_summary(folder)
        script, seed = script_of(summary) or folder.parent.name or folder.name, summary.seed or 0
        by_seed = runs.setdefault(script, {})
        if seed in by_seed:
            raise ValueError(
                f"{by_seed[seed][0]} and {folder} are both runs of {script} with base seed {seed}: expected one."
            )
        by_seed[seed] = (folder, summary)
    if not runs:
        raise ValueError("there are no runs to join: expected folders with a summary.json.")
    return {script: dict(sorted(by_seed.items())) for script, by_seed in runs.items()}


def script_of(summary: Summary) -> str:
    """The name of the script that made a run, from its command; empty where that names none."""
    words = [word for word in shlex.split(summary.command) if re.fullmatch(r".*\.py", word)]
    return Path(words[0]).stem if words else ""


def _script(script: str, by_seed: dict[int, tuple[Path, Summary]]) -> list[Block]:
    summaries = {seed: summary for seed, (_, summary) in by_seed.items()}
    question = next(iter(summaries.values())).question
    blocks: list[Block] = [Text(script, [question] if question else [])]
    if len(by_seed) > 1:
        blocks += side_by_side(script, summaries)
    for seed, (folder, summary) in by_seed.items():
        own = [_inner(block) for block in experiment_blocks(summary) if not _is_construction(block)]
        if len(by_seed) == 1:
            return [*blocks, *own]
        where = f"The whole page of this run, with all {len(summary.results)} results: {folder / 'report.html'}."
        blocks.append(Details(f"{script}, base seed {seed}: the run's own sections", [Text("", [where]), *own]))
    return blocks


def _inner(block: Block) -> Block:
    """Headings of a run's own sections stay out of the contents; its answers, the values of its tokens and its table
    of all results stay on its own page."""
    if isinstance(block, Text):
        return replace(block, level=3)
    if isinstance(block, Answers | Heat):
        return Note("They are to be seen on the run's own page.", kind="missing")
    if isinstance(block, Details):
        if re.match(r"All \d+ results", block.summary):
            return Note("All results stand on the run's own page.", kind="missing")
        return replace(block, content=[_inner(one) for one in block.content])
    return block


def _is_construction(block: Block) -> bool:
    return isinstance(block, Note) and block.text == sections.CONSTRUCTION


def _provenance(runs: Runs) -> list[Block]:
    blocks: list[Block] = [Text("Where each run comes from", ["Each command makes its run again."])]
    rows = []
    for script, by_seed in runs.items():
        for seed, (folder, summary) in by_seed.items():
            code = str(summary.hashes.get("code", ""))[:16] or None
            spent = sum(summary.seconds.values())
            rows.append([script, seed, str(folder), len(summary.results), f"{spent:.0f} s", code])
            hashes = [[key, value] for key, value in flat(summary.hashes)]
            facts = Details(f"{script}, base seed {seed}", [Code(summary.command), Table(["hash of", "value"], hashes)])
            blocks.append(facts)
    columns = ["script", "base seed", "folder", "results", "time", "code (sha256)"]
    codes = {row[5] for row in rows}
    said = (
        "All runs are of one version of the code."
        if len(codes) == 1
        else "The runs are of several versions of the code."
    )
    return [blocks[0], Text("", [said]), Table(columns, rows), *blocks[1:]]
