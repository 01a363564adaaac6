"""MQTT topic filters (MQTT 3.1.1 §4.7): which subscription and which device a topic belongs to."""

from collections.abc import Iterable


def problem_of(topic: str) -> str | None:
    """What is wrong with a topic filter, as a message key, or None."""
    levels = topic.split("/")
    if not topic or len(topic.encode()) > 65_535 or "\0" in topic:
        return "topic-empty-or-long"
    for at, level in enumerate(levels):
        if "#" in level and (level != "#" or at != len(levels) - 1):
            return "topic-hash"
        if "+" in level and level != "+":
            return "topic-plus"
    if topic.startswith("$share/"):
        return "topic-shared"  # another consumer could take half of the messages
    return None


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic belongs to a filter; `$SYS` topics only where the filter names them."""
    if topic.startswith("$") and not pattern.startswith("$"):
        return False
    want, have = pattern.split("/"), topic.split("/")
    for at, level in enumerate(want):
        if level == "#":
            return True
        if at >= len(have) or level not in {"+", have[at]}:
            return False
    return len(want) == len(have)


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic of `narrow` belongs to `wide` as well."""
    if narrow.startswith("$") and not wide.startswith("$"):
        return False
    want, have = wide.split("/"), narrow.split("/")
    for at, level in enumerate(want):
        if level == "#":
            return True
        if at >= len(have) or have[at] == "#" or level not in {"+", have[at]}:
            return False
    return len(want) == len(have)


def overlap(one: str, other: str) -> bool:
    """Whether some topic belongs to both filters."""
    a, b = one.split("/"), other.split("/")
    for left, right in zip(a, b, strict=False):
        if "#" in {left, right}:
            return True
        if "+" not in {left, right} and left != right:
            return False
    longer = a if len(a) > len(b) else b
    return len(a) == len(b) or longer[min(len(a), len(b))] == "#"


def subscriptions(filters: Iterable[str]) -> list[str]:
    """The fewest filters that hear everything: brokers may deliver once per filter that matches."""
    wanted = sorted(set(filters))
    return [
        one for one in wanted if not any(other != one and covers(other, one) for other in wanted)
    ]
