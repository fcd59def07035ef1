"""A worker alone, under a coordinator played by the test: starting attempts, what is told about them, and what is refused."""

import json
import os
import pwd
import subprocess
import time

import pytest

from cluster import BIN, wait_for


def test_registration(node):
    """A worker says who it is, what it has, and the highest term it ever saw."""
    (message,) = node.dsd.wait_heard("WORKER_REGISTER")
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as f:
        assert message["boot_id"] == f.read().strip()
    assert message["name"] == "n1" and message["term_seen"] == 0 and message["attempts"] == []
    assert [(g["index"], g["model"], g["uuid"], g["health"]) for g in message["gpus"]] == [
        (0, "cpu", "n1/0", "ok"),
        (1, "cpu", "n1/1", "ok"),
    ]
    node.dsd.wait_heard("HEARTBEAT", 3)


def test_from_order_to_end(node):
    """Accepted, started, ended with each rank's exit: told in order and never back; then nothing more is said."""
    ok, _ = node.dsd.start(1, "echo out $RANK of $WORLD_SIZE; echo err $RANK >&2; exit $RANK", gpus=2)
    assert ok
    end = node.dsd.wait_report(1)
    assert [(e["rank"], e["code"], e["signal"]) for e in end["exits"]] == [(0, 0, 0), (1, 1, 0)]
    assert end["exits"][1]["last_words"] == "err 1\n"
    assert "last_words" not in end["exits"][0]  # it did not fail
    assert end["started_at"] <= end["exits"][0]["at"] <= end["ended_at"]
    time.sleep(0.3)
    reports = node.dsd.reports(1)
    assert [r["phase"] for r in reports] == sorted(r["phase"] for r in reports)
    assert sum(r["phase"] == 3 for r in reports) == 1
    assert node.dsd.log(1, 1)["data"] == b"out 1 of 2\n"
    assert node.dsd.log(1, 0, stream=2)["data"] == b"err 0\n"
    node.wait_quiet()


def test_exit_by_signal(node):
    """A killed rank is code -1 and the signal; the others go on: that is the coordinator's decision."""
    node.dsd.start(1, "if [ $RANK = 1 ]; then kill -SEGV $$; fi; sleep 60", gpus=2)
    node.dsd.changed.acquire()
    node.dsd.changed.wait_for(lambda: any(r["exits"] for r in node.dsd.reports(1)), 20)
    node.dsd.changed.release()
    report = node.dsd.reports(1)[-1]
    assert report["phase"] == 2 and [(e["rank"], e["code"], e["signal"]) for e in report["exits"]] == [(1, -1, 11)]
    assert set(node.ranks(1)) == {0}


@pytest.mark.parametrize(
    "values,says",
    [
        ({"command": ["/no/such/program"]}, ["/no/such/program", "No such file", "this node"]),
        ({"command": ["no-such-program"]}, ["no-such-program", "No such file"]),
        ({"command": ["/etc/passwd"]}, ["/etc/passwd", "Permission denied"]),
        ({"command": ["true"], "workdir": "/no/such/folder"}, ["/no/such/folder", "No such file"]),
        ({"command": ["true"], "gpu_index": [7]}, ["no accelerator 7"]),
        ({"command": ["true"], "rank_first": 5}, ["make no sense"]),
        ({"command": ["true"], "spec": {"surprise": 1}}, ["surprise"]),
        (
            {"command": ["true"], "resume": {"ckpt": 1, "step": 5, "path": "/no/such/t00001-e00001/step-5", "manifest": "{}"}},
            ["checkpoint to resume from", "/no/such"],
        ),
    ],
)
def test_cannot_start(node, values, says):
    """What cannot be started is an end with the reason, no exits, and nothing left running; the worker goes on."""
    values = dict(values)
    ok, _ = node.dsd.start(1, values.pop("command"), **values)
    assert ok  # the order itself was accepted
    end = node.dsd.wait_report(1)
    assert end["exits"] == [] and all(text in end["error"] for text in says), end
    node.wait_quiet()
    node.dsd.start(2, "true")
    assert node.dsd.wait_report(2)["exits"][0]["code"] == 0


def test_an_order_that_cannot_be_written(node):
    """An unwritable state folder refuses the order, and says so as an end too."""
    attempts = os.path.join(node.state, "attempts")
    os.rename(attempts, attempts + ".away")
    ok, error = node.dsd.start(1, "true")
    assert not ok and attempts in error["text"]
    assert attempts in node.dsd.wait_report(1)["error"]
    os.rename(attempts + ".away", attempts)
    assert node.dsd.start(2, "true")[0]
    assert node.dsd.wait_report(2)["exits"][0]["code"] == 0


def test_the_same_order_again(node):
    """An order is carried out once, however often it is given."""
    mark = os.path.join(node.folder, "mark")
    for _ in range(3):
        assert node.dsd.start(1, f"echo x >> {mark}; sleep 1")[0]
    node.dsd.wait_report(1)
    assert node.dsd.start(1, f"echo x >> {mark}")[0]
    time.sleep(0.3)
    with open(mark, encoding="utf-8") as f:
        assert f.read() == "x\n"


def test_a_newer_epoch_replaces_the_older(node):
    """The older attempt is dead before the newer starts; then the older epoch is refused."""
    mark = os.path.join(node.folder, "mark")
    node.dsd.start(1, f"trap '' TERM; while sleep 0.05; do date +%s%N >> {mark}; done", epoch=1)
    node.dsd.wait_report(1, 1, phase=2)
    wait_for(lambda: os.path.exists(mark), 10, "the first attempt to run")
    node.dsd.start(1, f"cp {mark} {mark}.then; sleep 0.3; cmp {mark} {mark}.then", epoch=2)
    assert [e["signal"] for e in node.dsd.wait_report(1, 1)["exits"]] == [9]
    assert [e["code"] for e in node.dsd.wait_report(1, 2)["exits"]] == [0]
    ok, error = node.dsd.start(1, "true", epoch=1)
    assert ok  # known, and over
    node.dsd.ordered("ATTEMPT_FORGET", job=1, epoch=1)
    wait_for(lambda: not os.path.exists(node.attempt(1, 1)), 10, "epoch 1 to be forgotten")
    ok, error = node.dsd.start(1, "true", epoch=1)
    assert not ok and "older" in error["text"]


def test_a_lower_term_is_refused(node):
    """Orders of a coordinator that has been replaced are not obeyed, also after a restart of the worker."""
    assert node.dsd.start(1, "true", term=7)[0]
    ok, error = node.dsd.order("ATTEMPT_STOP", job=1, epoch=1, grace_ms=0, reason="old", term=6)
    assert not ok and "term 6" in error["text"] and "7" in error["text"]
    for method, values in [("CKPT_REMOVE", {"ckpt": 1, "path": "/x"}), ("ATTEMPT_FORGET", {"job": 1, "epoch": 1})]:
        assert not node.dsd.order(method, term=6, **values)[0]
    node.dsd.term = 7
    node.restart()
    assert node.dsd.wait_heard("WORKER_REGISTER")[-1]["term_seen"] == 7
    # An old coordinator on the same address: it is heard, but not obeyed.
    node.dsd.term = 5
    node.dsd.drop()
    wait_for(lambda: "coordinator of term 5" in node.process.log(), 20, "the old coordinator to be turned away")


def test_forgetting_keeps_the_logs(node):
    """What is forgotten is gone from disk and from registrations; its output stays readable."""
    node.dsd.start(1, "echo still here")
    node.dsd.wait_report(1)
    node.dsd.ordered("ATTEMPT_FORGET", job=1, epoch=1)
    wait_for(lambda: not os.path.exists(node.attempt(1)), 10, "the folder to go")
    node.dsd.ordered("ATTEMPT_FORGET", job=1, epoch=1)
    chunk = node.dsd.log(1)
    assert chunk["data"] == b"still here\n" and chunk["end"] and chunk["final"]
    node.restart()
    assert node.dsd.wait_heard("WORKER_REGISTER")[-1]["attempts"] == []
    assert node.dsd.log(1)["data"] == b"still here\n"


def test_training_gets_its_spec_and_model(make_node, tmp_path):
    """dstrain is run on a spec whose model is the very text that was submitted; resuming publishes the manifest first."""
    fake = tmp_path / "dstrain"
    fake.write_text('#!/bin/sh\necho "$@"; cat "$2"; echo; cat "$DS_RUN_DIR/model.json"; echo; echo $DS_RESUME_STEP $DS_RESUME_PATH; cat $DS_RESUME_PATH/MANIFEST.json\n')
    fake.chmod(0o755)
    point = tmp_path / "t00001-e00001" / "step-50"
    point.mkdir(parents=True)
    node = make_node(config=f"dstrain: {fake}\n")
    train = {"model": "/elsewhere/config.json", "data": {"train": "/data/x"}, "global_batch": 2, "steps": 3}
    spec = {"name": "t", "gpus_per_node": 1, "train": train}
    node.dsd.start(
        1,
        ["unused"],
        epoch=2,
        spec={"command": None, **spec},
        model_json='{"hidden_size": 32}',
        resume={"ckpt": 3, "step": 50, "path": str(point), "manifest": '{"step":50}'},
    )
    end = node.dsd.wait_report(1, 2)
    assert end.get("error") is None and end["exits"][0]["code"] == 0, end
    lines = node.dsd.log(1)["data"].decode().splitlines()
    folder = node.attempt(1, 2)
    assert lines[0] == f"run {folder}/spec.json"
    assert json.loads(lines[1])["train"]["model"] == f"{folder}/model.json"
    assert lines[2:] == ['{"hidden_size": 32}', f"50 {point}", '{"step":50}']


def test_one_worker_a_state_folder(node):
    """A second worker on the same folder leaves at once, with one line that says why."""
    done = subprocess.run([*node.process.command], capture_output=True, text=True, timeout=20)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith("dsworkerd: another dsworkerd uses ")


def test_a_socket_path_that_is_too_long(tmp_path):
    """Is refused at the start, with the limit."""
    state = os.path.join(tmp_path, "x" * 100)
    done = subprocess.run([f"{BIN}/dsworkerd", "--state-dir", state, "--name", "n1"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 78 and "shorter --state-dir" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_ranks_run_as_the_job_s_user(node):
    """A worker that is root becomes the user of the job, with its groups and home; a user who is not known is refused."""
    nobody = pwd.getpwnam("nobody")
    os.chmod(node.folder, 0o711)
    node.dsd.start(1, "id -u; id -g; id -G; echo $HOME $USER; cat $DS_RUN_DIR/spec.json >/dev/null && echo read; umask", user="nobody", workdir="/tmp")
    assert node.dsd.wait_report(1)["exits"][0]["code"] == 0
    groups = subprocess.run(["id", "-G", "nobody"], capture_output=True, text=True).stdout.strip()
    lines = node.dsd.log(1)["data"].decode().splitlines()
    assert lines[:5] == [str(nobody.pw_uid), str(nobody.pw_gid), groups, f"{nobody.pw_dir} nobody", "read"], node.dsd.log(1, stream=2)["data"]
    node.dsd.start(2, "true", user="no-such-user")
    assert "no-such-user" in node.dsd.wait_report(2)["error"]


def test_inventory_of_a_driver(make_node, tmp_path):
    """What NVML tells is registered; a device that cannot be asked is there, and unhealthy."""
    source = tmp_path / "nvml.c"
    source.write_text(
        r"""
        #include <string.h>
        struct memory { unsigned long long total, free, used; };
        int nvmlInit_v2(void) { return 0; }
        int nvmlShutdown(void) { return 0; }
        const char *nvmlErrorString(int rc) { return rc == 15 ? "GPU is lost" : "?"; }
        int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (char *)1 + i; return i == 1 ? 15 : 0; }
        int nvmlDeviceGetName(void *d, char *s, unsigned n) { (void)d; strncpy(s, "NVIDIA H800", n); return 0; }
        int nvmlDeviceGetUUID(void *d, char *s, unsigned n) { (void)d; strncpy(s, "GPU-1234", n); return 0; }
        int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) { (void)d; m->total = 85899345920; return 0; }
        """
    )
    library = tmp_path / "libnvml.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    node = make_node(up=False)
    path = node.process.command[2]
    with open(path, encoding="utf-8") as f:
        text = f.read().replace("accelerators: {model: cpu, count: 2}", f"accelerators: auto\nnvml_library: {library}")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    node.up()
    good, bad = node.dsd.wait_heard("WORKER_REGISTER")[0]["gpus"]
    assert good == {"index": 0, "uuid": "GPU-1234", "model": "NVIDIA H800", "memory_bytes": 85899345920, "health": "ok"}
    assert bad["health"] == "NVML: GPU is lost" and bad["uuid"] == "n1/1"
    node.dsd.start(1, "echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER", gpus=2)
    node.dsd.wait_report(1)
    assert node.dsd.log(1)["data"] == b"0,1 PCI_BUS_ID\n"
