"""Checkpoints that are not what they were, and disks that are full."""

import glob
import json
import os
import shutil
import sys

import pytest

from dstrain import ROOT, dstrain, wait_for

sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from disk import SmallDisk  # noqa: E402


@pytest.fixture
def checkpoint(trainer):
    return trainer.run("first", layout="dp2").checkpoint(10)


def shard_of(checkpoint, rank=1):
    return f"{checkpoint}/shard-{rank:05d}-of-00002.safetensors"


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 4]))


def truncate(checkpoint):
    os.truncate(shard_of(checkpoint), os.path.getsize(shard_of(checkpoint)) - 100)


def flip_data(checkpoint):
    flip(shard_of(checkpoint), os.path.getsize(shard_of(checkpoint)) * 2 // 3)


def flip_header(checkpoint):
    flip(shard_of(checkpoint), 20)


def remove(checkpoint):
    os.unlink(shard_of(checkpoint))


def swap(checkpoint):
    os.replace(shard_of(checkpoint, 0), shard_of(checkpoint, 1))


def edit_manifest(checkpoint, change):
    path = f"{checkpoint}/MANIFEST.json"
    with open(path, encoding="utf-8") as f:
        manifest = json.load(f)
    change(manifest)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(manifest, f, separators=(",", ":"))


def manifest_digest(checkpoint):
    edit_manifest(checkpoint, lambda m: m["shards"][1].update(xxh3="0" * 32))


def manifest_step(checkpoint):
    edit_manifest(checkpoint, lambda m: m.update(step=11))


def manifest_path(checkpoint):
    edit_manifest(checkpoint, lambda m: m["shards"][1].update(file="../../../../etc/passwd"))


def manifest_layout(checkpoint):
    edit_manifest(checkpoint, lambda m: m["layout"].pop("position"))


def manifest_cut(checkpoint):
    os.truncate(f"{checkpoint}/MANIFEST.json", 50)


def no_manifest(checkpoint):
    os.unlink(f"{checkpoint}/MANIFEST.json")


@pytest.mark.parametrize(
    "damage,word",
    [
        (truncate, "shard-00001"),
        (flip_data, "shard-00001"),
        (flip_header, "shard-00001"),
        (remove, "shard-00001"),
        (swap, "shard-0000"),
        (manifest_digest, "shard-00001"),
        (manifest_step, "step"),
        (manifest_path, "MANIFEST.json"),
        (manifest_layout, "position"),
        (manifest_cut, "MANIFEST.json"),
        (no_manifest, "MANIFEST.json"),
    ],
)
def test_damage_is_refused(trainer, checkpoint, damage, word):
    """Whatever is wrong with a checkpoint, all ranks end with 83 and the message names the file or the fact; nothing is trained."""
    damage(checkpoint)
    run = trainer.run("second", "--resume", checkpoint, layout="dp2", status=83)
    assert word in run.stderr
    assert run.metrics() == {}


def test_another_model_is_refused(trainer, checkpoint, model):
    """A checkpoint of other shapes, or of fewer layers, is not loaded halfway."""
    for change, word in (({"hidden_size": 48}, "shape"), ({"num_hidden_layers": 4}, "none of"), ({"num_hidden_layers": 2}, "")):
        trainer.write(model={**model, **change})
        run = trainer.run(f"other{change}", "--resume", checkpoint, layout="dp2", status=83)
        assert word in run.stderr


def test_auto_steps_over_damage(trainer):
    """--resume auto takes the newest whole checkpoint and says what it skipped; with none whole it does not start over in silence."""
    whole = trainer.run("whole", "--set", "checkpoint.every=5", layout="dp2")
    run = trainer.run("run", "--set", "checkpoint.every=5", layout="dp2")
    for step in (20, 15):
        flip_data(run.checkpoint(step))
    again = trainer.run("run", "--resume", "auto", "--set", "checkpoint.every=5", layout="dp2")
    assert again.stderr.count("skipping") == 2 and "step 10" in again.stderr
    assert again.series() == whole.series()
    for manifest in again.committed():
        truncate(os.path.dirname(manifest))
    trainer.run("run", "--resume", "auto", layout="dp2", status=83)


def test_full_disk(trainer):
    """A full disk during a checkpoint: one clear line with path and advice, status 86, no half file, and the committed one is whole."""
    trainer.write(steps=100000, ckpt_every=10)
    folder = os.path.join(trainer.folder, "run")
    with SmallDisk(f"{folder}/checkpoints", megabytes=8) as disk:
        run = trainer.start("run", layout="dp2", env=disk.env)
        wait_for(run.committed, "a first checkpoint")
        disk.fill()
        run.wait(86)
        line = next(line for line in run.stderr.splitlines() if "cannot save" in line)
        for word in ("checkpoint of step", "shard-0000", "No space left", "checkpoint.dir", "untouched"):
            assert word in line
        assert not glob.glob(f"{folder}/checkpoints/**/*.tmp", recursive=True)
        kept = [os.path.dirname(m) for m in run.committed()]
        assert kept
        for path in kept:
            dstrain("inspect", path, "--verify")
        disk.free()
        newest = max(int(path[-10:]) for path in kept)
        trainer.write(steps=newest + 15, ckpt_every=1000)
        assert max(trainer.run("run", "--resume", "auto", layout="dp2").metrics()) == newest + 15


def test_unwritable_folder(trainer):
    """A checkpoint folder that cannot be made: status 86, not a lost run."""
    run = os.path.join(trainer.folder, "run")
    os.makedirs(run)
    with open(f"{run}/checkpoints", "w", encoding="utf-8") as f:
        f.write("in the way")
    failed = trainer.run("run", layout="dp2", status=86)
    assert "cannot save the checkpoint of step 10" in failed.stderr
    shutil.rmtree(run)
