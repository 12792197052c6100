"""The controller's clock goes on after a crash, over a reboot, and tells when its host's was set."""

from __future__ import annotations

import pytest

from heliostat.model.host_time import HostTime, begun, jump_text, noted

NOW_S = 1_700_000_000.0
HOUR_S = 3_600.0
KNOWN = HostTime("a boot", NOW_S - 5_000.0)


@pytest.mark.parametrize("wall_s", [NOW_S - HOUR_S, NOW_S, NOW_S + HOUR_S])
def test_on_the_same_boot_the_next_controller_goes_on(wall_s: float) -> None:
    went_on_s = begun(KNOWN, boot_id="a boot", uptime_s=5_060.0, wall_s=wall_s, latest_s=NOW_S)
    assert went_on_s == NOW_S + 60.0


@pytest.mark.parametrize(
    ("known", "boot_id"), [(None, "a boot"), (KNOWN, "another"), (HostTime("", NOW_S - 5_000.0), "")]
)
def test_otherwise_the_host_tells_and_it_is_never_before_what_is_remembered(
    known: HostTime | None, boot_id: str
) -> None:
    for wall_s, begins_s in ((NOW_S + 9.0, NOW_S + 9.0), (NOW_S - HOUR_S, NOW_S)):
        assert begun(known, boot_id=boot_id, uptime_s=7.0, wall_s=wall_s, latest_s=NOW_S) == begins_s


def test_over_a_reboot_it_stays_as_far_from_the_host_as_it_was() -> None:
    known = HostTime("a boot", NOW_S - 5_000.0, HOUR_S)
    began_s = begun(known, boot_id="another", uptime_s=7.0, wall_s=NOW_S + HOUR_S + 300.0, latest_s=NOW_S)
    assert began_s == NOW_S + 300.0


def test_what_hardly_moved_is_nothing_new() -> None:
    assert noted(KNOWN, HostTime("a boot", KNOWN.booted_at_s + 0.9, -0.9)) is KNOWN
    assert noted(KNOWN, None) is KNOWN
    for seen in (
        HostTime("a boot", KNOWN.booted_at_s + 1.0),
        HostTime("a boot", KNOWN.booted_at_s, -1.0),
        HostTime("another", KNOWN.booted_at_s),
    ):
        assert noted(KNOWN, seen) is seen
        assert noted(None, seen) is seen


@pytest.mark.parametrize(
    ("before_s", "after_s", "text"),
    [(0.0, HOUR_S, "forward by 3600 s"), (1_000.0, -500.0, "back by 1500 s"), (HOUR_S, HOUR_S - 5.0, None)],
)
def test_words_for_a_jump(before_s: float, after_s: float, text: str | None) -> None:
    said = jump_text(HostTime("a boot", NOW_S, before_s), HostTime("a boot", NOW_S, after_s))
    assert (said is None) if text is None else text in (said or "")


def test_no_words_where_nothing_was_known_or_after_another_boot() -> None:
    assert jump_text(None, KNOWN) is None
    assert jump_text(KNOWN, None) is None
    # Another boot, perhaps another host: its clock differs, and nobody has set it.
    assert jump_text(KNOWN, HostTime("another", KNOWN.booted_at_s, HOUR_S)) is None
