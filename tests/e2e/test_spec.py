"""Bad job files are refused at submit with file and line, and nothing is queued."""

import json

import pytest

from specs import TINY_MODEL, command

BASE = "name: bad\nnodes: 1\ngpus_per_node: 1\ncommand: [\"true\"]\n"

# What is wrong, the file, the line that must be named (None: any), and a word the message must hold.
CASES = [
    ("unknown key", BASE + "colour: red\n", 5, "colour"),
    ("near miss", BASE + "priorty: 3\n", 5, "priority"),
    ("wrong type", "name: bad\nnodes: many\ncommand: [\"true\"]\n", 2, "nodes"),
    ("list for text", "name: [a, b]\ncommand: [\"true\"]\n", 1, "name"),
    ("name not allowed", "name: Bad Name\ncommand: [\"true\"]\n", 1, "name"),
    ("no name", "nodes: 1\ncommand: [\"true\"]\n", None, "name"),
    ("neither train nor command", "name: bad\nnodes: 1\n", None, "command"),
    ("stage not known", BASE + "stage: training\n", 5, "pretrain"),
    ("no nodes", "name: bad\nnodes: 0\ncommand: [\"true\"]\n", 2, "nodes"),
    ("negative", "name: bad\nnodes: -1\ncommand: [\"true\"]\n", 2, "nodes"),
    ("min over max", "name: bad\nnodes: {min: 3, max: 2}\ncommand: [\"true\"]\n", 2, "min"),
    ("not YAML", "name: bad\n  nodes: : 1\n", 2, ""),
    ("tab", "name: bad\n\tnodes: 1\n", 2, ""),
    ("two documents", BASE + "---\n" + BASE, None, ""),
    ("key twice", BASE + "nodes: 2\n", 5, "nodes"),
    ("empty file", "", None, ""),
    ("a list", "- name: bad\n", 1, ""),
    ("empty command", "name: bad\ncommand: []\n", 2, "command"),
    ("bad duration", BASE + "time_limit: soon\n", 5, "time_limit"),
    ("gang larger than the cluster", "name: bad\nnodes: 3\ngpus_per_node: 1\ncommand: [\"true\"]\n", None, "3"),
    ("more accelerators than any node has", "name: bad\nnodes: 1\ngpus_per_node: 3\ncommand: [\"true\"]\n", None, "3"),
]


@pytest.fixture(scope="module")
def quiet(request, tmp_path_factory):
    """One cluster for all cases: none of them may change it."""
    from cluster import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("cluster")).start()
    yield cluster
    cluster.close()


def refused(cluster, path):
    done = cluster.ctl("job", "submit", path, check=False)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("dsctl: ") and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert cluster.items("jobs", "--all") == []
    return done.stderr


@pytest.mark.parametrize("what,text,line,word", CASES, ids=[c[0] for c in CASES])
def test_refused_with_file_and_line(quiet, tmp_path, what, text, line, word):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    message = refused(quiet, path)
    assert "job.yaml" in message, message
    if line is not None:
        assert f"job.yaml:{line}:" in message, message
    assert word in message, message


def train_spec(folder, model=None, **change):
    (folder / "model.json").write_text(json.dumps({**TINY_MODEL, **(model or {})}))
    train = {
        "model": "model.json",
        "data": {"train": "corpus"},
        "sequence_length": 32,
        "global_batch": 8,
        "steps": 10,
        "parallel": {"expert": 2},
        **change,
    }
    return json.dumps({"name": "bad", "nodes": 2, "gpus_per_node": 2, "train": train})


TRAIN_CASES = [
    ("mesh does not divide the ranks", {"parallel": {"expert": 3}}, {}, "expert"),
    ("experts do not divide", {}, {"n_routed_experts": 7}, "expert"),
    ("batch does not divide", {"global_batch": 7}, {}, "batch"),
    ("sequence longer than the model", {"sequence_length": 4096}, {}, "sequence"),
    ("groups do not fit", {}, {"n_group": 3}, "n_group"),
    ("more groups chosen than there are", {}, {"topk_group": 5}, "topk_group"),
    ("top-k over the experts in the groups", {}, {"num_experts_per_tok": 6}, "num_experts_per_tok"),
    ("unknown precision", {"precision": "fp4"}, {}, "fp8"),
    ("steps and tokens", {"tokens": "1M"}, {}, "tokens"),
    ("negative learning rate", {"optimizer": {"lr": -1}}, {}, "lr"),
    ("unknown optimiser key", {"optimizer": {"momentum": 1}}, {}, "momentum"),
    ("model with an odd rope dimension", {}, {"qk_rope_head_dim": 7}, "qk_rope_head_dim"),
]


@pytest.mark.parametrize("what,change,model,word", TRAIN_CASES, ids=[c[0] for c in TRAIN_CASES])
def test_impossible_training_is_refused(quiet, tmp_path, what, change, model, word):
    path = tmp_path / "job.yaml"
    path.write_text(train_spec(tmp_path, model, **change))
    message = refused(quiet, path)
    assert word in message
    assert "model.json" in message if model else "job.yaml:1:" in message, message


def test_missing_model(quiet, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(train_spec(tmp_path, model={}).replace("model.json", "absent.json"))
    assert "absent.json" in refused(quiet, path)


def test_broken_override(quiet, tmp_path):
    """--set is checked like the file."""
    path = tmp_path / "job.yaml"
    path.write_text(command("true"))
    for setting, word in [("nodes=lots", "nodes"), ("colour=red", "colour"), ("nodes", "nodes")]:
        done = quiet.ctl("job", "submit", path, "--set", setting, check=False)
        assert done.returncode in (1, 2) and word in done.stderr, done
    assert quiet.items("jobs", "--all") == []
