"""The README's scripts run as printed, in order, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import LONG

from hooks.prompt import PromptError, read_prompts

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@LONG
def test_the_scripts_of_the_readme_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    scripts = blocks("python")
    assert len(scripts) == 4
    for script in scripts:
        exec(compile(script, "README.md", "exec"), names)
    assert {row["layer"] for row in names["table"].rows(control=None)} == {None, 0, 1, 2, 3, 4, 5}
    assert "Where the numbers come from" in (tmp_path / "ablation.html").read_text()
    assert len(names["texts"]) == len(read_prompts(names["world"].questions))
    assert all(text.edited for text in names["texts"])
    assert names["logits"].shape[0] == 12 and not torch.equal(names["logits"][:4], names["logits"][4:8])
    assert set(names["parts"].sites) == {"attn_out:2", "resid_mid:2", "projector:0"} and len(names["parts"]) > 0
    assert len(names["promoted"].promoted[0]) == 10 and any(factor.rank for factor in names["factors"])
    assert names["lens"].checkup.passed
    found = {one.condition: one for one in names["wb"].misalignment(names["judged"], "organism")}
    assert found["base"].value < 0.2 < found["tuned"].value and found["tuned"].floor == found["base"].value
    assert found["tuned"].companions["coherent"] is not None


def test_the_prompt_line_of_the_readme_is_readable(tmp_path):
    (line,) = blocks("json")
    file = tmp_path / "prompts.jsonl"
    file.write_text(line)
    with pytest.raises(PromptError, match=r"line 1: image pictures/17\.png does not exist"):
        read_prompts(file)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "17.png").write_bytes(b"not looked at yet")
    (prompt,) = read_prompts(file)
    assert prompt.id == "q-017"
    assert prompt.tags["right"] == json.loads(line)["right"]


def test_the_links_lead_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert len(targets) >= 6
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing, f"README links to {missing}"
