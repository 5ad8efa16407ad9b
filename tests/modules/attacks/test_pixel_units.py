import pytest
from jsonargparse import ArgumentParser

from modules.attacks.pixel_units import PixelDistance
from modules.attacks.threats import APGD
from modules.attacks.torch_attack import TorchAttack


@pytest.mark.parametrize(
    ("text", "value"), [("4/255", 4 / 255), ("0.5", 0.5), (75.0, 75.0), ("1e-3", 1e-3), (0, 0)]
)
def test_text_and_numbers(text: str | float, value: float) -> None:
    assert PixelDistance(text) == value
    assert isinstance(PixelDistance(text), float)


@pytest.mark.parametrize("text", ["4/0", "four", "", "-1/255", "nan", "inf", "4/255/2", -0.1])
def test_nonsense_is_named(text: str | float) -> None:
    with pytest.raises(ValueError, match="is no distance: write a number or a fraction"):
        PixelDistance(text)


def test_command_line_takes_a_fraction_and_run_folders_keep_a_number() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--eps", type=PixelDistance)
    given = parser.parse_args(["--eps=8/255"])
    assert given.eps == 8 / 255
    assert parser.dump(given).strip() == f"eps: {8 / 255}"
    with pytest.raises(Exception, match="4/0"):
        parser.parse_args(["--eps=4/0"])


def test_attacks_parse_text() -> None:
    assert APGD("4/255").eps == APGD(4 / 255).eps
    attack = TorchAttack("torchattacks.VMIFGSM", "linf", "4/255", {"alpha": "1/255"})
    assert attack.settings["init_args"]["alpha"] == 1 / 255
    assert attack.settings["eps"] == 4 / 255
