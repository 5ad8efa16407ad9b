"""`python -m pipeline STAGE fit|validate|test|predict ...`."""

import sys
import traceback
from pathlib import Path

from pipeline.runs.error_exit import error_exit

PROJECT = Path(__file__).resolve().parent.parent


def one_line(error: Exception) -> str | None:
    """The message of an error that the project raised on purpose, None for any other.

    A ValueError or missing file that our own code reports is the user's to mend and needs no
    traceback; one that comes out of a library is a defect, and its traceback is wanted.
    """
    if not isinstance(error, ValueError | FileNotFoundError):
        return None
    text = str(error)
    if "Original Traceback" in text:  # a data-loading worker wraps the error in its traceback
        return text.strip().splitlines()[-1].partition(": ")[2]
    cause: BaseException | None = error
    while cause is not None:  # the command line's parser wraps what a constructor raised
        raised_in = Path(traceback.extract_tb(cause.__traceback__)[-1].filename).resolve()
        if PROJECT in raised_in.parents and ".venv" not in raised_in.parts:
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None


if __name__ == "__main__":
    from pipeline.cli import main

    with error_exit(message=one_line):
        main(sys.argv[1:])
