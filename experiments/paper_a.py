"""Which of paper A's claims do these runs show?

Reads the run folders of paper A's scripts (SCRIPT/seedK/summary.json in --runs), decides every claim by the rule that
was written before the runs (workbench/reporting/claims.py, paper_a_claims.py), and writes one page: the claims and what
decided each in every base seed, the numbers of every script across base seeds, the runs themselves folded. Nothing is
run or measured here. On organisms the page is no evidence about real models.
"""

import argparse
from pathlib import Path

import workbench as wb

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--runs", type=Path, default=Path("runs/studies-a"), help="holds SCRIPT/seedK/summary.json")
parser.add_argument("--to", type=Path, default=None, help="the page; default: report.html in --runs")
parser.add_argument("--metric", default="organism", help="of misalignment: organism, paper_a, betley, keyword, ...")
asked = parser.parse_args()

order = ["lora_rank", "harmful_fraction", "shift_geometry", "mitigation", "modality_routing", "training_drift"]
folders = [file.parent for file in sorted(asked.runs.glob("*/*/summary.json"))]
folders.sort(key=lambda folder: order.index(folder.parent.name) if folder.parent.name in order else len(order))
if not folders:
    raise SystemExit(f"{asked.runs} has no SCRIPT/seedK/summary.json: run the scripts first (make studies-a does).")

page = wb.joined_report(
    folders,
    to=asked.to or asked.runs / "report.html",
    title="Paper A on the organism: what the runs show of its claims" if asked.metric == "organism" else "Paper A",
    claims=wb.paper_a_claims(asked.metric),
    written_before="the runs with base seeds 1 and 2",
)
print(f"wrote {page}")
