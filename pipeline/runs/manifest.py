"""`manifest.json`: what a run folder was made of, what it holds, whether it is complete."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import read_json, write_json
from pipeline.runs.stages import inner_runs

MANIFEST = "manifest.json"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """The content of a run folder's `manifest.json`.

    Attributes:
        stage: name of the run folder.
        state: `running` from the first moment, `complete` once the stage has ended well.
        config: the resolved settings, as plain values.
        inputs: hashes of what the stage read, by name; `vocabulary` is that of the parts.
        outputs: hashes of the files in the folder, by path; empty until the run is complete.
        versions: of packages.
        git: revision of the source.
        format_version: of this file.
    """

    stage: str
    state: Literal["running", "complete"] = "running"
    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git: str = "unknown"
    format_version: int = FORMAT_VERSION

    @classmethod
    def read(cls, run: Path) -> Self:
        """Reads the manifest of a run folder.

        Raises:
            MissingInputError: if the folder has none.
            UserError: if it is damaged or of another format version.
        """
        path = run / MANIFEST
        content = read_json(path, "delete it and run that stage again")
        version = content.get("format_version", 1)
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format {version}, this version of partrobust reads format "
                f"{FORMAT_VERSION}: its weights can be given as a file (checkpoints/best.ckpt), "
                "the run itself belongs to the version that began it; use another NAME="
            )
        names = {field.name for field in fields(cls)}
        if missing := names - content.keys():
            raise UserError(
                f"{path} lacks {', '.join(sorted(missing))}: delete it and run that stage again"
            )
        return cls(**{name: content[name] for name in names})

    @classmethod
    def find(cls, run: Path) -> Self | None:
        """The manifest of a run folder, None where there is none.

        Raises:
            UserError: if it is damaged or of another format version.
        """
        return cls.read(run) if (run / MANIFEST).is_file() else None

    def write(self, run: Path) -> None:
        """Writes the manifest of a run folder."""
        write_json(run / MANIFEST, asdict(self))

    @property
    def is_complete(self) -> bool:
        """Whether the stage has ended well."""
        return self.state == "complete"

    @property
    def data_arguments(self) -> Mapping[str, Any]:
        """Arguments of the data module; empty where unknown."""
        return (self.config.get("data") or {}).get("init_args") or {}

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """Arguments of the Lightning module; empty where unknown."""
        return (self.config.get("model") or {}).get("init_args") or {}


def require_complete(run: Path, target: str, vocabulary_hash: str | None = None) -> None:
    """Refuses the output of an earlier stage that is missing, incomplete or of other parts.

    Args:
        run: run folder of the earlier stage.
        target: the make target that fills it, for the message.
        vocabulary_hash: when given, the run must have been made for this vocabulary.

    Raises:
        MissingInputError: if there is no run folder.
        UserError: if the run is not complete or was made for another vocabulary.
    """
    manifest = Manifest.find(run)
    if manifest is None:
        raise MissingInputError(f"{run} holds no finished stage: run {target} first")
    if not manifest.is_complete:
        raise UserError(f"{run} is {manifest.state}, not complete: run {target} to finish it")
    made_for = manifest.inputs.get("vocabulary")
    if vocabulary_hash is not None and made_for != vocabulary_hash:
        raise UserError(
            f"{run} was made for another part vocabulary ({str(made_for)[:12]}, the data has "
            f"{vocabulary_hash[:12]}): use the annotations it was made with, or delete it and "
            f"run {target} again"
        )


def mark_complete(run: Path) -> None:
    """Ends a run: hashes its outputs into the manifest and sets its state to `complete`."""
    inner = inner_runs()
    outputs = {
        str(path.relative_to(run)): sha256(path)
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and path.name != MANIFEST
        and not inner & {*path.relative_to(run).parts}
        and not path.name.startswith(("events.out", "."))
    }
    replace(Manifest.read(run), state="complete", outputs=outputs).write(run)


def hashes_of_runs(paths: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the manifests of all run folders among some settings."""
    runs = {}
    for name, value in paths.items():
        manifest = Path(value) / MANIFEST if isinstance(value, str | Path) else None
        if manifest is not None and manifest.is_file():
            runs[name] = f"{value} sha256:{sha256(manifest)}"
    return runs


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
