"""Sizes: those of the recipe on a GPU, small ones on a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.adversarial_step import FULL as RECIPE
from benchmarks.adversarial_step import Shape
from benchmarks.segmenter_variants import SIZES
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.structures import NetworkSettings

NARROW = {"act_layer": "gelu", "channels": [16, 16, 32, 32], "stem_width": 16}


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        name: in words.
        shape: of the training whose steps are timed.
        checked: of the trainings whose steps are compared with float64 on the CPU.
        batches: images a step.
        repetitions: turns that are timed.
        loss_batch: images of the part loss.
        backbone: of the segmenter.
        part_classes: of the segmenter, K + 1.
        detector: sizes of the segmenter.
        pictures: images that the segmenter sees, with their sides.
        samples: training images of the data path.
        sample_pixels: of each.
        attacked: images under AutoAttack.
    """

    name: str
    shape: Shape
    checked: Shape
    batches: tuple[int, ...]
    repetitions: int
    loss_batch: int
    backbone: str
    part_classes: int
    detector: MaskDetectorSettings
    pictures: tuple[int, int, int]
    samples: int
    sample_pixels: int
    attacked: int


CHECKED = Shape(NetworkSettings("bypass", "resnet18", NARROW, image_size=64), 10, 60)

FULL = Scale(
    name="the recipe's sizes",
    shape=RECIPE,
    checked=CHECKED,
    batches=(64, 128),
    repetitions=5,
    loss_batch=64,
    backbone="swin_base_patch4_window7_224",
    part_classes=3309,
    detector=SIZES,
    pictures=(4, 375, 500),
    samples=100,
    sample_pixels=500 * 375,
    attacked=64,
)
SMALL = Scale(
    name="small sizes, which say nothing of speed",
    shape=Shape(CHECKED.network, 10, 400),
    checked=CHECKED,
    batches=(4, 8),
    repetitions=1,
    loss_batch=8,
    backbone="test_resnet",
    part_classes=300,
    detector=MaskDetectorSettings(
        fpn_channels=16,
        mask_channels=(16,),
        box_head_dim=16,
        min_size=64,
        max_size=96,
        anchor_sizes=(8, 16, 32, 48, 64),
        rpn_proposals=100,
    ),
    pictures=(1, 64, 96),
    samples=8,
    sample_pixels=160 * 120,
    attacked=4,
)


@dataclass
class Setting:
    """What every entry is given.

    Attributes:
        device: `cuda` or `cpu`.
        scale: the sizes.
        step_seconds: of our step as the recipe has it, by images a step; the estimate needs it.
        step_megabytes: peak of its memory, without weights, by images a step; 0 on a CPU.
        loader_speed: images per second of one loading process; the estimate needs it.
    """

    device: str
    scale: Scale
    step_seconds: dict[int, float] = field(default_factory=dict)
    step_megabytes: dict[int, float] = field(default_factory=dict)
    loader_speed: float | None = None

    @property
    def batches(self) -> Sequence[int]:
        """Images a step, the largest last."""
        return self.scale.batches
