"""Stopping and going on. Bit for bit means: full-precision metrics and every byte of every tensor."""

import glob
import os
import signal
import subprocess

import pytest

from dstrain import BIN, LAYOUTS, dstrain, read_checkpoint, wait_for, wait_for_none


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
def test_resume_is_bit_exact(trainer, layout, precision):
    """20 steps are 10 and 10 more, in each precision and layout."""
    option = ("--set", f"train.precision={precision}")
    whole = trainer.run("whole", *option, layout=layout)
    half = trainer.run("half", *option, "--resume", whole.checkpoint(10), layout=layout)
    assert half.series() == whole.series(first=11) and len(half.series()) == 10
    assert read_checkpoint(half.checkpoint(20)) == read_checkpoint(whole.checkpoint(20))


def test_two_runs_are_equal(trainer):
    """The same spec gives the same bits."""
    first, second = (trainer.run(name, layout="dp2xep2") for name in ("first", "second"))
    assert first.series() == second.series()
    assert read_checkpoint(first.checkpoint(20)) == read_checkpoint(second.checkpoint(20))


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_stop_saves(trainer, sig):
    """Ctrl-C and TERM to the launcher: the step is finished, saved, status 80, nothing is left, and the run goes on from that very
    step to the undisturbed end."""
    trainer.write(steps=400, ckpt_every=1000)
    whole = trainer.run("whole", layout="dp2xep2")
    run = trainer.start("run", layout="dp2xep2")
    run.wait_step(20)
    run.process.send_signal(sig)
    run.wait(80)
    stopped = max(run.metrics())
    assert 20 <= stopped < 400
    assert os.path.basename(os.path.dirname(run.committed()[-1])) == f"step-{stopped:010d}"
    assert f"saved at step {stopped}" in run.stderr and "--resume auto" in run.stderr
    again = trainer.run("run", "--resume", "auto", layout="dp2xep2")
    assert again.series() == whole.series()


def test_stop_at_once(trainer):
    """Ctrl-C before the ranks are ready is kept for them: one step, saved, 80."""
    trainer.write(steps=100000, ckpt_every=100000)
    run = trainer.start("run", layout="dp2xep2")
    wait_for(lambda: os.path.exists(f"{run.out}/metrics.jsonl"), "the launcher to start ranks", every=0)
    run.process.send_signal(signal.SIGINT)
    run.wait(80)
    assert len(run.committed()) == 1


def test_stop_of_one_rank_stops_all(trainer):
    """TERM that reaches a single rank makes the whole gang save and leave after the same step."""
    trainer.write(steps=2000, ckpt_every=10000)
    run = trainer.start("run", layout="dp2xep2")
    run.wait_step(5)
    os.kill(run.ranks()[2], signal.SIGTERM)
    run.wait(80)
    assert len(run.committed()) == 1


def test_killed_rank_ends_the_run(trainer):
    """kill -9 of a rank: the others end, the launcher says which, and auto resumes from the last commit, bit for bit."""
    trainer.write(steps=300)
    whole = trainer.run("whole", layout="dp2xep2")
    run = trainer.start("run", layout="dp2xep2")
    run.wait_step(25)
    os.kill(run.ranks()[1], signal.SIGKILL)
    run.wait(137)
    assert "rank 1" in run.stderr
    again = trainer.run("run", "--resume", "auto", layout="dp2xep2")
    assert "resumed from" in again.stderr
    assert again.series() == whole.series()


def test_killed_in_mid_save(trainer):
    """A rank that dies while it writes its shard costs that save only: what was committed before is whole, and the half one is gone."""
    trainer.write(steps=3000, ckpt_every=3)
    run = trainer.start("run", layout="dp2")
    wait_for(run.committed, "a first checkpoint")

    def half_written():
        assert run.process.poll() is None, "the run ended before a save could be disturbed"
        return glob.glob(f"{run.out}/checkpoints/*/*/shard-00001-of-00002.safetensors.tmp")

    wait_for(half_written, "a half-written shard", every=0)
    os.kill(run.ranks()[1], signal.SIGKILL)
    run.wait(137)
    assert not glob.glob(f"{run.out}/checkpoints/**/*.tmp", recursive=True)
    kept = run.committed()
    assert kept
    for manifest in kept:
        dstrain("inspect", os.path.dirname(manifest), "--verify")
    newest = max(int(os.path.dirname(m)[-10:]) for m in kept)
    trainer.write(steps=newest + 5)
    again = trainer.run("run", "--resume", "auto", layout="dp2")
    assert max(again.metrics()) == newest + 5


def test_killed_launcher_takes_its_ranks_along(trainer):
    """kill -9 of the launcher leaves no rank behind."""
    trainer.write(steps=100000, ckpt_every=100000)
    run = trainer.start("run", layout="dp2")
    run.wait_step(5)
    run.process.kill()
    run.process.wait()
    assert not wait_for_none(run.out)


def test_keep_bounds_the_checkpoints(trainer):
    """The newest `keep` stay, and an old one for a guard that may go back; other ones go."""
    for guard, kept in (("false", ["18", "20"]), ("true", ["02", "18", "20"])):
        settings = ("checkpoint.every=2", "checkpoint.keep=2", f"train.guard.enabled={guard}")
        run = trainer.run(f"guard-{guard}", *[word for s in settings for word in ("--set", s)])
        assert [os.path.dirname(m)[-2:] for m in run.committed()] == kept
        assert len(glob.glob(f"{run.out}/checkpoints/*/*")) == len(kept)


def test_a_finished_run_is_finished(trainer):
    """Resuming at the last step has nothing to do, and says so."""
    run = trainer.run("run")
    before = run.series()
    again = trainer.run("run", "--resume", "auto")
    assert "done already" in again.stderr and again.series() == before


def test_checkpoints_are_not_trained_over(trainer):
    """A folder with checkpoints wants --resume, or another folder."""
    trainer.run("run")
    again = trainer.run("run", status=64)
    assert "--resume auto" in again.stderr


def test_one_run_a_folder(trainer):
    """Two launchers do not share a folder."""
    trainer.write(steps=100000, ckpt_every=100000)
    run = trainer.start("run")
    run.wait_step(3)
    second = dstrain("run", trainer.spec, "--out", run.out, status=70)
    assert "another run" in second.stderr
    run.process.send_signal(signal.SIGINT)
    run.wait(80)


def test_saves_by_the_clock(trainer):
    """every: 1s saves each second, at steps that rank 0's clock chooses and all ranks agree on."""
    trainer.write(steps=1000000, ckpt_every="1s")
    run = trainer.start("run", layout="dp2")
    wait_for(lambda: len(run.committed()) == 2 or run.process.poll(), "two checkpoints")
    run.process.send_signal(signal.SIGINT)
    run.wait(80)


@pytest.mark.parametrize("layout", ["1", "dp2"])
def test_rank_of_an_old_epoch_is_fenced(trainer, layout):
    """A rank that still belongs to an epoch that is over ends with 84, trains nothing, and does not disturb the run."""
    trainer.write(steps=100000, ckpt_every=100000)
    run = trainer.start("run", layout=layout)
    run.wait_step(3)
    with open(f"/proc/{run.ranks()[0]}/environ", encoding="utf-8") as f:
        env = dict(entry.split("=", 1) for entry in f.read().split("\0") if "=" in entry)
    old = subprocess.run(
        [f"{BIN}/dstrain", "run", f"{run.out}/spec.json"], env={**env, "DS_EPOCH": "0"}, capture_output=True, text=True, timeout=60
    )
    assert old.returncode == 84, old.stderr
    assert "is over" in old.stderr
    run.process.send_signal(signal.SIGINT)
    run.wait(80)
