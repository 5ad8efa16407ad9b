"""Every class that a configuration may name: imported, its bare name is enough.

So a file can move without a change to a configuration or to the settings of a run folder.
"""

from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint

from datamodules.coco_detection import CocoDetectionDataModule
from datamodules.evaluation.background_swaps import BackgroundSwaps
from datamodules.evaluation.bias_sets import CueConflict
from datamodules.evaluation.class_subsets import ClassSubsets
from datamodules.evaluation.corruption_sets import Corruptions, Corruptions3D
from datamodules.evaluation.human_stimuli import DistortedImages
from datamodules.evaluation.objectnet import ObjectNet
from datamodules.evaluation.ood_sets import ClassFolders
from datamodules.generalisation import GeneralisationDataModule
from datamodules.imagenet_shards import ImageNetShardsDataModule
from datamodules.part_detection import PartDetectionDataModule
from datamodules.part_supervised import PartSupervisedDataModule
from datamodules.robustness import RobustnessDataModule
from modules.attacks.adaptive import PartPGD
from modules.attacks.detection_attacks import DetectionPGD
from modules.attacks.smoothing import RandomisedSmoothing
from modules.attacks.threats import APGD, PGD, AutoAttack, Clean, Square
from modules.attacks.torch_attack import TorchAttack
from modules.downstream_detector import DownstreamDetector
from modules.generalisation_evaluator import GeneralisationEvaluator
from modules.mpm import MPM
from modules.part_segmenter import PartSegmenter
from modules.pseudo_label_writer import PseudoLabelWriter
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.detection_summary import DetectionSummary
from pipeline.evaluation.generalisation_records import GeneralisationRecords
from pipeline.evaluation.robustness_records import RobustnessRecords
from pipeline.export.export_callback import ExportRecogniser
from pipeline.labelling.shard_callback import PseudoLabelShards
from pipeline.validation.part_overlays import PartOverlays
from pipeline.validation.segmenter_metrics import SegmenterMetrics

__all__ = [
    "APGD", "MPM", "PGD", "AutoAttack", "BackgroundSwaps", "ClassFolders", "ClassSubsets", "Clean",
    "CocoDetectionDataModule", "Corruptions", "Corruptions3D", "CueConflict", "DetectionPGD",
    "DetectionSummary", "DistortedImages", "DownstreamDetector", "ExportRecogniser",
    "GeneralisationDataModule", "GeneralisationEvaluator", "GeneralisationRecords",
    "ImageNetShardsDataModule", "LearningRateMonitor", "ModelCheckpoint", "ObjectNet",
    "PartDetectionDataModule", "PartOverlays", "PartPGD", "PartSegmenter",
    "PartSupervisedDataModule", "PseudoLabelShards", "PseudoLabelWriter", "RandomisedSmoothing",
    "RobustnessDataModule", "RobustnessEvaluator", "RobustnessRecords", "SegmenterMetrics",
    "Square", "TorchAttack",
]  # fmt: skip
