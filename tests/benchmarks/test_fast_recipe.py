"""The fast recipes cost at most half."""

import pytest

from benchmarks.fast_recipe import PAIRS, run_flops


@pytest.mark.parametrize("name", ["resnet50_gelu_at_fast", "lite0_fast", "study, photographs"])
def test_half_the_flops(name: str) -> None:
    extent, full, fast = PAIRS[name]
    assert run_flops(fast, extent)[0] <= 0.5 * run_flops(full, extent)[0]
