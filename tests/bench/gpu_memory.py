"""Peak device memory, planned against measured: forwards, answers and training steps of a model with random weights.

    python tests/bench/gpu_memory.py                    # Gemma3-4B's sizes in bfloat16, on the first GPU
    python tests/bench/gpu_memory.py --layers 4         # fewer blocks in each tower, for a small GPU
    python tests/bench/gpu_memory.py --json FILE

One command that needs the checkout and a GPU; it has not been run on one by us. Measured is torch's own peak of
allocated bytes (torch.cuda.max_memory_allocated), planned the formula and the trace of workbench/planning. A line is
good where they differ by at most 20 %, the bound that was stated before any GPU was asked.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import clocks  # noqa: F401 (puts the checkout on the path)
import torch
from dry_run_gemma3 import GEMMA3_4B, parts, prompt
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

import workbench as wb
from hooks.load import load_model
from workbench.training.adapters import train_lora

WITHIN = 0.2


def config_of(layers: int | None) -> dict[str, Any]:
    if layers is None:
        return GEMMA3_4B
    towers = {name: {**GEMMA3_4B[name], "num_hidden_layers": layers} for name in ("text_config", "vision_config")}
    return {**GEMMA3_4B, **towers}


def peak(run: Any) -> int:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def lines(layers: int | None, folder: Path) -> list[dict[str, Any]]:
    config = config_of(layers)
    tokenizer, processor = parts()
    torch.manual_seed(0)
    with torch.device("cuda"):
        module = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    base = folder / "base"
    for part in (module, processor):
        part.save_pretrained(base)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "0.png")
    shown = [folder / "0.png"]
    images = [prompt("image", n, shown, False) for n in range(16)]
    rows = [prompt("train", n, shown, True) for n in range(8)]
    plan = wb.dry_run(base, device="cuda", device_memory=torch.cuda.mem_get_info()[1])
    found = []

    def note(what: str, planned: int, run: Any) -> None:
        measured = peak(run)
        off = planned / measured - 1
        found.append({"what": what, "planned": planned, "measured": measured, "off": off, "good": abs(off) <= WITHIN})
        print(f"{what}: planned {planned / 2**30:.2f} GiB, measured {measured / 2**30:.2f} GiB, {off:+.1%}", flush=True)

    model = load_model(module, tokenizer, processor, check=False)
    said = plan.capture(images, at="last").memory.peak
    note("capture, last token", said, lambda: wb.capture(model, images, at="last", to=folder / "s", progress=False))
    sampling = dict(samples=2, temperature=0.7, max_new_tokens=64)
    said = plan.sample_answers(images, **sampling).memory.peak
    note("sampled answers", said, lambda: wb.sample_answers(model, images, progress=False, **sampling))
    del model, module
    for settings in (dict(rank=128), dict(rank=8, tower="frozen"), dict(rank=8, batch_size=4)):
        settings = {"steps": 3, "batch_size": 1, "accumulate": 2, "learning_rate": 1e-4, **settings}
        name = ", ".join(f"{key} {value}" for key, value in settings.items())
        said = plan.train_lora(rows, **settings).memory.peak
        note(f"training: {name}", said, lambda s=settings, n=name: train_lora(base, rows, to=folder / n, **s))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="blocks of each tower (default: all)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing was measured.")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        found = lines(asked.layers, Path(folder))
    if asked.json is not None:
        device = torch.cuda.get_device_name()
        asked.json.write_text(json.dumps({"device": device, "torch": torch.__version__, "lines": found}, indent=1))
    return 0 if all(line["good"] for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
