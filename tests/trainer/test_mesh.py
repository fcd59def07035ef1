"""The same run on any mesh: losses, checkpoints, resumption. A few of the meshes of mesh_matrix.py, which `make check-mesh` walks."""

import os

import pytest
from dstrain import ROOT, Mesh, Trainer, dstrain, read_checkpoint
from mesh_matrix import check_close, check_reshard, content, deep

PIPELINES = [Mesh(2, 1, 1), Mesh(2, 1, 1, "dualpipev"), Mesh(1, 1, 1, "dualpipev"), Mesh(2, 2, 1), Mesh(2, 1, 2, "dualpipev"), Mesh(4, 1, 1, "dualpipev")]
SAME = [Mesh(1, 1, 2), Mesh(1, 2, 1), Mesh(2, 1, 1), Mesh(2, 1, 2), Mesh(2, 1, 1, "dualpipev")]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text that does not change with the tree: whether two experts tie somewhere is a matter of the data."""
    prefix = str(tmp_path_factory.mktemp("text") / "text")
    dstrain("pack", os.path.join(ROOT, "LICENSE"), "-o", prefix, "--document-bytes", "2000", "--split-valid", "0.2")
    return prefix


class DeepTrainer(Trainer):
    def write(self, **train):
        super().write(**{"global_batch": 16, "optimizer": {"lr": 1e-3, "warmup_steps": 5}, **train})


@pytest.fixture
def deep_trainer(text, tmp_path, model):
    """Eight layers, and micro-batches enough for every mesh."""
    trainer = DeepTrainer(tmp_path, text)
    trainer.write(model=deep(model))
    return trainer


def test_losses_do_not_depend_on_the_mesh(deep_trainer):
    """FP32: losses of training, MTP and validation agree with one rank's to 1e-4 over 20 steps."""
    one = deep_trainer.run("one").series()
    assert len(one) == 20
    for mesh in PIPELINES:
        check_close(deep_trainer.run(str(mesh), mesh=mesh).series(), one, mesh)


def test_dense_models_agree_closer(deep_trainer, model):
    """Without experts no choice hangs on the last bit: losses agree to 1e-5, the gradient norm to 1e-4."""
    deep_trainer.write(model={**deep(model), "first_k_dense_replace": 8, "num_nextn_predict_layers": 0})
    one = deep_trainer.run("one").series()
    for mesh in (Mesh(4, 1, 1), Mesh(2, 1, 2, "dualpipev")):
        check_close(deep_trainer.run(str(mesh), mesh=mesh).series(), one, mesh, dense=True)


def test_accumulation(deep_trainer):
    """One, two or four micro-batches of a pipeline make the same step."""
    one = deep_trainer.run("one", "--set", "train.micro_batch=8").series()
    for size in (4, 8):
        mesh = Mesh(2, 1, 1) if size == 8 else Mesh(2, 1, 1, "dualpipev")
        check_close(deep_trainer.run(f"of-{size}", "--set", f"train.micro_batch={size}", mesh=mesh).series(), one, size)


def test_tied_embedding(deep_trainer, model):
    """The head that is the embedding, on the last stage and on the first, with and without the MTP module."""
    for depth in (0, 1):
        deep_trainer.write(model={**deep(model), "tie_word_embeddings": True, "num_nextn_predict_layers": depth})
        one = deep_trainer.run(f"one-{depth}").series()
        for mesh in (Mesh(2, 1, 1), Mesh(2, 1, 1, "dualpipev")):
            check_close(deep_trainer.run(f"{mesh}-{depth}", mesh=mesh).series(), one, mesh)


@pytest.mark.parametrize("mesh", [Mesh(1, 1, 2), Mesh(1, 2, 2), Mesh(2, 1, 2)], ids=str)
def test_overlap_changes_no_bit(trainer, model, mesh):
    """Gradients reduced while the backward pass goes on, in several buckets, and rows sent beside the computation, or one after the other."""
    wide = {"intermediate_size": 12288, "moe_intermediate_size": 4096, "num_hidden_layers": 4, "first_k_dense_replace": 2}
    trainer.write(model={**model, **wide}, steps=2, ckpt_every=2, precision="fp8")
    runs = [trainer.run(f"{mesh}-{way}", mesh=mesh, env={"DS_OVERLAP": way}) for way in "01"]
    assert runs[1].series() == runs[0].series()
    assert content(runs[1].checkpoint(2)) == content(runs[0].checkpoint(2))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
def test_zero_changes_no_bit(deep_trainer, precision):
    """Optimiser state parted or on every rank: every metric and every byte of the checkpoint is the same; parted it is written by all."""
    for mesh in (Mesh(1, 2, 2), Mesh(2, 1, 2)):
        runs = [
            deep_trainer.run(f"{mesh}-{zero}", "--set", f"train.parallel.zero={zero}", "--set", f"train.precision={precision}", mesh=mesh)
            for zero in (0, 1)
        ]
        assert runs[0].series() == runs[1].series()
        assert content(runs[0].checkpoint(20)) == content(runs[1].checkpoint(20))
    for before, after in ((0, 1), (1, 0)):
        again = deep_trainer.run(
            f"again-{after}",
            "--resume",
            runs[before].checkpoint(10),
            *("--set", f"train.parallel.zero={after}", "--set", f"train.precision={precision}"),
            mesh=mesh,
        )
        assert again.series() == runs[0].series(first=11)
        assert content(again.checkpoint(20)) == content(runs[0].checkpoint(20))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
@pytest.mark.parametrize("mesh", SAME, ids=str)
def test_resume_is_bit_exact(deep_trainer, mesh, precision):
    """20 steps are 10 and 10 more, in each precision, on meshes of every axis."""
    option = ("--set", f"train.precision={precision}")
    whole = deep_trainer.run("whole", *option, mesh=mesh)
    half = deep_trainer.run("half", *option, "--resume", whole.checkpoint(10), mesh=mesh)
    assert half.series() == whole.series(first=11) and len(half.series()) == 10
    assert read_checkpoint(half.checkpoint(20)) == read_checkpoint(whole.checkpoint(20))


def test_killed_and_resumed(deep_trainer):
    """A pipeline that is killed goes on from its last checkpoint to the bits of the undisturbed run."""
    mesh = Mesh(2, 1, 2)
    whole = deep_trainer.run("whole", mesh=mesh)
    broken = deep_trainer.start("broken", mesh=mesh)
    broken.wait_step(12)
    broken.process.kill()
    broken.process.wait()
    resumed = deep_trainer.run("broken", "--resume", "auto", mesh=mesh)
    assert resumed.series() == whole.series()
    assert read_checkpoint(resumed.checkpoint(20)) == read_checkpoint(whole.checkpoint(20))


def test_checkpoints_reshard(deep_trainer):
    """Saved on one mesh, loaded on another and saved again: every byte of every tensor, moments included; and on it goes."""
    check_reshard(deep_trainer, [Mesh(2, 1, 2), Mesh(1, 2, 2), Mesh(), Mesh(2, 2, 1, "dualpipev"), Mesh(1, 1, 2), Mesh(4, 1, 1)])


def test_other_threads(trainer):
    """A checkpoint goes on with another number of threads a rank; a line says that bit-exactness ends there."""
    first = trainer.run("first", env={"OMP_NUM_THREADS": "1"})
    again = trainer.run("again", "--resume", first.checkpoint(10), env={"OMP_NUM_THREADS": "2"})
    assert "another number of threads" in again.stderr
    check_close(again.series(), first.series(first=11), "threads")
    same = trainer.run("same", "--resume", first.checkpoint(10), env={"OMP_NUM_THREADS": "1"})
    assert "another number of threads" not in same.stderr


def test_export(deep_trainer, tmp_path):
    """The weights of a run on a pipeline are exported and evaluated like any other's."""
    path = deep_trainer.run("run", mesh=Mesh(2, 2, 1, "dualpipev")).checkpoint(20)
    dstrain("inspect", path, "--verify")
    dstrain("export", path, tmp_path / "hf", "--dtype", "fp32")
    dstrain("inspect", tmp_path / "hf", "--verify")
    dstrain("import", tmp_path / "hf", tmp_path / "back")
    back = content(tmp_path / "back")
    assert back == {name: data for name, data in content(path).items() if not name.startswith("optimizer.")}


def test_inspect(deep_trainer):
    """inspect tells the mesh of a checkpoint, and which layers were where."""
    run = deep_trainer.run("run", mesh=Mesh(2, 2, 1, "dualpipev"))
    out = dstrain("inspect", run.checkpoint(20)).stdout
    assert "mesh pipeline 2 x expert 2 x data 1" in out
    assert "pipeline dualpipev: 0: layers 0-1 and 6-7, 1: layers 2-3 and 4-5" in out
    assert "optimiser state parted over 2 ranks" in out
