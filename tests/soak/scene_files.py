"""A run that writes files and a folder by the one door for writing, as reports, adapters and organisms are written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from scenes import Promise, Tell, stubbornly

from stores import files, publish

FILE, FOLDER = "file", "folder"
PARTS = {"adapter.bin": b"weights" * 300, "settings.json": b'{"rank": 8}'}


class Files:
    """One file written again and again, then a folder that a library fills."""

    def __init__(self, versions: int) -> None:
        self.versions = [f"version {n}\n" * (1 + n * 97 % 200) for n in range(versions)]

    def prepare(self, root: Path) -> None: ...

    def run(self, root: Path, tell: Tell) -> None:
        file = root / "out" / "summary.json"
        begin = self.versions.index(file.read_text()) if file.exists() else 0
        for n, text in list(enumerate(self.versions))[begin:]:
            stubbornly(files.write_file, file, text)
            tell((FILE, n))
        stubbornly(self.fill, root / "out" / "adapter")
        tell((FOLDER, ""))

    def fill(self, folder: Path) -> None:
        if folder.exists():
            publish.sync_above(folder)  # as whoever takes a finished adapter does
            return
        with files.drafted_folder(folder) as draft:
            for name, data in PARTS.items():
                descriptor = os.open(draft / name, os.O_WRONLY | os.O_CREAT, 0o644)
                os.write(descriptor, data)
                os.close(descriptor)

    def faults(self, root: Path, promises: Sequence[Promise]) -> list[str]:
        least = max((n for kind, n in promises if kind == FILE), default=-1)
        file, folder, found = root / "out" / "summary.json", root / "out" / "adapter", []
        if file.exists() or least >= 0:
            text = file.read_text() if file.exists() else ""
            if text not in self.versions[max(least, 0) :]:
                found.append(f"{file} is none of the versions from {least} on")
        if folder.exists() or any(kind == FOLDER for kind, _ in promises):
            held = {part.name: part.read_bytes() for part in folder.iterdir()} if folder.exists() else {}
            found += [] if held == PARTS else [f"{folder} is not whole: {sorted(held)}"]
        return found

    def finished(self, root: Path) -> list[str]:
        return self.faults(root, [(FILE, len(self.versions) - 1), (FOLDER, "")])
