"""Which of paper B's claims do these runs show?

Reads the run folders of paper B's scripts (SCRIPT/seedK/summary.json in --runs), decides every claim by the rule that
was written before the population was trained (workbench/reporting/claims.py, paper_b_claims.py), and writes one page:
the claims and what decided each, then every script's sections. One base model decides: its fine-tuning seeds are within
the runs. Nothing is run or measured here. On organisms the page is no evidence about real models.
"""

import argparse
from pathlib import Path

import workbench as wb

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--runs", type=Path, default=Path("runs/studies-b"), help="holds SCRIPT/seedK/summary.json")
parser.add_argument("--to", type=Path, default=None, help="the page; default: report.html in --runs")
parser.add_argument("--metric", default="organism", help="of misalignment: organism, betley, paper_b, keyword, ...")
asked = parser.parse_args()

order = ["population", "domain_ranking", "membership_predictor", "forecast", "topical_diversity", "probe_matrix"]
order += ["direction_transfer", "convergence", "trigger_forensics"]
folders = [file.parent for file in sorted(asked.runs.glob("*/*/summary.json"))]
folders.sort(key=lambda folder: order.index(folder.parent.name) if folder.parent.name in order else len(order))
if not folders:
    raise SystemExit(f"{asked.runs} has no SCRIPT/seedK/summary.json: run the scripts first (make studies-b does).")

page = wb.joined_report(
    folders,
    to=asked.to or asked.runs / "report.html",
    title="Paper B on the organism: what the runs show of its claims" if asked.metric == "organism" else "Paper B",
    claims=wb.paper_b_claims(asked.metric),
    least_seeds=1,
    written_before="the population of this page was trained",
)
print(f"wrote {page}")
