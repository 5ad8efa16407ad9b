"""`python -m pipeline COMMAND ...`: the one place that turns errors into an exit status."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from jsonargparse import auto_cli

from datamodules.files.errors import UserError
from pipeline.commands import COMMANDS, usage


def main(args: Sequence[str]) -> int:
    """Runs one command.

    Args:
        args: name of the command and its arguments.

    Returns:
        Exit status: 0 done, 1 after an error that the user can remedy, said in one line. What a
        command returns is its status if it is a number and printed if it is a path.

    Raises:
        SystemExit: status 2 after wrong usage, 0 after `--help`.
        Exception: any other exception is a defect and keeps its traceback.
    """
    if not args:
        print(usage(), file=sys.stderr)
        return 2
    if args[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, rest = args[0], list(args[1:])
    if name not in COMMANDS:
        _unknown(name)
    command = COMMANDS[name]
    try:
        if command.takes_args:
            result = command.load()([name, *rest])
        else:
            result = auto_cli(
                command.load(), args=rest, as_positional=False, prog=f"python -m pipeline {name}"
            )
    except KeyboardInterrupt:
        if command.stopped is None:
            raise
        print(command.stopped, file=sys.stderr)
        return 1
    except Exception as error:
        line = user_message(error)
        if line is None:
            raise
        # in one write: unbuffered, `print` writes the end of the line alone, and processes mix
        sys.stderr.write(f"error: {line}\n")
        return 1
    if isinstance(result, Path):
        print(result)
    return result if isinstance(result, int) else 0


def user_message(error: BaseException | None) -> str | None:
    """The line of a user error, also of one that a library wrapped; None for a defect."""
    while error is not None:
        if isinstance(error, UserError):
            text = str(error)
            if "Original Traceback" in text:  # a data-loading worker puts its traceback before
                text = text.strip().splitlines()[-1].partition(": ")[2]
            return text
        error = error.__cause__  # libraries raise their own error from ours
    return None


def _unknown(name: str) -> NoReturn:
    near = get_close_matches(name, COMMANDS)
    hint = f", did you mean {' or '.join(near)}?" if near else ""
    print(f"{usage()}\n\nerror: no command {name}{hint}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
