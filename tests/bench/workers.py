"""`make bench-workers`: how many no-op jobs a second two workers turn around when the coordinator costs nothing (orders.c). Prints the
figure and what the workers themselves used; asserts nothing."""

import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cluster import BIN, Process, free_port  # noqa: E402

ORDERS = os.path.join(os.path.dirname(BIN), "tests", "bench", "orders")
JOBS = int(os.environ.get("BENCH_JOBS", 2000))
SLOTS = int(os.environ.get("BENCH_SLOTS", 2))
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main():
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ds-bench-") as folder:
        orders = subprocess.Popen([ORDERS, str(port), str(JOBS), str(SLOTS)], stdout=subprocess.PIPE, text=True)
        time.sleep(0.2)
        workers = []
        for name in ("a", "b"):
            state = os.path.join(folder, name)
            command = [f"{BIN}/dsworkerd", "--server", f"127.0.0.1:{port}", "--state-dir", state, "--name", name]
            command += ["--accelerators", f"cpu:{SLOTS}", "--log-level", "error"]
            workers.append(Process(name, command, os.path.join(folder, f"{name}.log")).start())
        out = orders.communicate()[0]
        used = sum(cpu_seconds(w.pid) for w in workers)
        for worker in workers:
            worker.stop()
    if orders.returncode != 0:
        sys.exit("bench: the workers did not finish their jobs")
    done = json.loads(out)
    print(f"{JOBS / done['seconds']:.0f} no-op jobs/s over 2 workers x {SLOTS} slots (target: 200)")
    print(f"{1e3 * used / JOBS:.2f} ms of CPU a job in dsworkerd, {done['reports'] / JOBS:.1f} reports a job")


main()
