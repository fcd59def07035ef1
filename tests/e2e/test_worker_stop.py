"""Stopping: TERM, grace, KILL, and nothing left, whatever a program did to get away."""

import os
import signal
import time

import pytest

from cluster import processes_of, wait_for

# Ignores TERM, leaves its process group and session, and lets its parent die: again and again.
STUBBORN = r"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for depth in range(3):
    if os.fork():
        while sys.argv[1] == "stay" or not os.path.exists(sys.argv[2] + "/ready"):
            time.sleep(0.01)
        sys.exit(0)
    os.setsid()
    os.environ.clear()
open(sys.argv[2] + "/ready", "w").close()
while True:
    time.sleep(1)
"""


def stubborn(node, how):
    path = os.path.join(node.folder, "stubborn.py")
    with open(path, "w", encoding="utf-8") as f:
        f.write(STUBBORN)
    return f"exec /usr/bin/python3 {path} {how} {node.folder}"


def ready(node):
    wait_for(lambda: os.path.exists(f"{node.folder}/ready"), 20, "the stubborn processes")


def test_term_is_enough(node):
    """A program that ends on TERM has its grace, and its own exit code counts."""
    node.dsd.start(1, "trap 'echo saved; exit 80' TERM; touch ready; while :; do sleep 0.05; done", workdir=node.folder)
    ready(node)
    node.dsd.stop(1, grace_ms=20000)
    (end,) = node.dsd.wait_report(1)["exits"]
    assert (end["code"], end["signal"]) == (80, 0)
    assert node.dsd.log(1)["data"] == b"saved\n"


def test_kill_after_the_grace(node):
    """One that ignores TERM is killed when the grace is over, not before."""
    node.dsd.start(1, "trap '' TERM; touch ready; while :; do sleep 0.05; done", workdir=node.folder)
    ready(node)
    began = time.monotonic()
    node.dsd.stop(1, grace_ms=700)
    (end,) = node.dsd.wait_report(1)["exits"]
    assert end["signal"] == signal.SIGKILL and time.monotonic() - began >= 0.7
    node.wait_quiet()


def test_a_shorter_grace_counts(node):
    """A second stop may only hurry."""
    node.dsd.start(1, "trap '' TERM; touch ready; while :; do sleep 0.05; done", workdir=node.folder)
    ready(node)
    node.dsd.stop(1, grace_ms=3600000)
    node.dsd.stop(1, grace_ms=100)
    assert node.dsd.wait_report(1)["exits"][0]["signal"] == signal.SIGKILL


@pytest.mark.parametrize("how", ["stay", "leave"])
def test_nothing_escapes(node, how):
    """Double forks, new sessions, ignored signals and a cleared environment do not help: phase 3 means that nothing is left."""
    node.dsd.start(1, stubborn(node, how))
    ready(node)
    if how == "stay":
        node.dsd.stop(1, grace_ms=100)
    node.dsd.wait_report(1)
    assert list(processes_of(node.folder)) == [node.process.pid] or node.wait_quiet(2) is None
    left = [p for p, (command, _) in processes_of(node.folder).items() if "stubborn.py" in " ".join(command)]
    assert left == []


def test_strays_do_not_keep_a_job_alive(node):
    """When all ranks have exited, what they left behind is killed, and the end told."""
    node.dsd.start(1, "sleep 1000 & sleep 1000 & exit 3")
    end = node.dsd.wait_report(1)
    assert end["exits"][0]["code"] == 3
    node.wait_quiet()


def test_stop_of_what_is_not_here(node):
    """Is answered with an end and no exits."""
    node.dsd.stop(77, epoch=3)
    end = node.dsd.wait_report(77, 3)
    assert end["exits"] == [] and "error" not in end
    node.dsd.ordered("ATTEMPT_FORGET", job=77, epoch=3)


def test_stop_right_after_start(node):
    """However the two race, the attempt ends and nothing is left."""
    for job in range(1, 21):
        node.dsd.start(job, "sleep 1000", wait=False)
        time.sleep(0.002 * (job % 5))
        node.dsd.stop(job)
    for job in range(1, 21):
        node.dsd.wait_report(job)
    node.wait_quiet()


def test_forget_while_it_runs(node):
    """Kills first, and then leaves nothing on disk."""
    node.dsd.start(1, "trap '' TERM; sleep 1000")
    node.dsd.wait_report(1, phase=2)
    node.dsd.ordered("ATTEMPT_FORGET", job=1, epoch=1)
    node.dsd.wait_report(1)
    node.wait_quiet()
    wait_for(lambda: not os.path.exists(node.attempt(1)), 10, "the folder to go")


def test_ctrl_c_stops_the_ranks_first(node):
    """INT: the ranks end, the coordinator hears of it, then the worker leaves."""
    node.dsd.start(1, "trap 'exit 80' TERM; touch ready; while :; do sleep 0.05; done", workdir=node.folder)
    ready(node)
    node.process.popen.send_signal(signal.SIGINT)
    assert node.process.popen.wait(20) == 0
    assert node.dsd.wait_report(1)["exits"][0]["code"] == 80
    wait_for(lambda: processes_of(node.folder) == {}, 10, "the shim to go")


def test_term_leaves_the_ranks(node):
    """TERM: the worker leaves at once, the ranks go on, the next worker finds them."""
    node.dsd.start(1, "sleep 1000", gpus=2)
    node.dsd.wait_report(1, phase=2)
    ranks = wait_for(lambda: len(node.ranks(1)) == 2 and node.ranks(1), 10, "two ranks")
    assert node.process.stop() == 0
    assert node.ranks(1) == ranks
    node.up()
    node.dsd.stop(1)
    assert [e["signal"] for e in node.dsd.wait_report(1)["exits"]] == [9, 9]


def test_orphans_are_stopped_in_the_end(make_node):
    """Ranks without a worker for longer than orphan_timeout are stopped by their shim; the next worker still tells how they ended."""
    node = make_node(config="orphan_timeout: 1s\n")
    node.dsd.start(1, "trap 'exit 80' TERM; touch ready; while :; do sleep 0.05; done", workdir=node.folder)
    ready(node)
    time.sleep(1.5)
    assert node.pids("dsshim")  # the worker is there, so nothing happens
    node.process.kill()
    wait_for(lambda: not processes_of(node.folder), 20, "the shim to give up")
    node.up()
    assert node.dsd.wait_report(1)["exits"][0]["code"] == 80
