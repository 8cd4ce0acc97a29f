"""Fine-tuning: datasets that are checked and mixed, and LoRA adapters trained on them."""

from workbench.training.adapters import train_lora
from workbench.training.datasets import loss_report, mixed

__all__ = ["loss_report", "mixed", "train_lora"]
