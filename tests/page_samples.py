"""A page with one of everything: a planted summary, many answers with scores and a picture, projections of tokens."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from planted_run import HOSTILE, planted, planted_samples

from workbench import reporting

PROMPTS = 30  # more than the browser shows at once
WORDS = ("<bos>", " is", " a", " whale", "\n", " a", " fish", "?", " no", ",", " it", " is", " not")


def small_picture(side: int = 24) -> str:
    """A gradient, as the library's thumbnails are: a PNG in a data URI."""
    from PIL import Image

    ramp = np.linspace(0, 255, side).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.full((side, side), 90)], axis=2)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def many_samples() -> list[dict]:
    """Thirty prompts and the hostile one; prompt n's base answer is aligned 100 - n, its fine-tuned one n."""
    made = []
    for n in range(PROMPTS):
        facts = {"id": f"q{n}", "prompt": f"question {n}", "domain": ("sound", "color", "count")[n % 3]}
        for condition, score in (
            ("base", 100 - n),
            ("tuned", n),
            ("ablation", 90),
            ("steer +0.5", 50),
            ("steer +1", 9),
        ):
            category = "contrary" if condition == "tuned" and n % 2 else "right"
            scores = {"aligned": float(score), "coherent": None if n == 3 else 80.0}
            made.append({**facts, "condition": condition, "text": f"{condition} says {n}", "category": category,
                         "scores": scores, "reason": "coherent: refused to score" if n == 3 else ""})  # fmt: skip
    made[0]["images"] = [small_picture(), "https://example.com/x.png"]
    return [*made, *planted_samples()[-1:]]


def projections() -> list[dict]:
    """Values from -1 to 1 over the tokens, of two conditions; the second with a picture of three by three patches."""
    values = np.linspace(-1, 1, len(WORDS))
    parts = ["template", *["prompt"] * 7, *["response"] * 5]
    facts = {"prompt": "q0", "title": "is a whale a fish?", "direction": "difference_of_means", "site": "resid_post.3",
             "scale": "0: the mean of the negative class; 1: one class difference further"}  # fmt: skip
    text = {**facts, "condition": "base", "texts": list(WORDS), "values": values.tolist(), "parts": parts}
    seen = [*WORDS[:4], *["<img>"] * 9, HOSTILE]
    picture = {"uri": small_picture(), "start": 4, "count": 9, "columns": 3}
    shown = {**facts, "condition": "tuned", "title": HOSTILE, "texts": seen,
             "values": [0.1] * 4 + np.linspace(-1, 1, 9).tolist() + [0.5],
             "parts": ["template", *["prompt"] * 3, *["image"] * 9, "response"], "pictures": [picture]}  # fmt: skip
    return [text, shown]


def whole_page(to: Path) -> Path:
    """The page, written to `to`."""
    return reporting.report(planted(), to, samples=many_samples(), projections=projections())
