"""Few-shot classification on frozen features: `make few-shot`."""

from pathlib import Path

from datamodules.evaluation.few_shot_episodes import EpisodeRules
from datamodules.evaluation.few_shot_images import FewShotImages
from datamodules.files.errors import os_errors
from pipeline.few_shot.run import few_shot
from pipeline.few_shot.settings import Device, ExtractionSettings, ProbeSettings


@os_errors()
def main(
    model: Path,
    imagenet: Path,
    out: Path,
    pinpp: Path | None = None,
    pinpp_val: Path | None = None,
    classes: Path | None = None,
    way: int = EpisodeRules.way,
    shots: tuple[int, ...] = EpisodeRules.shots,
    queries: int = EpisodeRules.queries,
    episodes: int = EpisodeRules.episodes,
    seed: int = EpisodeRules.seed,
    normalise: bool = ProbeSettings.normalise,
    probe_strength: float = ProbeSettings.strength,
    margin: float = ExtractionSettings.margin,
    image_size: int | None = None,
    batch_size: int = ExtractionSettings.batch_size,
    workers: int | None = None,
    device: Device = ExtractionSettings.device,
    features: Path | None = None,
    against: Path | None = None,
) -> None:
    """Few-shot classification on frozen features: whole images and the crops of their objects.

    Classes and images of the episodes follow from the seed and the images alone, so every model
    meets the same. Stopped at any time, the same command goes on; more --episodes are added.

    Args:
        model: run folder of stage 1 or 3, timm folder, weight file or word, as for make evaluate.
        imagenet: folder with train/ and val/, or with val/ alone.
        out: run folder to write into.
        pinpp: annotations of train images, whose boxes are cropped; without them all val images.
        pinpp_val: annotations of val images, which are taken instead.
        classes: list of class folders to keep to, one a line.
        way: classes of an episode.
        shots: numbers of labelled images of each class, such as "[1, 5]".
        queries: images of each class to classify.
        episodes: how many.
        seed: seed of classes and images.
        normalise: bring every feature to length 1 first.
        probe_strength: weight of the data beside the penalty of the linear probe.
        margin: around boxes, as a share of their longer side.
        image_size: side of the squares in pixels, by default what the model was made for.
        batch_size: images that go through the network at once.
        workers: processes that read images, by default one a core.
        device: to compute on, by default a GPU where there is one.
        features: folder that keeps the features, by default one in the run folder.
        against: run folder of another model, to compare with on the same episodes.

    Raises:
        MissingInputError: if the model, a folder or an image is missing.
        UserError: if images are too few, or a folder holds something made another way.
    """
    rules = EpisodeRules(way, tuple(shots), queries, episodes, seed)
    probe = ProbeSettings(normalise, probe_strength)
    extraction = ExtractionSettings(image_size, margin, batch_size, workers, device)
    images = FewShotImages.read(imagenet, pinpp, pinpp_val, classes)
    if images.left_out:
        print(f"{images.left_out} annotated images have no mask and so no box: left out")
    few_shot(model, images, out, rules, probe, extraction, features=features, against=against)
    print(out)
