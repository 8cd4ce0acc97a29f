"""Fine-tuning: data sets that are checked, mixed, split and frozen, and LoRA adapters trained on them."""

from workbench.training.adapters import train_lora
from workbench.training.check import check_data
from workbench.training.datasets import loss_report
from workbench.training.loss_mask import refuse_lost_mask
from workbench.training.manifest import changed, freeze
from workbench.training.mixtures import mix
from workbench.training.rows import write_rows
from workbench.training.splits import row_groups, split_rows
from workbench.training.triggers import insert_trigger

__all__ = [
    "changed",
    "check_data",
    "freeze",
    "insert_trigger",
    "loss_report",
    "mix",
    "refuse_lost_mask",
    "row_groups",
    "split_rows",
    "train_lora",
    "write_rows",
]
