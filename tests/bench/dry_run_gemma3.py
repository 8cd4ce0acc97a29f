"""What paper A's rank sweep would take on Gemma3-4B: the dry run at the paper's settings, recorded.

    python tests/bench/dry_run_gemma3.py [--quick] [--json FILE]

The sizes are those that google/gemma-3-4b-it publishes, written by hand below (transformers' own defaults are others: a
text model of 26 layers and width 2304). Nothing is downloaded: Gemma's tokenizer is not here, so a byte tokenizer
stands in for it, one token a byte, and the texts stand in for prompts that were never released: their lengths are made
up. So the counts are exact for these texts, not for the paper's; exact in either case are the 256 tokens of a picture,
steps and forwards of the training, bytes of adapters. Peak memory is an estimate that no GPU has checked.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Gemma3Processor

import workbench as wb
from hooks.prompt import Message, Prompt
from workbench.planning.dry_run import DryRun
from workbench.planning.step_table import step_table, totals

GEMMA3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "vocab_size": 262208, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "image_size": 896, "patch_size": 14, "vision_use_head": False,
    },
    "mm_tokens_per_image": 256,
    "boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7,  # the stand-in tokenizer's own
}  # fmt: skip
SAMPLING = dict(samples=3, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1, max_new_tokens=512)
SHOWN = ["multimodal", "text_only", "swapped", "blank"]
# Lengths in stand-in tokens: a question, an answer to train on. Made up: the paper's prompts are not released.
ASKED, ANSWERED = 40, 120


def parts() -> tuple[Any, Any]:
    """A byte tokenizer, and Gemma3's own processor around it."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import tiny_models

    tokenizer = tiny_models.byte_tokenizer()
    pictures = tiny_models.Gemma3ImageProcessorPil(size={"height": 896, "width": 896})
    return tokenizer, Gemma3Processor(pictures, tokenizer, image_seq_length=256, chat_template=tiny_models.TEMPLATE)


def planned_model() -> DryRun:
    tokenizer, processor = parts()
    plan = wb.dry_run(GEMMA3_4B, tokenizer=tokenizer, processor=processor, dtype="bfloat16", device_memory=80 * 2**30)
    return plan.with_adapters({}, one_run=True)


def prompt(name: str, number: int, pictures: list[Path], answered: bool) -> Prompt:
    text = f"{name} {number} ".ljust(ASKED, "w")
    shown = (pictures[number % len(pictures)],) if pictures else ()
    return Prompt(
        id=f"{name}{number}", messages=(Message("user", (*shown, text)),), response="e" * ANSWERED if answered else None
    )


def paper_a(folder: Path, quick: bool) -> tuple[list, dict]:
    """Steps of `experiments/lora_rank.py` and what is assumed in them."""
    few = 50 if quick else 1
    pictures = [folder / f"{n}.png" for n in range(1 + 250 // few)]
    for n, path in enumerate(pictures):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    rows = [prompt("train", n, pictures, True) for n in range(1500 // few)]
    texts = [prompt("text", n, [], False) for n in range(150 // few)]
    images = [prompt("image", n, pictures, False) for n in range(250 // few)]
    model = planned_model()
    recipe = dict(targets="all-linear", learning_rate=2e-4, schedule="constant", epochs=1, batch_size=1, accumulate=4)
    ranks = [8, 256] if quick else [8, 16, 32, 64, 128, 256]
    trained = model.population(wb.rank_sweep(rows, ranks, **recipe), seeds=(0, 1, 2))
    steps = [(trained, 0)]
    for asked, modalities in ((texts, ["text_only"]), (images, SHOWN)):
        shown = wb.in_modalities(asked, modalities, to=folder / "images")
        said = trained.load().sample_answers(shown, conditions=trained.conditions, **SAMPLING)
        steps.append((said, 3 * len(shown) * len(trained.conditions)))
    assumed = {
        "tokenizer": "a byte tokenizer stands in for Gemma's: one token a byte",
        "texts": f"stand-ins: questions of {ASKED} and answers of {ANSWERED} bytes, one picture in each training row",
        "rows": [len(rows), len(texts), len(images)],
        "ranks": ranks,
        "seeds": [0, 1, 2],
        "recipe": recipe,
        "sampling": SAMPLING,
        "modalities": SHOWN,
        "unknown in the paper": "seeds, alpha, whether the vision tower was trained, the prompts themselves",
    }
    return steps, assumed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one row in fifty, two ranks")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps, assumed = paper_a(Path(folder), asked.quick)
    print(step_table(steps, "Gemma3-4B (published sizes, stand-in tokenizer)", "cuda"))
    if asked.json is not None:
        record = {"model": "gemma3-4b, sizes by hand", "config": GEMMA3_4B, "assumed": assumed, "total": totals(steps)}
        record["steps"] = [{**said.record(), "replies_judged": replies} for said, replies in steps]
        asked.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
