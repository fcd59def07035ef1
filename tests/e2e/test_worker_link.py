"""The link to the coordinator: it comes back for ever, and what happens to it harms no rank."""

import time

from cluster import wait_for


def test_no_coordinator_at_first(make_node):
    """A worker starts without one, says so once, and registers when it comes."""
    node = make_node(up=False)
    node.dsd.close()
    node.process.start()
    wait_for(lambda: "cannot reach the coordinator" in node.process.log(), 10, "the worker to say so")
    time.sleep(1)
    assert node.process.log().count("cannot reach the coordinator") == 1
    node.dsd.open()
    node.dsd.wait_heard("WORKER_REGISTER")


def test_it_comes_back_quickly(node):
    """After a short break the worker is there again within a fraction of a second."""
    for n in range(2, 6):
        began = time.monotonic()
        node.dsd.drop()
        node.dsd.wait_heard("WORKER_REGISTER", n)
        assert time.monotonic() - began < 5


def test_a_silent_coordinator(make_node):
    """One that holds the connection but no longer answers is given up after a lease, and the ranks go on."""
    node = make_node(lease_ms=1000, heartbeat_ms=200)
    node.dsd.start(1, "sleep 1000")
    node.dsd.wait_report(1, phase=2)
    node.dsd.hold.add("HEARTBEAT")
    node.dsd.wait_heard("WORKER_REGISTER", 2)
    assert "silent" in node.process.log()
    assert node.ranks(1)


def test_a_refused_registration(make_node):
    """Is tried again for ever, with the coordinator's words in the log, and no work is lost."""
    node = make_node(up=False)
    node.dsd.refuse["WORKER_REGISTER"] = (-4, "node n1 was removed")
    node.process.start()
    node.dsd.wait_heard("WORKER_REGISTER", 3)
    assert "node n1 was removed" in node.process.log()
    node.dsd.refuse.clear()
    node.dsd.wait_heard("HEARTBEAT")
    node.dsd.start(1, "true")
    node.dsd.wait_report(1)


def test_a_heartbeat_that_is_refused(node):
    """The coordinator no longer knows this worker: it registers again."""
    node.dsd.refuse["HEARTBEAT"] = (-16, "register again")
    node.dsd.wait_heard("WORKER_REGISTER", 2)


def test_orders_over_many_connections(node):
    """An order whose answer was lost with the connection is given again, and done once."""
    for job in range(1, 11):
        node.dsd.start(job, f"echo x >> {node.folder}/mark{job}", wait=False)
        node.dsd.drop()
        node.dsd.wait_heard("WORKER_REGISTER", job + 1)
        node.dsd.start(job, f"echo x >> {node.folder}/mark{job}")
    for job in range(1, 11):
        node.dsd.wait_report(job)
        with open(f"{node.folder}/mark{job}", encoding="utf-8") as f:
            assert f.read() == "x\n"
