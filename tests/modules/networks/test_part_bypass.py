import timm
import torch

from modules.networks.part_bypass import PartBypass


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        network = timm.create_model("resnet50", act_layer="gelu")
        channels = [block["num_chs"] for block in network.feature_info[-3:]]
        assert count(PartBypass(channels, 3308)) == 4_521_728
        assert count(network) == 25_557_032


def test_levels_and_prediction_have_the_shapes_of_the_features() -> None:
    torch.manual_seed(0)
    features = [torch.randn(2, c, s, s) for c, s in ((16, 8), (32, 4), (64, 2))]
    bypass = PartBypass((16, 32, 64), num_parts=6)
    levels = bypass(features)
    assert [level.logits().shape for level in levels] == [(2, 7, 8, 8), (2, 7, 4, 4), (2, 7, 2, 2)]
    parts = bypass.predict(features)
    assert parts.shape == (2, 8, 8)
    assert parts.min() >= 0
    assert parts.max() <= 6


def test_top_down_path_carries_coarse_features_to_the_finest_level() -> None:
    torch.manual_seed(0)
    features = [torch.randn(1, c, s, s) for c, s in ((16, 8), (32, 4), (64, 2))]
    changed = [*features[:2], torch.randn(1, 64, 2, 2)]
    for top_down in (True, False):
        bypass = PartBypass((16, 32, 64), num_parts=6, top_down=top_down).eval()
        same = torch.equal(bypass(features)[0].features, bypass(changed)[0].features)
        assert same is not top_down
