"""Errors that the user can remedy, apart from defects of the code."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = 300  # paths and keys stay whole


class UserError(ValueError):
    """A wrong input or setting; its message is one line that names it and what mends it.

    The command line prints the message and ends with status 1. Every other exception keeps its
    traceback.
    """


class MissingInputError(UserError, FileNotFoundError):
    """A file or folder that should be there is not."""


def shown(value: Any) -> str:
    """A value for a message: short and printable, whatever it is."""
    return _SHORT.repr(value)


@contextmanager
def os_errors() -> Iterator[None]:
    """Makes errors of the operating system user errors, such as a full disk or missing rights.

    For programs that only read and write the user's files; a decorator, too.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(str(error)) from error
