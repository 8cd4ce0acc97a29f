"""Figures and pages. One file a figure, one function each; `report` makes the page of an experiment.

Nothing here imports matplotlib or jinja2 until a figure is drawn or a page is written.
"""

from workbench.reporting.blocks import Block, Code, Details, Marked, Note, Picture, Table, Text
from workbench.reporting.by_layer import LayerCurve, rate_by_layer
from workbench.reporting.comparison import Bar, condition_bars
from workbench.reporting.dose_response import DoseCurve, rates_by_dose
from workbench.reporting.experiment_report import report
from workbench.reporting.joined_report import joined_report
from workbench.reporting.matrix import cosine_matrix, transfer_matrix
from workbench.reporting.null_histogram import Observed, null_distributions
from workbench.reporting.page import write_page
from workbench.reporting.paper_a_claims import paper_a_claims
from workbench.reporting.paper_b_claims import paper_b_claims
from workbench.reporting.spectrum import Spectrum, variance_spectrum
from workbench.reporting.style import as_svg, save_png
from workbench.reporting.summary import Control, Result, Summary, Tested, read_summary
from workbench.reporting.verdict import Verdict, ablation_verdict

__all__ = [
    "Bar",
    "Block",
    "Code",
    "Control",
    "Details",
    "DoseCurve",
    "LayerCurve",
    "Marked",
    "Note",
    "Observed",
    "Picture",
    "Result",
    "Spectrum",
    "Summary",
    "Table",
    "Tested",
    "Text",
    "Verdict",
    "ablation_verdict",
    "as_svg",
    "condition_bars",
    "cosine_matrix",
    "joined_report",
    "null_distributions",
    "paper_a_claims",
    "paper_b_claims",
    "rate_by_layer",
    "rates_by_dose",
    "read_summary",
    "report",
    "save_png",
    "transfer_matrix",
    "variance_spectrum",
    "write_page",
]
