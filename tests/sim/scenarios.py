"""scenarios.py DSSIM [--bench]: the simulator's published figures: DeepSeek-V3's hours and dollars, the effective training time beside its
closed form, traces good and bad. With --bench, how long two months of 2,048 accelerators with faults take."""

import gzip
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
    return subprocess.run([DSSIM, *arguments], capture_output=True, text=True, timeout=120)


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
    assert r["ettr"] >= 0.985 and r["failures"] > 10 and abs(r["restarts"] - r["failures"]) <= 5, r
    assert r["completed"] == r["jobs"] and r["lost_steps"] > 0
    again = report("run", "--scenario", "deepseek-v3", "--faults", "llama3")
    assert again["hash"] == r["hash"], "the same seed went another way"


def training_goes_on_without_worker_and_coordinator():
    kinds = ("faults={kinds: [{name: worker, kind: worker, per_1000_node_days: 300, repair: 5s}, "
             "{name: coordinator, kind: coordinator, per_day: 20, repair: 20s}]}")
    r = report("run", "--scenario", "deepseek-v3", "--set", "horizon=2d", "--set", kinds)
    hits = {f["name"]: f["hits"] for f in r["faults"]}
    assert hits["worker"] > 50 and hits["coordinator"] > 20, hits
    assert r["restarts"] == r["failures"] == 0 and r["ettr"] > 0.995, r


def other_sizes_are_a_row_each():
    done = dssim("run", "--scenario", "llama3", "--nodes", "32,256", "--set", "horizon=1d", "-o", "json")
    rows = json.loads(done.stdout)["items"]
    assert [r["nodes"] for r in rows] == [32, 256] and rows[0]["days"] > 4 * rows[1]["days"], rows
    assert all(abs(r["ettr"] / r["ettr_closed_form"] - 1) < 0.05 for r in rows), rows


def a_job_too_large_is_no_result():
    done = dssim("run", "--scenario", "llama3", "--set", "cluster.nodes=256")
    assert done.returncode != 0 and done.stdout == "" and "never start" in done.stderr, (done.stdout, done.stderr)


def a_storm_of_crash_loops_does_not_take_others_down():
    r = report("run", "--scenario", "preemption-storm")  # it has its expectations
    assert r["completed"] == 16 and 0 < r["preemptions"] <= 280, r
    done = dssim("run", "--scenario", "preemption-storm", "--set", "expect=[{figure: preemptions, max: 0}]")
    assert done.returncode == 1 and "preemptions is 280, the scenario expects at most 0" in done.stderr, done.stderr


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


def read_as(name, text, *arguments):
    """What replay makes of a file of this name; text is bytes when it is packed."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as f:
            f.write(text if isinstance(text, bytes) else text.encode())
        return report("replay", path, *arguments)


def other_columns_units_parts_and_packed_files_are_read():
    helios = ("user,jobname,gpu_num,state,submit_time,start_time,end_time,job_id\n"
              "u1,\"train, big\",8,COMPLETED,2020-04-01 00:00:04,2020-04-01 00:00:05,2020-04-01 01:00:05,a1\n"
              "u2,x,0.5,FAILED,2020-03-31 20:10:04-04:00,2020-04-01 00:10:05,2020-04-01 01:10:05,a2\n"
              "u2,x,16,CANCELLED,2020-04-01 00:05:04,,,a3\n"
              "u2,x,0,COMPLETED,2020-04-01 00:05:04,2020-04-01 00:05:04,2020-04-01 00:05:08,a4\n")
    for r in (read_as("t.csv", helios), read_as("t.csv.gz", gzip.compress(helios.encode()))):
        assert (r["jobs"], r["skipped"], r["rounded"]) == (2, 2, 1) and abs(r["gpu_hours"] - 9) < 0.1, r
    r = read_as("u.csv", "duration_min;gpus;submit_ms;job_id\n30;4;1600000000000;1\n15;8;1600000900000;2\n")
    assert r["jobs"] == 2 and abs(r["gpu_hours"] - 4) < 0.1 and r["items"][0]["makespan_ms"] == 1800000, r


def swf_headers_and_odd_jobs_are_understood():
    line = "{} {} 0 {} {} -1 -1 {} 60 -1 {} 1 1 1 1 1 -1 -1\n"
    jobs = (line.format(2, 900, 3600, 64, -1, 1) + line.format(1, 0, 3600, -1, 64, 0) + line.format(3, 5, -1, 4, 4, 5) +
            line.format(4, 6, 0, 4, 4, 5) + line.format(5, 7, 60, 4096, 4096, 1))
    for header, arguments, nodes, gpus in (("; MaxNodes: 8\n; MaxProcs: 64\n", (), 8, 8), ("; MaxProcs: 64\n", (), 64, 1),
                                           ("; MaxProcs: 64\n", ("--gpus-per-node", "8"), 8, 8)):
        r = read_as("t.swf", header + jobs, *arguments)
        first = r["items"][0]
        assert (first["nodes"], first["gpus_per_node"]) == (nodes, gpus), r
        assert (r["jobs"], r["skipped"], r["refused"], first["started"]) == (3, 2, 1, 2), r


def pictures_are_drawn():
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (("run", "--scenario", "deepseek-v3", "--set", "horizon=6h"), ("replay", os.path.join(HERE, "starve.csv"), "--nodes", "4")):
            for name, begins in (("p.png", b"\x89PNG"), ("p.svg", b"<?xml")):
                path = os.path.join(folder, name)
                done = dssim(*arguments, f"--plot={path}")
                assert done.returncode == 0, done.stderr
                with open(path, "rb") as f:
                    assert f.read(5).startswith(begins), (arguments, name)
        drawn = dssim(*arguments, "--plot").stdout
        assert "jobs waiting" in drawn and "accelerators in use" in drawn, drawn


def bench():
    began = time.monotonic()
    r = report("run", "--scenario", "deepseek-v3", "--faults", "llama3")
    seconds = time.monotonic() - began
    days = r["duration_ms"] / 86400000
    print(f"simulated cluster: {days:.0f} days of 2,112 accelerators with {r['failures']} faults in {seconds:.1f} s (target: 2 months in 30 s)")


if "--bench" in sys.argv:
    bench()
    sys.exit(0)
for test in (deepseek_v3_costs_what_was_published, deepseek_v3_survives_llama3s_faults,
             training_goes_on_without_worker_and_coordinator, other_sizes_are_a_row_each,
             a_job_too_large_is_no_result, a_storm_of_crash_loops_does_not_take_others_down, effective_time_follows_the_closed_form,
             no_gang_starves_and_easy_is_not_better, whatif_compares, bad_lines_are_refused_with_their_number,
             quoted_fields_comments_and_other_headers_are_read, other_columns_units_parts_and_packed_files_are_read,
             swf_headers_and_odd_jobs_are_understood, pictures_are_drawn):
    try:
        test()
        results.append(True)
    except AssertionError as why:
        results.append(False)
        print(f"{test.__name__}: {why}", flush=True)
print(f"scenarios: {sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if all(results) else 1)
