"""The same run on other numbers of ranks."""

import pytest

from dstrain import LAYOUTS, read_checkpoint


def close(a, b, tolerance):
    return a is None and b is None or abs(a - b) <= tolerance * abs(b)


def check_close(series, reference, tolerance):
    assert series.keys() == reference.keys()
    for step, values in reference.items():
        for ours, theirs in zip(series[step], values):
            assert close(ours, theirs, tolerance), f"step {step}: {series[step]} against {values}"


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "1"])
def test_losses_do_not_depend_on_the_ranks(trainer, layout):
    """FP32: losses of training, MTP and validation, gradient norm and expert loads agree with one rank's to 1e-4 over 20 steps."""
    one = trainer.run("one").series()
    many = trainer.run("many", layout=layout).series()
    assert len(one) == 20
    check_close(many, one, 1e-4)


def test_accumulation_does_not_matter(trainer):
    """Eight micro-batches of one sequence, or one of eight: the same mean gradient."""
    single = trainer.run("single").series()
    whole = trainer.run("whole", "--set", "train.micro_batch=8").series()
    check_close(whole, single, 1e-4)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_low_precision_learns(trainer, layout, precision):
    """Every precision trains on every layout: the loss falls far below that of guessing."""
    metrics = trainer.run("run", "--set", f"train.precision={precision}", "--set", "train.steps=100", layout=layout).metrics()
    assert metrics[1]["loss"] > 5.3 and metrics[100]["loss"] < 4.0
    assert metrics[1]["valid_loss"] > 5.3 and metrics[100]["valid_loss"] < 4.0


@pytest.mark.parametrize("before,after", [("dp2xep2", "1"), ("dp2xep2", "dp2"), ("1", "dp2xep2"), ("ep2", "dp2"), ("dp2", "ep2")])
def test_resume_on_another_layout(trainer, before, after):
    """A checkpoint of any layout goes on on any other as if nothing had changed; shards hold each tensor of the model once."""
    first = trainer.run("first", layout=before)
    path = first.checkpoint(10)
    second = trainer.run("second", "--resume", path, layout=after)
    check_close(second.series(), first.series(first=11), 1e-4)
    names = read_checkpoint(path).keys()
    assert names == read_checkpoint(second.checkpoint(20)).keys()
    weights = {n for n in names if not n.startswith("optimizer.") and not n.endswith("e_score_correction_bias")}
    assert {n for n in names if n.startswith("optimizer.m.")} == {f"optimizer.m.{n}" for n in weights}
    assert {n for n in names if n.startswith("optimizer.v.")} == {f"optimizer.v.{n}" for n in weights}
