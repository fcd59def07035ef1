"""What a person sees: help, refusals, step lines, event files, inspect."""

import json
import os
import pty
import re
import signal
import struct
import subprocess

import pytest

from dstrain import BIN, ROOT, STEP_LINE, dstrain, processes_of, read_events


def one_line(done, *words):
    """The complaint is one line on stderr that begins with the program's name and has the words."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("dstrain: ")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], f"'{word}' is not in: {lines[0]}"


def test_help():
    """Help of each command goes to stdout with status 0."""
    for words in (["--help"], *([name, "--help"] for name in ("run", "pack", "inspect", "export", "import", "eval", "generate"))):
        done = dstrain(*words)
        assert "dstrain" in done.stdout and done.stderr == ""
        assert max(map(len, done.stdout.splitlines())) <= 90


# Weights that grow a hundredfold each step.
EXPLODING = ["train.optimizer.lr=10", "train.optimizer.lr_min=10", "train.optimizer.weight_decay=10", "train.optimizer.grad_clip=0"]
EXPLODING = [word for setting in EXPLODING for word in ("--set", setting)]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["run"],
        ["run", "a", "b"],
        ["run", "--fly", "a"],
        ["run", "--ranks", "0", "a"],
        ["run", "--ranks", "-1", "a"],
        ["run", "--ranks", "two", "a"],
        ["pack", "x"],
        ["pack", "-o", "y"],
        ["pack", "x", "-o", "y", "--split-valid", "1.5"],
        ["pack", "x", "-o", "y", "--split-valid", "nan"],
        ["pack", "x", "-o", "y", "--document-bytes", "-1"],
        ["inspect"],
    ],
)
def test_wrong_use(words, tmp_path):
    """Wrong use is 64, and points at the help."""
    done = dstrain(*words, status=64, cwd=tmp_path)
    assert "--help" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "setting,words",
    [
        ("train.parallel.pipeline=3", ["pipeline", "does not divide"]),
        ("train.parallel={pipeline: 2, schedule: dualpipev}", ["pipeline", "2 stages each", "3 layers"]),
        ("train.parallel.schedule=gpipe", ["schedule", "1f1b", "dualpipev"]),
        ("train.parallel.zero=3", ["zero"]),
        ("train.parallel.expert=3", ["expert"]),
        ("train.global_batch=7", ["global_batch", "multiple of"]),
        ("train.sequence_length=100000", ["sequence_length"]),
        ("train.precision=fp4", ["precision", "fp8"]),
        ("train.stepz=5", ["stepz", "steps"]),
        ("train.steps=none", ["steps"]),
    ],
)
def test_impossible_jobs(trainer, setting, words):
    """What cannot run is refused with the key and what is allowed, before anything starts: status 78."""
    done = dstrain("run", trainer.spec, "--ranks", "2", "--out", trainer.folder + "/out", "--set", setting, status=78)
    one_line(done, *words)
    assert not os.path.exists(trainer.folder + "/out")


def test_missing_files(trainer, tmp_path):
    """A job file, model, corpus or checkpoint that is not there: status 66 and its name."""
    one_line(dstrain("run", tmp_path / "none.yaml", status=66), "none.yaml")
    one_line(dstrain("run", trainer.spec, "--out", tmp_path / "a", "--set", "train.model=/none.json", status=66), "/none.json")
    one_line(dstrain("run", trainer.spec, "--out", tmp_path / "c", "--resume", "/none", status=66), "/none")
    one_line(dstrain("pack", "/none.txt", "-o", tmp_path / "x", status=66), "/none.txt")
    one_line(dstrain("pack", trainer.spec, "-o", tmp_path / "x", "--tokenizer", "words", status=66), "the tokenizer words", "tokenizer.json")
    one_line(dstrain("inspect", "/none", status=66), "/none")
    done = dstrain("run", trainer.spec, "--out", tmp_path / "b", "--set", "train.data.train=/none", status=66)
    assert "/none.idx" in done.stderr


def test_pack_makes_the_folder(trainer, tmp_path):
    """A corpus goes into a folder that is not there yet; what stands in its way is named."""
    dstrain("pack", trainer.spec, "-o", tmp_path / "new" / "deep" / "x")
    assert {"x.bin", "x.idx"} <= set(os.listdir(tmp_path / "new" / "deep"))
    one_line(dstrain("pack", trainer.spec, "-o", os.path.join(trainer.spec, "x"), status=86), trainer.spec)


def test_command_jobs_are_not_for_the_trainer(tmp_path):
    spec = tmp_path / "job.yaml"
    spec.write_text("name: x\ncommand: [true]\n")
    one_line(dstrain("run", spec, status=78), "train")


def damage_corpus(trainer, tmp_path, name, change):
    for suffix in (".idx", ".bin"):
        with open(trainer.corpus + suffix, "rb") as f:
            data = bytearray(f.read())
        if name == suffix:
            change(data)
        (tmp_path / f"bad{suffix}").write_bytes(data)
    return tmp_path / "bad"


def cut(data):
    del data[-7:]


def wrong_magic(data):
    data[0] ^= 1


def pointer_out_of_range(data):
    (sequences,) = struct.unpack_from("<Q", data, 18)
    struct.pack_into("<q", data, 34 + 4 * sequences + 8, 1 << 40)


def token_out_of_range(data):
    data[1::2] = b"\x02" * (len(data) // 2)


@pytest.mark.parametrize(
    "name,change,words",
    [
        (".bin", cut, ["bad.idx", "truncated"]),
        (".idx", cut, ["bad.idx", "truncated"]),
        (".idx", wrong_magic, ["bad.idx", "MMIDIDX"]),
        (".idx", pointer_out_of_range, ["bad.idx", "gap"]),
        (".bin", token_out_of_range, ["bad.bin", "vocabulary"]),
    ],
)
def test_bad_data(trainer, tmp_path, name, change, words):
    """A damaged corpus is status 65 with the file and the place; every rank says so or ends with it."""
    prefix = damage_corpus(trainer, tmp_path, name, change)
    done = dstrain("run", trainer.spec, "--ranks", "2", "--out", tmp_path / "out", "--set", f"train.data.train={prefix}", status=65)
    for word in words:
        assert word in done.stderr
    assert not processes_of(tmp_path / "out")


def test_corpus_too_short(trainer, tmp_path):
    (tmp_path / "a.txt").write_text("short")
    dstrain("pack", tmp_path / "a.txt", "-o", tmp_path / "short")
    done = dstrain("run", trainer.spec, "--out", tmp_path / "out", "--set", f"train.data.train={tmp_path / 'short'}", status=65)
    assert "short.bin has 6 tokens, one sequence needs 33" in done.stderr


def test_loss_not_finite(trainer):
    """A run that blows up ends with 82, before the step is applied, with step and place."""
    run = trainer.run("run", *EXPLODING, layout="dp2", status=82)
    assert re.search(r"step \d+: .*not finite", run.stderr)
    assert run.committed() == []


def test_step_lines(trainer):
    """One line a step on stdout, as the contract has it; validation where it was asked for, on the first step and on the last."""
    run = trainer.run("run", layout="dp2xep2")
    lines = run.stdout.splitlines()
    assert len(lines) == 20
    metrics = run.metrics()
    for step, line in enumerate(lines, 1):
        match = STEP_LINE.fullmatch(line)
        assert match, line
        assert int(match[1]) == step and int(match[2]) == step * 8 * 32
        assert match[3] == f"{metrics[step]['loss']:.4f}"
        assert bool(match[10]) == (step in (1, 5, 10, 15, 20))
        assert ("valid_loss" in metrics[step]) == bool(match[10])


def test_dense_model_without_mtp(trainer, model):
    """What the model does not have is not in the line."""
    trainer.write(model={**model, "n_routed_experts": 0, "num_nextn_predict_layers": 0}, data={"train": trainer.corpus}, valid_every=0)
    run = trainer.run("run", layout="dp2")
    assert "mtp_loss" not in run.stdout and "balance_maxvio" not in run.stdout and "valid_loss" not in run.stdout
    assert run.metrics()[20]["loss"] < run.metrics()[1]["loss"]


def test_event_files(trainer):
    """TensorBoard reads the same numbers; a resumed run adds a file that takes over from its first step."""
    run = trainer.run("run", "--set", "checkpoint.keep=1")
    events = read_events(f"{run.out}/tb")
    metrics = run.metrics()
    assert set(range(1, 21)) <= events.keys()
    for step in range(1, 21):
        for tag, key in (("train/loss", "loss"), ("train/mtp_loss", "mtp_loss"), ("train/grad_norm", "grad_norm"), ("valid/loss", "valid_loss")):
            assert (tag in events[step]) == (key in metrics[step])
            if key in metrics[step]:
                assert abs(events[step][tag] - metrics[step][key]) < 1e-5


def test_inspect(trainer):
    """inspect shows step, mesh, shards and tensors; --verify reads it all."""
    run = trainer.run("run", layout="ep2")
    done = dstrain("inspect", run.checkpoint(20), "--verify")
    for word in ("step 20", "5120 tokens", "expert 2", "2 shards", "model.embed_tokens.weight", "[257, 32]", "optimizer.v.", "verified"):
        assert word in done.stdout
    shard = f"{run.checkpoint(20)}/shard-00000-of-00002.safetensors"
    assert "tensors" in dstrain("inspect", shard).stdout
    with open(shard, "r+b") as f:
        f.seek(os.path.getsize(shard) - 1)
        f.write(b"\x55")
    one_line(dstrain("inspect", run.checkpoint(20), "--verify", status=83), "shard-00000")


def test_progress_bar_on_a_terminal_only(trainer):
    """On a terminal a bar is drawn and removed again; Ctrl-C typed there saves and leaves nothing behind. In a pipe there is none."""
    run = trainer.run("run")
    assert "\x1b" not in run.stdout + run.stderr
    trainer.write(steps=100000, ckpt_every=100000)
    out = os.path.join(trainer.folder, "tty")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(f"{BIN}/dstrain", ["dstrain", "run", trainer.spec, "--ranks", "2", "--out", out])
    text = b""
    while b"step=20 " not in text:
        text += os.read(terminal, 65536)
    os.write(terminal, b"\x03")
    try:
        while data := os.read(terminal, 65536):
            text += data
    except OSError:
        pass  # the terminal's way of saying that nobody has it open any more
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 80
    assert b"[####" in text or b"[...." in text
    assert b"tokens/s" in text and text.rfind(b"\x1b[K") > text.rfind(b"s left")
    assert not processes_of(out)


def test_output_of_other_ranks_is_marked(trainer):
    """What a rank other than 0 says is on the launcher's stderr behind its number."""
    run = trainer.run("run", *EXPLODING, layout="dp2", status=82)
    assert "[rank 1] dstrain: step" in run.stderr


def test_closed_stdout_does_not_stop_a_run(trainer):
    """A reader of the step lines that goes away is no reason to stop."""
    out = os.path.join(trainer.folder, "run")
    process = subprocess.Popen([f"{BIN}/dstrain", "run", trainer.spec, "--out", out], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    with open(f"{out}/metrics.jsonl", encoding="utf-8") as f:
        assert len(f.readlines()) == 20


def test_spec_of_the_run_is_kept(trainer):
    """spec.json in the folder is the whole job with every default, and runs again."""
    run = trainer.run("run", layout="dp2")
    with open(f"{run.out}/spec.json", encoding="utf-8") as f:
        spec = json.load(f)
    assert spec["gpus_per_node"] == 2 and spec["train"]["steps"] == 20
    out = os.path.join(trainer.folder, "again")
    dstrain("run", f"{run.out}/spec.json", "--out", out)
    with open(f"{out}/metrics.jsonl", encoding="utf-8") as f:
        again = {m["step"]: m["loss"] for m in map(json.loads, f)}
    assert again == {step: m["loss"] for step, m in run.metrics().items()}


def test_etc_models_are_valid():
    for name in os.listdir(os.path.join(ROOT, "etc", "models")):
        with open(os.path.join(ROOT, "etc", "models", name), encoding="utf-8") as f:
            assert json.load(f)["model_type"] == "deepseek_v3"


def test_second_interrupt_gives_up(trainer):
    """Ctrl-C twice ends at once, with 130, and leaves nothing running."""
    trainer.write(steps=100000, ckpt_every=100000)
    run = trainer.start("run", layout="dp2")
    run.wait_step(3)
    for pid in run.ranks().values():
        os.kill(pid, signal.SIGSTOP)  # so that the first one cannot be obeyed
    run.process.send_signal(signal.SIGINT)
    while "once more" not in run.read_output():
        pass
    run.process.send_signal(signal.SIGINT)
    run.wait(130)
