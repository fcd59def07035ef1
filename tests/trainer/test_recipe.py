"""What the job file says of the recipe, the schedules and the moving average, in whole runs."""

import json
import os
import struct

import pytest

from dstrain import dstrain, read_checkpoint, read_events, read_safetensors

TOKENS = 8 * 32  # of a step


def floats(tensor):
    data = tensor[2]
    return struct.unpack(f"<{len(data) // 4}f", data)


def test_everything_at_once_resumes(trainer):
    """Batch ramp, contexts, a moving average, BF16 moments, changing gamma and MTP weight: 20 steps are 10 and 10 more, to the bit, and
    so on other ranks' parts of the state."""
    schedule = {
        "constant_until": 5 * TOKENS,
        "decay_until": 9 * TOKENS,
        "tails": [{"until": 11 * TOKENS, "lr": 1e-4}, {"lr": 3e-5}],
        "bias_update_until": 9 * TOKENS,
        "mtp_lambda_until": 7 * TOKENS,
        "mtp_lambda_then": 0.1,
        "batch": {"from": 4, "until": 6 * TOKENS, "increment": 4},
        "context": [{"until": 3 * TOKENS, "length": 8}, {"until": 9 * TOKENS, "length": 16}],
    }
    trainer.write(precision="fp8", ema=0.8, schedule=schedule)
    whole = trainer.run("whole", layout="dp2xep2")
    half = trainer.run("half", "--resume", whole.checkpoint(10), layout="dp2xep2")
    assert half.series() == whole.series(first=11) and len(half.series()) == 10
    assert read_checkpoint(half.checkpoint(20)) == read_checkpoint(whole.checkpoint(20))
    metrics = whole.metrics()
    sizes = [metrics[s]["tokens"] - metrics[s - 1]["tokens"] for s in range(2, 21)]
    assert sizes == sorted(sizes) and set(sizes) == {TOKENS // 2, TOKENS}
    assert metrics[20]["lr"] == 3e-5
    moments = read_checkpoint(whole.checkpoint(20))
    for name, tensor in moments.items():
        if name.startswith(("optimizer.m.", "optimizer.v.")):
            assert all(tensor[2][i : i + 2] == b"\0\0" for i in range(0, len(tensor[2]), 4)), name


@pytest.mark.parametrize("layout", ["1", "dp2xep2"])
def test_moving_average(trainer, layout):
    """ema' = ema + (1 - decay) (weight - ema), from the weight after the first step; in the checkpoint, in eval and in an export."""
    decay = 0.75
    trainer.write(ema=decay, steps=3, ckpt_every=1)
    run = trainer.run("run", layout=layout)
    saved = [read_checkpoint(run.checkpoint(step)) for step in (1, 2, 3)]
    names = [n for n in saved[0] if not n.startswith("optimizer.") and not n.endswith("e_score_correction_bias")]
    assert len(names) > 100
    for name in names:
        weights = [floats(s[name]) for s in saved]
        assert saved[0][f"optimizer.ema.{name}"][2] == saved[0][name][2]
        for i, average in enumerate(floats(saved[2][f"optimizer.ema.{name}"])):
            wanted = weights[0][i]
            for w in weights[1:]:
                wanted += (1 - decay) * (w[i] - wanted)
            assert abs(average - wanted) < 1e-6 * max(1, abs(wanted)), name
    last = run.checkpoint(3)
    folder = os.path.join(trainer.folder, "hf")
    dstrain("export", last, folder, "--ema", "--dtype", "fp32")
    exported = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            exported |= read_safetensors(os.path.join(folder, file))
    for name in names:
        assert exported[name][2] == saved[2][f"optimizer.ema.{name}"][2], name
    for name in saved[2]:
        if name.endswith("e_score_correction_bias"):
            assert exported[name][2] == saved[2][name][2]
    plain, average = (
        json.loads(dstrain("eval", last, "--data", f"{trainer.corpus}-valid", "--json", *more).stdout)["loss"] for more in ([], ["--ema"])
    )
    assert plain != average and abs(plain - average) < 1
    again = os.path.join(trainer.folder, "again")
    dstrain("import", folder, again)
    of_export = json.loads(dstrain("eval", again, "--data", f"{trainer.corpus}-valid", "--json", "--sequence-length", "32").stdout)["loss"]
    assert of_export == pytest.approx(average, rel=1e-6)


def test_average_comes_later(trainer):
    """A run that takes up a moving average half-way begins it there; one that drops it goes on without."""
    trainer.write(steps=4, ckpt_every=2)
    first = trainer.run("first")
    for command in (["eval", first.checkpoint(4), "--data", f"{trainer.corpus}-valid", "--ema"], ["export", first.checkpoint(4), f"{trainer.folder}/hf", "--ema"]):
        assert "no moving average" in dstrain(*command, status=78).stderr
    assert not os.path.exists(f"{trainer.folder}/hf")
    option = ("--set", "train.ema=0.5")
    second = trainer.run("second", *option, "--resume", first.checkpoint(2))
    saved = read_checkpoint(second.checkpoint(4))
    assert {n: t for n, t in saved.items() if not n.startswith("optimizer.ema.")} == read_checkpoint(first.checkpoint(4))
    assert saved["optimizer.ema.lm_head.weight"] != saved["lm_head.weight"]
    third = trainer.run("third", "--resume", second.checkpoint(4), "--set", "train.steps=5")
    assert not any(n.startswith("optimizer.ema.") for n in read_checkpoint(third.checkpoint(5)))


def test_maxvio_everywhere(trainer):
    """Each layer's MaxVio is in the step line and in TensorBoard, with their mean; that of the validation set when it validated."""
    run = trainer.run("run")
    lines = [dict(f.split("=") for f in line.split()) for line in run.stdout.splitlines() if line.startswith("step=")]
    events = read_events(f"{run.out}/tb")
    for line in lines:
        layers = [float(x) for x in line["maxvio_layers"].split(",")]
        assert abs(sum(layers) / len(layers) - float(line["balance_maxvio"])) < 0.011
        event = events[int(line["step"])]
        tagged = [event[t] for t in sorted(event) if t.startswith("balance/maxvio_layer_")]
        assert [f"{x:.2f}" for x in tagged] == line["maxvio_layers"].split(",")
        assert ("valid_maxvio" in line) == ("valid_loss" in line) == ("valid/balance_maxvio" in event)


def test_dry_run(trainer):
    """The schedule as a table, what a GPU would hold, and nothing else: no folder, no training."""
    trainer.write(steps=None, tokens=100 * TOKENS, schedule="deepseek-v3", precision="fp8")
    done = dstrain("run", trainer.spec, "--dry-run", "--out", f"{trainer.folder}/none")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tiny: ") and "100 steps" in lines[0]
    assert lines[1].split()[:4] == ["STEP", "TOKENS", "BATCH", "CONTEXT"]
    assert lines[-1].startswith("on GPUs a rank would take ")
    recipe = json.loads(lines[-2].removeprefix("recipe: "))
    assert (recipe["dy_tile"], recipe["attention_output"]) == ("1x128", "e5m6")
    first, last = lines[2].split(), lines[-3].split()
    assert first[0] == "1" and last[0] == "100" and last[-2] == "0" and float(last[-1]) == pytest.approx(0.1, rel=0.01)
    assert not os.path.exists(f"{trainer.folder}/none")
    trainer.write(recipe={"dy_tile": "2x2"})
    assert "train.recipe.dy_tile" in dstrain("run", trainer.spec, "--dry-run", status=78).stderr
