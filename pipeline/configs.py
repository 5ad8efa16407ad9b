"""Short names of the shipped configurations on the command line."""

from collections.abc import Sequence

from datamodules.files.errors import MissingInputError
from pipeline.runs.stages import Stage

FLAGS = ("-c", "--config")


def resolve_configs(stage: Stage, args: Sequence[str]) -> list[str]:
    """Replaces bare names of configurations by the files of the stage's folder.

    Args:
        stage: the stage that they are for.
        args: arguments of its subcommand, such as `["fit", "-c", "small", "-c=sv1"]`.

    Returns:
        The arguments; names with a slash or that end in `.yaml` are paths and stay as they are.

    Raises:
        MissingInputError: if the stage has no configuration of that name.
    """
    resolved: list[str] = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        if resolved and resolved[-1] in FLAGS:
            resolved.append(_file(stage, arg))
        elif equals and flag in FLAGS:
            resolved.append(f"{flag}={_file(stage, value)}")
        else:
            resolved.append(arg)
    return resolved


def _file(stage: Stage, name: str) -> str:
    if "/" in name or name.endswith(".yaml"):
        return name
    file = stage.configs / f"{name}.yaml"
    if not file.is_file():
        names = sorted({path.stem for path in stage.configs.glob("*.yaml")} - {"defaults"})
        raise MissingInputError(
            f"{stage.name} has no configuration {name}: give one of {', '.join(names)}, "
            "or a path ending in .yaml"
        )
    return str(file)
