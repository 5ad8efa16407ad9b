"""Classification of features by the nearest mean of a class."""

import torch
from torch import Tensor


def nearest_mean(support: Tensor, queries: Tensor) -> Tensor:
    """The class whose mean is nearest in Euclidean distance.

    On features as they are this is the classifier of prototypical networks (Snell et al. 2017,
    arXiv 1703.05175); on features of length 1 it is SimpleShot's L2N (Wang et al. 2019,
    arXiv 1911.04623), whose means are not normalised again.

    Args:
        support: features of the labelled images, `(way, shots, C)`.
        queries: features to classify, `(N, C)`.

    Returns:
        Numbers of the classes, int64 `(N,)`; of equally near ones the first.
    """
    means = support.mean(1)
    # differences instead of products, which would lose digits where features are large
    distances = torch.stack([(queries - mean).square().sum(1) for mean in means])
    return distances.argmin(0)
