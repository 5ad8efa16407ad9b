"""The command lines of the study's stages, and which of them are done."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, dict_to_namespace

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.images.image_lists import read_image_list
from datamodules.images.imagenet_folder import list_images
from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.runs.manifest import MANIFEST, Manifest, sha256
from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import CONFIGS, EVALUATION, LABELS, MPM, SEGMENTER, Stage
from pipeline.study.folds import Folds
from pipeline.study.rows import Row

DONE = "done"  # folder of the marks of steps that ended well


@dataclass(frozen=True)
class StudyData:
    """The images and annotations of a study.

    Attributes:
        name: of the study.
        imagenet: folder with `train/` and `val/`.
        pinpp: folder with the part annotations of train images.
        val_parts: folder with those of val images, for the segmenter's validation; may be None.
    """

    name: str
    imagenet: Path
    pinpp: Path
    val_parts: Path | None


def find_data(data: str, out: Path, test_images: int | None = None) -> StudyData:
    """Finds the data set, and renders PartShapes where it is asked for.

    Args:
        data: `part_shapes`, or a folder with `imagenet/`, `pinpp/` and perhaps `val_parts/`.
        out: folder of all studies.
        test_images: val images of each kind of object that PartShapes renders.

    Raises:
        MissingInputError: if there is no such folder.
    """
    folder = Path(data)
    if data == "part_shapes":  # the demo's set, labelled as in the demo
        more = {} if test_images is None else {"val_per_object": test_images}
        shapes = render_part_shapes(out / data / "data", **more)
        return StudyData(data, shapes / "imagenet", shapes / "pinpp", None)
    for needed in (folder / "imagenet", folder / "pinpp"):
        if not needed.is_dir():
            raise MissingInputError(
                f"{needed} does not exist: --data is part_shapes or a folder with imagenet/ and "
                "pinpp/"
            )
    val_parts = folder / "val_parts"
    return StudyData(
        folder.resolve().name,
        folder / "imagenet",
        folder / "pinpp",
        val_parts if val_parts.is_dir() else None,
    )


@dataclass(frozen=True)
class Step:
    """One command: a stage that fills a run folder.

    Attributes:
        name: of the run, for people and for its log.
        run: run folder.
        arguments: of `python -m pipeline`.
        inputs: run folders of earlier stages that it reads.
    """

    name: str
    run: Path
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...] = ()

    def is_done(self, marks: Path) -> bool:
        """Whether this very command ended well before.

        Args:
            marks: folder of the marks of what is done.

        Raises:
            UserError: if it was done with other outputs of an earlier stage.
        """
        mark, manifest = self._mark(marks), Manifest.find(self.run)
        if not mark.is_file() or manifest is None:
            return False
        done = json.loads(mark.read_text())
        if done["inputs"] != self._inputs():
            raise UserError(
                f"{self.run} was made from other runs than {', '.join(map(str, self.inputs))} hold "
                "now: give the study another --out, or delete that folder"
            )
        return done == self._state() and manifest.is_complete

    def has_todays_settings(self, marks: Path) -> bool:
        """Whether the command ended well before, under the settings that its files say now.

        Args:
            marks: folder of the marks of what is done.
        """
        mark = self._mark(marks)
        if not mark.is_file():
            return False
        return bool(json.loads(mark.read_text()).get("settings") == self.settings)

    @property
    def settings(self) -> str:
        """What its configurations say together; comments and replaced settings do not count."""
        return json.dumps(_merged(self.arguments), sort_keys=True)

    def mark_done(self, marks: Path) -> None:
        """Notes that the command ended well."""
        write_json(self._mark(marks), self._state())

    def _mark(self, marks: Path) -> Path:
        return marks / f"{self.name}.json"

    def _state(self) -> dict[str, Any]:
        return {
            "arguments": list(self.arguments),
            "settings": self.settings,
            "inputs": self._inputs(),
        }

    def _inputs(self) -> dict[str, str]:
        return {str(run): sha256(run / MANIFEST) for run in self.inputs}


@dataclass(frozen=True)
class Training:
    """One training of a row.

    Attributes:
        row: what is trained.
        seed: of the repetition, from 0 on.
        fold: whose images are tested on; None where val images are.
    """

    row: Row
    seed: int
    fold: int | None = None

    @property
    def folder(self) -> Path:
        """Where its runs lie, in the study's folder and in that of the evaluations."""
        fold = "" if self.fold is None else f"_fold{self.fold}"
        return Path(f"seed{self.seed}{fold}") / self.row.name


@dataclass(frozen=True)
class TestedOn:
    """What a training is tested on.

    Attributes:
        keys: of the images to take from.
        number: how many of them, all trainings the same.
    """

    keys: frozenset[str]
    number: int


@dataclass(frozen=True)
class StudyCommands:
    """Makes the commands of a study.

    Attributes:
        data: the data set.
        folder: of this study.
        recipe: name of the configurations of the stages; `small` where a stage has none of it.
        overlays: folders with one YAML a stage, such as `stage3_mpm.yaml`, over the recipe.
        filtered: run folder of the pseudo labels made with the category filter.
        unfiltered: run folder of those made without it.
        autoattack: images that AutoAttack measures; 0 leaves it out.
        folds: of the cross-validation; None tests on the val images.
    """

    data: StudyData
    folder: Path
    recipe: str
    overlays: tuple[Path, ...]
    filtered: Path
    unfiltered: Path
    autoattack: int
    folds: Folds | None = None

    @property
    def marks(self) -> Path:
        """Folder of the marks of what is done."""
        return self.folder / DONE

    def segmenter(self) -> Step:
        """Stage 1."""
        val = self.data.val_parts
        more = [f"--data.init_args.pinpp_val={val}"] if val else []
        return self._step(SEGMENTER, self.folder / SEGMENTER.name, None, *more)

    def labels(self, *, filtered: bool) -> Step:
        """Stage 2, with or without the category filter."""
        return self._step(
            LABELS,
            self.filtered if filtered else self.unfiltered,
            self.folder / SEGMENTER.name,
            f"--model.init_args.category_filter={str(filtered).lower()}",
        )

    def training(self, training: Training) -> Step:
        """Stage 3."""
        row, held_out = training.row, []
        number = training.seed
        if self.folds is not None and training.fold is not None:
            held_out = [f"--data.init_args.held_out={self.folds.held_out[training.fold]}"]
            number = training.seed * len(self.folds.held_out) + training.fold  # no seed twice
        return self._step(
            MPM,
            self.model(training),
            self.filtered if row.filtered else self.unfiltered,
            *(f"-c={MPM.configs / f'{name}.yaml'}" for name in row.overlays),
            f"--data.init_args.seed={number}",
            f"--seed_everything={number}",
            *held_out,
        )

    def evaluation(self, training: Training) -> Step:
        """Evaluation, of all rows on the same images."""
        more = []
        if training.row.autoattack and self.autoattack:
            more = [f"--data.init_args.images.autoattack={self.autoattack}"]
        if self.folds is not None and training.fold is not None:
            more.append(f"--data.init_args.list_file={self.folds.held_out[training.fold]}")
        return self._step(EVALUATION, self.outcome(training), self.model(training), *more)

    def model(self, training: Training) -> Path:
        """Run folder of a training."""
        return self.folder / training.folder

    def outcome(self, training: Training) -> Path:
        """Run folder of an evaluation."""
        return self.folder / EVALUATION.name / training.folder

    def trainings(self, rows: Sequence[Row], seeds: int) -> list[Training]:
        """All trainings; a study that is cut after some has something of every row."""
        folds = [None] if self.folds is None else range(len(self.folds.held_out))
        return [
            Training(row, seed, fold) for seed in range(seeds) for fold in folds for row in rows
        ]

    def recipes(self, rows: Sequence[Row]) -> dict[str, str]:
        """A hash of all settings that make a row, by row.

        Settings that a later file replaces do not count, nor do comments; stages 1 and 2 count for
        rows that learn from their labels.
        """
        hashes = {}
        for row in rows:
            training = Training(row, 0)
            steps = [self.training(training), self.evaluation(training)]
            if row.pseudo_labels:
                steps += [self.segmenter(), self.labels(filtered=row.filtered)]
            settings = [str(row.filtered), *(step.settings for step in steps)]
            hashes[row.name] = hashlib.sha256("\n".join(settings).encode()).hexdigest()[:16]
        return hashes

    def tested_on(self) -> dict[int | None, TestedOn]:
        """By fold, None without folds, what its trainings are tested on."""
        lists: dict[int | None, list[tuple[str, int]]] = {}
        if self.folds is None:
            lists[None] = list_images(self.data.imagenet / "val")
        else:
            for fold, file in enumerate(self.folds.held_out):
                lists[fold] = read_image_list(file, None)
        settings = _merged(self._step(EVALUATION, self.folder / EVALUATION.name, None).arguments)
        most = settings["data"]["init_args"]["images"]["clean"]
        return {
            fold: TestedOn(frozenset(key for key, _ in images), min(most, len(images)))
            for fold, images in lists.items()
        }

    def _step(self, stage: Stage, run: Path, earlier: Path | None, *more: str) -> Step:
        configs: list[str | Path] = ["small"]
        if (stage.configs / f"{self.recipe}.yaml").is_file():
            configs = [self.recipe]
        files = [folder / f"{stage.name}.yaml" for folder in (CONFIGS / "study", *self.overlays)]
        configs += [file for file in files if file.is_file()]
        inside = run.is_relative_to(self.folder)
        name = "_".join(run.relative_to(self.folder).parts) if inside else run.name
        imagenet = self.data.imagenet
        if self.folds is not None and stage is not SEGMENTER:
            imagenet = self.folds.imagenet
        folders = {"imagenet": imagenet, "pinpp": self.data.pinpp}
        arguments = stage_command(stage, run, folders, *more, configs=configs, earlier=earlier)
        return Step(name, run, tuple(arguments), () if earlier is None else (earlier,))


def _merged(arguments: Sequence[str]) -> dict[str, Any]:
    """What the configurations of a command say together."""
    settings = Namespace()
    for argument in arguments:
        if argument.startswith("-c="):
            content = yaml.safe_load(Path(argument.removeprefix("-c=")).read_text()) or {}
            settings.update(dict_to_namespace(content))
    return dict(settings.as_dict())
