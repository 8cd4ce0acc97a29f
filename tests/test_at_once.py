"""What two processes make at once is whole, and is made once: adapters and pictures, played in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.organisms.pictures import drawn_scenes, save_png
from workbench.training.published import is_finished, publish


def writing(text: str):
    return lambda folder: (folder / "weights").write_text(text)


def test_of_two_that_finish_one_adapter_the_first_stays(tmp_path: Path):
    to, record = tmp_path / "adapters" / "a", {"key": "1"}

    def overtaken(folder: Path) -> None:
        publish(to, record, writing("first"))
        (folder / "weights").write_text("second")

    publish(to, record, overtaken)
    assert (to / "weights").read_text() == "first" and is_finished(to, "1")
    assert [entry.name for entry in to.parent.iterdir()] == ["a"]


def test_another_adapter_of_that_name_is_refused_however_late_it_came(tmp_path: Path):
    to = tmp_path / "a"
    with pytest.raises(FileExistsError, match="an adapter of other settings or data"):
        publish(to, {"key": "2"}, lambda folder: publish(to, {"key": "1"}, writing("first")))
    assert (to / "weights").read_text() == "first"


def test_an_empty_folder_is_taken_and_a_disk_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").mkdir()
    publish(tmp_path / "a", {"key": "1"}, writing("mine"))
    assert is_finished(tmp_path / "a", "1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.rename", full)
    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path / "b", {"key": "1"}, writing("mine"))


def test_who_reads_a_picture_that_is_drawn_again_reads_the_whole_of_one(tmp_path: Path):
    first, second = drawn_scenes(2, seed=0)
    to = tmp_path / "picture.png"
    save_png(first, to)
    whole = to.read_bytes()
    with to.open("rb", buffering=0) as reader:
        start = reader.read(10)
        save_png(second, to)
        assert start + reader.read() == whole
    assert to.read_bytes() != whole and [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]
