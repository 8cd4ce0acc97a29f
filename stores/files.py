"""Files and folders of any kind under their final names: whole and synced, or not at all. All that workbench writes
goes through here, and through `stores.publish` below it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stores import publish
from stores.errors import WriteFailed
from stores.secret_text import refuse_secrets

_RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers say what the system refused


def write_file(path: str | Path, content: publish.Content | str, *, durable: bool = True) -> Path:
    """Writes the file, and its folder where there is none; another file of this name is replaced in one step. `content`
    is text (UTF-8), bytes, or writes itself into the descriptor of an empty file. Raises WriteFailed: then what was
    there is there still; and SecretFound, see `refuse_secrets`. `durable=False`: see `publish.replace`."""
    path = Path(path)
    if isinstance(content, str | bytes):
        refuse_secrets(content, path)
    publish.make_folder(path.parent, sure=durable)
    publish.sweep(path.parent, of=f".{path.name}")
    publish.replace(content.encode() if isinstance(content, str) else content, path, path.parent, durable)
    return path


@contextmanager
def drafted_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` to be filled, by libraries that write for themselves too; when the body ends it is
    synced file by file and takes the name. Raises FileExistsError where a folder that is not empty has it, WriteFailed;
    then nothing is left."""
    path = Path(path)
    publish.make_folder(path.parent, sure=True)
    publish.sweep(path.parent, of=f".{path.name}")
    draft = path.with_name(f".{path.name}.{publish.owner_name()}")
    try:
        with publish.named(path), _in_rust(path):
            draft.mkdir()
            yield draft
            sync_tree(draft)
            try:
                os.rename(draft, path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                raise FileExistsError(f"{path} holds something already: expected an empty or new folder.") from error
            publish.sync_folder(path.parent)
    except BaseException:
        if not draft.exists() and path.exists():  # it has its name already, and whoever sees it takes it for safe
            with suppress(WriteFailed):
                publish.sync_folder(path.parent)
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def open_log(path: str | Path) -> int:
    """The descriptor of a file that only grows, for its owner alone to read (`append` writes to it)."""
    path = Path(path)
    publish.make_folder(path.parent, sure=True)
    with publish.named(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)


def append(descriptor: int, data: bytes, path: Path) -> None:
    """All of `data` at the end of the file, synced. Raises WriteFailed; a part of it may then stand there."""
    with publish.named(path):
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """One process of this host at a time; the lock is a file beside what it guards, and dies with its owner."""
    descriptor = open_log(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _in_rust(path: Path) -> Iterator[None]:
    """Libraries in Rust raise errors of their own for what the system refused."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if (said := _RUST.search(str(error))) is None:
            raise
        raise WriteFailed.of(path, OSError(int(said[1]), os.strerror(int(said[1])))) from error


def sync_tree(folder: Path) -> None:
    """fsync of every file and folder in it, and of itself."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            sync_tree(entry)
            continue
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    publish.sync_folder(folder)
