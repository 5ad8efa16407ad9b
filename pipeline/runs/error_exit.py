"""How a command ends on an error that is the user's to mend: one line, no traceback."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def error_exit(
    errors: tuple[type[Exception], ...] = (ValueError, FileNotFoundError),
    message: Callable[[Exception], str | None] = str,
    stopped: str | None = None,
) -> Iterator[None]:
    """Ends the process with one line where the block raises such an error.

    Args:
        errors: the kinds of errors.
        message: what to say of an error; where it gives None the error goes on with its traceback.
        stopped: what to say where the user interrupts the block, None for a traceback.
    """
    try:
        yield
    except errors as error:
        text = message(error)
        if text is None:
            raise
        sys.exit(f"error: {text}")
    except KeyboardInterrupt:
        if stopped is None:
            raise
        sys.exit(stopped)
