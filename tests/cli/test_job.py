import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from eqflow.cli import _job, _progress


def progress(done=1, total=4, cells=100, redrawn=0):
    return SimpleNamespace(
        samples_done=done, samples_total=total, cell_updates=cells, bytes_written=done * 1000, redrawn=redrawn
    )


def silent():
    return _progress.Silent(_progress.Meter(100))


def test_a_job_returns_its_result_and_its_failure():
    before = signal.getsignal(signal.SIGINT)
    assert _job.run(lambda observe: 7, silent(), lambda: None) == 7
    with pytest.raises(ValueError, match="boom"):
        _job.run(lambda observe: int("boom"), silent(), lambda: None)
    assert signal.getsignal(signal.SIGINT) is before


SIGNALLED = """
import os, signal, sys, threading, time
from eqflow.cli import _job, _progress
def send():
    print(time.time(), flush=True)
    os.kill(os.getpid(), int(sys.argv[1]))
threading.Timer(0.3, send).start()
def work(observe):
    try:
        time.sleep(30)
    finally:
        print("cleaned", flush=True)
        time.sleep(float(sys.argv[2]))
_job.run(work, _progress.Silent(_progress.Meter(1)), lambda: print("bye"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("cleaning", [0, 30], ids=["clean", "stuck"])
def test_a_signal_ends_the_process_within_a_second(number, cleaning):
    words = [sys.executable, "-c", SIGNALLED, str(int(number)), str(cleaning)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    ended = time.time()
    sent, *said = done.stdout.split()
    assert (done.returncode, done.stderr, said) == (128 + number, "", ["cleaned", "bye"])
    assert ended - float(sent) < 1.2


def test_the_meter_counts_what_this_run_did():
    now = [0.0]
    meter = _progress.Meter(100, clock=lambda: now[0])
    assert meter.rate == 0 and meter.left is None and meter.words() == "starting"
    now[0] = 2.0
    meter.observe(progress(done=3, total=9, cells=200, redrawn=1))  # one of the three was there before
    assert meter.rate == 100 and meter.left == 6
    now[0] = 3.0
    assert meter.left == 5
    assert meter.words() == "1e-07 Gcell-updates/s  3 kB  1 redrawn"


def test_lines_appear_every_few_seconds_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.05)
    meter = _progress.Meter(100)
    lines = _progress.display(meter, "wave", 4, rank=0)
    for _ in range(3):
        meter.observe(progress())
        time.sleep(0.06)
        lines.refresh()
        lines.refresh()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and said[0].startswith("1 of 4 samples  ") and said[0].endswith("s left")


def test_other_ranks_are_silent(capsys):
    meter = _progress.Meter(100)
    meter.observe(progress())
    _progress.display(meter, "wave", 4, rank=1).refresh()
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_samples_rates_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    meter = _progress.Meter(100)
    with _progress.display(meter, "wave", 4, rank=0) as bar:
        assert isinstance(bar, _progress.Bar)
        bar.refresh()
        meter.observe(progress(redrawn=2))
        bar.refresh()
    assert "1/4" in (shown := capsys.readouterr().err) and "2 redrawn" in shown and "left" in shown
