"""edge-storage.md §6: every row of the table has tests, and they exist."""

import ast
from functools import cache

import pytest

from tests.shared import ROOT

#: Row → tests as `file::name`; `torture:part` for what runs in `make torture` at length.
ROWS: dict[str, tuple[str, ...]] = {
    "kill around commit, seal, POST, receipt": (
        "torture:kills",
        "faults/test_short.py::test_killed_at_named_points",
        "faults/test_points.py::test_every_point_is_planned_for_often_enough",
    ),
    "kill hub after pack, after transaction, in answer": (
        "torture:kills",
        "faults/test_short.py::test_killed_at_named_points",
        "hub/test_durability.py::test_hub_killed_between_body_and_metadata",
        "hub/test_durability.py::test_object_orphaned",
    ),
    "two processes, same seq": (
        "hub/test_durability.py::test_two_processes_same_number",
        "hub/test_durability.py::test_heads_move_by_compare_and_set_only",
    ),
    "power cut, also inside a checkpoint": (
        "torture:powercut",
        "faults/test_short.py::test_power_cut",
        "faults/test_harness.py::test_power_cuts_spare_a_synced_database_and_catch_an_unsynced_one",
    ),
    "mutants without a sync must fail": (
        "torture:mutants",
        "faults/test_short.py::test_a_missing_sync_is_caught_by_the_books",
        "faults/test_short.py::test_every_mutant_fits_the_code",
    ),
    "SQLITE_FULL in INSERT, COMMIT, checkpoint": (
        "agent/test_damage.py::test_disk_full_agent",
        "agent/test_database.py::test_full_file_raises_and_leaves_by_itself",
        "agent/test_damage.py::test_file_system_filled_by_somebody_else",
        "faults/test_short.py::test_failing_disk",
        "hub/test_durability.py::test_disk_full_hub",
    ),
    "EIO on fsync": (
        "faults/test_short.py::test_failing_disk",
        "agent/test_database.py::test_failed_commit_is_decided_by_the_commit_number",
        "hub/test_durability.py::test_a_failed_fsync_is_no_acceptance",
    ),
    "body page flipped": (
        "agent/test_damage.py::test_spool_corrupted_page",
        "agent/test_damage.py::test_damaged_journal_body_is_declared_with_its_bounds",
    ),
    "page 1, 2 or roots zeroed": (
        "torture:kills",
        "agent/test_damage.py::test_page_one_gone",
        "agent/test_damage.py::test_any_page_zeroed_or_filled",
        "agent/test_damage.py::test_spool_truncated",
    ),
    "WAL flipped or truncated at each 512 B": (
        "agent/test_damage.py::test_wal_bit_flipped",
        "agent/test_damage.py::test_any_bit_of_a_log",
        "agent/test_damage.py::test_any_truncation_of_a_log",
        "faults/test_torn_log.py::test_missing_sectors_of_the_last_transaction_are_a_torn_end",
    ),
    "clock 1970, back, far future, before first sync": (
        "agent/test_shell.py::test_clock_1970_is_no_time_until_the_hub_tells",
        "agent/test_shell.py::test_clock_jump_back_moves_the_offset_with_it",
        "faults/test_short.py::test_clock_unknown_before_the_first_sync",
    ),
    "image restore": ("torture:kills", "faults/test_short.py::test_killed_at_named_points"),
    "two live clones": (
        "faults/test_clones.py::test_two_live_clones_wait_for_the_admin_and_nothing_of_either_is_lost",
        "hub/test_ingest.py::test_two_clones_taking_turns_are_suspended",
        "hub/test_ingest.py::test_the_clone_that_stays_is_judged_from_its_resumption_on",
        "agent/test_uplink.py::test_a_resumed_agent_sends_again_and_asks_small_until_then",
        "agent/test_inbox_watch.py::test_polls_that_end_each_other_do_not_become_a_storm",
    ),
    "hub restored with and without packs": (
        "torture:kills",
        "agent/test_hub_restored.py::test_restored_hub_gets_everything_that_is_still_held",
        "hub/test_restore.py::test_restored_without_packs_goes_on_header_only",
    ),
    "pack missing": ("hub/test_durability.py::test_object_missing",),
    "half-open link, black hole, 429/503, wrong certificate": (
        "agent/test_uplink.py::test_a_black_hole_times_out_and_is_asked_again_with_less",
        "agent/test_uplink.py::test_busy_is_never_permanent",
        "agent/test_uplink.py::test_a_wrong_certificate_is_never_accepted",
        "agent/test_unaffected.py::test_reading_is_unaffected_by_a_hub_that_is",
    ),
    "hub absent seven days from start": (
        "faults/test_seven_days.py::test_a_week_without_a_hub_is_kept_in_bounds_and_then_delivered_once",
        "faults/test_short.py::test_hub_away_then_everything_arrives",
    ),
    "long reader": (
        "agent/test_database.py::test_the_log_stays_small_under_writes_and_looks",
        "faults/test_short.py::test_log_stays_small_while_status_is_asked",
    ),
    "upgrade and downgrade mid-spool": (
        "agent/test_versions.py::test_the_file_of_a_released_version_is_delivered",
        "agent/test_versions.py::test_the_file_of_the_next_release_is_worked_on_and_keeps_what_is_its_own",
        "agent/test_versions.py::test_a_newer_file_is_refused_with_both_versions_named_and_nothing_changed",
    ),
    "SIGTERM under load": (
        "torture:kills",
        "faults/test_short.py::test_sigterm_under_load",
        "integration/test_agent_hub.py::test_sigterm_under_load_commits_acknowledges_and_leaves_in_time",
    ),
}


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("row", ROWS)
def test_every_row_names_tests_that_exist(row: str) -> None:
    assert any(not name.startswith("torture:") for name in ROWS[row]), "runs in `make test` too"
    for name in ROWS[row]:
        file, _, test = name.partition("::")
        if file.startswith("torture:"):
            parts = names_in("torture/parts.py")
            assert file.partition(":")[2] in parts
        else:
            assert test in names_in(file), name
