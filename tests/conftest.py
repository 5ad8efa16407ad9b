from pathlib import Path

import pytest
import torch
from hypothesis import settings

from datamodules.part_shapes.part_shapes import render_part_shapes

# Sums of floats depend on the number of threads: the same here as in the processes that
# tests start, where runs are compared bit by bit.
torch.set_num_threads(1)

# A machine with other work is slow, not wrong.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PartShapes set: 3 objects, 12 train (8 annotated) and 4 val images each, 64 px."""
    return render_part_shapes(
        tmp_path_factory.mktemp("data") / "shapes",
        num_objects=3,
        train_per_object=12,
        annotated_per_object=8,
        val_per_object=4,
        size=64,
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the project, where it is at hand."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def parts_mini(shared: Path) -> Path:
    """Real photographs with part masks."""
    return shared / "parts_mini"
