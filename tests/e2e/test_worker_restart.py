"""kill -9 of the worker, of shims and of both: ranks go on, exits are told once, and what nobody saw is told as unknown."""

import os
import random
import signal
import time

from cluster import parent_of, processes_of, wait_for
from frames import frame
from wire import METHODS, encode


def ends(node, job, epoch=1):
    """Messages in which the coordinator was told of the end: reports, and registrations."""
    reports = [m for method, m in node.dsd.heard if method == "ATTEMPT_REPORT" and (m["job"], m["epoch"]) == (job, epoch) and m["phase"] == 3]
    registered = [
        r for method, m in node.dsd.heard if method == "WORKER_REGISTER" for r in m["attempts"] if (r["job"], r["epoch"]) == (job, epoch) and r["phase"] == 3
    ]
    return len(reports), len(registered)


def test_the_ranks_do_not_notice(node):
    """A killed worker's ranks are the same processes under the next one, which stops them like its own."""
    node.dsd.start(1, "trap 'exit 80' TERM; echo begin; while :; do sleep 0.05; done", gpus=2)
    node.dsd.wait_report(1, phase=2)
    ranks = wait_for(lambda: len(node.ranks(1)) == 2 and node.ranks(1), 10, "two ranks")
    for _ in range(3):
        node.restart()
        assert node.ranks(1) == ranks
    phases = [a["phase"] for m in node.dsd.wait_heard("WORKER_REGISTER") for a in m["attempts"]]
    assert len(phases) == 3
    node.dsd.stop(1, grace_ms=20000)
    assert [e["code"] for e in node.dsd.wait_report(1)["exits"]] == [80, 80]
    assert node.dsd.log(1)["data"] == b"begin\n"


def test_an_exit_while_no_worker_was_there(node):
    """The shim keeps it, and the next worker tells it, in its registration."""
    node.dsd.start(1, f"while [ ! -e {node.folder}/go ]; do sleep 0.02; done; echo last words >&2; exit 7")
    node.dsd.wait_report(1, phase=2)
    node.process.kill()
    open(f"{node.folder}/go", "w").close()
    wait_for(lambda: not processes_of(node.folder), 20, "the shim to end")
    node.up()
    (end,) = node.dsd.wait_report(1)["exits"]
    assert (end["code"], end["last_words"]) == (7, "last words\n")
    time.sleep(0.3)
    assert ends(node, 1) == (0, 1)


def test_an_end_is_told_once(node):
    """Acknowledged means never reported again on that connection; each new registration says it until it is forgotten."""
    node.dsd.start(1, "exit 4")
    node.dsd.wait_report(1)
    time.sleep(0.3)
    assert ends(node, 1) == (1, 0)
    for n in range(1, 4):
        node.dsd.drop()
        node.dsd.wait_heard("WORKER_REGISTER", n + 1)
        time.sleep(0.2)
        assert ends(node, 1) == (1, n)
    node.dsd.ordered("ATTEMPT_FORGET", job=1, epoch=1)
    node.dsd.drop()
    registrations = node.dsd.wait_heard("WORKER_REGISTER", 5)
    assert registrations[-1]["attempts"] == []


def test_an_end_that_was_not_acknowledged(node):
    """Is told again by the registration after the connection broke, and not a second time when that was accepted."""
    node.dsd.hold.add("ATTEMPT_REPORT")
    node.dsd.start(1, "exit 4")
    wait_for(lambda: node.dsd.reports(1), 10, "the first report")
    wait_for(lambda: not node.pids("dsshim"), 10, "the shim to end")
    assert ends(node, 1)[0] <= 1
    node.dsd.hold.clear()
    node.dsd.drop()
    assert node.dsd.wait_report(1)["exits"][0]["code"] == 4
    time.sleep(0.3)
    assert sum(ends(node, 1)) <= 2
    before = ends(node, 1)
    time.sleep(0.5)
    assert ends(node, 1) == before


def test_a_killed_shim(node):
    """Its ranks die with it, and so does what they left elsewhere; exits that it had told stay, the others are unknown."""
    node.dsd.start(1, "if [ $RANK = 0 ]; then exit 0; fi; setsid sleep 1000 & sleep 1000", gpus=2)
    node.dsd.changed.acquire()
    node.dsd.changed.wait_for(lambda: any(r["exits"] for r in node.dsd.reports(1)), 20)
    node.dsd.changed.release()
    wait_for(lambda: len(node.pids("sleep")) >= 2, 10, "the sleepers")
    (shim,) = node.pids("dsshim")
    os.kill(shim, signal.SIGKILL)
    exits = node.dsd.wait_report(1)["exits"]
    assert [(e["rank"], e["code"], e["signal"]) for e in exits] == [(0, 0, 0), (1, -1, 9)]
    assert "shim" in exits[1]["last_words"]
    node.wait_quiet()


def test_a_killed_nursery(node):
    """What shims are forked from may die: running ones stay, and the next attempt starts as ever."""
    node.dsd.start(1, "sleep 1000")
    node.dsd.wait_report(1, phase=2)
    shims = node.pids("dsshim")
    (nursery,) = node.pids("dsshim-nursery")
    os.kill(nursery, signal.SIGKILL)
    wait_for(lambda: nursery not in node.pids("dsshim-nursery"), 10, "the nursery to die")
    node.dsd.start(2, "exit 3", gpus=1)
    assert [(e["code"], e["signal"]) for e in node.dsd.wait_report(2)["exits"]] == [(3, 0)]
    assert node.pids("dsshim")[:1] == shims and len(node.pids("dsshim-nursery")) == 1
    os.kill(shims[0], signal.SIGTERM)
    node.dsd.wait_report(1)


def test_worker_and_shim_killed(node):
    """The next worker finds neither, makes sure that no process is left, and tells what it does not know."""
    node.dsd.start(1, "setsid sleep 1000 & sleep 1000", gpus=2)
    node.dsd.wait_report(1, phase=2)
    wait_for(lambda: len(node.pids("sleep")) == 4, 10, "the sleepers")
    (shim,) = node.pids("dsshim")
    node.process.kill()
    os.kill(shim, signal.SIGKILL)
    node.up()
    exits = node.dsd.wait_report(1)["exits"]
    assert [(e["rank"], e["code"], e["signal"]) for e in exits] == [(0, -1, 9), (1, -1, 9)]
    node.wait_quiet()


def test_two_workers_on_one_machine(make_node):
    """Attempts of the same job and epoch under two workers are not confused: only the killed shim's processes are cleaned away."""
    nodes = [make_node(), make_node()]
    for node in nodes:
        node.dsd.start(1, "sleep 1000")
        node.dsd.wait_report(1, phase=2)
    other = wait_for(lambda: nodes[1].ranks(1), 10, "the other rank")
    os.kill(nodes[0].pids("dsshim")[0], signal.SIGKILL)
    nodes[0].dsd.wait_report(1)
    assert nodes[1].ranks(1) == other


def accept_by_hand(node, job, age_s):
    """What a worker leaves that was killed after it accepted an order, before it started anything."""
    number, kind, _ = METHODS["ATTEMPT_START"]
    folder = node.attempt(job)
    os.makedirs(folder)
    order = {
        "term": 1, "job": job, "epoch": 1, "name": "t", "user": "root", "spec": '{"name": "t", "gpus_per_node": 1, "command": ["sh", "-c", "echo hi; id -un"]}',
        "workdir": "/", "node_rank": 0, "node_count": 1, "rank_first": 0, "world_size": 1, "gpu_index": [0],
        "master_addr": "127.0.0.1", "master_port": 1, "checkpoint_dir": "/x",
    }  # fmt: skip
    path = os.path.join(folder, "order.pb")
    with open(path, "wb") as f:
        f.write(frame(number, encode(kind, order)))
    os.utime(path, (time.time() - age_s,) * 2)


def test_accepted_but_not_started(make_node):
    """A fresh order goes on; an old one may by now run elsewhere, so it is not started; half an order was never accepted."""
    node = make_node(up=False)
    accept_by_hand(node, 1, age_s=0)
    accept_by_hand(node, 2, age_s=600)
    accept_by_hand(node, 3, age_s=0)
    with open(os.path.join(node.attempt(3), "order.pb"), "r+b") as f:
        f.truncate(40)
    node.up()
    assert node.dsd.wait_report(1)["exits"][0]["code"] == 0
    assert node.dsd.log(1)["data"].startswith(b"hi\n")
    assert [(e["code"], e["signal"]) for e in node.dsd.wait_report(2)["exits"]] == [(-1, 9)]
    assert node.dsd.reports(3) == [] and not os.path.exists(node.attempt(3))


def test_a_status_of_another_boot(node):
    """After a power loss nothing runs: the folders are there, their shims are not, and the exits are unknown."""
    node.dsd.start(1, "sleep 1000")
    node.dsd.wait_report(1, phase=2)
    (shim,) = node.pids("dsshim")
    node.process.kill()
    for pid in processes_of(node.folder):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{shim}") or parent_of(shim) == 0, 10, "all to be gone")
    node.up()
    assert node.dsd.wait_report(1)["exits"][0]["signal"] == 9


def test_an_end_before_the_start_is_remembered(make_node):
    """What could not be started, or was stopped before, is not started by the next worker either, and its end stays the same."""
    node = make_node()
    node.dsd.start(1, ["/no/such/program"])
    node.dsd.start(2, "true", workdir="/no/such/folder", gpu_index=[9])
    before = [node.dsd.wait_report(job) for job in (1, 2)]
    for n in range(2):
        node.restart()
        registered = {a["job"]: a for a in node.dsd.wait_heard("WORKER_REGISTER")[-1]["attempts"]}
        assert [registered[1], registered[2]] == before
    node.wait_quiet()


def test_random_kills(node):
    """Whatever is killed when: every attempt ends, exactly one way, with nothing left."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    jobs = range(1, 31)
    for job in jobs:
        node.dsd.start(job, f"sleep {rng.choice([0, 0.02, 0.1, 1000])}; exit {job % 7}", wait=False)
        time.sleep(rng.uniform(0, 0.05))
        what = rng.random()
        if what < 0.3:
            node.restart()
        elif what < 0.45 and node.pids("dsshim"):
            try:
                os.kill(rng.choice(node.pids("dsshim")), signal.SIGKILL)
            except (ProcessLookupError, IndexError):
                pass
        elif what < 0.6:
            node.dsd.drop()
            node.dsd.wait_heard("WORKER_REGISTER", node.dsd.count("WORKER_REGISTER") + 1)
    node.restart()
    for job in jobs:
        node.dsd.stop(job)
    for job in jobs:
        exits = node.dsd.wait_report(job)["exits"]
        for report in node.dsd.reports(job):
            if report["phase"] == 3:
                assert report["exits"] == exits
        assert all((e["code"], e["signal"]) in [(job % 7, 0), (-1, 9)] for e in exits), exits
    node.wait_quiet()
