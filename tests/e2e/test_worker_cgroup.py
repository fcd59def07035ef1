"""Where the worker may make control groups, an attempt has one, and even a process that hid everything dies with it."""

import os
import signal
import time

import pytest

from cluster import processes_of, wait_for
from test_worker_stop import ready, stubborn

V2 = next((line.split()[1] for line in open("/proc/mounts", encoding="utf-8") if line.split()[2] == "cgroup2"), "/nowhere")
FREEZER = "/sys/fs/cgroup/freezer"


def groups_may_be_made(root, control):
    path = os.path.join(root, f"ds-test-{os.getpid()}")
    try:
        os.mkdir(path)
    except OSError:
        return False
    there = os.path.exists(os.path.join(path, control))
    os.rmdir(path)
    return there


@pytest.fixture
def delegated(make_node):
    """A node whose worker is in a group that is its own."""
    group = os.path.join(V2, f"ds-test-{os.getpid()}-{time.monotonic_ns()}")
    os.mkdir(group)
    node = make_node(up=False)
    node.process.command = ["sh", "-c", f"echo $$ > {group}/cgroup.procs && exec " + " ".join(node.process.command)]
    node.group = group
    yield node.up()
    node.close()

    def empty():
        try:
            os.rmdir(group)
        except OSError:
            pass
        return not os.path.exists(group)

    wait_for(empty, 10, "the group to be empty")


def attempt_group(node, job):
    return os.path.join(node.group, f"ds-n1-{job}-1")


@pytest.mark.skipif(not groups_may_be_made(V2, "cgroup.kill"), reason="needs a writable cgroup2 with cgroup.kill")
def test_an_attempt_has_a_group(delegated):
    """Ranks and all below them are in it, the shim is not; it goes with the attempt."""
    node = delegated
    assert "control groups" in node.process.log()
    node.dsd.start(1, "setsid sleep 1000 & sleep 1000", gpus=2)
    node.dsd.wait_report(1, phase=2)
    wait_for(lambda: len(node.pids("sleep")) == 4, 10, "the sleepers")
    with open(os.path.join(attempt_group(node, 1), "cgroup.procs"), encoding="utf-8") as f:
        inside = {int(pid) for pid in f.read().split()}
    assert set(node.pids("sleep")) <= inside and not set(node.pids("dsshim")) & inside
    node.dsd.stop(1)
    node.dsd.wait_report(1)
    assert not os.path.exists(attempt_group(node, 1))


@pytest.mark.skipif(not groups_may_be_made(V2, "cgroup.kill"), reason="needs a writable cgroup2 with cgroup.kill")
def test_nothing_escapes_a_killed_shim(delegated):
    """Neither its own session nor an empty environment hides a process whose shim was killed."""
    node = delegated
    node.dsd.start(1, stubborn(node, "stay"))
    ready(node)
    os.kill(node.pids("dsshim")[0], signal.SIGKILL)
    node.dsd.wait_report(1)
    with pytest.raises(FileNotFoundError):
        open(os.path.join(attempt_group(node, 1), "cgroup.procs"), encoding="utf-8")
    left = [p for p, (command, _) in processes_of(node.folder).items() if "stubborn.py" in " ".join(command)]
    assert left == []


@pytest.mark.skipif(not groups_may_be_made(FREEZER, "freezer.state"), reason="needs the cgroup v1 freezer, where KILL does not end a frozen process")
def test_processes_that_do_not_die_are_told(node):
    """While KILL does not help, the attempt has not ended, and the coordinator is told which processes those are."""
    node.dsd.start(1, "exec sleep 1000")
    node.dsd.wait_report(1, phase=2)
    (pid,) = wait_for(lambda: node.pids("sleep"), 10, "the sleeper")
    group = os.path.join(FREEZER, f"ds-test-{os.getpid()}")
    os.mkdir(group)
    try:
        for name, text in [("cgroup.procs", str(pid)), ("freezer.state", "FROZEN")]:
            with open(os.path.join(group, name), "w", encoding="utf-8") as f:
                f.write(text)
        node.dsd.stop(1)
        wait_for(lambda: "stuck" in node.dsd.reports(1)[-1], 30, "the report")
        report = node.dsd.reports(1)[-1]
        assert report["phase"] == 2 and f"{pid} (sleep)" in report["stuck"] and report["exits"] == []
    finally:
        with open(os.path.join(group, "freezer.state"), "w", encoding="utf-8") as f:
            f.write("THAWED")
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10, "the process to die")
        os.rmdir(group)
    end = node.dsd.wait_report(1)
    assert end["exits"][0]["signal"] == 9 and "stuck" not in end
