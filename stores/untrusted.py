"""A store or HDF5 file from strangers, verified in a process of its own that may take little memory and time.

libhdf5 is written in C, and a malformed file finds a new hole in it every few months: no check in this process makes
that safe. Here a child reads, with little memory, little time, no core dump and no permission to write a byte; that it
died is a finding like any other, and the process that asked lives on. This is a fence around crashes and bombs; against
a file that takes over the child, run the command in a container or as another user.

    python -m stores.untrusted PATH        # prints one line a finding; exit code 1 when there are any
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from stores.errors import StoreError

MEMORY, SECONDS = 1 << 30, 300
_MOST_SAID, _GRACE = 16 << 20, 30
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")
_OWN = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from stores import untrusted; untrusted.read_as_child(sys.argv)"


def verify_untrusted(path: str | Path, *, memory: int = MEMORY, seconds: int = SECONDS) -> list[str]:
    """Findings about the store folder or the HDF5 file at `path`, one line each; an empty list: it may be opened.

    Every byte is read (`verify(deep=True)`), by a child with at most `memory` bytes beyond its own code, and `seconds`
    of time. Nothing is written, and no environment variable but a few harmless ones reaches the child.
    """
    path, room = Path(path), Path(__file__).resolve().parent.parent
    if not os.path.lexists(path):
        return [f"{path} is not there: expected a store folder or an HDF5 file."]
    command = [sys.executable, "-I", "-c", _CHILD, str(room), str(path.absolute()), str(memory), str(seconds)]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _OWN
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=complained, env=environment, start_new_session=True
        )
        try:
            status = child.wait(seconds + _GRACE)
        except BaseException as error:
            child.kill()
            child.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = -signal.SIGXCPU
        return _findings(path, _said(said), status, _said(complained)[-2000:], memory, seconds)


def _findings(path: Path, said: bytes, status: int, complained: bytes, memory: int, seconds: int) -> list[str]:
    """What the child said, if it came to its end; otherwise how it died, and over which file."""
    lines = [line for line in said.split(b"\n") if line]
    try:
        last: Any = json.loads(lines[-1]) if lines else {}
        if status == 0 and isinstance(last, dict) and isinstance(last.get("findings"), list):
            return [str(finding) for finding in last["findings"]]
    except (ValueError, RecursionError):
        pass
    opened = next((line[3:].decode("utf-8", "replace") for line in reversed(lines) if line.startswith(b"at ")), path)
    if -status in (signal.SIGXCPU, signal.SIGKILL):
        how = f"was stopped (more than {seconds} s of time, or killed from outside)"
    elif status < 0:
        how = f"died of {signal.Signals(-status).name} (a malformed file can do this to libhdf5)"
    else:
        how = f"ended with {status}: {complained.decode('utf-8', 'replace').strip()[-300:]}"
    return [
        f"{opened}: the process that read it, with {memory} bytes of memory, {how}. Mend: do not open it; delete this "
        "file, or ask for a sound copy."
    ]


def _said(file: BinaryIO) -> bytes:
    """The end of what the child wrote: its last line is what counts."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_SAID))
    return file.read(_MOST_SAID)


def read_as_child(arguments: list[str]) -> None:
    """What the child does: imports first, which are trusted, then the fence, then the file."""
    from stores import ActivationStore, ResultTable  # noqa: F401  (all code that reads is there before the fence)

    path, memory, seconds = Path(arguments[-3]), int(arguments[-2]), int(arguments[-1])
    _fence(memory, seconds)
    sys.addaudithook(_tell)
    try:
        findings = _verified(path)
    except StoreError as error:
        findings = [str(error)]
    except MemoryError:
        findings = [f"{path}: more than {memory} bytes of memory are needed to read it: refused."]
    sys.stdout.write("\n" + json.dumps({"findings": findings}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # objects of a damaged file may crash when they are released


def _verified(path: Path) -> list[str]:
    from stores import ActivationStore, ResultTable, safe_h5, schema
    from stores.manifest import read_manifest

    if not path.is_dir():
        with safe_h5.opened(path) as file:
            for name, declared in file.declared.items():
                if declared.stored and declared.bytes <= file.limits.array_bytes:
                    file.array(name)
        return []
    kind = read_manifest(path).kind
    opened = ResultTable.open(path) if kind == schema.KIND_RESULTS else ActivationStore.open(path)
    return opened.verify(deep=True)


def _fence(memory: int, seconds: int) -> None:
    import resource

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _is_linux() else 0
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, taken + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


def _is_linux() -> bool:
    return sys.platform == "linux"


def _tell(event: str, facts: tuple[Any, ...]) -> None:
    """Which file is opened next, on standard output: the last one is named when this process dies. Whatever would write
    or start something is refused."""
    if event == "open":
        name, _, flags = facts
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            raise PermissionError(f"{name} would be written: nothing is, while a store from strangers is read.")
        if isinstance(name, str) and not os.path.isdir(name):
            os.write(1, b"\nat " + name.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n")
    elif event in _REFUSED:
        raise PermissionError(f"{event} is refused while a store from strangers is read.")


_REFUSED = {
    *("os.exec", "os.posix_spawn", "os.system", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect"),
    *("os.remove", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown"),
}


if __name__ == "__main__":
    found = verify_untrusted(sys.argv[1])
    print("\n".join(found) or "sound")
    sys.exit(1 if found else 0)
