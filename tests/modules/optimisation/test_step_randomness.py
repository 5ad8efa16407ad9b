import torch

from modules.optimisation.step_randomness import step_randomness

CPU = torch.device("cpu")


def draw(*place: int) -> list[int]:
    with step_randomness(*place, CPU):
        return torch.randperm(1000).tolist()


def test_the_place_decides_and_nothing_else_changes() -> None:
    torch.manual_seed(3)
    first = {place: draw(*place) for place in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]}
    assert len({tuple(numbers) for numbers in first.values()}) == 4
    after = torch.rand(5)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(5), after)  # drawn on as if nothing had been
    assert {place: draw(*place) for place in first} == first
    torch.manual_seed(4)
    assert draw(0, 0, 0) != first[0, 0, 0]
