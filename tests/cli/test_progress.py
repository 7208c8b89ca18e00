import time

import pytest

from cli import console


@pytest.fixture
def lines(capsys):
    """Report steps through a pipe; return the lines that were shown."""

    def run(total, steps):
        with console.progress("convert", total, "pictures") as advance:
            for step in steps:
                advance(step)
        return [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]

    return run


def test_one_line_at_the_end_whether_or_not_the_total_is_known(lines):
    assert lines(5, [1] * 5) == ["convert: 5/5 pictures"]
    assert lines(5, [1] * 3) == ["convert: 3/5 pictures"]
    assert lines(5, [4, 4, 4]) == ["convert: 8/5 pictures", "convert: 12/5 pictures"]
    assert lines(0, [1] * 5) == ["convert: 5 pictures"]
    assert lines(0, []) == []


def test_a_line_now_and_then_until_the_end(lines, monkeypatch):
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    shown = lines(0, [1] * 30)
    assert 3 <= len(shown) < 30
    assert shown[-1] == "convert: 30 pictures"


def test_an_error_is_not_followed_by_progress(capsys):
    def broken():
        with console.progress("convert", 0, "pictures") as advance:
            advance(1)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert capsys.readouterr().err == ""


def test_speed_is_that_of_this_run_not_of_what_it_found_done(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with console.progress("train", 1000, "steps") as advance:
        advance(900)
        for _ in range(2):
            now[0] += 10
            advance(20)
    assert capsys.readouterr().err.splitlines() == [
        "train: 920/1,000 steps, 2/s, 40 s left",
        "train: 940/1,000 steps, 2/s, 30 s left",
    ]
