"""An installed package works from any folder, with configurations and all other files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.commands import PROJECT

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
FOLDERS = ("pipeline", "modules", "datamodules", "configs")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, wheels, target = (tmp_path_factory.mktemp(n) for n in ("source", "wheels", "target"))
    for name in FOLDERS:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, source / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}", str(source)]
    subprocess.run([*PIP, *build], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*PIP, "install", "--no-deps", f"--target={target}", str(wheel)], check=True)
    return target


def python(installed: Path, folder: Path, *args: str) -> str:
    """What Python prints, run in a folder with only the installed package on its path."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def test_all_files_that_are_no_code_are_installed(installed: Path) -> None:
    for name in FOLDERS:
        files = (path.relative_to(PROJECT) for path in (PROJECT / name).rglob("*"))
        wanted = {f for f in files if f.suffix in (".py", ".yaml", ".json", ".j2", ".js")}
        assert not {file for file in wanted if not (installed / file).is_file()}


def test_modules_come_from_the_installed_package(installed: Path, tmp_path: Path) -> None:
    code = "import pipeline, modules, datamodules; print(pipeline.__file__, modules.__file__)"
    assert python(installed, tmp_path, "-c", code).count(str(installed)) == 2


def test_commands_and_configurations_are_found(installed: Path, tmp_path: Path) -> None:
    assert "stage3_mpm" in python(installed, tmp_path, "-m", "pipeline", "--help")
    command = ["-m", "pipeline", "stage1_segmenter", "fit", "-c", "small"]
    paths = [f"--data.init_args.{name}={name}" for name in ("imagenet", "pinpp")]
    printed = python(installed, tmp_path, *command, *paths, "--print_config")
    assert "class_path: " in printed
    assert "PartSegmenter" in printed
