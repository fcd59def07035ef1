"""Meshes against one rank: pipeline {1, 2, 4} x expert {1, 2} x data {1, 2} x schedule x accumulation, up to 8 ranks, and checkpoints from
each to each at random. `make check-mesh SEED=7`; without SEED another one every time. test_mesh.py takes its checks from here."""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from dstrain import ROOT, Mesh, Run, Trainer, dstrain, read_checkpoint  # noqa: E402

RANKS_MAX = 8
# Relative. Where two experts are all but equally good for a token the last bit decides, and in these tiny models a token that goes elsewhere
# is seen in the largest load and in the gradient's norm; without experts all agrees much closer.
TOLERANCE = 1e-4
TOLERANCES = {"grad_norm": 1e-2, "balance_maxvio": 1e-1}
DENSE_TOLERANCE = 1e-5
DENSE_TOLERANCES = {"grad_norm": 1e-4}
TEXTS = ["LICENSE", "proto/ds.proto", "lib/file.c"]


def deep(model, layers=8):
    """Layers for four ranks with two stages each."""
    return {**model, "num_hidden_layers": layers}


def difference(series, reference):
    """metric -> its largest relative difference of any step, and where that is."""
    assert series.keys() == reference.keys(), f"steps {sorted(series)} against {sorted(reference)}"
    worst = {key: (0, "") for key in Run.KEYS}
    for step, values in reference.items():
        for key, ours, theirs in zip(Run.KEYS, series[step], values):
            assert (ours is None) == (theirs is None), f"step {step}: {series[step]} against {values}"
            if theirs is not None and ours != theirs:
                relative = abs(ours - theirs) / max(abs(theirs), 1e-9)
                worst[key] = max(worst[key], (relative, f"step {step}: {ours} against {theirs}"))
    return worst


def check_close(series, reference, what, dense=False):
    """Returns the largest difference of a loss."""
    worst = difference(series, reference)
    for key, (relative, where) in worst.items():
        allowed = DENSE_TOLERANCES.get(key, DENSE_TOLERANCE) if dense else TOLERANCES.get(key, TOLERANCE)
        assert relative <= allowed, f"{what}: {key} differs by {relative:.2e}, allowed {allowed:.0e}: {where}"
    return max(worst[key][0] for key in ("loss", "mtp_loss", "valid_loss"))


def content(path):
    """name -> bytes, however it is cut."""
    return {name: data for name, (_, _, data) in read_checkpoint(path).items()}


def check_reshard(trainer, meshes):
    """A run on the first; its checkpoint through all others, each saving what it loaded; and the last goes on like the first."""
    first = trainer.run("reshard-0", mesh=meshes[0])
    at = path = first.checkpoint(10)
    for i, mesh in enumerate(meshes[1:], 1):
        copy = trainer.run(f"reshard-{i}", "--resume", at, "--set", "train.steps=10", mesh=mesh)
        assert "done already" in copy.stderr
        at = copy.checkpoint(10)
        assert content(at) == content(path), f"{meshes[0]} to {mesh}"
    going_on = trainer.run("reshard-on", "--resume", at, mesh=meshes[-1])
    return check_close(going_on.series(), first.series(first=11), f"{meshes[0]} to {meshes[-1]}")


def all_meshes():
    meshes = [Mesh(*sizes) for sizes in itertools.product((1, 2, 4), (1, 2), (1, 2), ("1f1b", "dualpipev"))]
    return [m for m in meshes if m.ranks <= RANKS_MAX and m != Mesh()]


def random_train(rng):
    """What must not matter."""
    return {
        "seed": rng.randrange(2**32),
        "sequence_length": rng.choice((16, 24, 32)),
        "mtp_lambda": rng.choice((0.1, 0.3)),
        "balance_loss": rng.choice((1e-4, 1e-2)),
        "bias_update_speed": rng.choice((1e-3, 1e-2)),
        "optimizer": {"lr": rng.choice((3e-4, 1e-3)), "warmup_steps": 5, "grad_clip": rng.choice((0, 1.0))},
    }


def random_model(rng, model, dense):
    layers = rng.choice((8, 9, 11))
    return {
        **deep(model, layers),
        "first_k_dense_replace": layers if dense else rng.choice((0, 1, 3)),
        "num_nextn_predict_layers": 0 if dense else rng.choice((0, 1, 2)),
        "tie_word_embeddings": rng.random() < 0.3,
        "n_shared_experts": rng.choice((0, 1)),
    }


def walk(folder, corpus, rng, model):
    passed, failed = 0, 0

    def attempt(what, body):
        nonlocal passed, failed
        start = time.monotonic()
        try:
            worst = body()
            passed += 1
            print(f"  {what:44} {worst:.1e}  {time.monotonic() - start:5.1f} s", flush=True)
        except (AssertionError, subprocess.SubprocessError) as e:
            failed += 1
            print(f"FAIL {what}: {e}", flush=True)

    # Four data-parallel ranks have so many micro-batches each: enough for every mesh with every schedule.
    for name, micros, dense in (("few", 8, False), ("more", 16, False), ("dense", 8, True)):
        trainer = Trainer(folder, corpus)
        settings, shape = random_train(rng), random_model(rng, model, dense)
        trainer.folder = f"{folder}/{name}"
        os.makedirs(trainer.folder)
        trainer.write(model=shape, global_batch=4 * micros, micro_batch=1, valid_batches=1, **settings)
        print(f"{name}: {({k: v for k, v in shape.items() if model[k] != v})}, {settings}", flush=True)
        one = trainer.run("one").series()
        assert len(one) == 20
        for mesh in all_meshes():
            attempt(f"{mesh} {name}", lambda mesh=mesh: check_close(trainer.run(str(mesh), mesh=mesh).series(), one, mesh, dense))
        for k in range(3):
            meshes = rng.sample([Mesh()] + all_meshes(), 5)
            trainer.folder = f"{folder}/{name}/reshard{k}"
            os.makedirs(trainer.folder)
            attempt("checkpoint " + " > ".join(map(str, meshes)), lambda meshes=meshes: check_reshard(trainer, meshes))
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"check-mesh: seed {seed} (SEED={seed} repeats it)", flush=True)
    rng = random.Random(seed)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with open(os.path.join(ROOT, "etc", "models", "tiny.json"), encoding="utf-8") as f:
        model = json.load(f)
    with tempfile.TemporaryDirectory(prefix="dstrain-mesh-") as folder:
        dstrain("pack", *(os.path.join(ROOT, text) for text in TEXTS), "-o", f"{folder}/text", "--document-bytes", "2000", "--split-valid", "0.1")
        passed, failed = walk(folder, f"{folder}/text", rng, model)
    print(f"mesh: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
