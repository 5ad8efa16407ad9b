"""Exit status and what is printed: done, the user's errors, wrong usage, defects."""

from io import StringIO
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from datamodules.files.errors import MissingInputError, UserError
from pipeline.__main__ import main, user_message
from pipeline.commands import COMMANDS, Command


class BrokenData(Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise MissingInputError("dog/1.jpg does not exist: restore it")


def example(kind: str, number: int = 0) -> Path | None:
    """A command for these tests.

    Args:
        kind: how it ends.
        number: any.
    """
    if kind == "user":
        raise UserError("labels.json is damaged: run stage 2 again")
    if kind == "worker":
        list(DataLoader(BrokenData(), num_workers=1))
    if kind == "defect":
        raise ValueError("a defect")
    if kind == "stopped":
        raise KeyboardInterrupt
    return Path("out/page.html") if kind == "page" else None


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> None:
    command = Command("tests.pipeline.test_main:example", "an example", stopped="goes on")
    monkeypatch.setitem(COMMANDS, "example", command)


def test_done_is_status_0_and_a_returned_path_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["example", "--kind=quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["example", "--kind=page"]) == 0
    assert capsys.readouterr() == ("out/page.html\n", "")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("user", "error: labels.json is damaged: run stage 2 again"),
        ("worker", "error: dog/1.jpg does not exist: restore it"),
        ("stopped", "goes on"),
    ],
)
def test_errors_of_the_user_are_one_line_and_status_1(
    kind: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["example", f"--kind={kind}"]) == 1
    assert capsys.readouterr() == ("", line + "\n")


def test_an_error_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the lines of processes that share an unbuffered stderr do not mix."""
    writes: list[str] = []

    class Unbuffered(StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    monkeypatch.setattr("sys.stderr", Unbuffered())
    assert main(["example", "--kind=user"]) == 1
    assert writes == ["error: labels.json is damaged: run stage 2 again\n"]


@pytest.mark.parametrize("before", [[], ["estimate", "--devices=8"]])
def test_an_unknown_configuration_is_a_user_error(
    before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*before, "stage3_mpm", "fit", "-c", "smal"]) == 1
    line = "error: stage3_mpm has no configuration smal: give one of "
    assert capsys.readouterr().err.startswith(line)


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="a defect"):
        main(["example", "--kind=defect"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["example", "--kind=quiet", "--nunber=1"], "nunber"),
        (["example", "--kind=quiet", "--number=one"], "number"),
        (["example"], "kind"),
        (["repart"], "did you mean report"),
        (["stage3_mpm", "fit", "-c", "small", "--trainer.max_epok=1"], "max_epok"),
        (["estimate", "--devises=8", "stage3_mpm", "fit"], "devises"),
    ],
)
def test_wrong_usage_is_status_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_user_error_that_a_library_wrapped_is_found() -> None:
    try:
        try:
            raise UserError("the remedy")
        except UserError as error:
            raise RuntimeError("of a library") from error
    except RuntimeError as error:
        wrapped = error
    assert user_message(wrapped) == "the remedy"


def test_a_defect_in_the_handling_of_a_user_error_is_a_defect() -> None:
    defect = RuntimeError("a defect")
    defect.__context__ = UserError("the remedy")
    assert user_message(defect) is None
