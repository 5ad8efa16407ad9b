"""Test of texture bias: shape and texture of different categories."""

from collections.abc import Sequence
from pathlib import Path

from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
)
from datamodules.evaluation.object_groups import human_categories, human_groups, human_problem
from datamodules.evaluation.ood_sets import FolderSet, folder_problem
from datamodules.files.errors import UserError
from datamodules.images.image_files import images_below


class CueConflict(EvaluationSource):
    """Images with the shape of one category and the texture of another (Geirhos et al. 2019).

    The label is the shape. Pictures whose shape and texture are of one category hold no conflict
    and are left out, which leaves 1,200 of the released 1,280. Answers are the 16 categories as in
    `DistortedImages`. Sitawarin et al. (P1) measure texture bias on stylised copies of their test
    images instead: `ClassFolders` with `table: texture` reads those.

    Args:
        folder: folder with files `cat1-dog2.png` (shape cat, texture dog), in any depth, other
            words before a last underscore allowed; None if there is none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """The one set, `cue_conflict`.

        Raises:
            UserError: if the name of a file does not say shape and texture.
        """
        problem = folder_problem(self.folder, "the cue-conflict images, cat1-dog2.png")
        problem = problem or human_problem(setting.objects)
        if problem or self.folder is None:
            return [MissingSet("cue_conflict", "texture", problem)]
        folder = Path(self.folder)
        cues = {str(file.relative_to(folder)): read_cues(file) for file in images_below(folder)}
        return [_CueConflictSet(folder, cues, setting)]


def read_cues(file: Path) -> tuple[int, int]:
    """Shape and texture of `cat1-dog2.png`, as numbers of `human_categories`.

    Raises:
        UserError: if the name does not say them.
    """
    names = human_categories()
    words = [word.rstrip("0123456789") for word in file.stem.split("_")[-1].split("-")]
    if len(words) != 2 or not set(words) <= set(names):
        raise UserError(
            f"{file}: the name must be shape and texture, such as cat1-dog2.png, of the 16 "
            f"categories ({', '.join(names)})"
        )
    return names.index(words[0]), names.index(words[1])


class _CueConflictSet(FolderSet):
    """Cue-conflict images; the figures hold the shape bias."""

    def __init__(
        self, folder: Path, cues: dict[str, tuple[int, int]], setting: EvaluationSetting
    ) -> None:
        items = [(key, shape) for key, (shape, texture) in cues.items() if shape != texture]
        super().__init__("cue_conflict", "texture", folder, items, setting)
        self.resize = setting.image_size
        self.settings = {"square": False, "resize": self.resize}
        self.missing = "" if items else f"{folder} holds no image with a conflict"
        self.groups = human_groups(setting.objects)
        self.group_names = human_categories()
        self.aggregate = "mean"
        self._textures = {key: texture for key, (_, texture) in cues.items()}

    def figures(
        self, keys: Sequence[str], labels: Sequence[int], predictions: Sequence[int]
    ) -> dict[str, float]:
        """Shares of shape and texture answers, and the shape bias.

        The shape bias is the shape answers' share of the answers that are either shape or texture
        (Geirhos et al. 2019); nan if there are none.
        """
        pairs = list(zip(keys, labels, predictions, strict=True))
        shape = sum(label == answer for _, label, answer in pairs)
        texture = sum(self._textures[key] == answer for key, _, answer in pairs)
        bias = shape / (shape + texture) if shape + texture else float("nan")
        total = len(pairs)
        return {
            "shape_share": shape / total,
            "texture_share": texture / total,
            "shape_bias": bias,
        }
