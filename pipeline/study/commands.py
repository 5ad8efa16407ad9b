"""The command lines of the study's stages, and which of them are done."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.runs.manifest import MANIFEST, Manifest, sha256
from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import CONFIGS, EVALUATION, LABELS, MPM, SEGMENTER, Stage
from pipeline.study.rows import Row


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


def find_data(data: str, out: Path) -> StudyData:
    """Finds the data set, and renders PartShapes where it is asked for.

    Args:
        data: `part_shapes`, or a folder with `imagenet/`, `pinpp/` and perhaps `val_parts/`.
        out: folder of all studies.

    Raises:
        MissingInputError: if there is no such folder.
    """
    folder = Path(data)
    if data == "part_shapes":  # the demo's set, labelled as in the demo
        shapes = render_part_shapes(out / data / "data")
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

    def mark_done(self, marks: Path) -> None:
        """Notes that the command ended well."""
        write_json(self._mark(marks), self._state())

    def _mark(self, marks: Path) -> Path:
        return marks / f"{self.name}.json"

    def _state(self) -> dict[str, Any]:
        files = [Path(a.removeprefix("-c=")) for a in self.arguments if a.startswith("-c=")]
        configs = {str(file): sha256(file) for file in files}
        return {"arguments": list(self.arguments), "configs": configs, "inputs": self._inputs()}

    def _inputs(self) -> dict[str, str]:
        return {str(run): sha256(run / MANIFEST) for run in self.inputs}


@dataclass(frozen=True)
class StudyCommands:
    """Makes the commands of a study.

    Attributes:
        data: the data set.
        folder: of this study.
        overlays: folder with one YAML a stage, such as `stage3_mpm.yaml`, over `small.yaml`.
        filtered: run folder of the pseudo labels made with the category filter.
        unfiltered: run folder of those made without it.
        autoattack: images that AutoAttack measures; 0 leaves it out.
    """

    data: StudyData
    folder: Path
    overlays: Path | None
    filtered: Path
    unfiltered: Path
    autoattack: int

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

    def training(self, row: Row, seed: int) -> Step:
        """Stage 3 of one row and seed."""
        return self._step(
            MPM,
            self.model(row, seed),
            self.filtered if row.filtered else self.unfiltered,
            *(f"-c={MPM.configs / f'{name}.yaml'}" for name in row.overlays),
            f"--data.init_args.seed={seed}",
            f"--seed_everything={seed}",
        )

    def evaluation(self, row: Row, seed: int) -> Step:
        """Evaluation of one row and seed, always on the same images."""
        more = []
        if row.autoattack and self.autoattack:
            more = [f"--data.init_args.images.autoattack={self.autoattack}"]
        return self._step(EVALUATION, self.outcome(row, seed), self.model(row, seed), *more)

    def model(self, row: Row, seed: int) -> Path:
        """Run folder of a training."""
        return self.folder / f"seed{seed}" / row.name

    def outcome(self, row: Row, seed: int) -> Path:
        """Run folder of an evaluation."""
        return self.folder / EVALUATION.name / f"seed{seed}" / row.name

    def _step(self, stage: Stage, run: Path, earlier: Path | None, *more: str) -> Step:
        configs: list[str | Path] = ["small"]
        if stage is EVALUATION:
            configs.append(CONFIGS / "study" / "evaluate.yaml")
        if self.overlays is not None and (self.overlays / f"{stage.name}.yaml").is_file():
            configs.append(self.overlays / f"{stage.name}.yaml")
        inside = run.is_relative_to(self.folder)
        name = "_".join(run.relative_to(self.folder).parts) if inside else run.name
        folders = {"imagenet": self.data.imagenet, "pinpp": self.data.pinpp}
        arguments = stage_command(stage, run, folders, *more, configs=configs, earlier=earlier)
        return Step(name, run, tuple(arguments), () if earlier is None else (earlier,))
