"""A stage that begins with another run's weights at a longer context, without a coordinator."""

import json
import os
import struct

import pytest

from dstrain import ROOT, Trainer, dstrain, read_checkpoint

SHORT = 32
YARN = {"type": "yarn", "factor": 8, "mscale": 1, "mscale_all_dim": 1}


@pytest.fixture(scope="module")
def model():
    """That knows no position beyond the first stage's."""
    with open(os.path.join(ROOT, "etc", "models", "tiny.json"), encoding="utf-8") as f:
        return {**json.load(f), "max_position_embeddings": SHORT}


@pytest.fixture(scope="module")
def first(tmp_path_factory, corpus, model):
    """(Trainer, its run of 20 steps with checkpoints at 10 and 20)."""
    trainer = Trainer(tmp_path_factory.mktemp("context"), corpus)
    trainer.write(model=model)
    return trainer, trainer.run("first")


def numbers(tensor):
    return struct.unpack(f"<{len(tensor[2]) // 4}f", tensor[2])


def test_weights(first, model):
    """The newest checkpoint of the folder, exactly: a step at a rate of 1e-12 leaves every weight where it was, within that."""
    trainer, run = first
    stage = {"sequence_length": 4 * SHORT, "global_batch": 2, "steps": 1, "rope_scaling": YARN, "bias_update_speed": 0}
    rate = {"lr": 1e-12, "lr_min": 1e-12, "warmup_steps": 0, "weight_decay": 0}
    trainer.write(model=model, init_from=f"{run.out}/checkpoints", optimizer=rate, **stage)
    extended = trainer.run("extended")
    assert f"starts with the weights of {run.checkpoint(20)}, of step 20 " in extended.stderr
    before, after = read_checkpoint(run.checkpoint(20)), read_checkpoint(extended.checkpoint(1))
    names = [n for n in before if not n.startswith("optimizer.")]
    assert len(names) > 20 and set(names) == {n for n in after if not n.startswith("optimizer.")}
    for name in names:
        pairs = zip(numbers(before[name]), numbers(after[name]), strict=True)
        assert all(abs(a - b) <= 2e-12 for a, b in pairs), name
    assert dstrain("eval", extended.checkpoint(1), "--data", f"{trainer.corpus}-valid", "--sequence-length", 8 * SHORT, "--batches", 2)


def test_what_differs(first, model):
    """The same weights at the same short length lose something else with YaRN than without, and a long context costs the same text differently:
    the frequencies are those of the job, not of the model file."""
    trainer, run = first
    losses = {}
    for name, scaling in [("plain", None), ("s 8", YARN), ("s 8 without mscale", {**YARN, "mscale": 0, "mscale_all_dim": 0})]:
        trainer.write(model=model, init_from=run.checkpoint(20), steps=1, rope_scaling=scaling)
        losses[name] = trainer.run(f"compare {name}").metrics()[1]["loss"]
    assert len(set(losses.values())) == 3, losses
    assert max(losses.values()) - min(losses.values()) < 1, losses


def test_two_phases(first, model):
    """A stage after a stage: the second keeps the first one's factor and reaches the end of its positions, and no further."""
    trainer, run = first
    before = run.checkpoint(20)
    for i, length in enumerate((2 * SHORT, 8 * SHORT)):
        trainer.write(model=model, init_from=before, sequence_length=length, global_batch=8 * SHORT // length, steps=4, rope_scaling=YARN, ckpt_every=4)
        phase = trainer.run(f"phase {i + 1}")
        before = phase.checkpoint(4)
    trainer.write(model=model, init_from=before, sequence_length=16 * SHORT, rope_scaling=YARN)
    assert "max_position_embeddings (allowed: up to 256)" in trainer.run("too long", status=78).stderr


def test_refused(first, model, tmp_path):
    """A folder without any checkpoint, and a coordinator's job, which only the coordinator can find."""
    trainer, _ = first
    (tmp_path / "e0001" / "step-0000000005").mkdir(parents=True)  # never committed
    for source, status, said in [(tmp_path, 65, "no committed checkpoint"), (tmp_path / "none", 65, "cannot open"), ("job:12", 78, "of a coordinator")]:
        trainer.write(model=model, init_from=str(source))
        run = trainer.run("refused", status=status)
        assert said in run.stderr and "train.init_from" in run.stderr, run.stderr
