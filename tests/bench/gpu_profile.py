"""Where the time of a capture goes: the operations that took most of it, as PyTorch's profiler saw one run."""

from __future__ import annotations

from pathlib import Path

from clocks import SETTING, device_name
from measure import commit
from models import Subject, long_prompts, subjects
from scratch import scratch
from torch.profiler import ProfilerActivity, profile

import workbench as wb

ROWS = 20
TO = Path(__file__).resolve().parent / "results" / "profile-gpu.txt"


def write(device: str = "cuda", tiny: bool = False) -> None:
    """The profile of one warm capture of each subject, into the results; with `tiny` it is only printed."""
    SETTING.device, SETTING.quick, SETTING.tiny = device, True, tiny
    text = "\n".join([f"{device_name()}, commit {commit()}", *(profiled(subject) for subject in subjects())])
    if tiny:
        print(text)
    else:
        TO.parent.mkdir(exist_ok=True)
        TO.write_text(text)


def profiled(subject: Subject) -> str:
    """The operations by the time that they took themselves, on the device where there is one."""
    model, prompts = subject.traced(), long_prompts(subject.n_prompts)
    on_gpu = SETTING.device == "cuda"
    seen = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with scratch() as folder:
        wb.capture(model, prompts, to=folder.new(), max_tokens=subject.max_tokens, progress=False)
        with profile(activities=seen) as run:
            wb.capture(model, prompts, to=folder.new(), max_tokens=subject.max_tokens, progress=False)
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = run.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=60)
    return f"capture of the last token, {subject.words}, {len(prompts)} prompts\n{rows}"
