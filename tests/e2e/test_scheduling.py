"""What operators and owners ask of the scheduler, through dsctl: windows, limits, quotas, changes to queued and running jobs, plans."""

import json
import time

from cluster import wait_for
from specs import command, train

REFUSED, USAGE, NOT_FOUND, CONFLICT = 1, 2, 3, 5


def plan(cluster, spec, status):
    """What `job plan` says of a job; its exit status tells the action."""
    return json.loads(cluster.ctl("job", "plan", "-", "-o", "json", text=spec, status=status).stdout)


def code(cluster, job):
    return cluster.json("job", "why", job)["code"]


def test_a_maintenance_window_keeps_long_jobs_off(make_cluster):
    """A job that would not be over by the window waits for its end, a short one starts, and a cancelled window is out of the way."""
    cluster = make_cluster(workers=1, slots=2)
    made = cluster.ctl("maint", "create", "--nodes", "node[1]", "--start", "+10m", "--duration", "1h", "--reason", "new fans").stdout
    assert made == "planned maintenance 1\n"
    window = cluster.items("maint", "list")[0]
    assert (window["state"], window["nodes"], window["reason"], window["kind"]) == ("PLANNED", ["node1"], "new fans", "maint")
    long = cluster.submit(command("true", name="long", time_limit="2h"))
    short = cluster.submit(command("true", name="short", time_limit="1m"))
    assert cluster.wait_job(short, "COMPLETED")["state"] == "COMPLETED"
    shown = cluster.job(long)
    assert shown["state"] == "PENDING"
    assert shown["expected_start_at"] >= window["end_at"]
    assert plan(cluster, command("true", time_limit="2h"), 1)["start_at"] >= window["end_at"]
    cluster.ctl("maint", "cancel", "1")
    assert cluster.wait_job(long, "COMPLETED")["state"] == "COMPLETED"
    assert cluster.items("maint", "list") == []
    assert cluster.items("maint", "list", "--all")[0]["state"] == "CANCELLED"
    cluster.ctl("maint", "cancel", "1", status=CONFLICT)
    cluster.ctl("maint", "cancel", "7", status=NOT_FOUND)


def test_maintenance_that_begins_takes_the_node(make_cluster):
    """The node is in MAINT while the window lasts, over a restart too, and back after it."""
    cluster = make_cluster(workers=2, slots=1)
    cluster.ctl("maint", "create", "--nodes", "node2", "--start", "now", "--duration", "1h", "--reason", "disk")
    wait_for(lambda: cluster.json("node", "show", "node2")["state"] == "MAINT", 10, "node2 to be in MAINT")
    assert plan(cluster, command("true", nodes=2), 1)["action"] == "wait"
    cluster.restart_dsd()
    assert cluster.json("node", "show", "node2")["state"] == "MAINT"
    cluster.ctl("maint", "cancel", "1")
    wait_for(lambda: cluster.json("node", "show", "node2")["state"] == "UP", 20, "node2 to be UP")


def test_wrong_windows_are_refused(cluster):
    """A node that is not there, no reason, no length, and a time that is past."""
    given = ["maint", "create", "--nodes", "node1", "--start", "+1h", "--duration", "1h", "--reason", "x"]
    for left_out in range(2, 10, 2):
        cluster.ctl(*given[:left_out], *given[left_out + 2 :], status=USAGE)
    cluster.ctl("maint", "create", "--nodes", "node9", "--start", "+1h", "--duration", "1h", "--reason", "x", status=NOT_FOUND)
    cluster.ctl("maint", "create", "--nodes", "node[1", "--start", "+1h", "--duration", "1h", "--reason", "x", status=USAGE)
    cluster.ctl("maint", "create", "--nodes", "node1", "--start", "3h", "--duration", "1h", "--reason", "x", status=REFUSED)
    assert cluster.items("maint", "list", "--all") == []


def test_a_reservation_is_for_its_user(make_cluster):
    """Nodes that are kept for somebody take nobody else's jobs."""
    cluster = make_cluster(workers=1, slots=1)
    assert cluster.ctl("maint", "create", "--nodes", "node1", "--start", "now", "--duration", "1h", "--reason", "demo", "--user", "nobody-else").stdout == "planned reservation 1\n"
    job = cluster.submit(command("true", time_limit="1m"))
    time.sleep(0.3)
    assert cluster.job(job)["state"] == "PENDING"
    cluster.ctl("maint", "cancel", "1")
    assert cluster.wait_job(job, "COMPLETED")["state"] == "COMPLETED"


def test_queue_limits(cluster):
    """A limit of a queue holds until it is lifted; `queue show` counts; a closed queue refuses."""
    cluster.ctl("queue", "set", "batch", "--jobs", "1", "--time-limit", "1h", "--priority", "-5", "--weight", "0.5")
    queue = cluster.json("queue", "show", "batch")
    assert queue["schema"] == "ds/queue/v1"
    assert (queue["jobs_max"], queue["nodes_max"], queue["time_limit_ms"], queue["priority"], queue["weight"]) == (1, None, 3600000, -5, 0.5)
    first, second = (cluster.submit(command("sleep 60", queue="batch", time_limit="10m")) for _ in range(2))
    cluster.wait_job(first, "RUNNING")
    reason = cluster.json("job", "why", second)
    assert cluster.job(second)["state"] == "PENDING" and "batch" in reason["text"] and reason["scheduled_at"]
    queue = cluster.json("queue", "show", "batch")
    assert (queue["jobs_running"], queue["jobs_waiting"], queue["nodes_used"]) == (1, 1, 1)
    cluster.ctl("queue", "set", "batch", "--jobs", "none", "--accepts", "no")
    cluster.wait_job(second, "RUNNING")
    cluster.ctl("submit", "-", text=command("true", queue="batch"), status=REFUSED)
    cluster.ctl("queue", "show", "nosuch", status=NOT_FOUND)
    cluster.ctl("queue", "set", "batch", status=USAGE)
    cluster.ctl("queue", "set", "batch", "--nodes", "-3", status=REFUSED)


def test_quotas_expire_and_leave_a_trace(make_cluster):
    """A quota holds back a user's second job, and is over at its time; who set it is in the events."""
    cluster = make_cluster(workers=2, slots=1)
    cluster.ctl("quota", "set", "--user", "*", "--nodes", "1", "--expires", "+4s", "--reason", "for now")
    quota = cluster.items("quota", "list")[0]
    assert (quota["user"], quota["account"], quota["class"], quota["nodes"], quota["reason"]) == ("*", None, None, 1, "for now")
    first, second = (cluster.submit(command("sleep 60")) for _ in range(2))
    cluster.wait_job(first, "RUNNING")
    assert cluster.job(second)["state"] == "PENDING" and "quota" in cluster.json("job", "why", second)["text"]
    cluster.wait_job(second, "RUNNING", timeout=15)
    assert cluster.items("quota", "list") == [] and cluster.items("quota", "list", "--all")[0]["expired"]
    kinds = [e["kind"] for e in cluster.items("event", "list")]
    assert "quota.set" in kinds and "quota.expired" in kinds
    cluster.ctl("quota", "set", "--user", "*", "--nodes", "none", status=NOT_FOUND)
    cluster.ctl("quota", "set", "--nodes", "3", status=USAGE)
    cluster.ctl("quota", "set", "--class", "nosuch", "--nodes", "3", status=REFUSED)


def test_accounts(make_cluster):
    """An account's limit holds; its use is shown by user; a closed one refuses."""
    cluster = make_cluster(workers=2, slots=1)
    cluster.ctl("account", "set", "nlp", "--shares", "3", "--nodes", "1")
    first, second = (cluster.submit(command("sleep 60", account="nlp")) for _ in range(2))
    cluster.wait_job(first, "RUNNING")
    assert cluster.job(second)["state"] == "PENDING"
    account = cluster.json("account", "show", "nlp")
    assert (account["shares"], account["nodes_max"], account["jobs_running"], account["jobs_waiting"]) == (3, 1, 1, 1)
    wait_for(lambda: cluster.json("account", "show", "nlp")["users"][0]["used_gpu_ms"] > 0, 10, "use to be counted")
    cluster.ctl("account", "set", "nlp", "--nodes", "none", "--accepts", "no")
    cluster.wait_job(second, "RUNNING")
    cluster.ctl("submit", "-", text=command("true", account="nlp"), status=REFUSED)


def test_update_reorders(make_cluster):
    """A priority given later counts as one given at submit; what cannot be is refused and changes nothing."""
    cluster = make_cluster(workers=1, slots=1)
    trace = f"{cluster.folder}/trace"
    blocker = cluster.submit(command("sleep 60"))
    cluster.wait_job(blocker, "RUNNING")
    first, second = (cluster.submit(command(f"echo {name} >> {trace}", name=name)) for name in ("first", "second"))
    assert cluster.ctl("job", "update", second, "--priority", "10", "--time-limit", "5m").stdout == f"updated job {second}\n"
    shown = cluster.job(second)
    assert (shown["priority"], shown["time_limit_ms"]) == (10, 300000)
    cluster.ctl("job", "update", second, "--priority", "9999999", "--time-limit", "1m", status=REFUSED)
    assert cluster.job(second)["time_limit_ms"] == 300000
    cluster.ctl("job", "update", second, status=USAGE)
    cluster.ctl("job", "update", "99", "--priority", "1", status=NOT_FOUND)
    cluster.ctl("job", "update", first, "99", "--priority", "1", status=8)
    cluster.ctl("job", "cancel", blocker)
    for job in (first, second):
        cluster.wait_job(job, "COMPLETED")
    with open(trace, encoding="utf-8") as f:
        assert f.read().split() == ["second", "first"]


def test_not_before(cluster):
    """A job starts no sooner than it may, and at once when that is lifted."""
    job = cluster.submit(command("true", hold=True))
    cluster.ctl("job", "update", job, "--not-before", "+1h")
    cluster.ctl("job", "release", job)
    shown = cluster.job(job)
    assert shown["state"] == "PENDING" and shown["expected_start_at"] == shown["not_before_at"]
    cluster.ctl("job", "update", job, "--not-before", "none")
    assert cluster.wait_job(job, "COMPLETED")["state"] == "COMPLETED"


def test_suspend_saves_and_resume_goes_on(cluster, corpus):
    """A suspended run saves and gives its nodes back; resumed, it goes on from there, and loses no step."""
    job = cluster.submit(train(cluster, corpus, steps=300, every=1000))
    cluster.wait_step(job, 10)
    cluster.ctl("job", "suspend", job, "--reason", "room for a demo")
    shown = cluster.wait_job(job, "SUSPENDED")
    saved = shown["last_checkpoint"]["step"]
    assert saved >= 10 and "room for a demo" in shown["reason"]["text"]
    assert all(g["job"] is None for n in cluster.items("nodes") for g in n["gpus"])
    other = cluster.submit(command("true", nodes=2, gpus=2))
    cluster.wait_job(other, "COMPLETED")
    cluster.ctl("job", "resume", job)
    cluster.wait_step(job, saved + 1)
    attempts = cluster.json("job", "show", job)["attempts"]
    assert attempts[1]["resume_step"] == saved and attempts[0]["last_step"] == saved
    cluster.ctl("job", "resume", job, status=CONFLICT)
    cluster.ctl("job", "cancel", job)


def test_resize_goes_on_with_another_gang(cluster, corpus):
    """A run of two nodes goes on with one, from its checkpoint; a size the cluster never has is refused."""
    job = cluster.submit(train(cluster, corpus, steps=300, every=1000))
    cluster.wait_step(job, 5)
    cluster.ctl("job", "resize", job, "--nodes", "50", status=REFUSED)
    cluster.ctl("job", "resize", job, "--nodes", "many", status=USAGE)
    cluster.ctl("job", "resize", job, "--nodes", "1")
    wait_for(lambda: cluster.job(job)["attempt"] == 2 and cluster.job(job)["state"] == "RUNNING", 30, "the second attempt")
    shown = cluster.json("job", "show", job)
    assert shown["nodes_requested"] == 1 and len(shown["nodes"]) == 1
    assert shown["attempts"][1]["resume_step"] >= 5
    cluster.ctl("job", "cancel", job)


def test_arrays_and_dependencies(cluster):
    """An array runs so many at a time; what depends on it waits for all of it, and a list names both."""
    array = cluster.submit(command("sleep 0.3", array="0-2%1"))
    after = cluster.submit(command("true", dependencies={"afterok": [array]}))
    jobs = {j["id"]: j for j in cluster.items("job", "list", "--all")}
    members = [j for j in jobs.values() if j["array"] == array]
    assert sorted(j["array_index"] for j in members) == [0, 1, 2] and all(j["array_size"] == 3 for j in members)
    assert jobs[after]["dependency"] == f"afterok:{array}"
    done = cluster.wait_job(after, "COMPLETED")
    members = [cluster.job(j["id"]) for j in members]
    assert all(j["state"] == "COMPLETED" and j["ended_at"] <= done["started_at"] for j in members)
    times = sorted((j["started_at"], j["ended_at"]) for j in members)
    assert times[0][1] <= times[1][0] and times[1][1] <= times[2][0]


def test_plan_says_what_happens(make_cluster):
    """`job plan` tells a start, a wait with its time and whom it waits for, and a refusal; then the same job does that."""
    cluster = make_cluster(workers=2, slots=1, dsd_config="stop_grace: 1s\n")
    said = plan(cluster, command("sleep 3", nodes=2, time_limit="1m"), 0)
    assert said["action"] == "start" and said["nodes"] == 2 and said["schema"] == "ds/job-plan/v1"
    assert cluster.items("job", "list", "--all") == []
    first = cluster.submit(command("sleep 60", nodes=2, time_limit="5s"))
    cluster.wait_job(first, "RUNNING")
    waits = command("true", nodes=2, time_limit="1m")
    said = plan(cluster, waits, 1)
    assert said["action"] == "wait" and said["start_at"] and said["scheduled_at"]
    second = cluster.submit(waits)
    shown = cluster.wait_job(second, "COMPLETED")
    promised, began = (time.mktime(time.strptime(t[:19], "%Y-%m-%dT%H:%M:%S")) for t in (said["start_at"], shown["started_at"]))
    assert abs(began - promised) <= 3
    cluster.ctl("job", "plan", "-", text=command("true", nodes=50), status=REFUSED)


def test_plan_preempts(make_cluster):
    """Where others would be made to stop, the plan names them with exit status 2; then exactly they are."""
    cluster = make_cluster(workers=1, slots=1)
    cluster.ctl("queue", "set", "urgent", "--preempts", "yes", "--priority", "1000")
    victim = cluster.submit(command("sleep 60", name="victim", preemptible=True))
    cluster.wait_job(victim, "RUNNING")
    assert plan(cluster, command("true", queue="urgent", priority=1000), 1)["victims"] == []  # it has not run long enough
    cluster.ctl("job", "update", victim, "--min-runtime", "none")
    urgent = command("true", name="urgent", queue="urgent", priority=1000)
    said = plan(cluster, urgent, 2)
    assert said["action"] == "preempt" and said["victims"] == [victim] and said["victim_count"] == 1
    job = cluster.submit(urgent)
    assert cluster.wait_job(job, "COMPLETED")["state"] == "COMPLETED"
    assert cluster.job(victim)["preempted"] == 1


def test_every_answer_says_when_the_last_pass_was(cluster):
    """Lists and single objects of the scheduler's domain, as JSON, and the pages for people."""
    cluster.wait_job(cluster.submit(command("true")), "COMPLETED")
    held = cluster.submit(command("true", hold=True, account="nlp"))
    cluster.ctl("maint", "create", "--nodes", "node1", "--start", "+1h", "--duration", "1h", "--reason", "x")
    for words in (
        ["job", "list"],
        ["job", "show", held],
        ["job", "why", held],
        ["node", "list"],
        ["node", "show", "node1"],
        ["queue", "list"],
        ["queue", "show", "default"],
        ["account", "list"],
        ["account", "show", "nlp"],
        ["quota", "list"],
        ["maint", "list"],
        ["cluster", "status"],
    ):
        assert cluster.json(*words)["scheduled_at"], words
    assert plan(cluster, command("true"), 0)["scheduled_at"]
    for words in (["job", "show", held], ["job", "why", held], ["node", "show", "node1"], ["queue", "show", "default"], ["account", "show", "nlp"], ["cluster", "status"]):
        assert "last pass" in cluster.ctl(*words).stdout, words
