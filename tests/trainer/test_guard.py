"""A loss that leaves its course walks the guard's ladder; each decision is in guard.jsonl, and a repeat decides the same."""

import json
import os
import random
import time

import pytest

from dstrain import Mesh, Run, dstrain, read_checkpoint

STEPS, WINDOWS, WIDTH = 60, 80, 32  # steps of one sequence, and what is passed over, end before the text does
GUARD = {"settle": 8, "window": 8, "rollback": 6, "skip": 16, "factor": 1.2, "margin": 1.0, "patience": 50}


def decisions(run):
    path = f"{run.out}/checkpoints/guard.jsonl"
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    for line in lines:
        assert line.pop("time_ms") > 0
    return lines


def pack(folder, seed, poisoned):
    """A text that is learnt at once, with a stretch of noise in it if so wanted."""
    rng = random.Random(seed)
    text = bytearray(b"abcdefgh" * (WINDOWS * WIDTH // 8 + 4))
    if poisoned:
        at = rng.randrange(WINDOWS) * WIDTH
        text[at + 8 : at + 24] = bytes(rng.randrange(128, 256) for _ in range(16))
    name = os.path.join(folder, "poisoned" if poisoned else "plain")
    with open(name, "wb") as f:
        f.write(text)
    dstrain("pack", name, "-o", name + "-packed")
    return name + "-packed"


def write(trainer, seed, prefix, **guard):
    data = {"train": prefix}
    trainer.write(
        ckpt_every=3, global_batch=1, steps=STEPS, valid_every=0, seed=seed, data=data, optimizer={"lr": 2e-2, "warmup_steps": 2},
        guard={**GUARD, **guard},
    )
    with open(trainer.spec, encoding="utf-8") as f:
        spec = json.load(f)
    spec["checkpoint"]["keep"] = 20
    with open(trainer.spec, "w", encoding="utf-8") as f:
        json.dump(spec, f)


@pytest.fixture
def poison(trainer, tmp_path):
    """A job whose data is noise at a step well inside the run: (seed, step)."""
    seed = int(time.time())
    for _ in range(40):
        seed += 1
        prefix = pack(tmp_path, seed, True)
        write(trainer, seed, prefix, enabled=False)
        run = trainer.run(f"probe{seed}")
        losses = {step: m["loss"] for step, m in run.metrics().items()}
        spikes = [s for s, loss in losses.items() if s > 14 and loss > 1.5]
        close = [s for s, loss in losses.items() if s > 14 and 0.5 < loss <= 1.5 and s not in range(min(spikes, default=0), max(spikes, default=0) + 6)]
        if spikes and not close and losses[spikes[0]] > 3 and 26 < spikes[0] < STEPS - 14 and spikes[-1] < spikes[0] + 6:
            print(f"seed {seed}: noise at step {spikes[0]}, loss {losses[spikes[0]]:.3f}")
            write(trainer, seed, prefix)
            return seed, spikes[0]
    pytest.fail("no seed puts the noise where it can be seen")


@pytest.mark.parametrize("layout", ["1", "dp2"])
def test_noise_is_passed_over(trainer, poison, layout):
    """The step is replayed to the bit, then passed over; the run ends well, and does the same again."""
    seed, step = poison
    steps, guard = STEPS, GUARD
    if layout == "dp2":
        steps, step, guard = 34, (step + 1) // 2, {**GUARD, "rollback": 2, "skip": 4}
        with open(trainer.spec, encoding="utf-8") as f:
            spec = json.load(f)
        spec["train"] |= {"guard": guard, "steps": steps, "global_batch": 2}
        with open(trainer.spec, "w", encoding="utf-8") as f:
            json.dump(spec, f)
    first = trainer.run("first", layout=layout)
    found = decisions(first)
    assert [(d["action"], d["step"], d["trigger"]) for d in found] == [("replay", step, "jump"), ("rollback", step, "jump")], (seed, found)
    assert found[0]["loss"] == found[1]["loss"]
    assert step - guard["rollback"] - 3 < found[1]["back_to"] <= step - guard["rollback"] and found[1]["skip_batches"] == guard["skip"]
    assert "guard: replay: " in first.stderr and f"passing over {guard['skip']} batches" in first.stderr
    metrics = first.metrics()
    assert sorted(metrics) == list(range(1, steps + 1)) and metrics[step]["loss"] < found[0]["loss"] / 2
    again = trainer.run("again", layout=layout)
    assert [{**d, "epoch": 0} for d in decisions(again)] == [{**d, "epoch": 0} for d in found] and again.series() == first.series()
    assert read_checkpoint(again.checkpoint(steps)) == read_checkpoint(first.checkpoint(steps))


def test_ladder_to_its_end(trainer):
    """What comes back on other data and at a lower rate, too, holds the job: 82. The run goes on when told to, from before the spike."""
    tokens = 8 * 32
    trainer.write(
        ckpt_every=2, steps=30, valid_every=0,
        optimizer={"lr": 3e-3, "warmup_steps": 2, "grad_clip": 0},
        schedule={"constant_until": 15 * tokens, "decay_until": 16 * tokens, "tails": [{"lr": 3.0}]},
        guard={"settle": 5, "rollback": 4, "skip": 3, "factor": 1.05, "margin": 0.2, "lr_steps": 20, "patience": 3},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        run = trainer.run("run", status=82)
    found = decisions(run)
    assert [d["action"] for d in found] == ["replay", "rollback", "lower", "hold"], found
    assert found[2]["lr_factor"] == 0.7 and found[2]["lr_steps"] == 20
    assert "0.7 times the learning rate until step" in run.stderr
    with open(f"{run.out}/report.md", encoding="utf-8") as f:
        assert f"HELD: {found[3]['text']}" in f.read()
    lr = run.metrics()[found[3]["step"] - 1]["lr"]
    calm = dstrain("run", trainer.spec, "--out", run.out, "--resume", "auto", "--set", "train.schedule.tails=[{lr: 1e-5}]", "--ranks", "1")
    assert "resumed from" in calm.stderr and lr > 0
    assert max(Run(run.out).metrics()) == 30 and decisions(run) == found


def killed_at_first_decision(trainer, name):
    """A run killed when its first decision is on disk; the replay may have been faster."""
    run = trainer.start(name)
    path = f"{run.out}/checkpoints/guard.jsonl"
    end = time.monotonic() + 60
    while not os.path.exists(path):
        assert run.process.poll() is None and time.monotonic() < end, run.read_output()
        time.sleep(0.001)
    run.process.kill()
    run.process.wait()
    return run


def test_other_numbers_are_corruption(trainer, poison):
    """A replay that does not repeat the numbers is no spike: 81, and the attempt after goes on by itself."""
    _, step = poison
    runs = (killed_at_first_decision(trainer, f"run{i}") for i in range(20))
    run = next(run for run in runs if len(decisions(run)) == 1)
    path = f"{run.out}/checkpoints/guard.jsonl"
    with open(path, encoding="utf-8") as f:
        line = json.loads(f.readline())
    line["loss"] += 2**-30
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    dstrain("run", trainer.spec, "--out", run.out, "--resume", "auto", status=81)
    assert [d["action"] for d in decisions(run)] == ["replay", "corrupt"] and decisions(run)[1]["step"] == step
    dstrain("run", trainer.spec, "--out", run.out, "--resume", "auto")
    assert [d["action"] for d in decisions(run)] == ["replay", "corrupt", "replay", "rollback"]


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(data=2), Mesh(expert=2, data=2), Mesh(pipeline=2, expert=2), Mesh(pipeline=2, data=2, schedule="dualpipev")], ids=str)
def test_not_finite_on_any_rank(trainer, model, mesh):
    """In FP8 an infinity or a NaN in one gradient of any one rank stops all ranks at that step; nothing is committed from there on, and the replay sees it, too."""
    seed = int(time.time())
    rng = random.Random(seed)
    what, rank, step = rng.choice(["inf", "nan"]), rng.randrange(mesh.ranks), rng.randrange(5, 12)
    print(f"seed {seed}: {what} at step {step} on rank {rank}")
    fault = {f"{what}_step": step, f"{what}_rank": rank}
    deep = {**model, "num_hidden_layers": 4}
    trainer.write(2, deep, precision="fp8", steps=12, valid_every=0, fault=fault, guard={"rollback": 2, "skip": 1})
    run = trainer.run("run", mesh=mesh, status=82)
    found = decisions(run)
    assert [(d["action"], d["trigger"], d["step"]) for d in found] == [(a, "not_finite", step) for a in ("replay", "rollback", "lower", "hold")]
    assert run.stderr.count("fault: step") == 4 and max(run.metrics()) == step - 1
    assert run.stderr.count("] dstrain: step") + run.stderr.count("\ndstrain: step") == 4 * mesh.ranks
    saved = [int(p.split("/step-")[1].split("/")[0]) for p in run.committed()]
    assert saved and max(saved) < step


@pytest.mark.parametrize("every, step", [(5, 5), (0, 6), (5, 6)], ids=["between saves", "only before a save", "before a save"])
def test_replicas_are_compared(trainer, every, step):
    """A bit that flips in one of three copies is seen when the ranks compare next, and named; the run goes on from the checkpoint before."""
    fault = {"flip_step": step, "flip_rank": 1, "attempts": 1}
    trainer.write(ckpt_every=3, steps=12, global_batch=6, valid_every=0, fault=fault, guard={"compare_every": every})
    run = trainer.run("run", mesh=Mesh(data=3), status=81)
    (found,) = decisions(run)
    assert (found["action"], found["trigger"], found["step"], found["odd_rank"]) == ("corrupt", "replicas", step, 1)
    assert "on rank 1 it differs from rank 0's" in found["text"] and [int(p.split("step-")[1].split("/")[0]) for p in run.committed()] == [3]
    dstrain("run", trainer.spec, "--out", run.out, "--resume", "auto", "--ranks", "3")
    assert max(Run(run.out).metrics()) == 12 and len(decisions(run)) == 1


def test_a_damaged_file_is_named(trainer):
    run = trainer.run("run", "--set", "train.steps=5")
    with open(f"{run.out}/checkpoints/guard.jsonl", "w", encoding="utf-8") as f:
        f.write('{"action": "dance"}\n')
    done = dstrain("run", trainer.spec, "--out", run.out, "--resume", "auto", status=83)
    assert "guard.jsonl:1: this is no decision of the guard" in done.stderr


def test_switched_off(trainer):
    """Without the guard what is not finite ends the run at once, and nothing is recorded."""
    wild = [w for k in ("lr", "lr_min", "weight_decay") for w in ("--set", f"train.optimizer.{k}=10")]
    run = trainer.run("run", *wild, "--set", "train.optimizer.grad_clip=0", "--set", "train.guard.enabled=false", status=82)
    assert "not finite" in run.stderr and decisions(run) == []


def test_its_keys_are_checked(trainer):
    for word, said in (("settle=200", "settle 200 is over window 100"), ("lr_factor=2", "lr_factor"), ("spikes=1", "spikes")):
        done = dstrain("run", trainer.spec, "--dry-run", "--set", f"train.guard.{word}", status=78)
        assert said in done.stderr
