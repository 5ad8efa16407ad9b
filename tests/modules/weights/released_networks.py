"""The networks of PartImageNet++'s authors, written down from the paper's appendix and the names
in their checkpoints; they take normalised images."""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def backbone(**model_args: object) -> nn.Module:
    network = timm.create_model("resnet50", **model_args)
    network.reset_classifier(0)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.GELU())
    return network


class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.conv1(x))


def lateral(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def head(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.GELU(), Separable(inputs, outputs))


class ReleasedMPM(nn.Module):
    """Also with fewer levels or without top-down path their files hold all layers."""

    def __init__(self, num_objects: int, seg_classes: int, **model_args: object) -> None:
        super().__init__()
        self.segmenter = backbone(**model_args)
        c = self.segmenter.num_features
        self.cp1, self.cp2, self.cp3 = (lateral(c // n, c // n // 4) for n in (1, 2, 4))
        self.segmenter_head1 = head(c // 4, seg_classes)
        self.up_layer1 = head(c // 4, c // 8)
        self.segmenter_head2 = head(c // 8, seg_classes)
        self.up_layer2 = head(c // 8, c // 16)
        self.segmenter_head3 = head(c // 16, seg_classes)
        self.classifer = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, num_objects)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        s = self.segmenter
        fine = s.layer2(s.layer1(s.maxpool(s.act1(s.bn1(s.conv1(images))))))
        middle = s.layer3(fine)
        coarse = s.layer4(middle)
        top = self.cp1(coarse)
        second = self.cp2(middle)
        second = second + resized(self.up_layer1(top), second)
        third = self.cp3(fine)
        third = third + resized(self.up_layer2(second), third)
        heads = (self.segmenter_head3, third), (self.segmenter_head2, second)
        parts = [layer(x) for layer, x in (*heads, (self.segmenter_head1, top))]
        return self.classifer(coarse), parts


def resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class ReleasedTwoStage(nn.Module):
    def __init__(self, num_objects: int, seg_classes: int, **model_args: object) -> None:
        super().__init__()
        self.segmenter = backbone(**model_args)
        c = self.segmenter.num_features
        self.segmenter_head = nn.Sequential(nn.GELU(), nn.BatchNorm2d(c), Separable(c, seg_classes))
        self.classifer = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(seg_classes, c // 4, 4),
            nn.BatchNorm2d(c // 4),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(c // 4, c),
            nn.BatchNorm1d(c),
            nn.GELU(),
            nn.Linear(c, num_objects),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        parts = self.segmenter_head(self.segmenter.forward_features(images))
        return self.classifer(parts.softmax(1)), [parts]


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """As if trained: statistics and scales of their own, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return network.eval()
