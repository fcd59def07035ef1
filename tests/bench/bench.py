"""`make bench`: how fast the coordinator takes jobs and gets rid of them, and how long a training step takes. Prints figures beside
their targets and asserts nothing: a slow machine is not a bug."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "demo"))

from cluster import BIN, ROOT, Cluster, processes_of  # noqa: E402

import corpus  # noqa: E402

SUBMIT = os.path.join(os.path.dirname(BIN), "tests", "bench", "submit")
JOBS = int(os.environ.get("BENCH_JOBS", 10000))
DEPTH = 256


def submits(cluster):
    """Durable submits a second through one pipelined connection."""
    done = subprocess.run([SUBMIT, cluster.socket, str(JOBS), str(DEPTH)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {done.stderr.strip()}")
    return JOBS / json.loads(done.stdout)["seconds"]


def drained(cluster):
    """Finished jobs a second, from the first worker's start to the last job's end."""
    for worker in cluster.workers:
        worker.start()
    began = time.monotonic()
    while True:
        counts = {c["state"]: c["count"] for c in cluster.json("cluster", "status")["jobs"]}
        if counts.get("COMPLETED", 0) == JOBS:
            return JOBS / (time.monotonic() - began)
        bad = {s: n for s, n in counts.items() if s in ("FAILED", "CANCELLED", "HELD") and n}
        if bad:
            sys.exit(f"bench: no-op jobs did not complete: {bad}")
        if sys.stderr.isatty():
            print(f"\r  {counts.get('COMPLETED', 0)} of {JOBS} done", end="", file=sys.stderr, flush=True)
        time.sleep(0.25)


def step_times(folder, text_prefix):
    """{precision: (median step ms, tokens/s)} of the demo's model, two ranks on this machine."""
    spec = os.path.join(ROOT, "etc", "demo.yaml")
    times = {}
    for precision in ("fp32", "bf16", "fp8"):
        command = [f"{BIN}/dstrain", "run", spec, "--ranks", "2", "--set", "train.steps=12", "--set", f"train.precision={precision}",
                   "--set", f"train.data.train={text_prefix}", "--set", "train.data.valid=null", "--set", "train.valid_every=0", "--set", "checkpoint.every=1000",
                   "--out", os.path.join(folder, precision)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        ms = sorted(int(m) for m in re.findall(r"step_ms=(\d+)", done.stdout))
        tok = sorted(float(t) for t in re.findall(r"tok_s=([\d.]+)", done.stdout))
        if done.returncode != 0 or not ms:
            sys.exit(f"bench: dstrain: {done.stderr.strip()[-500:]}")
        times[precision] = ms[len(ms) // 2], tok[len(tok) // 2]
    return times


def main():
    rows = []
    with tempfile.TemporaryDirectory(prefix="ds-bench-") as folder:
        cluster = Cluster(os.path.join(folder, "cluster"), workers=2, slots=2)
        try:
            cluster.start_dsd()
            rows.append(("durable submits/s, one connection", f"{submits(cluster):.0f}", "5000"))
            rows.append(("finished no-op jobs/s, 2 workers x 2 slots", f"{drained(cluster):.0f}", "200"))
            if not cluster.json("cost", "verify")["ok"]:
                sys.exit("bench: cost verify fails after the drain")
        finally:
            cluster.close()
        prefix = corpus.pack(corpus.read(), folder)["train"]
        for precision, (ms, tok) in step_times(folder, prefix).items():
            rows.append((f"demo model, {precision}, 2 ranks: ms/step (tokens/s)", f"{ms} ({tok:.0f})", "-"))
        left = processes_of(folder)
    width = max(len(r[0]) for r in rows)
    print(f"\n{'':{width}}  {'measured':>14}  {'target':>7}")
    for name, value, target in rows:
        print(f"{name:{width}}  {value:>14}  {target:>7}")
    print(f"on {os.cpu_count()} cores, {JOBS} jobs, {DEPTH} requests under way")
    if left:
        sys.exit(f"bench: processes were left: {left}")


if __name__ == "__main__":
    main()
