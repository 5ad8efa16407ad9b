"""What the libraries of attacks warn of, collected instead of printed at every call."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

LOGGER = "auto-attack"  # where pyautoattack warns
LIBRARIES = re.compile(r"[\\/](pyautoattack|torchattacks)[\\/]")
# Measured over one call's images, where one image is a large share; `masking_warnings` says the
# same of all images.
SAID_ELSEWHERE = "Square Attack has decreased the robust accuracy"
NO_PAGE_OF_OURS = " See flags_doc.md for details."

_shown: set[tuple[str, str, int]] = set()


@contextmanager
def library_warnings() -> Iterator[list[str]]:
    """Collects what pyautoattack and torchattacks warn of within, each text once.

    Warnings of others are shown as usual.

    Yields:
        The texts, complete when the context has ended.
    """
    said: list[str] = []
    logger = logging.getLogger(LOGGER)
    handler, propagate = _Collector(said), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            show = warnings.showwarning

            def collect(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                place = (str(message), filename, lineno)
                if LIBRARIES.search(filename):
                    _add(said, str(message))
                elif place not in _shown:  # the context makes Python forget what it has shown
                    _shown.add(place)
                    show(message, category, filename, lineno, file, line)

            warnings.showwarning = collect
            warnings.filterwarnings("always", module=r"(pyautoattack|torchattacks)(\.|$)")
            yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Collector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        _add(self.said, record.getMessage())


def _add(said: list[str], text: str) -> None:
    text = " ".join(text.removesuffix(NO_PAGE_OF_OURS).split())
    if text not in said and not text.startswith(SAID_ELSEWHERE):
        said.append(text)
