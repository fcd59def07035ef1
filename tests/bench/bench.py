"""bench.py [PART ...]: how fast this is. Prints figures beside their targets and asserts nothing: a slow machine is not a bug. All parts that have
figures of their own are in PARTS; the others print for themselves. `make bench PART="drain list"` runs some of them."""

import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "demo"))

from cluster import BIN, ROOT, processes_of  # noqa: E402

import coordinator  # noqa: E402
import corpus  # noqa: E402
import slurm  # noqa: E402
from figures import Figures  # noqa: E402


def part_sched(figures, _):
    """The pure core: a pass, and what things take of memory."""
    knobs = [os.environ.get("NODES") or "16384", os.environ.get("WAITING") or "50000"]
    done = subprocess.run([os.path.join(coordinator.TOOLS, "sched"), *knobs], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {done.stderr.strip()}")
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            figures.add(**json.loads(line))


def part_steps(figures, folder):
    """The demo's model, two ranks on this machine: the median step."""
    prefix = corpus.pack(corpus.read(), folder)["train"]
    spec = os.path.join(ROOT, "etc", "demo.yaml")
    for precision in ("fp32", "bf16", "fp8"):
        command = [f"{BIN}/dstrain", "run", spec, "--ranks", "2", "--set", "train.steps=12", "--set", f"train.precision={precision}",
                   "--set", f"train.data.train={prefix}", "--set", "train.data.valid=null", "--set", "train.valid_every=0", "--set", "checkpoint.every=1000",
                   "--out", os.path.join(folder, precision)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        ms = sorted(int(m) for m in re.findall(r"step_ms=(\d+)", done.stdout))
        if done.returncode != 0 or not ms:
            sys.exit(f"bench: dstrain: {done.stderr.strip()[-500:]}")
        figures.add(f"demo model, {precision}, 2 ranks: a step", ms[len(ms) // 2], "ms")


def script(*command):
    def run(_, __):
        subprocess.run(command, check=True)
    return run


PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)
PARTS = {
    "sched": part_sched,
    "submit": coordinator.part_submit,
    "drain": coordinator.part_drain,
    "heartbeat": coordinator.part_heartbeat,
    "idle": coordinator.part_idle,
    "restart": coordinator.part_restart,
    "history": coordinator.part_history,
    "slurm": slurm.part_slurm,
    "steps": part_steps,
    "sim": script(sys.executable, os.path.join(ROOT, "tests", "sim", "scenarios.py"), f"{BIN}/dssim", "--bench"),
    "pack": script(PYTHON, os.path.join(HERE, "pack.py"), "--bin", BIN),
    "torch": script(sys.executable, os.path.join(HERE, "torch_bench.py")),
}


def main():
    parts = sys.argv[1:] or list(PARTS)
    unknown = [p for p in parts if p not in PARTS]
    if unknown:
        sys.exit(f"bench: there is no part {', '.join(unknown)} (parts: {', '.join(PARTS)})")
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="ds-bench-") as folder:
        for part in parts:
            print(f"{part} ...", file=sys.stderr, flush=True)
            place = os.path.join(folder, part)
            os.mkdir(place)
            PARTS[part](figures, place)
        left = processes_of(folder)
    if figures.rows:
        figures.show()
    if left:
        sys.exit(f"bench: processes were left: {left}")


if __name__ == "__main__":
    main()
