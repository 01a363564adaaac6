"""The load and the straight-line program work, on a few records."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice

from protocol.packs import check_columns
from protocol.records import to_columns
from tests.bench.load import KINDS, Load, hand_overs, packs
from tests.shared import ROOT


def test_the_load_fits_its_packs_and_is_the_same_for_a_seed():
    for kind in KINDS:
        records, pack = Load(kind, 7).take(500), packs()[kind]
        cols = to_columns(records, [field.name for field in pack.fields], 0)
        assert not check_columns(pack, cols)
        assert records == Load(kind, 7).take(500)
        assert records != Load(kind, 8).take(500)


def test_hand_overs_are_thirds_and_come_again_above_what_is_distinct():
    counts = Counter()
    for kind, records in hand_overs(3_050, 100, distinct=600):
        counts[kind] += len(records)
    assert sum(counts.values()) == 3_050
    assert max(counts.values()) - min(counts.values()) <= 100
    first, again = list(islice(hand_overs(1_200, 100, distinct=600), 12))[::6]
    assert first == again


def test_the_reference_seals_sends_and_is_answered(tmp_path):
    words = [sys.executable, "-m", "tests.bench.reference", str(tmp_path / "it"), "3000"]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=60)
    told = json.loads(done.stdout)
    assert told["records"] == 3_000
    assert told["segments"] >= 3
    assert told["batches"] >= 1
    assert told["syncs"] >= told["groups"] + told["segments"] + 4 * told["batches"]
    assert told["records_per_s"] > 0
    assert told["of_its_parts"] > 0
