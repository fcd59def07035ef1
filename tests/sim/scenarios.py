"""scenarios.py DSSIM [--bench]: the simulator's published figures: DeepSeek-V3's hours and dollars, the effective training time beside its
closed form, traces good and bad. With --bench, how long two months of 2,048 accelerators with faults take."""

import json
import os
import subprocess
import sys
import tempfile
import time

DSSIM = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
results = []


def dssim(*arguments):
    return subprocess.run([DSSIM, *arguments], capture_output=True, text=True, timeout=300)


def report(*arguments):
    done = dssim(*arguments, "-o", "json")
    if done.returncode != 0:
        raise AssertionError(done.stderr.strip())
    return json.loads(done.stdout)


def deepseek_v3_costs_what_was_published():
    r = report("run", "--scenario", "deepseek-v3")
    hours = {s["stage"]: round(s["gpu_hours"] / 1000) for s in r["stages"]}
    assert hours == {"pretrain": 2664, "context-extension": 119, "post-training": 5}, hours
    assert round(r["cost_micro_usd"] / 1e9) == 5576, r["cost_micro_usd"]
    assert r["failures"] == r["lost_steps"] == 0


def deepseek_v3_survives_llama3s_faults():
    r = report("run", "--scenario", "deepseek-v3", "--faults", "llama3")
    assert r["ettr"] >= 0.985 and r["failures"] > 10 and r["restarts"] >= r["failures"] - 5, r
    assert r["completed"] == r["jobs"] and r["lost_steps"] > 0
    again = report("run", "--scenario", "deepseek-v3", "--faults", "llama3")
    assert again["hash"] == r["hash"], "the same seed went another way"


def effective_time_follows_the_closed_form():
    for nodes in (32, 128, 512, 1024, 2048):
        job = (f"jobs=[{{name: t, nodes: {nodes}, run: 1000d, tokens: 15T, batch: 4M, "
               "save: {every: 5m, stall: 1s, write: 20s, told: 1000000}}]")
        r = report("run", "--scenario", "llama3", "--set", f"cluster.nodes={nodes + nodes // 16}", "--set", job,
                   "--set", f"horizon={max(2, 2048 // nodes)}d")
        assert abs(r["ettr"] / r["ettr_closed_form"] - 1) < 0.05, (nodes, r["ettr"], r["ettr_closed_form"])
        assert abs(r["goodput"] - r["ettr"]) < 0.02, (nodes, r["goodput"], r["ettr"])


def no_gang_starves_and_easy_is_not_better():
    done = dssim("replay", os.path.join(HERE, "starve.csv"), "--nodes", "4", "--check")
    assert done.returncode == 0, done.stderr


def whatif_compares():
    r = report("whatif", os.path.join(HERE, "starve.csv"), "--nodes", "4,8")
    waits = {i["nodes"]: i["wait_mean_ms"] for i in r["items"]}
    assert waits[8] < waits[4], waits


def bad_lines_are_refused_with_their_number():
    swf = "; MaxProcs: 64\n" + "1 0 1 60 4 -1 -1 4 60 -1 1 1 1 1 1 1 -1 -1\n"
    cases = {
        "a.swf": (swf + "2 5 1 60 4 -1\n", ":3:"),
        "b.swf": (swf + swf.splitlines()[1].replace("60", "x", 1) + "\n", ":3:"),
        "c.csv": ("job_id,submit,gpus,duration\na,0,4,60\nb,1,four,60\n", ":3:"),
        "d.csv": ('job_id,submit,gpus,duration\n"a,0,4,60\n', ":2:"),
        "e.csv": ("job_id,submit,duration\na,0,60\n", ":1:"),
        "f.csv": ("job_id,submit,gpus,duration\na,0,-4,60\n", ":2:"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (text, place) in cases.items():
            path = os.path.join(folder, name)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            done = dssim("replay", path)
            assert done.returncode != 0 and name + place in done.stderr, (name, done.stderr)


def quoted_fields_comments_and_other_headers_are_read():
    text = '\ufeff# of last week\nJobID;Submit Time;num_gpus;Duration (s);User\n"a;""1""";2024-01-01 00:00:00;16;1:00:00;ann\n\nb;2024-01-01 00:10:00;3;90m;\n'
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t.csv")
        with open(path, "w", encoding="utf-8", newline="\r\n") as f:
            f.write(text)
        r = report("replay", path, "--nodes", "3")
    assert r["jobs"] == 2 and abs(r["gpu_hours"] - (16 + 4.5)) < 0.1, r


def bench():
    began = time.monotonic()
    r = report("run", "--scenario", "deepseek-v3", "--faults", "llama3")
    seconds = time.monotonic() - began
    days = r["duration_ms"] / 86400000
    print(f"simulated cluster: {days:.0f} days of 2,112 accelerators with {r['failures']} faults in {seconds:.1f} s (target: 2 months in 30 s)")


if "--bench" in sys.argv:
    bench()
    sys.exit(0)
for test in (deepseek_v3_costs_what_was_published, deepseek_v3_survives_llama3s_faults, effective_time_follows_the_closed_form,
             no_gang_starves_and_easy_is_not_better, whatif_compares, bad_lines_are_refused_with_their_number,
             quoted_fields_comments_and_other_headers_are_read):
    try:
        test()
        results.append(True)
    except AssertionError as why:
        results.append(False)
        print(f"{test.__name__}: {why}", flush=True)
print(f"scenarios: {sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if all(results) else 1)
