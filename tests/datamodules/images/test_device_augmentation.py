import numpy as np
import torch
from torchvision.transforms.v2 import functional as TF

from datamodules.images.device_augmentation import MEAN, augment, erased_box, jitter_colours


def images(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (5, 3, 8, 10), generator=generator, dtype=torch.uint8)


def test_colours_change_as_torchvision_changes_them() -> None:
    factors = torch.tensor(
        [[1, 1, 1], [0.5, 1.5, 0.3], [1.8, 0.2, 2.0], [0, 1, 1], [1.1, 0.9, 1.05]]
    )
    jittered = jitter_colours(images(), factors)
    for image, (b, c, s), found in zip(images(), factors.tolist(), jittered, strict=True):
        wanted = TF.adjust_brightness(image / 255, b)
        wanted = TF.adjust_saturation(TF.adjust_contrast(wanted, c), s)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_batch_becomes_float_in_channels_last_and_stays_itself_unchanged() -> None:
    batch = {"image": images(), "label": torch.arange(5), "colour": torch.ones(5, 3)}
    found = augment(batch)
    assert found.keys() == {"image", "label"}
    assert found["image"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found["image"], images() / 255)
    assert batch.keys() == {"image", "label", "colour"}
    assert torch.equal(batch["image"], images())


def test_batch_without_draws_is_handed_through() -> None:
    batch = {"image": images()}
    assert augment(batch) is batch


def test_erasing_fills_the_box_with_the_mean_colour_and_nothing_else() -> None:
    boxes = torch.tensor([[0, 0, 0, 0], [2, 3, 5, 9], [0, 0, 8, 1], [7, 9, 8, 10], [0, 0, 0, 0]])
    found = augment({"image": images(), "erase": boxes})["image"]
    wanted = images() / 255
    for image, (top, left, bottom, right) in zip(wanted, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] = torch.tensor(MEAN)[:, None, None]
    torch.testing.assert_close(found, wanted)


def test_erased_boxes_have_their_frequency_area_and_aspect() -> None:
    rng = np.random.default_rng(0)
    boxes = torch.stack([erased_box(rng, 0.25, 100) for _ in range(2000)]).double()
    top, left, bottom, right = boxes.unbind(1)
    some = bottom > top
    assert 0.22 < some.double().mean() < 0.28
    assert boxes.min() >= 0
    assert boxes.max() <= 100
    height, width = (bottom - top)[some], (right - left)[some]
    share = height * width / 100**2
    assert 0.018 < share.min() < 0.03
    assert 0.3 < share.max() < 0.345
    assert 0.25 < (height / width).min() < 0.4
    assert 2.5 < (height / width).max() < 4
    assert not torch.stack([erased_box(rng, 0, 100) for _ in range(20)]).any()
