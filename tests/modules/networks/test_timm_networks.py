"""Names and arguments of timm networks are refused with what to change."""

import pytest

from datamodules.files.errors import UserError
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.recogniser import Recogniser
from modules.networks.segmenter_engines import segmenter_network
from modules.networks.timm_fpn import TimmFPN
from modules.networks.timm_networks import timm_network
from modules.networks.two_stage import BackboneSegmenter


def test_a_misspelt_name_is_told_its_neighbours() -> None:
    with pytest.raises(UserError, match="no network 'resnet5O'; close names: resnet50"):
        timm_network("resnet5O")
    with pytest.raises(UserError, match="no network 'resnet5O'"):
        BackboneSegmenter("resnet5O", 5)


def test_an_argument_that_the_network_does_not_know() -> None:
    with pytest.raises(UserError, match=r"'resnet18' of timm does not take .*pad_typ"):
        TimmFPN("resnet18", 16, backbone_args={"pad_typ": ""})
    with pytest.raises(UserError, match=r"'resnet18' of timm does not take .*pad_typ"):
        Recogniser("resnet18", 4, {"pad_typ": ""})


def test_an_argument_that_the_pipeline_sets() -> None:
    with pytest.raises(UserError, match="leave num_classes out of the arguments of 'resnet18'"):
        Recogniser("resnet18", 4, {"num_classes": 5})
    with pytest.raises(UserError, match="leave features_only, out_indices out"):
        TimmFPN("resnet18", 16, backbone_args={"out_indices": [1], "features_only": False})


def test_arguments_reach_the_backbone_and_are_none_of_detectron2() -> None:
    backbone = TimmFPN("tf_efficientnet_lite0", 16, backbone_args={"pad_type": ""})
    assert backbone.body.conv_stem.padding == (1, 1)
    assert TimmFPN("tf_efficientnet_lite0", 16).body.conv_stem.padding == (0, 0)
    with pytest.raises(UserError, match="set backbone_args to null"):
        segmenter_network(
            "detectron2", "swin_test", 4, MaskDetectorSettings(), backbone_args={"pad_type": ""}
        )
