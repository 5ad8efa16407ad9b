"""Errors that the user can mend, apart from defects of the code."""


class UserError(ValueError):
    """A wrong input or setting; its message is one line that names it and what mends it.

    The command line prints the message and ends with status 1. Every other exception keeps its
    traceback.
    """


class MissingInputError(UserError, FileNotFoundError):
    """A file or folder that should be there is not."""
