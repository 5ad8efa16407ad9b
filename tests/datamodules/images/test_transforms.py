import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from datamodules.images.transforms import DetectionAugmentation, boxes_of


def pair() -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """A grey image with a red rectangle, which is the mask."""
    image = torch.full((3, 160, 240), 114, dtype=torch.uint8)
    image[:, 40:100, 20:180] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    mask = torch.zeros(1, 160, 240, dtype=torch.uint8)
    mask[0, 40:100, 20:180] = 1
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


def test_depends_on_the_seed_alone() -> None:
    augment = DetectionAugmentation()
    first = augment(*pair(), seed=(0, 1, 2))
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    again = augment(*pair(), seed=(0, 1, 2))
    other = augment(*pair(), seed=(0, 2, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_mask_follows_the_image_and_the_size_stays() -> None:
    augment = DetectionAugmentation(photometric=0.0, scale=(0.5, 2.0))
    for index in range(20):
        image, mask = augment(*pair(), seed=(0, 0, index))
        assert image.shape == (3, 160, 240)
        assert mask.shape == (1, 160, 240)
        red = (image[0] > 185) & (image[1] < 60)
        union = (red | mask[0].bool()).sum()
        assert union == 0 or (red & mask[0].bool()).sum() / union > 0.9


@pytest.mark.parametrize("scale", [(0.75, 1.25), (0.3, 0.9)])
def test_jittered_masks_lie_where_their_image_does(scale: tuple[float, float]) -> None:
    """Of a white disc and its mask the centres agree within a tenth of a pixel on average."""
    rows, columns = torch.meshgrid(torch.arange(90), torch.arange(120), indexing="ij")
    disc = ((columns - 56) ** 2 + (rows - 43) ** 2 <= 15**2).to(torch.uint8)
    image, mask = tv_tensors.Image(255 * disc.expand(3, -1, -1)), tv_tensors.Mask(disc[None])
    augment = DetectionAugmentation(scale=scale, photometric=0.0)
    offsets = []
    for index in range(60):
        found, found_mask = augment(image, mask, seed=(0, 0, index))
        border = torch.ones_like(found_mask[0], dtype=torch.bool)
        border[1:-1, 1:-1] = False
        if not (found_mask[0].bool() & border).any():  # the disc was not cropped
            white = found[0].float().where(found[0] != 114, 0)  # 114: padding
            offsets.append(centre(found_mask[0].float()) - centre(white))
    assert len(offsets) > 40
    assert torch.stack(offsets).mean(0).abs().max() < 0.1


def centre(weights: torch.Tensor) -> torch.Tensor:
    places = torch.stack(torch.meshgrid(*map(torch.arange, weights.shape), indexing="ij"))
    return (places * weights).sum((1, 2)) / weights.sum()


def test_large_scale_jitter_gives_every_image_the_canvas() -> None:
    augment = DetectionAugmentation(photometric=0.0, scale=(0.1, 2.0), canvas=128)
    areas = []
    for index in range(40):
        image, mask = augment(*pair(), seed=(0, 0, index))
        assert image.shape == (3, 128, 128)
        assert mask.shape == (1, 128, 128)
        red = (image[0] > 185) & (image[1] < 60)
        union = (red | mask[0].bool()).sum()
        assert union < 300 or (red & mask[0].bool()).sum() / union > 0.85
        areas.append(int(mask.sum()))
    factor = 128 / 240  # of the longer side at scale 1
    assert min(areas) < 60 * 160 * (0.4 * factor) ** 2
    assert max(areas) > 60 * 160 * (1.1 * factor) ** 2


def test_canvas_without_jitter_fits_the_image_in() -> None:
    augment = DetectionAugmentation(flip=0.0, photometric=0.0, scale=(1.0, 1.0), canvas=120)
    image, mask = augment(*pair(), seed=(0,))
    assert image.shape == (3, 120, 120)
    assert (image[:, :20] == 114).all()  # 80 rows in the middle of 120
    assert mask.sum() == 30 * 80
    with pytest.raises(ValueError, match="canvas 0"):
        DetectionAugmentation(canvas=0)


def test_flip_alone_mirrors() -> None:
    augment = DetectionAugmentation(flip=1.0, scale=(1.0, 1.0), photometric=0.0)
    image, mask = augment(*pair(), seed=(0,))
    assert torch.equal(image, pair()[0].flip(-1))
    assert torch.equal(mask, pair()[1].flip(-1))


def test_no_masks() -> None:
    image, _ = pair()
    _, masks = DetectionAugmentation()(image, tv_tensors.Mask(torch.zeros(0, 160, 240)), seed=(0,))
    assert masks.shape == (0, 160, 240)


def test_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(6, 12, 17, generator=generator) > 0.97
    masks[:, 4, 7] = True
    expected = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    assert torch.equal(boxes_of(masks), expected)
    assert boxes_of(masks[:0]).shape == (0, 4)


def test_bad_scale() -> None:
    with pytest.raises(ValueError, match="scale"):
        DetectionAugmentation(scale=(1.2, 0.8))
