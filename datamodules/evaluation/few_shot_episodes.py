"""Episodes of few-shot classification, drawn from a seed and the images alone."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datamodules.files.errors import UserError


class Episode(NamedTuple):
    """A small classification task.

    Attributes:
        classes: names, in the order that numbers them within the episode.
        queries: keys of the images to classify, of each class.
        support: keys of the labelled images, of each class; k shots are the first k.
    """

    classes: tuple[str, ...]
    queries: tuple[tuple[str, ...], ...]
    support: tuple[tuple[str, ...], ...]

    @property
    def keys(self) -> set[str]:
        """All its images."""
        return {key for keys in (*self.queries, *self.support) for key in keys}


@dataclass(frozen=True)
class EpisodeRules:
    """What an episode consists of.

    Attributes:
        way: classes of an episode.
        shots: numbers of labelled images of each class that are tried.
        queries: images of each class to classify.
        episodes: how many.
        seed: seed of classes and images.

    Raises:
        UserError: if a number is out of its range.
    """

    way: int = 5
    shots: tuple[int, ...] = (1, 5)
    queries: int = 15
    episodes: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        if self.way < 2:
            raise UserError(f"way is {self.way}: an episode needs 2 classes or more")
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) < len(self.shots):
            raise UserError(f"shots are {list(self.shots)}: give different numbers from 1 on")
        if self.queries < 1:
            raise UserError(f"queries is {self.queries}: classify 1 image of each class or more")
        if self.episodes < 2:
            raise UserError(f"episodes is {self.episodes}: an interval needs 2 or more")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}: it must be 0 or more")

    @property
    def images_per_class(self) -> int:
        """How many images of each class an episode needs."""
        return self.queries + max(self.shots)

    def require(self, images: Mapping[str, Sequence[str]]) -> None:
        """Refuses images that the episodes cannot be drawn from.

        Args:
            images: keys by class.

        Raises:
            UserError: if there are too few classes, or a class has too few images.
        """
        if len(images) < self.way:
            raise UserError(
                f"{len(images)} classes have images, {self.way}-way episodes need {self.way}: give "
                "more classes, or a smaller --way"
            )
        need = self.images_per_class
        few = {name: len(keys) for name, keys in sorted(images.items()) if len(keys) < need}
        if few:
            shown = ", ".join(f"{name} ({number})" for name, number in [*few.items()][:5])
            others = f" and {len(few) - 5} more" if len(few) > 5 else ""
            raise UserError(
                f"too few images in {shown}{others}: {max(self.shots)} shots and {self.queries} "
                f"queries need {need} of each class: give smaller --shots or --queries, or name "
                "the classes that have enough in CLASSES= (--classes)"
            )


def draw_episodes(images: Mapping[str, Sequence[str]], rules: EpisodeRules) -> list[Episode]:
    """Draws all episodes; each depends on its number, the seed and the images alone.

    The first n are the same for any number of episodes. All numbers of shots share classes and
    queries, and fewer shots are the first of more, so that they differ in nothing else.

    Args:
        images: keys by class; their order has no influence.
        rules: what an episode consists of.

    Raises:
        UserError: if there are too few classes, or a class has too few images.
    """
    rules.require(images)
    names = sorted(images)
    keys = {name: sorted(images[name]) for name in names}
    episodes = []
    for number in range(rules.episodes):
        rng = np.random.default_rng([rules.seed, number])
        classes = tuple(names[place] for place in rng.permutation(len(names))[: rules.way])
        drawn = [[keys[name][i] for i in rng.permutation(len(keys[name]))] for name in classes]
        end = rules.images_per_class
        queries = tuple(tuple(one[: rules.queries]) for one in drawn)
        support = tuple(tuple(one[rules.queries : end]) for one in drawn)
        episodes.append(Episode(classes, queries, support))
    return episodes


def episodes_hash(episodes: Sequence[Episode]) -> str:
    """SHA-256 of all classes and images; equal hashes mean the same episodes."""
    return hashlib.sha256(json.dumps(episodes).encode()).hexdigest()
