"""Checkpoints that are not what they were, and disks that are full."""

import ctypes
import glob
import hashlib
import json
import os
import shutil
import struct
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


def sign(checkpoint, rank=1):
    """A manifest that is right about a shard's bytes, whatever they are."""
    with open(shard_of(checkpoint, rank), "rb") as f:
        data = f.read()
    xxh = ctypes.CDLL("libxxhash.so.0")

    class Hash(ctypes.Structure):
        _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]

    xxh.XXH3_128bits.restype = Hash
    xxh.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    h = xxh.XXH3_128bits(data, len(data))
    shard = {"bytes": len(data), "xxh3": f"{h.high:016x}{h.low:016x}", "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(checkpoint, lambda m: m["shards"][rank].update(shard))


def largest(header):
    return max((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][1] - header[n]["data_offsets"][0])


def lie(header):
    name = largest(header)
    header[name]["data_offsets"][1] -= 4
    return name


def lap(header):
    name = sorted((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])[1]
    header[name]["data_offsets"] = [at - 4 for at in header[name]["data_offsets"]]
    return name


def retype(header):
    name = largest(header)
    header[name]["dtype"] = "I32"
    return name


def reshape(header):
    name = largest(header)
    header[name]["shape"] = header[name]["shape"][::-1] + [1]
    return name


def rename(header):
    name = largest(header)
    header[name + "x"] = header.pop(name)
    return name


def beyond(header):
    name = largest(header)
    header[name]["data_offsets"] = [1 << 40, (1 << 40) + 4]
    return name


@pytest.mark.parametrize("change", [lie, lap, retype, reshape, rename, beyond])
def test_lies_are_refused(trainer, checkpoint, tmp_path, change):
    """A shard whose digests are right and whose header is not: every command names the tensor, and all but one the file."""
    path = shard_of(checkpoint)
    with open(path, "rb") as f:
        data = f.read()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    name = change(header)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data[8 + size :])
    sign(checkpoint)
    named = [name] if change is rename else [name, "shard-00001"]  # what is nowhere has no file
    refusals = [trainer.run("second", "--resume", checkpoint, layout="dp2", status=83).stderr]
    refusals.append(trainer.run("third", "--set", f"train.init_from={checkpoint}", layout="dp2", status=65).stderr)
    if not name.startswith("optimizer."):  # the others read the weights alone
        refusals.append(dstrain("export", checkpoint, tmp_path / "hf", status=83).stderr)
        refusals.append(dstrain("generate", checkpoint, "--prompt", "a", status=83).stderr)
    for refusal in refusals:
        for word in named:
            assert word in refusal, f"'{word}' is not in: {refusal}"
    assert not os.path.exists(tmp_path / "hf")


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
    """A checkpoint folder that cannot be made: status 86 before the first step is computed for nothing."""
    run = os.path.join(trainer.folder, "run")
    os.makedirs(run)
    with open(f"{run}/checkpoints", "w", encoding="utf-8") as f:
        f.write("in the way")
    failed = trainer.run("run", layout="dp2", status=86)
    assert f"{run}/checkpoints" in failed.stderr and "Not a directory" in failed.stderr
    assert "step=1 " not in failed.stdout
    shutil.rmtree(run)
