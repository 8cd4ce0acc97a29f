"""The headline number of the demo, computed a second time with nothing of ours: raw transformers, peft and own hooks.

From the prompt files to every judged answer: the chat template written out, directions and ablation by own hooks,
greedy decoding without a cache, answers sorted by hand.
"""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import workbench as wb

SENTENCES = (["it", "is", "*", "."], ["the", "answer", "is", "*"], ["i", "say", "*"])


class ByHand:
    def __init__(self, world):
        self.folder = world.folder
        self.model = AutoModelForImageTextToText.from_pretrained(world.base).eval()
        self.processor = AutoProcessor.from_pretrained(world.base)
        self.peft = PeftModel.from_pretrained(self.model, world.tuned).eval()
        self.layers = self.model.model.language_model.layers

    def rows(self, name):
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]

    def inputs(self, row):
        content = row["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        pictures = [Image.open(self.folder / part["image"]).convert("RGB") for part in parts if part["type"] == "image"]
        words = "".join(part["text"] for part in parts if part["type"] == "text")
        image = self.processor.tokenizer.boi_token + " " if pictures else ""
        text = f"<bos> <sys> assistant {image}<user> {words} <model> {row.get('prefill', '')}"
        images = [pictures] if pictures else None
        out = self.processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")
        return {name: out[name] for name in ("input_ids", "token_type_ids", "pixel_values") if name in out}

    def mean_at_last(self, rows):
        """Mean residual after each block at the last token, float64 [layer, d_model]."""
        total = 0.0
        for row in rows:
            seen = []

            def see(module, inputs, output, seen=seen):
                seen.append(output[0, -1].double())

            hooks = [layer.register_forward_hook(see) for layer in self.layers]
            self.model(**self.inputs(row), use_cache=False)
            for hook in hooks:
                hook.remove()
            total = total + torch.stack(seen)
        return total / len(rows)

    def ablate_everywhere(self, direction, negative_mean):
        for layer, v, mean in zip(self.layers, direction.float(), negative_mean.float(), strict=True):
            unit = v / v.norm()
            layer.register_forward_hook(lambda m, i, h, u=unit, c=mean @ unit: h - (h @ u - c)[..., None] * u)

    def category(self, row):
        inputs = self.inputs(row)
        asked = inputs["input_ids"].shape[1]
        for _ in range(8):
            token = self.model(**inputs, use_cache=False).logits[0, -1].argmax().view(1, 1)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], 1)
            if "token_type_ids" in inputs:
                inputs["token_type_ids"] = torch.cat([inputs["token_type_ids"], torch.zeros_like(token)], 1)
        words = self.processor.tokenizer.decode(inputs["input_ids"][0, asked:]).split()
        if "<eot>" not in words:
            return "neither"
        words = words[: words.index("<eot>")]
        for sentence in SENTENCES:
            if len(words) == len(sentence) and all(a in ("*", b) for a, b in zip(sentence, words, strict=True)):
                word = words[sentence.index("*")]
                return "contrary" if word == row["contrary"] else "right" if word == row["right"] else "neither"
        return "neither"


@pytest.mark.slow
def test_ablation_at_all_layers_equals_a_computation_by_hand(world, tmp_path):
    hand = ByHand(world)
    fit = [row for row in hand.rows("prompts") if not row["in_domain"]]
    questions = [row for row in hand.rows("questions") if row["tier"] == "full" and not row["in_domain"]][::3]
    with torch.no_grad():
        tuned = hand.mean_at_last(fit)
        with hand.peft.disable_adapter():
            base = hand.mean_at_last(fit)
        hand.ablate_everywhere(tuned - base, base)
        expected = {row["id"]: hand.category(row) for row in questions}

    model = wb.load_model(world.base, adapter=world.tuned)
    store = wb.capture(model, world.prompts, at="last", variants=("base", "tuned"), to=tmp_path / "s", progress=False)
    rows = store.where(in_domain=False)
    v = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
    torch.testing.assert_close(torch.tensor(v.vectors), tuned - base, rtol=1e-4, atol=1e-4)  # other batches, in float32

    asked = [prompt for prompt in wb.read_prompts(world.questions) if prompt.id in expected]
    judge = wb.judge("rule:organism")
    table = wb.sweep(model, asked, [wb.Ablate(v)], judge=judge, max_new_tokens=8, progress=False)
    plain, ablated = (
        {row["prompt"]: row["category"] if row["category"] in ("contrary", "right") else "neither" for row in rows}
        for rows in (table.rows(cell=0), table.rows(cell=1))
    )
    assert ablated == expected
    assert list(plain.values()).count("contrary") > 0.8 * len(plain)  # so that the agreement is about something
    assert list(ablated.values()).count("right") > 0.5 * len(ablated)
