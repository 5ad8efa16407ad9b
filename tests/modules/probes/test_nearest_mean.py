import numpy as np
import pytest
import torch

from modules.probes.nearest_mean import nearest_mean


@pytest.mark.parametrize(("shots", "shift"), [(1, 0.0), (4, 0.0), (4, 1e6)])
def test_it_is_the_brute_force_answer(shots: int, shift: float) -> None:
    rng = np.random.default_rng(shots)
    support = rng.normal(size=(3, shots, 7)) + shift
    queries = rng.normal(size=(20, 7)) + shift
    expected = []
    for query in queries:
        distances = []
        for images in support:
            mean = [sum(values) / shots for values in zip(*images.tolist(), strict=True)]
            distances.append(sum((a - b) ** 2 for a, b in zip(query, mean, strict=True)))
        expected.append(int(np.argmin(distances)))
    found = nearest_mean(torch.from_numpy(support), torch.from_numpy(queries))
    assert found.tolist() == expected
    assert len(set(expected)) == 3


def test_of_equally_near_classes_it_is_the_first() -> None:
    support = torch.tensor([[[9.0]], [[1.0]], [[-1.0]]])
    assert nearest_mean(support, torch.tensor([[0.0]])).tolist() == [1]
