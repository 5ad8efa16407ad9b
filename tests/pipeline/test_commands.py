"""The table of commands: each is listed, can be imported and explains its flags."""

import subprocess
import sys
from inspect import signature

import pytest

from pipeline.__main__ import main
from pipeline.commands import COMMANDS, GROUPS
from pipeline.runs.stages import STAGES
from tests.pipeline.commands import PROJECT


def test_help_lists_all_commands_and_imports_none() -> None:
    code = (
        "import sys; from pipeline.__main__ import main; main(['--help']); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for name, command in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert command.help in done.stdout
    for group in GROUPS:
        assert f"\n{group}:\n" in done.stdout


def test_all_stages_are_commands() -> None:
    assert set(next(iter(GROUPS.values()))) == set(STAGES)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: " in printed
    assert "python -m pipeline" in printed
    if not COMMANDS[name].takes_args:
        function = COMMANDS[name].load()
        assert all(
            f"    {flag}: " in (function.__doc__ or "") for flag in signature(function).parameters
        )


def test_no_command_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: python -m pipeline COMMAND" in capsys.readouterr().err
