"""The coordinator's parts of `make bench`: real programs, real sockets, a real disk."""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time

from cluster import BIN, ROOT, Cluster

TOOLS = os.path.join(os.path.dirname(BIN), "tests", "bench")
TICKS = os.sysconf("SC_CLK_TCK")
PRICES = os.path.join(ROOT, "etc", "prices.yaml")
DEPTH = 256
LISTS = 7


def tool(name, *args):
    """Runs a helper; what it prints, as a value."""
    done = subprocess.run([os.path.join(TOOLS, name), *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {name}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def children_seconds():
    """CPU of the processes this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


def submit(cluster, jobs):
    """Durable submits a second through one pipelined connection."""
    return jobs / tool("submit", cluster.socket, jobs, DEPTH)["seconds"]


def states(cluster):
    return {c["state"]: c["count"] for c in cluster.json("cluster", "status")["jobs"]}


def drain(cluster, jobs):
    """Finished jobs a second, from the first worker's start until none is left of `jobs`."""
    before = states(cluster)
    for worker in cluster.workers:
        worker.start()
    began = time.monotonic()
    while True:
        new = {s: n - before.get(s, 0) for s, n in states(cluster).items()}
        if new.get("COMPLETED", 0) == jobs:
            return jobs / (time.monotonic() - began)
        bad = {s: new[s] for s in ("FAILED", "CANCELLED", "HELD") if new.get(s, 0) > 0}
        if bad:
            sys.exit(f"bench: no-op jobs did not complete: {bad}")
        time.sleep(0.25)


def wait_up(cluster):
    return tool("ask", cluster.socket, "first", 120000)["ms"]


def list_ms(cluster, jobs=10000):
    """dsctl as a person starts it: the median of some."""
    times = []
    for _ in range(LISTS):
        began = time.monotonic()
        out = cluster.ctl("job", "list", "--limit", jobs).stdout
        times.append((time.monotonic() - began) * 1e3)
        if out.count("\n") < jobs:
            sys.exit(f"bench: job list shows {out.count(chr(10))} lines, not {jobs} jobs")
    return statistics.median(times)


def check_ledger(cluster):
    if not cluster.json("cost", "verify")["ok"]:
        sys.exit("bench: cost verify fails")


# ---- parts


def part_submit(figures, folder):
    jobs = int(os.environ.get("BENCH_SUBMITS", 40000))
    cluster = Cluster(folder, workers=0)
    try:
        cluster.start_dsd()
        used = cpu_seconds(cluster.dsd.pid)
        figures.add(f"durable submits, one connection, {DEPTH} under way", submit(cluster, jobs), "/s", least=20000)
        figures.add("  CPU of dsd a submit", (cpu_seconds(cluster.dsd.pid) - used) / jobs * 1e6, "us")
        used = cpu_seconds(cluster.dsd.pid) + children_seconds()
        figures.add("job list of 10,000, dsctl", list_ms(cluster), "ms", most=100)
        figures.add("  CPU of dsctl and dsd for it", (cpu_seconds(cluster.dsd.pid) + children_seconds() - used) / LISTS * 1e3, "ms")
    finally:
        cluster.close()


def part_drain(figures, folder):
    jobs = int(os.environ.get("BENCH_JOBS", 10000))
    slots = int(os.environ.get("BENCH_SLOTS", 8))
    cluster = Cluster(folder, workers=2, slots=slots)
    try:
        cluster.start_dsd()
        submit(cluster, jobs)
        used = cpu_seconds(cluster.dsd.pid)
        rate = drain(cluster, jobs)
        figures.add(f"no-op jobs end to end, 2 workers x {slots} slots, {jobs} waiting at first", rate, "/s", least=500)
        figures.add("  of which dsd: CPU a job", (cpu_seconds(cluster.dsd.pid) - used) / jobs * 1e3, "ms")
        figures.add("  of which dsworkerd, without shims and ranks", sum(cpu_seconds(w.pid) for w in cluster.workers) / jobs * 1e3, "ms")
        check_ledger(cluster)
    finally:
        cluster.close()


def part_heartbeat(figures, folder):
    """1,000 workers on sockets, and somebody at a terminal."""
    count, seconds = int(os.environ.get("BENCH_WORKERS", 1000)), 20
    cluster = Cluster(folder, workers=0)
    try:
        cluster.start_dsd()
        with Fleet(cluster, count, seconds) as fleet:
            asked = tool("ask", cluster.socket, "load", seconds - 2)
            beats = fleet.result()
        figures.add(f"p99 of answers to people while {count} workers heartbeat", asked["p99_ms"], "ms", most=10)
        figures.add(f"  p50 of these {asked['count']}", asked["p50_ms"], "ms")
        figures.add("p99 of answers to the heartbeats", beats["p99_ms"], "ms", most=10)
        figures.add(f"  p50 of these {beats['count']}", beats["p50_ms"], "ms")
    finally:
        cluster.close()


class Fleet:
    """Simulated workers (workers.c), registered when entered."""

    def __init__(self, cluster, count, seconds):
        self.command = [os.path.join(TOOLS, "workers"), "127.0.0.1", str(cluster.port), str(count), str(seconds)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "registered":
            sys.exit("bench: the simulated workers could not register")
        return self

    def result(self):
        return json.loads(self.process.stdout.readline())

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def part_idle(figures, folder):
    """16,384 nodes that heartbeat, 50,000 jobs that wait and cannot start: what does nothing costs nothing."""
    nodes, waiting, seconds = 16384, 50000, 10
    cluster = Cluster(folder, workers=0, dsd_config="limits: {connections: 20000}\n")
    try:
        tool("fill", cluster.state, PRICES, nodes, 0, waiting)
        cluster.start_dsd()
        quiet = cpu_share(cluster, seconds)
        figures.add(f"CPU of dsd, {waiting} jobs wait, no worker is connected", quiet * 100, "%", most=1)
        with Fleet(cluster, nodes, 10 * seconds):
            time.sleep(2)
            before = cluster.json("cluster", "status")["scheduled_at"]
            busy = cpu_share(cluster, seconds)
            after = cluster.json("cluster", "status")["scheduled_at"]
        figures.add(f"CPU of dsd, {nodes} workers heartbeat every 5 s", busy * 100, "%")
        figures.add("  a heartbeat", busy / (nodes / 5) * 1e6, "us")
        figures.add("  scheduling passes meanwhile", 0 if before == after else 1, "", most=1)
    finally:
        cluster.close()


def cpu_share(cluster, seconds):
    began, used = time.monotonic(), cpu_seconds(cluster.dsd.pid)
    time.sleep(seconds)
    return (cpu_seconds(cluster.dsd.pid) - used) / (time.monotonic() - began)


def part_restart(figures, folder):
    waiting = int(os.environ.get("BENCH_WAITING", 100000))
    cluster = Cluster(folder, workers=0)
    try:
        tool("fill", cluster.state, PRICES, 2, 0, waiting)
        cluster.start_dsd()
        figures.add(f"memory of dsd with {waiting} jobs waiting, a job", resident_mib(cluster.dsd.pid) * 1048576 / waiting, "bytes", most=2048)
        cluster.dsd.kill()
        cluster.dsd.start()
        figures.add(f"answering again after a kill with {waiting} jobs", wait_up(cluster), "ms", most=1000)
        figures.add("  CPU of dsd for it", cpu_seconds(cluster.dsd.pid) * 1e3, "ms")
    finally:
        cluster.close()


def part_history(figures, folder):
    """The same with nothing and with much in the database, one after the other."""
    finished = int(os.environ.get("BENCH_HISTORY", 1000000))
    jobs = 3000
    found = {}
    for count in (0, finished):
        cluster = Cluster(os.path.join(folder, str(count)), workers=2, slots=8)
        try:
            if count > 0:
                figures.add(f"{count} jobs run through the real store", tool("fill", cluster.state, PRICES, 32, count, 0)["seconds"], "s")
                figures.add("  database", os.path.getsize(os.path.join(cluster.state, "ds.db")) / 1048576, "MiB")
            cluster.start_dsd()
            row = found[count] = {"submit": submit(cluster, 20000)}
            cluster.dsd.kill()
            cluster.dsd.start()
            row["restart"] = wait_up(cluster)
            row["list"] = list_ms(cluster)
            drop(cluster, 20000 - jobs)
            row["drain"] = drain(cluster, jobs)
        finally:
            cluster.close()
    nothing, much = found[0], found[finished]
    for what, name in (("submit", "submits/s"), ("drain", "no-op jobs/s")):
        figures.add(f"{name}: with {finished} finished jobs / with none ({nothing[what]:.0f})", much[what] / nothing[what], "x", least=0.9)
    figures.add(f"job list of 10,000, with {finished} finished jobs", much["list"], "ms", most=100)
    figures.add("  with none", nothing["list"], "ms")
    figures.add(f"answering again after a kill, with {finished} finished jobs", much["restart"], "ms", most=1000)
    figures.add("  with none", nothing["restart"], "ms")


def drop(cluster, count):
    """Cancels so many of the waiting jobs, the newest."""
    ids = [str(j["id"]) for j in cluster.items("job", "list", "--limit", count)]
    for at in range(0, len(ids), 2000):
        cluster.ctl("job", "cancel", *ids[at : at + 2000])
