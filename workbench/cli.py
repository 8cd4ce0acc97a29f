"""`workbench`: the command line. Parses, runs one command, prints what it says, and ends with its exit code."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.commands.capturing import add_capturing
from workbench.commands.health import add_health
from workbench.commands.intervening import add_intervening
from workbench.commands.pages import add_pages
from workbench.commands.said import REFUSED, STOPPED, UNFORESEEN, USAGE, Runs, Said, without_nan
from workbench.commands.stores import add_stores
from workbench.commands.training import add_training

_ENDS = """`workbench COMMAND --help` has an example that works.

exit codes: 0 done; 1 not done, the message says how to mend it; 2 no such command or option;
3 done, and what was looked at is broken (doctor, check, verify); 4 an error that nobody foresaw,
with its traceback; 130 Ctrl-C.

Results go to standard output, progress to standard error. --json prints one JSON object, of an
error too: {"error": {"kind", "says"}, "exit"}. WORKBENCH_TRACEBACK=1 shows every traceback."""
_OURS = {"hooks", "stores", "workbench"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (see `workbench --help`). Standard output has its result alone."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return USAGE
    if not given[0].startswith("-") and given[0] not in commands:
        near = difflib.get_close_matches(given[0], commands, n=1)
        parser.error(
            f"there is no command {given[0]!r}{f': is {near[0]!r} meant' * bool(near)}? Expected one of "
            f"{', '.join(commands)}."
        )
    parsed = parser.parse_args(given)
    try:
        with redirect_stdout(sys.stderr):  # whatever is said on the way is no result
            said: Said = parsed.command(parsed)
    except Exception as error:
        foreseen = _can_be_mended(error)
        if not foreseen or os.environ.get("WORKBENCH_TRACEBACK"):
            traceback.print_exc()
        says = str(error) if foreseen else _unforeseen(error)
        return _ended(parsed.json, type(error).__name__, says, REFUSED if foreseen else UNFORESEEN)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from what it has finished" if parsed.resumes else ""
        return _ended(parsed.json, "KeyboardInterrupt", f"stopped{goes_on}", STOPPED)
    if parsed.json:
        return _printed(_as_json(said.facts), said.code)
    code = _printed(said.text, said.code)
    if said.then:
        print(f"next: {said.then}", file=sys.stderr)
    return code


def _can_be_mended(error: Exception) -> bool:
    """Whether a user reads the message and not the traceback: errors of ours, and those that Python and the libraries
    raise for what they were given, for what is not installed, and for want of room. OSError: no such file, and what
    transformers raises for an unknown model."""
    ours = type(error).__module__.split(".")[0] in _OURS
    given = isinstance(error, ValueError | OSError | ImportError | MemoryError)
    return ours or given or type(error).__name__ == "OutOfMemoryError"


def _unforeseen(error: Exception) -> str:
    return (
        f"nobody foresaw this {type(error).__name__}: {error}. Please report it, with the lines above and what "
        "`workbench env` prints."
    )


def _ended(as_json: bool, kind: str, says: str, code: int) -> int:
    """The message on standard error, and for --json as an object on standard output."""
    print(f"workbench: {says}", file=sys.stderr)
    return _printed(_as_json({"error": {"kind": kind, "says": says}, "exit": code}), code) if as_json else code


def _printed(text: str, code: int) -> int:
    """Prints; who stopped reading (`| head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
    return code


def _as_json(facts: Any) -> str:
    return json.dumps(without_nan(facts), indent=1, allow_nan=False, ensure_ascii=False)


class _Help(argparse.RawDescriptionHelpFormatter):
    """An example stays on one line, as it is typed; a default is said where there is one that says something."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24)
        self._action_max_length = 14  # argparse forgets that the names of commands stand further in

    def _get_help_string(self, action: argparse.Action) -> str:
        says, default = action.help or "", action.default
        if not action.option_strings or not isinstance(default, str | int | float | Path) or isinstance(default, bool):
            return says
        told = f"default: {str(default).replace('%', '%%')}"
        return says if default == argparse.SUPPRESS else f"{says} ({told})" if says else told


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser, and the names of the commands."""
    parser = argparse.ArgumentParser(
        prog="workbench",
        description="Mechanistic interpretability with controls.",
        epilog=_ENDS,
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Runs, says: str, example: str, *, resumes: bool = False) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=says, description=says, epilog=f"example: {example}", formatter_class=_Help
        )
        made.add_argument("--json", action="store_true", help="print JSON, for scripts")
        made.set_defaults(command=run, resumes=resumes)
        return made

    for group in (add_pages, add_health, add_capturing, add_intervening, add_training, add_stores):
        group(add)
    return parser, list(commands.choices)


if __name__ == "__main__":
    sys.exit(main())
