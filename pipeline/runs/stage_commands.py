"""How a stage is started: the arguments of `python -m pipeline` that fill a run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.runs.stages import Stage


def stage_command(
    stage: Stage,
    run: Path,
    folders: Mapping[str, Path],
    *more: str,
    configs: Sequence[str | Path] = ("small",),
    earlier: Path | None = None,
) -> list[str]:
    """Arguments of `python -m pipeline` that fill a run folder.

    Args:
        stage: a row of the table of stages.
        run: run folder to fill.
        folders: the user's folders, by setting of the data module.
        more: further arguments, which override those before them.
        configs: names of the stage's configurations, or files; later ones overlay.
        earlier: run folder of the earlier stage that this one reads.
    """
    files = [stage.configs / f"{name}.yaml" if isinstance(name, str) else name for name in configs]
    settings = {f"data.init_args.{name}": folder for name, folder in folders.items()}
    if earlier is not None:
        assert stage.earlier is not None, f"{stage.name} reads no earlier run"
        settings[stage.earlier.setting] = earlier
    settings["trainer.default_root_dir"] = run
    return [
        stage.name,
        stage.subcommand,
        *(f"-c={file}" for file in files),
        *(f"--{name}={value}" for name, value in settings.items()),
        *more,
    ]
