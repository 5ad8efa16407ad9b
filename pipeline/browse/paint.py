"""Draws images: the model's answers and part maps as they are and under attack, and their masks."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.evaluation.attack_batches import to_part_map, to_pixels
from datamodules.evaluation.attack_units import answer_name
from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import UserError
from datamodules.images.image_files import read_image
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from modules.metrics.part_iou import iou_by_part, pixel_counts
from pipeline.browse.drawn import FOLDER, Drawn, image_id
from pipeline.browse.evaluated import Evaluated
from pipeline.browse.subjects import Subject
from pipeline.drawing.palette import part_colours
from pipeline.drawing.part_overlays import legend_of, show_parts
from pipeline.evaluation.part_iou import at_cells
from pipeline.report.strip import legend_of_object

SIDE = 224  # pixels of a picture
QUALITY = 90  # of JPEG; noise of a few grey levels is kept

Labeller = Callable[[str, str, np.ndarray], ImageParts]
"""Pseudo labels of an image from its key, object category and pixels, uint8 (H, W, 3)."""


class Painter:
    """Draws the images of an evaluation.

    Each is attacked alone, from a seed of its own, so that its pictures do not depend on which
    others are drawn, or on where a run was stopped.

    Args:
        evaluated: the evaluation.
        page: folder of the page.
        min_score: pseudo parts of a lower score are not painted.
        labeller: gives the labels that stage 2 does not have; None leaves them out.
    """

    def __init__(
        self,
        evaluated: Evaluated,
        page: Path,
        min_score: float = 0.0,
        labeller: Labeller | None = None,
    ) -> None:
        self.evaluated = evaluated
        self.page = page
        self.min_score = min_score
        self.labeller = labeller
        self.vocabulary = evaluated.data.vocabulary
        self.colours = part_colours(self.vocabulary)

    def find(self, subject: Subject) -> Drawn | None:
        """What was drawn of an image before, if no mask has become known since.

        Masks that this call was not told of stay as they are.
        """
        found = Drawn.find(self.page, subject.split, subject.key)
        if found is None or (subject.human is not None and "human" not in found.pictures):
            return None
        return found if self._labelled_by(subject) in ("", found.labelled_by) else None

    def draw(self, subject: Subject) -> Drawn:
        """Draws an image and keeps it, pictures first.

        Raises:
            MissingInputError: if there is no such image.
            UserError: if it cannot be read, has another size than its annotation or labels, or the
                model knows more parts than the evaluation.
        """
        image = read_image(subject.file)
        pixels = self._pixels(image)
        attacked, classes, maps = self._answers(pixels, subject)
        by, pseudo = self._pseudo(subject, image)
        masks = {
            "human": self._mask(subject.human, image, subject),
            "pseudo": self._mask(pseudo, image, subject),
            **maps,
        }
        known = {name: mask for name, mask in masks.items() if mask is not None}
        shown: dict[str, tuple[np.ndarray, np.ndarray | None]]
        shown = {"image": (pixels, None), "attacked": (attacked, None)}
        shown |= {name: (pixels, mask) for name, mask in known.items()}
        if "attacked_parts" in known:
            shown["attacked_parts"] = attacked, known["attacked_parts"]
        clean, under_attack = (answer_name(self.evaluated.data.answers, one) for one in classes)
        drawn = Drawn(
            subject.key,
            subject.split,
            clean,
            under_attack,
            by,
            _agreement(known),
            {name: self._save(subject, name, *one) for name, one in shown.items()},
            self._legend(subject, list(known.values())),
        )
        drawn.write(self.page)
        return drawn

    def _pixels(self, image: Image.Image) -> np.ndarray:
        data = self.evaluated.data
        tensor = to_pixels(image, data.resize, data.image_size, data.interpolation)
        return tensor.permute(1, 2, 0).numpy()

    def _answers(
        self, pixels: np.ndarray, subject: Subject
    ) -> tuple[np.ndarray, list[int], dict[str, np.ndarray]]:
        """The attacked pixels, both classes, and both part maps where the model has parts."""
        evaluator, threat = self.evaluated.evaluator, self.evaluated.threat
        has_parts = not evaluator.without_parts
        network = evaluator.part_network() if threat.needs_parts else evaluator.network
        clean = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(evaluator.device) / 255
        label = torch.tensor([subject.label], device=evaluator.device)
        attacked = threat(network, clean, label, _seed(subject))
        classes, maps = [], {}
        with torch.no_grad():
            for name, images in (("parts", clean), ("attacked_parts", attacked)):
                classes.append(int(evaluator.network(images).argmax(1)))
                if has_parts:
                    levels = evaluator.part_network().forward_with_parts(images)[1]
                    maps[name] = levels[0].logits().argmax(1)[0].cpu().numpy()
        if any(ids.max() > self.vocabulary.num_parts for ids in maps.values()):
            raise UserError(
                f"{evaluator.model_name} knows more parts than the {self.vocabulary.num_parts} of "
                "the evaluation: give PINPP=, the annotations that it was trained with"
            )
        return _to_bytes(attacked), classes, maps

    def _pseudo(self, subject: Subject, image: Image.Image) -> tuple[str, ImageParts | None]:
        by = self._labelled_by(subject)
        if by != "this page":
            return by, subject.pseudo
        assert self.labeller is not None
        assert subject.object is not None
        return by, self.labeller(subject.key, subject.object, np.asarray(image))

    def _labelled_by(self, subject: Subject) -> str:
        if subject.pseudo is not None:
            return "stage 2"
        return "this page" if self.labeller is not None and subject.object is not None else ""

    def _mask(
        self, parts: ImageParts | None, image: Image.Image, subject: Subject
    ) -> np.ndarray | None:
        """Part ids (S, S) of the crop that the model sees; None without parts to show."""
        if parts is None or parts.error:
            return None
        if (parts.height, parts.width) != (image.height, image.width):
            raise UserError(
                f"{subject.file} is {image.height}x{image.width} (height x width), its parts were "
                f"marked on {parts.height}x{parts.width}: give the images that were annotated"
            )
        data = self.evaluated.data
        labels = composite(parts.confident(self.min_score), self.vocabulary.inclusions)
        return to_part_map(labels, data.resize, data.image_size).numpy()

    def _save(
        self, subject: Subject, name: str, pixels: np.ndarray, mask: np.ndarray | None
    ) -> str:
        place = f"{FOLDER}/{image_id(subject.split, subject.key)}_{name}.jpg"
        picture = Image.fromarray(show_parts(pixels, mask, self.colours, SIDE))
        with written_whole(self.page / place) as partial:
            picture.save(partial, "jpeg", quality=QUALITY, subsampling=0)
        return place

    def _legend(self, subject: Subject, masks: list[np.ndarray]) -> list[tuple[str, str]]:
        if subject.object is None:
            return legend_of(masks, self.vocabulary, self.colours)
        return legend_of_object(subject.object, masks, self.vocabulary, self.colours)


def mean_iou(truth: np.ndarray, guess: np.ndarray) -> float | None:
    """Mean IoU in [0, 1] over the parts that the truth shows; None if it shows none.

    Args:
        truth: part ids `(H, W)`, 0 = background.
        guess: part ids `(h, w)`; smaller maps are compared at the centres of their cells.
    """
    at = at_cells(truth[None], guess.shape)[0]
    iou = iou_by_part(*pixel_counts(at, guess, 1 + int(max(at.max(), guess.max()))))
    return None if np.isnan(iou).all() else float(np.nanmean(iou))


def _agreement(masks: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean IoU of every other mask with the human one."""
    if "human" not in masks:
        return {}
    others = {name: mask for name, mask in masks.items() if name != "human"}
    found = {name: mean_iou(masks["human"], mask) for name, mask in others.items()}
    return {name: iou for name, iou in found.items() if iou is not None}


def _to_bytes(images: Tensor) -> np.ndarray:
    return (images[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _seed(subject: Subject) -> int:
    digest = hashlib.sha256(f"{subject.split}/{subject.key}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
