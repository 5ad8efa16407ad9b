from collections import Counter

import pytest

from datamodules.evaluation.few_shot_episodes import EpisodeRules, draw_episodes, episodes_hash
from datamodules.files.errors import UserError

IMAGES = {name: [f"{name}/{number}.jpg" for number in range(9)] for name in "abcdefg"}
RULES = EpisodeRules(way=3, shots=(1, 4), queries=5, episodes=40, seed=3)


def test_an_episode_is_what_the_rules_say() -> None:
    for episode in draw_episodes(IMAGES, RULES):
        assert len(set(episode.classes)) == 3
        for name, queries, support in zip(*episode, strict=True):
            assert (len(queries), len(support)) == (5, 4)
            assert not set(queries) & set(support)
            assert len({*queries, *support}) == 9
            assert {key.split("/")[0] for key in (*queries, *support)} == {name}
        assert len(episode.keys) == 27


def test_classes_and_images_are_drawn_evenly() -> None:
    episodes = draw_episodes(IMAGES, EpisodeRules(3, (1,), 5, 2100, 0))
    classes = Counter(name for episode in episodes for name in episode.classes)
    first = Counter(episode.classes[0] for episode in episodes)
    support = Counter(keys[0] for episode in episodes for keys in episode.support)
    # of 2100 episodes each class is in 900, first in 300; each image supports in 100
    assert all(abs(number - 900) < 110 for number in classes.values())
    assert all(abs(number - 300) < 80 for number in first.values())
    assert len(support) == 63
    assert all(abs(number - 100) < 50 for number in support.values())


def test_they_follow_from_seed_and_images_alone() -> None:
    episodes = draw_episodes(IMAGES, RULES)
    turned = {name: keys[::-1] for name, keys in reversed(IMAGES.items())}
    assert draw_episodes(turned, RULES) == episodes
    assert len(set(map(str, episodes))) == 40
    other = draw_episodes(IMAGES, EpisodeRules(3, (1, 4), 5, 40, 4))
    assert episodes_hash(other) != episodes_hash(episodes)


def test_more_episodes_and_shots_begin_with_the_same() -> None:
    episodes = draw_episodes(IMAGES, RULES)
    assert draw_episodes(IMAGES, EpisodeRules(3, (1, 4), 5, 60, 3))[:40] == episodes
    fewer = draw_episodes(IMAGES, EpisodeRules(3, (1,), 5, 40, 3))
    for one, many in zip(fewer, episodes, strict=True):
        assert (one.classes, one.queries) == (many.classes, many.queries)
        assert one.support == tuple(keys[:1] for keys in many.support)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"way": 1}, "way is 1"),
        ({"shots": ()}, r"shots are \[\]"),
        ({"shots": (5, 5)}, r"shots are \[5, 5\]: give different numbers"),
        ({"shots": (0,)}, r"shots are \[0\]"),
        ({"queries": 0}, "queries is 0"),
        ({"episodes": 1}, "episodes is 1: an interval needs 2"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_rules_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EpisodeRules(**settings)


def test_too_few_classes_or_images_are_one_message() -> None:
    with pytest.raises(UserError, match="7 classes have images, 8-way episodes need 8"):
        draw_episodes(IMAGES, EpisodeRules(way=8, shots=(1,), queries=1))
    few = IMAGES | {"b": IMAGES["b"][:3], "c": []}
    expected = r"too few images in b \(3\), c \(0\): 4 shots and 5 queries need 9 of each class"
    with pytest.raises(UserError, match=expected):
        draw_episodes(few, RULES)
