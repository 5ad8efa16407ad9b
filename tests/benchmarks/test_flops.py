import pytest

from benchmarks.adversarial_step import flop_ratio


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_an_adversarial_step_does_no_needless_work() -> None:
    ours, theirs, clean = flop_ratio()
    assert ours <= 0.72 * theirs
    assert ours <= 2.2 * clean
