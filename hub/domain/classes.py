"""The twelve dimensions of §6.5 in words (数据分类, T/ADEDS 02-2023 §6.5), for search and pages."""

from collections.abc import Iterator
from typing import Final

from protocol.registration import Classification

#: Dimension → (Chinese, English) of its name.
DIMENSIONS: Final = {
    "structure": ("结构", "structure"),
    "relation": ("关系", "relation"),
    "age": ("时效", "timeliness"),
    "change": ("变化", "change"),
    "space": ("空间", "space"),
    "origin": ("来源", "origin"),
    "domain": ("公私", "domain"),
    "use": ("用途", "use"),
    "authorised": ("授权", "authorisation"),
    "shareable": ("共享", "sharing"),
    "publicable": ("公开", "publication"),
    "openable": ("开放", "opening"),
}

#: (Dimension, value) → (Chinese, English). `n/a` is the same in all of them.
VALUES: Final = {
    ("structure", "structured"): ("结构化", "structured"),
    ("structure", "unstructured"): ("非结构化", "unstructured"),
    ("relation", "relational"): ("关系型", "relational"),
    ("relation", "non-relational"): ("非关系型", "non-relational"),
    ("age", "historical"): ("历史", "historical"),
    ("age", "realtime"): ("实时", "real-time"),
    ("change", "static"): ("静态", "static"),
    ("change", "dynamic"): ("动态", "dynamic"),
    ("space", "spatial"): ("空间", "spatial"),
    ("space", "non-spatial"): ("非空间", "non-spatial"),
    ("origin", "local"): ("本地", "local"),
    ("origin", "internet"): ("互联网", "internet"),
    ("origin", "third-party"): ("第三方", "third-party"),
    ("domain", "public"): ("公共", "public"),
    ("domain", "private"): ("私有", "private"),
    ("use", "transaction"): ("交易型", "transaction"),
    ("use", "service"): ("服务型", "service"),
    ("use", "application"): ("应用型", "application"),
    ("shareable", "yes"): ("可共享", "shareable"),
    ("shareable", "no"): ("不可共享", "not shareable"),
    ("publicable", "yes"): ("可公开", "publicable"),
    ("publicable", "no"): ("不可公开", "not publicable"),
    ("openable", "yes"): ("可开放", "openable"),
    ("openable", "no"): ("不可开放", "not openable"),
}

#: Values that deny something. Their words hold the words of the opposite (非结构化, 不可共享), so
#: who searches for 结构化 would be shown what is not: they are shown, and not searched.
_DENIALS: Final = frozenset({"unstructured", "non-relational", "non-spatial", "no"})


def searched_words(classification: Classification) -> Iterator[str]:
    """Yield what an entry's classification says in its favour, in both languages."""
    for name in DIMENSIONS:
        value = getattr(classification, name)
        if value not in _DENIALS and (name, value) in VALUES:
            yield from VALUES[name, value]
