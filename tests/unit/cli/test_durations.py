from __future__ import annotations

import pytest

from heliostat.cli.durations import humanise, parse_duration, since


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("30m", 1_800.0),
        ("30min", 1_800.0),
        ("1h", 3_600.0),
        ("1h30m", 5_400.0),
        ("1h 30m", 5_400.0),
        ("2d", 172_800.0),
        ("1.5h", 5_400.0),
        ("250ms", 0.25),
        ("45", 45.0),
        ("0", 0.0),
        (" 10M ", 600.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a duration is expected"),
        ("soon", "is no duration"),
        ("-5m", "is no duration"),
        ("5 weeks", "the unit 'weeks'"),
        ("1h30", "is no duration"),
        ("9999d", "over a year"),
        ("9" * 400, "over a year"),
    ],
)
def test_what_is_no_duration_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (11_400, "3 h 10 min"),
        (48 * 3_600, "2 d"),
        (187_200, "2 d 4 h"),
    ],
)
def test_seconds_are_written_for_people(seconds: float, text: str) -> None:
    assert humanise(seconds) == text


def test_a_clock_that_lags_shows_zero() -> None:
    assert since(100.0, now_s=90.0) == "0 s"
    assert since(100.0, now_s=145.0) == "45 s"
