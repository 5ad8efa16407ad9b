"""Whether detectron2 is there, and the mark of tests that need it."""

import importlib.util

import pytest

INSTALLED = importlib.util.find_spec("detectron2") is not None
needs_detectron2 = pytest.mark.skipif(
    not INSTALLED, reason="detectron2 is not installed: see docs/detectron2.md"
)
