"""The paper that the figures are copied from, and what to say of their scale."""

PAPER = "Li et al., PartImageNet++, ECCV 2024"
SCALE_NOTE = "published, ImageNet-1K at 224 px, another scale"
AP_SCALE_NOTE = "published, PartImageNet++ with Swin-B, another scale"
IMAGE_SIZE, NUM_IMAGES = 224, 10_000
"""Side in pixels and number of the validation images that the paper attacked."""
