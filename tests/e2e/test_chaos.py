"""Random kill -9 of everything during one training run. The job completes, its loss series is the undisturbed run's bit for bit, and
nothing acknowledged is missing. CHAOS_KILLS says how many kills, SEED repeats a run's choices."""

import os
import random
import signal
import time

from cluster import ENDED, wait_for
from specs import command, train
from test_ledger import capacity_adds_up
from test_recovery import HASTY

KILLS = int(os.environ.get("CHAOS_KILLS", 50))
STEPS_PER_KILL = 150
SERIES = ("step", "tokens", "loss", "mtp_loss", "grad_norm", "lr", "balance_maxvio", "valid_loss")


def series(cluster, job):
    return [tuple(m.get(k) for k in SERIES) for m in cluster.metrics(job)]


def victims(cluster, job):
    """{kind: [(name, pid or process)]} of what can be killed now."""
    return {
        "dsd": [cluster.dsd],
        "dsworkerd": [w for w in cluster.workers if w.alive()],
        "shim": cluster.shims(),
        "rank": list(cluster.ranks(job).values()),
    }


def strike(cluster, job, rng):
    """Kills one thing; daemons come back after a moment, as systemd would bring them. What was hit, or None."""
    kind = rng.choice(["dsd", "dsworkerd", "shim", "rank"])
    choices = victims(cluster, job)[kind]
    if not choices:
        return None
    victim = rng.choice(choices)
    if kind in ("dsd", "dsworkerd"):
        victim.kill()
        time.sleep(rng.uniform(0, 0.5))
        if kind == "dsd":
            cluster.start_dsd()
        else:
            victim.start()
    else:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return None
    return kind


def test_random_kills_change_nothing(make_cluster, corpus):
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"seed {seed} (SEED={seed} CHAOS_KILLS={KILLS} repeats the choices)")
    rng = random.Random(seed)
    cluster = make_cluster(dsd_config=HASTY)
    steps = STEPS_PER_KILL * (KILLS + 1)
    # Frequent checkpoints keep the run going forward whatever is killed; the budget only counts restarts without a new one.
    spec = train(cluster, corpus, steps=steps, every=20, precision="fp8", restart_max=1000, global_batch=8)

    undisturbed = cluster.submit(spec)
    cluster.wait_job(undisturbed, "COMPLETED", timeout=600)
    expected = series(cluster, undisturbed)
    assert [row[0] for row in expected] == list(range(1, steps + 1))

    job = cluster.submit(spec, "--key", f"chaos-{seed}")
    acknowledged = {undisturbed, job}
    hits = []
    reached = 0
    while len(hits) < KILLS:
        # Not before the run got a little further than at the last kill: otherwise it would only ever start.
        def further():
            shown = cluster.job(job)
            step = (shown["progress"] or {}).get("step") or 0
            return shown if shown["state"] in ENDED or step > reached else None

        shown = wait_for(further, 120, f"progress beyond step {reached} after {hits[-3:]}")
        assert shown["state"] not in ENDED, f"the run was over after {len(hits)} kills: {shown['state']} {shown['reason']}"
        reached = shown["progress"]["step"]
        time.sleep(rng.uniform(0, 0.3))
        hit = strike(cluster, job, rng)
        if hit:
            hits.append(hit)
            reached = min(reached, shown["last_checkpoint"]["step"]) if shown["last_checkpoint"] else 0
        if rng.random() < 0.3:
            acknowledged.add(cluster.submit(command("true", name=f"side{len(hits)}", gpus=0)))
    print("killed:", ", ".join(hits))
    assert KILLS < 30 or set(hits) == {"dsd", "dsworkerd", "shim", "rank"}

    shown = cluster.wait_job(job, "COMPLETED", timeout=600)
    assert series(cluster, job) == expected
    assert {j["id"] for j in cluster.items("jobs", "--all", "--limit", 10000)} >= acknowledged
    for other in acknowledged:
        assert cluster.wait_job(other)["state"] == "COMPLETED"
    assert [a["attempt"] for a in shown["attempts"]] == list(range(1, shown["attempt"] + 1))
    capacity_adds_up(cluster)
