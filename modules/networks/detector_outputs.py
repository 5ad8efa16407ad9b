"""What every detector does with outputs that are not finite."""

from torch import nn

from modules.state_dicts.finite import FiniteOutputs


def refuse_not_finite(proposals: nn.Module, classes: nn.Module) -> None:
    """Makes outputs that are not finite an error in eval mode.

    The engines drop such boxes and scores, and no detections look like an answer.

    Args:
        proposals: head whose outputs become region proposals.
        classes: layer whose outputs become class scores.
    """
    proposals.register_forward_hook(FiniteOutputs("the detector's region proposals"))
    classes.register_forward_hook(FiniteOutputs("the detector's class scores"))
