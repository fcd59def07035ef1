"""What a driver says of its GPUs, from a stand-in for its library (nvml_standin.c) to the coordinator: readings, events, the kernel's log."""

import json
import os
import subprocess

import pytest

from cluster import BIN, wait_for

STANDIN = os.path.join(BIN, "..", "tests", "libnvidia-ml.so.1")


class Driver:
    """The script that the stand-in reads at every call."""

    def __init__(self, folder, count):
        self.path = os.path.join(folder, "nvml")
        self.kmsg = os.path.join(folder, "kmsg")
        self.says = {"count": count}
        with open(self.kmsg, "w", encoding="utf-8"):
            pass
        self.write()

    def write(self, **says):
        self.says.update({k.replace("gpu", "").replace("__", "."): v for k, v in says.items()})
        with open(self.path + ".new", "w", encoding="utf-8") as f:
            f.writelines(f"{k} {v}\n" for k, v in self.says.items())
        os.replace(self.path + ".new", self.path)

    def log(self, line):
        with open(self.kmsg, "a", encoding="utf-8") as f:
            f.write(line + "\n")

    def config(self):
        return f"accelerators: auto\nnvml_library: {STANDIN}\nkmsg: {self.kmsg}\nhealth_interval: 200ms\n"


def configure(path, driver):
    with open(path, encoding="utf-8") as f:
        lines = [line for line in f if not line.startswith("accelerators:")]
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(lines)
        f.write("\n" + driver.config())


@pytest.fixture
def gpus(make_cluster, tmp_path):
    """A coordinator and one node with two GPUs of a driver."""
    driver = Driver(tmp_path, 2)
    cluster = make_cluster(start=False, workers=1, env={"DS_NVML_SCRIPT": driver.path})
    configure(os.path.join(cluster.folder, "node1.yaml"), driver)
    cluster.start()

    def health():
        return [g["health"] for g in cluster.json("node", "show", "node1")["gpus"]]

    wait_for(lambda: len(cluster.json("node", "list")["items"]) == 1, 10, "the node")
    return cluster, driver, health


def events(cluster):
    return [e["text"] for e in cluster.json("event", "list", "--limit", "0")["items"] if e["kind"] == "gpu.health"]


def test_inventory(gpus):
    cluster, _, health = gpus
    assert health() == ["ok", "ok"]
    assert [(g["uuid"], g["model"], g["memory_bytes"]) for g in cluster.json("node", "show", "node1")["gpus"]] == [
        ("GPU-0", "NVIDIA H800", 85899345920),
        ("GPU-1", "NVIDIA H800", 85899345920),
    ]
    assert events(cluster) == []


@pytest.mark.parametrize(
    "says, text",
    [
        ({"gpu1__rows": "0 1 1 0"}, "reset: row remapping pending"),
        ({"gpu1__rows": "0 1 0 1"}, "replace: row remapping failed"),
        ({"gpu1__recovery": 2}, "reboot: the driver asks for a reboot"),
        ({"gpu1__links": 18, "gpu1__links_up": 16}, "reset: 16 of 18 NVLinks are up"),
        ({"gpu1__lost": 1}, "reboot: the GPU is lost"),
        ({"xid": "1 1 48"}, "reset: Xid 48, uncorrectable ECC error"),
    ],
)
def test_no_job_starts_on_it(gpus, says, text):
    """The GPU is told ill while the worker runs, with an event; a job that needs both waits, one that needs one starts on the other."""
    cluster, driver, health = gpus
    driver.write(**says)
    wait_for(lambda: health()[1] != "ok", 10, "the news")
    assert health() == ["ok", text]
    assert events(cluster) == [f"accelerator 1 of node node1: {text}, was ok"]
    one = cluster.submit(json.dumps({"name": "one", "command": ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"], "gpus_per_node": 1}))
    cluster.ctl("job", "wait", one)
    assert cluster.ctl("job", "logs", one).stdout.strip().endswith("0")
    both = cluster.submit(json.dumps({"name": "both", "command": ["true"], "gpus_per_node": 2}))
    wait_for(lambda: cluster.job(both).get("reason"), 10, "the reason")
    assert cluster.job(both)["state"] == "PENDING"
    assert f"0 free, 1 with ill accelerators (node1: accelerator 1 {text[:60]})" in cluster.json("job", "why", both)["text"]
    driver.says = {"count": 2}
    driver.write()
    if "xid" not in says:  # well again: what waited starts; an Xid is remembered until the worker starts anew
        cluster.ctl("job", "wait", both)
        assert health() == ["ok", "ok"]
    else:
        cluster.ctl("job", "cancel", both)


def test_what_is_worth_saying_only(gpus):
    """Slow links and the program's own faults are said, and jobs go on being started."""
    cluster, driver, health = gpus
    driver.write(gpu0__pcie="5 5 8 16")
    wait_for(lambda: health()[0] != "ok", 10, "the news")
    assert health() == ["ok: PCIe x8 of x16", "ok"]
    both = cluster.submit(json.dumps({"name": "both", "command": ["true"], "gpus_per_node": 2}))
    cluster.ctl("job", "wait", both)
    assert "ill" not in cluster.ctl("node", "list").stdout


def test_kernel_log(gpus):
    """An Xid of the kernel's log is the GPU's with that bus address; a job that runs goes on."""
    cluster, driver, health = gpus
    job = cluster.submit(json.dumps({"name": "long", "command": ["sleep", "600"], "gpus_per_node": 2}))
    wait_for(lambda: cluster.json("job", "show", job)["state"] == "RUNNING", 10, "the job")
    driver.log("6,1,2,-;NVRM: Xid (PCI:0000:77:00): 79, pid=1, another GPU")
    driver.log("6,1,2,-;NVRM: Xid (PCI:0000:05:00): 13, pid=1, name=sleep, Graphics Exception")
    driver.log("6,1,2,-;NVRM: Xid (PCI:0000:05:00): 119, pid=1, name=sleep, Timeout after 6s of waiting for RPC response")
    wait_for(lambda: health()[0].startswith("reset: Xid 119"), 10, "the news")
    assert health()[1] == "ok"
    assert cluster.json("job", "show", job)["state"] == "RUNNING"
    assert cluster.json("job", "show", job)["attempt"] == 1
    cluster.ctl("job", "cancel", job)


def test_driver_that_does_not_start(make_cluster, tmp_path):
    """A node whose driver is broken joins without accelerators and says why."""
    driver = Driver(tmp_path, 2)
    driver.write(init=9)
    cluster = make_cluster(start=False, workers=1, env={"DS_NVML_SCRIPT": driver.path})
    configure(os.path.join(cluster.folder, "node1.yaml"), driver)
    cluster.start()
    wait_for(lambda: len(cluster.json("node", "list")["items"]) == 1, 10, "the node")
    assert cluster.json("node", "show", "node1").get("gpus", []) == []
    assert "the NVIDIA driver does not start" in cluster.workers[0].log()


def test_programs_need_no_driver():
    """No program names the driver's or CUDA's libraries as its own."""
    for program in sorted(os.listdir(BIN)):
        shown = subprocess.run(["ldd", os.path.join(BIN, program)], capture_output=True, text=True).stdout
        assert not any(word in shown for word in ("nvidia", "libcuda", "libnccl", "libcublas", "libcudnn")), program
