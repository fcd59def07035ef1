"""Fixtures. A test that fails shows the end of every program's log and what the coordinator knew."""

import os
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cluster import Cluster, processes_of  # noqa: E402

import fake_dsd  # noqa: E402
import specs  # noqa: E402

LOG_TAIL = 6000


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for node in getattr(item, "nodes", []):
            report.sections.append(("dsworkerd log", node.process.log()[-LOG_TAIL:]))
        for cluster in getattr(item, "clusters", []):
            for name, text in cluster.logs().items():
                report.sections.append((f"{name} log", text[-LOG_TAIL:]))
            if cluster.dsd.alive():
                for view in (["job", "list", "--all"], ["event", "list"]):
                    report.sections.append((f"dsctl {' '.join(view)}", cluster.ctl(*view, check=False).stdout[-LOG_TAIL:]))


@pytest.fixture
def make_cluster(request):
    """make_cluster(workers=2, slots=2, start=True, ...): stopped and removed after the test, whatever happens in it."""
    request.node.clusters = []

    def make(start=True, **options):
        cluster = Cluster(tempfile.mkdtemp(prefix="ds-e2e-"), **options)
        request.node.clusters.append(cluster)
        return cluster.start() if start else cluster

    yield make
    for cluster in request.node.clusters:
        cluster.close()
        left = processes_of(cluster.folder)
        cluster.remove()
        assert not left, f"still running after the cluster was closed: {left}"


@pytest.fixture
def make_node(request):
    """make_node(slots=2, config="", up=True, ...): one real worker under a coordinator that the test plays."""
    request.node.nodes = []

    def make(up=True, **options):
        node = fake_dsd.Node(**options)
        request.node.nodes.append(node)
        return node.up() if up else node

    yield make
    complaints = [text for node in request.node.nodes for text in node.close()]
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def node(make_node):
    return make_node()


@pytest.fixture
def cluster(make_cluster):
    """Two workers with two slots each."""
    return make_cluster()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Prefix of a packed text, and of its held-out part: {"train": ..., "valid": ...}."""
    return specs.pack_corpus(tmp_path_factory.mktemp("corpus"))
