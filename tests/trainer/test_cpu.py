"""The CPU back end as a whole: its sets of loops, the profile of a step, the memory it tells."""

import re

import pytest

from dstrain import read_checkpoint


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
def test_kernels_give_the_same_bits(trainer, precision):
    """A run is the same, to the bit, with the loops of every instruction set that this processor has."""
    flags = open("/proc/cpuinfo", encoding="utf-8").read()
    there = ["portable"] + [k for k, flag in (("avx2", " avx2 "), ("avx512", " avx512vl ")) if flag in flags]
    trainer.write(steps=4, ckpt_every=4)
    runs = [trainer.run(f"{precision}-{k}", "--set", f"train.precision={precision}", env={"DS_CPU_KERNELS": k}) for k in there]
    for run in runs[1:]:
        assert run.series() == runs[0].series()
        assert read_checkpoint(run.checkpoint(4)) == read_checkpoint(runs[0].checkpoint(4))


def test_unknown_kernels_are_refused(trainer):
    """The message names what there is."""
    run = trainer.run("run", env={"DS_CPU_KERNELS": "mmx"}, status=64)
    assert "DS_CPU_KERNELS=mmx: there are only portable" in run.stderr


def test_profile_accounts_for_the_step(trainer):
    """The rows of the table, with what lies between operations, are the whole step; the run's bits do not change."""
    trainer.write(steps=6, ckpt_every=6)
    plain = trainer.run("plain")
    run = trainer.run("profiled", "--profile")
    assert "operation" not in plain.stderr
    assert read_checkpoint(run.checkpoint(6)) == read_checkpoint(plain.checkpoint(6))
    table = run.stderr[run.stderr.index("\noperation") :].splitlines()[2:]
    rows = [re.match(r"(.+?) +([\d.]+) +(-?[\d.]+) +(-?[\d.]+)%", line) for line in table]
    names = [r[1] for r in rows if r]
    shares = [float(r[4]) for r in rows if r]
    end = names.index("between operations")
    assert abs(sum(shares[: end + 1]) - 100) < 0.05 * (end + 2), table
    assert shares[:end] == sorted(shares[:end], reverse=True)
    assert {"attention", "attention_backward", "adamw", "rmsnorm"} <= set(names)
    products = [float(r[3]) for r in rows[:end] if r[1].startswith("linear")]
    assert abs(sum(products) - float(rows[end + 1][3])) < 0.01 * (len(products) + 1)


def test_peak_memory_is_told(trainer):
    """In MiB, of the size the model needs at least."""
    trainer.write(steps=2, ckpt_every=2)
    run = trainer.run("run")
    peak = float(re.search(r"peak memory of rank 0: ([\d.]+) MiB", run.stderr)[1])
    assert 5 < peak < 2000
