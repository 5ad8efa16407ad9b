"""What a person runs on one GPU before renting eight: is it right there, is it fast there.

    python -m benchmarks.gpu_check [--only NAME ...] [--markdown]

Checks compare this project's own kernels with float64 or the CPU; ratios compare it with the
authors' algorithm, as the benchmarks beside this folder have written it, in turns in one process.
All of it keeps to a budget of five minutes: what does not fit is said to be skipped. On a machine
without a GPU the same code runs at small size on the CPU, where ratios mean nothing.

The exit status is 1 if a check is not passed or anything could not be run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks import each other by name
