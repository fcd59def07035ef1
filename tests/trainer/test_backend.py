"""dstrain --backend cuda where it cannot compute: no plug-in, another one, no driver, no GPU. One clear line and an exit status of 64 to 78."""

import glob
import os
import re
import subprocess

import pytest

from dstrain import BIN, ROOT

PLUGIN = os.path.join(os.path.dirname(BIN), "lib", "dsop_cuda.so")
built = pytest.mark.skipif(not os.path.exists(PLUGIN), reason="built without nvcc")


def shared_object(folder, name, source):
    """Compiles C text or a file to folder/name."""
    os.makedirs(folder, exist_ok=True)
    if "\n" in source:
        path = os.path.join(folder, "source.c")
        with open(path, "w", encoding="utf-8") as f:
            f.write(source)
        source = path
    subprocess.run(["cc", "-shared", "-fPIC", "-o", os.path.join(folder, name), source], check=True)
    return folder


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """Folder of a libcuda.so.1 that says what FAKE_CUDA_* tell it to."""
    return shared_object(str(tmp_path_factory.mktemp("driver")), "libcuda.so.1", os.path.join(ROOT, "tests", "trainer", "fake_libcuda.c"))


@pytest.fixture
def refused(trainer):
    """refused(words, ranks, environment...) runs it and checks the one line."""

    def run(*words, ranks=1, **env):
        out = os.path.join(trainer.folder, "refused")
        command = [f"{BIN}/dstrain", "run", trainer.spec, "--backend", "cuda", "--ranks", str(ranks), "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **env})
        lines = done.stderr.splitlines()
        assert 64 <= done.returncode <= 78, done.stderr
        assert len(lines) == 1 and lines[0].startswith("dstrain: "), done.stderr
        for word in (*words, "--backend cpu"):
            assert word in lines[0], f"'{word}' is not in: {lines[0]}"
        assert done.stdout == "" and not os.path.exists(out)
        return lines[0]

    return run


def no_driver():
    try:
        return "libcuda.so.1" not in subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return False


@built
@pytest.mark.skipif(not no_driver(), reason="there is an NVIDIA driver")
def test_no_driver(refused):
    """The real plug-in on this machine."""
    refused("no NVIDIA driver", "libcuda.so.1", "install driver")


def test_no_plug_in(refused, tmp_path):
    refused(str(tmp_path / "dsop_cuda.so"), "No such file", "nvcc", DS_PLUGIN_DIR=str(tmp_path))


def test_damaged_plug_in(refused, tmp_path):
    """Half a file, as a copy that was interrupted leaves it."""
    with open(f"{BIN}/dstrain", "rb") as f:
        (tmp_path / "dsop_cuda.so").write_bytes(f.read(5000))
    refused("cannot load the CUDA back end", DS_PLUGIN_DIR=str(tmp_path))


def test_library_missing(refused, tmp_path):
    """A plug-in one of whose libraries is not there says which."""
    shared_object(str(tmp_path), "libneeded.so", "int needed(void);\nint needed(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-o", str(tmp_path / "dsop_cuda.so"), "-Wl,--no-as-needed", str(tmp_path / "libneeded.so")], check=True)
    os.remove(tmp_path / "libneeded.so")
    refused("libneeded.so", DS_PLUGIN_DIR=str(tmp_path))


def test_no_plug_in_at_all(refused, tmp_path):
    """A shared object of something else."""
    refused("no back end", DS_PLUGIN_DIR=shared_object(str(tmp_path), "dsop_cuda.so", "int other;\n"))


@pytest.mark.parametrize("table", [0, 1])
def test_other_interface(refused, tmp_path, table):
    """A plug-in of another version of the program: by its number, or by the size of its table alone."""
    with open(os.path.join(ROOT, "trainer", "op_plugin.h"), encoding="utf-8") as f:
        abi = int(re.search(r"OP_PLUGIN_ABI\s+(\d+)", f.read()).group(1))
    numbers = f"{abi if table else abi + 1}, {1234 if table else 8}"
    source = f"struct plugin {{ unsigned abi, bytes; }};\nstatic const struct plugin p = {{{numbers}}};\nconst void *dsop_plugin(void) {{ return &p; }}\n"
    refused("its interface is", "one build", DS_PLUGIN_DIR=shared_object(str(tmp_path), "dsop_cuda.so", source))


@built
@pytest.mark.parametrize(
    "answers, words",
    [
        ({"FAKE_CUDA_INIT": "100"}, ["CUDA_ERROR_NO_DEVICE", "nvidia-smi"]),
        ({"FAKE_CUDA_INIT": "999"}, ["CUDA_ERROR_UNKNOWN"]),
        ({"FAKE_CUDA_INIT": "3"}, ["unknown error"]),
        ({"FAKE_CUDA_VERSION": "12040"}, ["CUDA 12.4", "13.0"]),
        ({"FAKE_CUDA_VERSION": "12040", "FAKE_CUDA_INIT": "100"}, ["CUDA 12.4", "13.0"]),
        ({"FAKE_CUDA_COUNT": "0"}, ["there are 0"]),
        ({"FAKE_CUDA_MAJOR": "8"}, ["Stand-in 0", "8.0", "H100"]),
        ({"FAKE_CUDA_MAJOR": "-1"}, ["GPU 0 does not answer", "CUDA_ERROR_UNKNOWN"]),
    ],
)
def test_driver_without_gpu(refused, driver, answers, words):
    """What the driver says is what the line says."""
    refused(*words, LD_LIBRARY_PATH=driver, **answers)


@built
def test_more_ranks_than_it_can(refused, driver):
    refused("runs one rank", "2", ranks=2, LD_LIBRARY_PATH=driver)


@built
def test_other_driver(refused, tmp_path):
    """A libcuda.so.1 that lacks functions."""
    refused("cuInit", LD_LIBRARY_PATH=shared_object(str(tmp_path), "libcuda.so.1", "int other;\n"))


@built
def test_driver_that_breaks_later(trainer, driver):
    """A driver that promises a GPU and then cannot give one: the rank says so and nothing crashes."""
    run = trainer.start("broken", "--backend", "cuda", env={"LD_LIBRARY_PATH": driver})
    run.process.wait(timeout=60)
    run.read_output()
    assert 64 <= run.process.returncode <= 78, run.stderr
    assert "cannot use GPU 0" in run.stderr


def test_wrong_name(trainer):
    done = subprocess.run([f"{BIN}/dstrain", "run", trainer.spec, "--backend", "tpu"], capture_output=True, text=True)
    assert done.returncode == 64 and "cpu or cuda" in done.stderr


def test_programs_need_no_cuda():
    """No program links a library of CUDA's or refers to one of its functions."""
    programs = glob.glob(f"{BIN}/ds*")
    assert len(programs) >= 6
    for program in programs:
        text = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
        text += subprocess.run(["nm", "-D", "--undefined-only", program], capture_output=True, text=True, check=True).stdout
        assert not re.search(r"\b(libcu\w+|libnccl|libnv\w+|cu[A-Z]\w+|cuda[A-Z]\w+|cublas\w+|cudnn\w+|nccl[A-Z]\w+)\b", text), program


@built
def test_plug_in_shows_one_function():
    text = subprocess.run(["nm", "-D", "--defined-only", PLUGIN], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in text.splitlines()] == ["dsop_plugin"]


EMULATED = os.path.join(os.path.dirname(BIN), "tests", "emulated")
emulated = pytest.mark.skipif(not os.path.exists(os.path.join(EMULATED, "dsop_cuda.so")), reason="not built: make check-trainer builds it")


@emulated
@pytest.mark.parametrize("precision", ["fp32", "fp8"])
def test_trains_on_emulated_device(trainer, precision):
    """The whole trainer on the CUDA back end's kernels, emulated, with device memory that nobody else can touch: the CPU's losses, and a
    resume to the bit."""
    trainer.write(ckpt_every=2, precision=precision, steps=3, sequence_length=4, global_batch=2, valid_every=0)
    there = {"DS_PLUGIN_DIR": EMULATED}
    cpu = trainer.run("cpu").metrics()
    gpu = trainer.run("cuda", "--backend", "cuda", env=there).metrics()
    assert sorted(gpu) == sorted(cpu) == [1, 2, 3]
    for step, wanted in cpu.items():
        assert gpu[step]["loss"] == pytest.approx(wanted["loss"], rel=5e-3), step
    again = trainer.run("again", "--backend", "cuda", "--resume", trainer_checkpoint(trainer, "cuda", 2), env=there)
    assert again.metrics()[3]["loss"] == gpu[3]["loss"] and again.metrics()[3]["grad_norm"] == gpu[3]["grad_norm"]


@emulated
@pytest.mark.parametrize(
    "shape, knob",
    [
        ({"sequence_length": 256, "micro_batch": 8, "global_batch": 8}, "lower train.micro_batch"),
        ({"sequence_length": 256, "micro_batch": 1, "global_batch": 1}, "lower train.sequence_length"),
        ({"sequence_length": 4, "micro_batch": 1, "global_batch": 1}, "take a smaller model"),
    ],
)
def test_out_of_device_memory(trainer, shape, knob):
    """What is wanted, what is free, what the plan comes to, and the knob that lowers the largest part of it."""
    trainer.write(precision="fp8", steps=1, valid_every=0, **shape)
    run = trainer.start("full", "--backend", "cuda", env={"DS_PLUGIN_DIR": EMULATED, "EMULATED_MEMORY": "1000000"})
    run.process.wait(timeout=60)
    run.read_output()
    assert run.process.returncode == 71, run.stderr
    (line,) = [line for line in run.stderr.splitlines() if "out of device memory" in line]
    assert re.search(r"wants [\d.]+ GB in one piece, 0\.00\d of 0\.001 GB are free; the plan of this rank needs \d+\.\d+ GB: weights", line), line
    assert knob in line


def trainer_checkpoint(trainer, run, step):
    (path,) = glob.glob(os.path.join(trainer.folder, run, "checkpoints", "*", f"step-{step:010d}"))
    return path
