"""What the numbers were measured on."""

import shutil
import subprocess
from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class Machine:
    """A GPU, or a CPU where there is none.

    Attributes:
        device: `cuda` or `cpu`.
        name: of the card, or `CPU`.
        torch: version.
        cuda: version that torch was built for, None on a CPU.
        driver: version of NVIDIA's driver, None where it does not say.
        memory: of the card, GiB; 0 on a CPU.
    """

    device: str
    name: str
    torch: str
    cuda: str | None = None
    driver: str | None = None
    memory: float = 0.0

    @classmethod
    def of_this(cls) -> Self:
        """The first GPU that torch sees, else the CPU."""
        if not torch.cuda.is_available():
            return cls("cpu", "CPU", torch.__version__)
        properties = torch.cuda.get_device_properties(0)
        return cls(
            "cuda",
            properties.name,
            torch.__version__,
            torch.version.cuda,
            _driver(),
            properties.total_memory / 2**30,
        )


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)
