#!/usr/bin/env python3
"""The experiments of docs/recipe.md §5, from the text to the tables. What is finished in the output folder is not run again.

    experiments.py [GROUP...] --out DIR [--seed N] [--steps N]

Exit status 1 when FP8 is beyond the bound, 0 otherwise.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "demo"), os.path.join(HERE, "..")]
import results  # noqa: E402
import runs  # noqa: E402
import text  # noqa: E402
from cluster import BIN  # noqa: E402
from corpus import NoText  # noqa: E402


class Failed(Exception):
    pass


class Experiments:
    def __init__(self, out, seed, steps, jobs):
        self.out, self.seed, self.steps = os.path.abspath(out), seed, steps
        self.pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self.data = text.pack(self.out, runs.VOCABULARY)

    def folder(self, group, run):
        length = f" {run.train['steps']} steps" if run.train["steps"] < run.full_steps else ""
        return os.path.join(self.out, group, f"{self.seed} {run.name}{length}".replace(" ", "-").replace("=", "-").replace(",", ""))

    def runs_of(self, group):
        return [run.shorten(self.steps) if self.steps else run for run in runs.runs_of(group)]

    def named(self, group, name):
        return next(run for run in self.runs_of(group) if run.name == name)

    def run(self, group, run):
        """Runs it to its end, after what it begins with, unless that was done with these very settings. Its folder."""
        folder, init_from = self.folder(group, run), None
        if run.after:
            before = self.folder(run.after[0], self.named(*run.after))
            init_from = os.path.join(before, "run", "checkpoints")
        done, spec = os.path.join(folder, "seconds"), os.path.join(folder, "job.yaml")
        os.makedirs(folder, exist_ok=True)
        job = json.dumps({**run.job(self.data, self.seed, folder, init_from), "overrides": run.overrides}, indent=1)
        settings = os.path.join(folder, "settings.json")
        if os.path.exists(done) and os.path.exists(settings) and open(settings, encoding="utf-8").read() == job:
            return folder
        shutil.rmtree(folder)  # what was begun and not finished, or is of other settings
        os.makedirs(folder)
        with open(settings, "w", encoding="utf-8") as f:
            f.write(job)
        with open(spec, "w", encoding="utf-8") as f:
            json.dump(run.job(self.data, self.seed, folder, init_from), f)
        command = [f"{BIN}/dstrain", "run", spec, "--out", os.path.join(folder, "run")]
        for x in run.overrides:
            command += ["--set", f"train.{x}"]
        print(f"experiments: {group}, seed {self.seed}: {run.name}, {run.train['steps']} steps", flush=True)
        start = time.monotonic()
        with open(os.path.join(folder, "steps"), "w", encoding="utf-8") as steps, open(os.path.join(folder, "log"), "w", encoding="utf-8") as log:
            status = subprocess.run(command, stdout=steps, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
        if status != 0:
            with open(os.path.join(folder, "log"), encoding="utf-8") as log:
                raise Failed(f"{' '.join(command)}: status {status}: {''.join(log.readlines()[-1:]).strip()}")
        with open(done, "w", encoding="utf-8") as f:
            f.write(f"{time.monotonic() - start:.0f}\n")
        return folder

    def run_all(self, pairs):
        """[(group, run)], as many at a time as there are jobs; each after the one it begins with."""
        futures = {}

        def start(group, run):
            key = group, run.name
            if key not in futures:
                before = start(run.after[0], self.named(*run.after)) if run.after else None
                futures[key] = self.pool.submit(lambda: (before and before.result(), self.run(group, run))[1])
            return futures[key]

        return [f.result() for f in [start(group, run) for group, run in pairs]]

    def group(self, group):
        """Whether what it shows is as it should be."""
        items = self.runs_of(group)
        folders = self.run_all([(group, run) for run in items])
        print(f"\n== {group}, seed {self.seed}")
        if any(run.train["steps"] < run.full_steps for run in items):
            print(f"shortened to {self.steps} steps (STEPS=): these are not the figures of docs/recipe.md")
        good = results.TABLES[group]([results.Result(run, folder) for run, folder in zip(items, folders, strict=True)])
        sys.stdout.flush()
        return good is not False


def positive(word):
    value = int(word)
    if value < 1:
        raise ValueError
    return value


def main():
    parser = argparse.ArgumentParser(prog="experiments")
    parser.add_argument("group", nargs="*", help=" ".join(runs.GROUPS))
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=positive, default=1)
    parser.add_argument("--steps", type=positive, help="at most so many a run")
    parser.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)), help="runs at a time, one thread each")
    args = parser.parse_args()
    for group in args.group:
        if group not in runs.GROUPS:
            parser.error(f"no group {group} (allowed: {', '.join(runs.GROUPS)})")
    try:
        experiments = Experiments(args.out, args.seed, args.steps, args.jobs)
        return 0 if all([experiments.group(g) for g in args.group or runs.GROUPS]) else 1
    except (Failed, NoText, OSError) as e:
        print(f"experiments: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
