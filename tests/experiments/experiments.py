#!/usr/bin/env python3
"""The experiments of docs/recipe.md, from the text to the tables. `make experiments` runs them all; what is finished in the output
folder is not run again.

    experiments.py [GROUP...] --out DIR    groups: main ablation balance mtp
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "demo"), os.path.join(HERE, "..")]
import corpus  # noqa: E402
from cluster import BIN  # noqa: E402

SKIP = 0.05  # of the steps: what the bound does not cover
SMOOTH = 0.9  # of the loss curves (report, appendix B.1)
BOUND = 0.0025

# ---- what is run: a name, and what of the base it changes

# Precisions are compared at the published learning rate's order and with the gate balanced within the run: what one last bit does to a
# run grows with the rate, and a layer whose experts have collapsed recovers at a step that any rounding shifts.
MAIN = {
    "sequence_length": 256,
    "global_batch": 32,
    "micro_batch": 8,
    "steps": 250,
    "optimizer": {"lr": 3e-4, "warmup_steps": 25},
    "init_std": 0.02,
    "bias_update_speed": 0.01,
    "valid_every": 50,
    "valid_batches": 4,
}
SMALL = {**MAIN, "sequence_length": 128, "global_batch": 16, "steps": 100, "optimizer": {"lr": 3e-4, "warmup_steps": 10}}
LONG = {
    **SMALL,
    "global_batch": 8,
    "micro_batch": 4,
    "steps": 600,
    "optimizer": {"lr": 1e-3, "warmup_steps": 20},
    "bias_update_speed": 0.001,
    "valid_every": 150,
    "valid_batches": 32,
}
SMALL_MODEL = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "moe_intermediate_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
}

OFF = [  # each choice of the recipe taken back
    "fprop=bf16",
    "dgrad=bf16",
    "wgrad=bf16",
    "x_tile=128x128",
    "dy_tile=128x128",
    "requantise=false",
    "attention_output=fp8",
    "attention_output=fp32",
    "swiglu_input=fp32",
    "dispatch=bf16",
    "dispatch_scale=exact",
    "combine=fp32",
    "moments=fp32",
    "rest=bf16",
]


def runs_of(group, seed):
    """[(name, train section, what of the model is other, overrides of the section)]"""
    if group == "main":
        return [(p, MAIN, {}, [f"precision={p}"]) for p in ("bf16", "fp8", "fp32")]
    if group == "ablation":
        plain = [(p, SMALL, SMALL_MODEL, [f"precision={p}"]) for p in ("bf16", "fp32", "fp8")]
        return plain + [(f"fp8 {off}", SMALL, SMALL_MODEL, ["precision=fp8", f"recipe.{off}"]) for off in OFF]
    if group == "balance":
        tokens = LONG["steps"] * LONG["global_batch"] * LONG["sequence_length"]
        until = f"schedule.bias_update_until={int(tokens * 0.966)}"  # as 14.3T of 14.8T
        base = ["precision=fp8", "balance_loss=0"]
        return [
            ("bias update off", LONG, SMALL_MODEL, base + ["bias_update_speed=0"]),
            ("gamma 0.001", LONG, SMALL_MODEL, base + ["bias_update_speed=0.001", until]),
            ("gamma 0.01", LONG, SMALL_MODEL, base + ["bias_update_speed=0.01", until]),
            ("gamma 0.001 to the end", LONG, SMALL_MODEL, base + ["bias_update_speed=0.001"]),
            ("gamma 0.01 to the end", LONG, SMALL_MODEL, base + ["bias_update_speed=0.01"]),
        ]
    if group == "mtp":
        module = {**SMALL_MODEL, "num_nextn_predict_layers": 1}
        return [("mtp off", LONG, SMALL_MODEL, ["precision=fp8"])] + [
            (f"mtp on, lambda {x}", LONG, module, ["precision=fp8", f"mtp_lambda={x}"]) for x in (0.3, 0.1)
        ]
    raise SystemExit(f"experiments: no group {group} (allowed: main, ablation, balance, mtp)")


def job_of(spec, model, data, seed, folder):
    with open(os.path.join(HERE, "model.json")) as f:
        config = {**json.load(f), **model}
    path = os.path.join(folder, "model.json")
    with open(path, "w") as f:
        json.dump(config, f)
    train = {**spec, "model": path, "data": data, "seed": seed}
    return {"name": "recipe", "train": train, "checkpoint": {"every": 1000000, "keep": 1}}


def run(out, group, seed, item, data, threads):
    name, spec, model, overrides = item
    folder = os.path.join(out, group, f"{seed} {name}".replace(" ", "-").replace("=", "-").replace(",", ""))
    done = os.path.join(folder, "seconds")
    if os.path.exists(done):
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what was begun and not finished
    os.makedirs(folder)
    with open(os.path.join(folder, "job.yaml"), "w") as f:
        json.dump(job_of(spec, model, data, seed, folder), f)
    command = [f"{BIN}/dstrain", "run", os.path.join(folder, "job.yaml"), "--out", os.path.join(folder, "run")]
    for x in overrides:
        command += ["--set", f"train.{x}"]
    start = time.monotonic()
    with open(os.path.join(folder, "steps"), "w") as steps, open(os.path.join(folder, "log"), "w") as log:
        status = subprocess.run(command, stdout=steps, stderr=log, env={**os.environ, "OMP_NUM_THREADS": str(threads)}).returncode
    if status != 0:
        raise SystemExit(f"experiments: {' '.join(command)}: status {status}, see {folder}/log")
    with open(done, "w") as f:
        f.write(f"{time.monotonic() - start:.0f}\n")
    return folder


# ---- what came out

FIELD = re.compile(r"(\w+)=(\S+)")


class Curve:
    def __init__(self, folder):
        with open(os.path.join(folder, "run", "metrics.jsonl")) as f:
            metrics = [json.loads(line) for line in f]
        self.loss = [m["loss"] for m in metrics]
        self.tokens = metrics[-1]["tokens"]
        self.valid = metrics[-1]["valid_loss"]
        with open(os.path.join(folder, "seconds")) as f:
            self.seconds = int(f.read())
        with open(os.path.join(folder, "steps")) as f:
            lines = [dict(FIELD.findall(line)) for line in f]
        self.maxvio = [(int(x["step"]), float(x["valid_maxvio"])) for x in lines if "valid_maxvio" in x]

    def smooth(self):
        out, at = [], None
        for x in self.loss:
            at = x if at is None else SMOOTH * at + (1 - SMOOTH) * x
            out.append(at)
        return out


def difference(curve, base):
    """(largest, mean, last) relative difference of the smoothed curves after the first steps."""
    a, b = curve.smooth(), base.smooth()
    first = int(len(a) * SKIP)
    d = [(x - y) / y for x, y in zip(a[first:], b[first:], strict=True)]
    return max(map(abs, d)), sum(d) / len(d), d[-1]


def print_precisions(names, curves):
    base = curves[0]
    print(f"{'':28} {'tokens':>9} {'largest':>9} {'mean':>9} {'at the end':>10} {'valid loss':>10} {'seconds':>8}")
    for name, c in zip(names, curves, strict=True):
        worst, mean, last = difference(c, base)
        print(f"{name:28} {c.tokens:9} {worst:9.3%} {mean:+9.3%} {last:+10.3%} {c.valid:10.4f} {c.seconds:8}")


def print_balance(names, curves):
    for name, c in zip(names, curves, strict=True):
        path = "  ".join(f"{step}: {x:.2f}" for step, x in c.maxvio)
        print(f"{name:28} valid loss {c.valid:.4f}  MaxVio over the validation set at step {path}  ({c.seconds} s)")


def print_mtp(names, curves):
    for name, c in zip(names, curves, strict=True):
        print(f"{name:28} tokens {c.tokens}  loss {c.smooth()[-1]:.4f}  valid loss {c.valid:.4f}  ({c.seconds} s)")


def report(group, seed, names, curves):
    print(f"\n== {group}, seed {seed}")
    if group in ("main", "ablation"):
        print_precisions(names, curves)
    elif group == "balance":
        print_balance(names, curves)
    else:
        print_mtp(names, curves)
    sys.stdout.flush()
    if group != "main":
        return True
    worst = difference(curves[1], curves[0])[0]
    verdict = "within" if worst < BOUND else "beyond"
    print(f"fp8 against bf16: largest relative difference {worst:.3%}, {verdict} the bound of {BOUND:.2%}")
    return worst < BOUND


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("group", nargs="*")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0))), help="runs at a time, one thread each")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    text = corpus.read()
    data = corpus.pack(text, args.out) if not os.path.exists(f"{args.out}/corpus.idx") else {
        "train": f"{args.out}/corpus", "valid": f"{args.out}/corpus-valid"}
    data = {k: os.path.abspath(v) for k, v in data.items()}
    good = True
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for group in args.group or ("main", "ablation", "balance", "mtp"):
            items = runs_of(group, args.seed)
            out = os.path.abspath(args.out)
            folders = list(pool.map(lambda item, g=group: run(out, g, args.seed, item, data, 1), items))
            good &= report(group, args.seed, [i[0] for i in items], [Curve(f) for f in folders])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
