"""Folders with blanks and quotes in their names reach the programs as they are, by every target."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline.commands import PROJECT

AWKWARD = """My  "Drive" & it's (1); #2"""
FOLDERS = ["IMAGENET", "PINPP", "PINPP_VAL", "RUNS", "MODEL", "OUT", "SOURCE", "TRUTH", "COCO"]
FOLDERS += ["UNFILTERED", "SPLIT", "TINY", "HUMANS", "A", "B", "DATA", "SUBSETS", "NAME"]
FOLDERS += ["LIST", "DEVKIT", "GROUPING", "RESULTS", "IMAGES", "RUN", "THREAT", "CLASSES"]
# these start no program of ours on folders
SILENT = {"help", "setup", "clean", "lint", "test", "gpu-check"}
ALL = set(re.findall(r"^([a-z0-9-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
TARGETS = sorted(ALL - SILENT)
THIS_PYTHON = [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.ready"]
RECORDER = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A virtual environment whose interpreter writes down its arguments."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    (tmp_path / "venv" / ".ready").touch()
    return tmp_path / "venv"


def test_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^make ([a-z0-9-]+) ", done.stdout, re.MULTILINE)) == ALL - {"help"}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_takes_any_folder(target: str, recorder: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    folders = {name: f"{AWKWARD}/{name.lower()}" for name in FOLDERS}
    folders["NAME"] = "my run"
    folders["UNFILTERED"] = "labels 'all'"
    variables = [f"{name}={value}" for name, value in folders.items()]
    # `make demo` and others set up what they need, which is done here
    command = [
        "make",
        target,
        f"VENV={recorder}",
        "SUBSET=my 'own'",
        "FORMAT=part_imagenet",
        *variables,
    ]
    environment = os.environ | {"RECORD": str(record)}
    subprocess.run(command, cwd=PROJECT, env=environment, check=True, capture_output=True)
    words = [word for line in record.read_text().splitlines() for word in json.loads(line)]
    used = [word for word in words if AWKWARD in word]
    assert used
    for word in used:
        value = word.partition("=")[2] if word.startswith("-") else word
        assert value.startswith(f"{AWKWARD}/"), word
    values = {word.partition("=")[2] or word for word in used}
    recipe = target_recipe(target)
    for name, value in folders.items():
        if f"$(call q,$({name}))" in recipe:
            assert value in values, f"{name} in {values}"


def target_recipe(target: str) -> str:
    """The lines of a target, and of what they call."""
    text = (PROJECT / "Makefile").read_text()
    recipe = re.search(rf"^{target}: .*\n((?:\t.*\n|.*\\\n)+)", text, re.MULTILINE)
    assert recipe is not None
    return recipe[1]


def test_the_command_line_takes_them_as_they_are() -> None:
    command = ["make", "stage3-mpm", *THIS_PYTHON, f"IMAGENET={AWKWARD}", f"PINPP={AWKWARD}"]
    command += [f"RUNS={AWKWARD}", "CONFIG=small", "ARGS=--print_config"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    config = yaml.safe_load(done.stdout[done.stdout.index("seed_everything") :])
    assert config["data"]["init_args"]["imagenet"] == AWKWARD
    assert config["trainer"]["default_root_dir"] == f"{AWKWARD}/stage3_mpm"


def test_check_data_in_a_folder_with_blanks(tmp_path: Path) -> None:
    folder = tmp_path / AWKWARD
    folder.mkdir()
    command = ["make", "check-data", f"IMAGENET={folder}", f"PINPP={folder}/pinpp", *THIS_PYTHON]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode
    assert f"error: {folder}/train is not a folder" in done.stderr
