"""B14: a population's evaluation: eleven LoRA adapters and their base, asked as rows of one batch, against one by one;
and the prefill of a large batch, where the weights are read once anyway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from clocks import SETTING
from measure import Line, main, paired
from models import byte_tokenizer, equal_prompts, made, small
from peft import LoraConfig, get_peft_model

import workbench as wb

NEW, ADAPTERS = 16, 11
# As the paper on eleven domains trains them, and as its predecessors do.
SHAPES = {"q and v, rank 8": (["q_proj", "v_proj"], 8), "all linear, rank 32": ("all-linear", 32)}


def lines(quick: bool) -> Iterator[Line]:
    for shape in list(SHAPES)[: 1 if quick else 2]:
        same = _Population(shape, torch.float32).share_of_equal_tokens(2)
        assert same == 1.0, f"only {same:.0%} of the answers are equal in float32"
        population = _Population(shape, torch.bfloat16)
        yield population.line("decode", 1, 4.5, 5.5)
        yield population.line("prefill", 4, 1.0, 1.05)


class _Population:
    """The same answers by ours, all variants in a batch, and variant by variant."""

    def __init__(self, shape: str, dtype: torch.dtype) -> None:
        targets, rank = SHAPES[shape]
        layers, width = (2, 64) if SETTING.tiny else (12, 1024)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
        peft = get_peft_model(made(small(layers, width), dtype), config, "adapter0", autocast_adapter_dtype=False)
        for seed in range(1, ADAPTERS):
            peft.add_adapter(f"adapter{seed}", config, autocast_adapter_dtype=False)
        generator = torch.Generator(SETTING.device).manual_seed(0)
        with torch.no_grad():
            for name, weight in peft.named_parameters():
                if "lora_" in name:
                    weight.normal_(0, 0.3 if "lora_B" in name else 0.03, generator=generator)
        self.model = wb.load_model(peft.eval(), byte_tokenizer(), device=SETTING.device, check=False)
        kind = str(dtype).removeprefix("torch.")
        self.words = f"Qwen2-like {layers} x {width}, {kind}; base and {ADAPTERS} adapters, {shape}"

    def line(self, what: str, prompts: int, gate: float, goal: float) -> Line:
        batch = self.model.encode(equal_prompts(prompts, 64))
        ways = (self.answered, self.one_by_one) if what == "decode" else (self.read, self.read_one_by_one)
        ours, naive = (lambda way=way: way(batch) for way in ways)
        same = sum(a == b for a, b in zip(ours(), naive(), strict=True)) / (prompts * (ADAPTERS + 1))
        written = f", {NEW} new tokens" if what == "decode" else ""
        return Line(
            "B14",
            f"{what}, {prompts} x 64 tokens{written}; {self.words}",
            paired(ours, naive),
            gate,
            goal,
            peer="a variant at a time",
            note=f"{same:.0%} of the rows choose the same tokens, in float32 all",
        )

    def share_of_equal_tokens(self, prompts: int) -> float:
        batch = self.model.encode(equal_prompts(prompts, 64))
        ours, naive = self.answered(batch), self.one_by_one(batch)
        assert len({tuple(row) for row in ours[::prompts]}) > ADAPTERS // 2, "the adapters answer alike"
        return sum(a == b for a, b in zip(ours, naive, strict=True)) / len(naive)

    def answered(self, batch: Any) -> list[list[int]]:
        view, rows = self.model.across(batch, self.model.variants)
        return view.generate(rows, max_new_tokens=NEW, eos_token_id=[]).token_ids

    def one_by_one(self, batch: Any) -> list[list[int]]:
        views = map(self.model.variant, self.model.variants)
        return [row for view in views for row in view.generate(batch, max_new_tokens=NEW, eos_token_id=[]).token_ids]

    def read(self, batch: Any) -> list[int]:
        parts = self.model.across_in_parts(batch, self.model.variants)
        return [token for view, rows in parts for token in view.run(rows).logits.argmax(dim=1).tolist()]

    def read_one_by_one(self, batch: Any) -> list[int]:
        views = map(self.model.variant, self.model.variants)
        return [token for view in views for token in view.run(batch).logits.argmax(dim=1).tolist()]


if __name__ == "__main__":
    main("population", lines)
