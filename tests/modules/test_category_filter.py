import pytest
import torch

from modules.category_filter import filter_categories


def test_matches_naive_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 5, 7, generator=generator).softmax(-1)
    allowed = torch.rand(3, 1, 7, generator=generator) > 0.5
    filtered = filter_categories(probabilities, allowed)
    for b in range(3):
        for n in range(5):
            for k in range(7):
                keep = k == 0 or bool(allowed[b, 0, k])
                expected = probabilities[b, n, k].item() if keep else 0.0
                assert filtered[b, n, k].item() == expected


def test_input_stays_as_it_was() -> None:
    probabilities = torch.full((2, 3), 1 / 3)
    filter_categories(probabilities, torch.tensor([True, False, True]))
    assert (probabilities == 1 / 3).all()


def test_wrong_number_of_classes() -> None:
    with pytest.raises(ValueError, match="4 class probabilities do not fit a filter of 3"):
        filter_categories(torch.rand(2, 4), torch.ones(3, dtype=torch.bool))
