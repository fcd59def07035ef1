"""The flight recorders of a run: what its ranks did last, read back after the run, or after a rank was killed or stopped."""

import os
import re
import signal
import time

import pytest

from dstrain import dstrain, wait_for


def inspect(run):
    return dstrain("inspect", os.path.join(run.out, "flight")).stdout


def test_ranks_agree(trainer):
    """After a run every rank's calls are there, over, in the same order within each group."""
    run = trainer.run("run", layout="dp2xep2")
    text = inspect(run)
    assert text.startswith("the ranks agree")
    assert len(re.findall(r"^rank \d of 4$", text, re.M)) == 4 and "not over" not in text
    one = dstrain("inspect", os.path.join(run.out, "flight", "flight-0.bin")).stdout
    assert {"all_to_all_v", "reduce_scatter_sum_f32", "all_gather"} <= set(re.findall(r"[a-z_0-9]+_[a-z0-9]+", one))
    rows = [line.split() for line in one.splitlines()[2:]]
    assert [int(r[0]) for r in rows] == list(range(int(rows[0][0]), int(rows[-1][0]) + 1))


def test_who_is_waited_for(trainer):
    """A rank that stands still outside a call is named, with the call the others wait in."""
    trainer.write(steps=100000, valid_every=0)
    run = trainer.start("run", layout="dp2")
    run.wait_step(5)
    for _ in range(40):  # it may be stopped within a call: then nobody is ahead of it
        pid = run.ranks()[1]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        text = inspect(run)
        if "never begun by rank 1, where rank 0 waited" in text:
            break
        assert text.startswith("the ranks agree") and "not over" in text
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    else:
        pytest.fail(f"never seen waiting\n{text}")
    os.kill(pid, signal.SIGKILL)
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    wait_for(lambda: not run.ranks(), "the ranks to end")
    assert "never begun by rank 1, where rank 0 waited" in inspect(run)


def test_another_start_begins_anew(trainer):
    """A folder used again has the recorders of the last start only; one rank alone has none."""
    trainer.run("run", layout="dp2")
    run = trainer.run("run", "--resume", "auto", "--set", "train.steps=24")
    assert os.listdir(os.path.join(run.out, "flight")) == []


def test_files_that_are_none(tmp_path):
    path = tmp_path / "flight-0.bin"
    path.write_bytes(b"DSFLIGHT" + bytes(100))
    assert "not the flight recorder" in dstrain("inspect", tmp_path, status=78).stderr
