"""FLOPs of a whole training by the fast recipes of stage 3 against the recipes that they follow.

Every kind of step (size of crops, attack) is counted once on random weights and images, and
taken as often as the recipe does; PGD-10 on the images that watch for overfitting is in it,
validation is in neither.

    python benchmarks/fast_recipe.py

The study's rows are counted too, at the study's size of images. FLOPs come from torch's counter on
the CPU; it counts convolutions and matrix products. Robust accuracies: `make study`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from datamodules.images.progressive_resolution import ProgressiveResolution
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.training_attack import WATCH_STEPS, TrainingAttack
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings
from pipeline.estimate.extent import StepKind, course
from pipeline.export.inference_cost import flop_counter
from pipeline.runs.process_state import quiet_lightning

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = CONFIGS / "stage3_mpm"
PHOTOGRAPHS = CONFIGS / "study" / "photographs" / "stage3_mpm.yaml"
BATCH = 4
WATCH_PASSES = 2 * (WATCH_STEPS + 1) + 2  # forth and back each step, forth to answer

Names = tuple[str | Path, ...]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Images:
    """Extent of a training set.

    Attributes:
        images: number of images.
        objects: number of classes.
        parts: number of part classes, the background included.
    """

    images: int
    objects: int
    parts: int


IMAGENET, PHOTOS, SHAPES = Images(1_281_167, 1000, 3311), Images(1000, 10, 44), Images(600, 3, 9)
PAIRS: dict[str, tuple[Images, Names, Names]] = {
    "resnet50_gelu_at_fast": (IMAGENET, ("resnet50_gelu_at",), ("resnet50_gelu_at_fast",)),
    "lite0_fast": (PHOTOS, ("lite0",), ("lite0_fast",)),
    "study, photographs": (PHOTOS, ("lite0", PHOTOGRAPHS), ("lite0", PHOTOGRAPHS, "fast")),
    "study, photographs, one step": (
        PHOTOS,
        ("lite0", PHOTOGRAPHS),
        ("lite0", PHOTOGRAPHS, "one_step"),
    ),
    "study, rendered": (SHAPES, ("small",), ("small", "fast")),
    "study, rendered, one step": (SHAPES, ("small",), ("small", "one_step")),
}


def recipe(names: Names) -> dict[str, Any]:
    """Settings of configurations, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for name in names:
        file = name if isinstance(name, Path) else RECIPES / f"{name}.yaml"
        merged = overlaid(merged, yaml.safe_load(file.read_text()))
    return merged


def overlaid(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with others in their place."""
    both = {k: overlaid(old[k], v) for k, v in new.items() if isinstance(v, dict) and k in old}
    return old | new | both


def batch(side: int, extent: Images) -> Batch:
    """A seeded batch as the loader hands it over."""
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(
            0, 256, (BATCH, 3, side, side), dtype=torch.uint8, generator=generator
        ),
        "label": torch.randint(0, extent.objects, (BATCH,), generator=generator),
        "part_labels": torch.randint(
            0, extent.parts, (BATCH, side // 8, side // 8), generator=generator
        ),
        "part_weight": torch.ones(BATCH),
    }


def model(settings: dict[str, Any], kind: StepKind, extent: Images) -> MPM:
    """MPM of a recipe whose attack is of one kind throughout."""
    attack = TrainingAttack(
        eps=PixelDistance(0 if kind.name == "clean" else "4/255"),
        steps=1 if kind.name == "one-step" else settings["attack"].get("steps", 2),
    )
    torch.manual_seed(0)
    object_parts = torch.ones(extent.objects, extent.parts, dtype=torch.bool)
    network = NetworkSettings(**settings["network"])
    mpm = MPM(object_parts, network, attack=attack).train()
    mpm.log = mpm.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return mpm


def flops(mpm: MPM, given: Batch) -> float:
    """Floating point operations of a step, of one image."""
    with flop_counter() as counter:
        mpm.training_step(given, 0).backward()
    return counter.get_total_flops() / BATCH


def run_flops(names: Names, extent: Images) -> tuple[float, dict[str, float]]:
    """FLOPs of all epochs, and those of each kind of step."""
    given = recipe(names)
    settings = {"attack": {}, **given["model"]["init_args"]}
    data, epochs = given["data"]["init_args"], given["trainer"]["max_epochs"]
    full = data["image_size"]
    progressive = data.get("progressive")
    if progressive is not None:
        progressive = ProgressiveResolution(**progressive)
    attack = TrainingAttack(**settings["attack"])
    watched = min(data.get("watch_images", 0), extent.images // 8)
    spent = {}
    for kind, share in course(attack, progressive, full, epochs).items():
        mpm, given_batch = model(settings, kind, extent), batch(kind.side or full, extent)
        step = flops(mpm, given_batch)
        images = extent.images - watched
        if kind.name == "one-step":  # at most, as its step has the part loss besides five passes
            images += watched * WATCH_PASSES / 5
        spent[str(kind)] = share * epochs * images * step
    return sum(spent.values()), spent


def main() -> None:
    """Prints the table and, last, the ratios as JSON."""
    ratios = {}
    for name, (extent, full, fast) in PAIRS.items():
        with quiet_lightning():
            before, _ = run_flops(full, extent)
            after, kinds = run_flops(fast, extent)
        print(f"{name}: {before / 1e15:,.4g} PFLOP in full, {after / 1e15:,.4g} fast")
        for kind, count in kinds.items():
            print(f"  {kind:24}{count / before:8.3f}")
        ratios[name] = after / before
    print(json.dumps({f"{name}_flop_ratio": ratio for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
