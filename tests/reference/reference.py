#!/usr/bin/env python3
"""The trainer's numerics against those of others: transformers, torch.optim, ml_dtypes, exact rational arithmetic.

Each subject (models.py, grids.py, optimiser.py) writes vectors: inputs, and what the others make of them. Programs of tests/unit/trainer
(test_reference*.c) compare dstrain with a folder of vectors and print an error for each thing. Vectors in vectors/ are compared on every
`make check`, which needs none of the others. `make check-reference` runs this: it makes those again, compares them with the ones in the
tree and dstrain with both; then the same with new seeds and shapes.

usage: reference.py write                                   writes vectors/
       reference.py check --tests DIR [--seed N] [--cases N] [--keep DIR]
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from transformers.utils import logging

import grids
import models
import optimiser

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests/reference/vectors"
TREE_SEED = 20240
AGAIN = 1e-5  # vectors made again on another processor, of a tensor's norm


class Report:
    def __init__(self):
        self.rows, self.part = [], ""

    def say(self, text):
        print(f"  {text}", flush=True)

    def row(self, case, what, error, tolerance, on=""):
        """One thing compared. tolerance 0: to the bit, and error counts what differs."""
        self.rows.append((self.part, case, what, error, tolerance, on))

    @staticmethod
    def good(row):
        return row[3] <= row[4]  # false for NaN

    def table(self):
        """The worst of each thing in each case."""
        worst = {}
        for row in self.rows:
            key = row[:3]
            ratio = row[3] / row[4] if row[4] > 0 else row[3]
            if key not in worst or not ratio <= worst[key][0]:
                worst[key] = (ratio, row)
        print(f"\n{'':4} {'vectors':8} {'case':22} {'what':38} {'error':>9} {'allowed':>9}  worst on")
        for _, row in worst.values():
            part, case, what, error, tolerance, on = row
            allowed = f"{tolerance:9.1e}" if tolerance > 0 else f"{'exact':>9}"
            print(f"{'ok' if self.good(row) else 'FAIL':4} {part:8} {case:22} {what:38} {error:9.2e} {allowed}  {on}")
        return sum(self.good(row) for _, row in worst.values()), sum(not self.good(row) for _, row in worst.values())


def write(out, seed, model_cases, large, report):
    models.write_all(out / "model", model_cases, seed, report)
    grids.write_all(out / "grid", seed, large, report)
    optimiser.write_all(out / "optimiser", seed, large, report)


def contents(path):
    with safe_open(path, "numpy") as f:
        return {name: f.get_tensor(name) for name in f.keys()}, f.metadata()


def compare_again(report, fresh):
    """The vectors of the tree against those just made with the same seed."""
    here, there = ({p.relative_to(d): p for p in d.rglob("*.safetensors")} for d in (VECTORS, fresh))
    for name in sorted(here.keys() ^ there.keys()):
        report.row(str(name), "in one folder only", float("inf"), 0)
    for name in sorted(here.keys() & there.keys()):
        (old, _), (new, _) = contents(here[name]), contents(there[name])
        if old.keys() != new.keys():
            report.row(name.stem, "tree's vectors, tensors' names", len(old.keys() ^ new.keys()), 0)
            continue
        worst, on = 0.0, ""
        for tensor in old:
            a, b = old[tensor].astype(np.float64), new[tensor].astype(np.float64)
            different = ~((a == b) | (np.isnan(a) & np.isnan(b)))
            error = 0.0
            if different.any():
                error = float(np.linalg.norm((a - b)[different]) / np.linalg.norm(a)) if old[tensor].dtype.kind == "f" else float("inf")
            if not error <= worst:
                worst, on = error, tensor
        report.row(name.stem, "tree's vectors, made again", worst, AGAIN, on)


def run_programs(report, tests, vectors):
    """The C side. Its programs print `reference: case | what | error | tolerance | on`."""
    for program in ("test_reference", "test_reference_grid", "test_reference_optim"):
        done = subprocess.run([f"{tests}/{program}"], cwd=ROOT, env={**os.environ, "DS_VECTORS": str(vectors)}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        rows = [line[len("reference: "):].split(" | ") for line in done.stdout.splitlines() if line.startswith("reference: ")]
        for case, what, error, tolerance, on in rows:
            report.row(case, what, float(error), float(tolerance), on)
        if done.returncode != 0 or not rows:
            print(done.stdout)
            report.row(program, f"the program ended with {done.returncode}", float(done.returncode or 1), 0)


def check(args):
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"reference: SEED={seed} CASES={args.cases} repeats this", flush=True)
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.keep or temporary)
        print("the tree's vectors, made again:")
        report.part = "tree"
        write(folder / "tree", TREE_SEED, models.NAMED, False, report)
        compare_again(report, folder / "tree")
        run_programs(report, args.tests, VECTORS)
        print(f"new ones, of seed {seed}:")
        report.part = "new"
        write(folder / "new", seed, models.random_cases(seed, args.cases), True, report)
        run_programs(report, args.tests, folder / "new")
    passed, failed = report.table()
    print(f"reference: SEED={seed} CASES={args.cases}")
    print(f"reference: {passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    checking = commands.add_parser("check")
    checking.add_argument("--tests", required=True, help="where the test programs are")
    checking.add_argument("--seed", type=int)
    checking.add_argument("--cases", type=int, default=24)
    checking.add_argument("--keep", help="a folder for the vectors, which are thrown away otherwise")
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    if args.command == "check":
        return check(args)
    report = Report()
    write(VECTORS, TREE_SEED, models.NAMED, False, report)
    passed, failed = report.table()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
