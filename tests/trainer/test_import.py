"""dstrain import: Hugging Face folders of every kind, and what is refused."""

import json
import os
import re
import shutil
import struct

import pytest

from dstrain import dstrain, read_checkpoint
from hf import Folder, header_of, pack_f32, read_safetensors, shapes, write_safetensors


@pytest.fixture
def small(model):
    """Small enough to write by hand in no time; no size a multiple of another's."""
    return {
        **model,
        "vocab_size": 40,
        "hidden_size": 20,
        "intermediate_size": 28,
        "moe_intermediate_size": 12,
        "num_hidden_layers": 2,
        "q_lora_rank": 12,
        "kv_lora_rank": 10,
        "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 4,
        "v_head_dim": 5,
        "n_routed_experts": 4,
    }


def check_values(ckpt, folder):
    """The checkpoint has the model's tensors and no other, each FP32 with the folder's values bit for bit."""
    tensors = read_checkpoint(ckpt)
    model = folder.model
    assert {name: shape for name, (_, shape, _) in tensors.items()} == shapes(model)
    for name, (dtype, _, data) in tensors.items():
        assert dtype == "F32" and data == pack_f32(folder.values[name]), name
    dstrain("inspect", ckpt, "--verify")


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "F8_E4M3"])
def test_dtypes(small, tmp_path, dtype, files):
    """Every dtype, in one file and in several, is read to the bit; copies in the MTP layer are no tensors of the checkpoint."""
    folder = Folder(small, dtype)
    done = dstrain("import", folder.write(tmp_path / "hf", files), tmp_path / "ckpt")
    check_values(tmp_path / "ckpt", folder)
    assert done.stderr == "" and "init_from" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["ckpt", "hf"]


@pytest.mark.parametrize("block", [(128, 128), (8, 8), (7, 16), (1, 3)])
def test_fp8_blocks(small, tmp_path, block):
    """Scales of blocks of any size, the last ones ragged."""
    folder = Folder(small, "F8_E4M3", block=block)
    dstrain("import", folder.write(tmp_path / "hf"), tmp_path / "ckpt")
    check_values(tmp_path / "ckpt", folder)


def test_fp8_large_blocks(small, tmp_path):
    """Matrices of more than one 128x128 block, with ragged edges."""
    folder = Folder({**small, "hidden_size": 200, "intermediate_size": 130, "n_routed_experts": 2, "n_group": 1}, "F8_E4M3")
    dstrain("import", folder.write(tmp_path / "hf", 2), tmp_path / "ckpt")
    check_values(tmp_path / "ckpt", folder)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F8_E4M3"])
def test_fused_experts(small, tmp_path, dtype):
    """Experts as one tensor a layer; an FP8 block may then lie across gate and up."""
    folder = Folder(small, dtype, block=(8, 8)).fuse(dtype)
    dstrain("import", folder.write(tmp_path / "hf", 2), tmp_path / "ckpt")
    check_values(tmp_path / "ckpt", folder)


@pytest.mark.parametrize(
    "change",
    [
        {"q_lora_rank": None},
        {"tie_word_embeddings": True},
        {"n_shared_experts": 2},
        {"n_shared_experts": 0},
        {"first_k_dense_replace": 0},
        {"first_k_dense_replace": 2},
        {"num_nextn_predict_layers": 0},
        {"num_nextn_predict_layers": 2},
        {"n_routed_experts": 8, "n_group": 1},
    ],
)
def test_shapes(small, tmp_path, change):
    """Models of other shapes."""
    folder = Folder({**small, **change})
    dstrain("import", folder.write(tmp_path / "hf"), tmp_path / "ckpt")
    check_values(tmp_path / "ckpt", folder)
    with open(tmp_path / "ckpt" / "config.json", encoding="utf-8") as f:
        config = json.load(f)
    assert all(config[key] == value for key, value in change.items())


def test_shards(small, tmp_path):
    """Shards of a size, and the same tensors whatever it is; a tensor larger than that has one of its own."""
    folder = Folder(small)
    hf = folder.write(tmp_path / "hf")
    sizes = {}
    for size in ("2KB", "10KB", "5GB"):
        dstrain("import", hf, tmp_path / size, "--shard-size", size)
        check_values(tmp_path / size, folder)
        sizes[size] = sum(name.startswith("shard-") for name in os.listdir(tmp_path / size))
    assert sizes["2KB"] > sizes["10KB"] > sizes["5GB"] == 1


def without_mtp(folder):
    layer = f"model.layers.{folder.model['num_hidden_layers']}."
    folder.tensors = {name: t for name, t in folder.tensors.items() if not name.startswith(layer)}
    return layer


def test_missing_mtp(small, tmp_path, trainer):
    """Without the MTP layer's weights they are those that a run of this seed starts with, and one line says so."""
    folder = Folder(small)
    layer = without_mtp(folder)
    hf = folder.write(tmp_path / "hf")
    done = dstrain("import", hf, tmp_path / "ckpt", "--seed", "7", "--init-std", "0.02")
    assert len(done.stderr.splitlines()) == 1 and "MTP layer 2" in done.stderr and "seed 7" in done.stderr
    tensors = read_checkpoint(tmp_path / "ckpt")
    fresh = {"num_nextn_predict_layers": 1, **small, "vocab_size": 257}
    # a run whose one step changes nothing that FP32 shows
    trainer.write(model=fresh, steps=1, seed=7, init_std=0.02, optimizer={"lr": 1e-12, "lr_min": 0, "weight_decay": 0, "warmup_steps": 0})
    begun = read_checkpoint(trainer.run("fresh").checkpoint(1))
    compared = 0
    for name, (_, shape, data) in tensors.items():
        if name.startswith(layer) and not name.endswith("bias"):
            got, want = (struct.unpack(f"<{len(d) // 4}f", d) for d in (data, begun[name][2]))
            assert max(abs(a - b) for a, b in zip(got, want)) < 1e-10, name
            compared += 1
    assert compared > 20


def test_mtp_option(small, tmp_path):
    """--mtp leaves MTP layers out, or adds fresh ones."""
    folder = Folder(small)
    hf = folder.write(tmp_path / "hf")
    done = dstrain("import", hf, tmp_path / "none", "--mtp", "0")
    assert "left out" in done.stderr
    assert not any(name.startswith("model.layers.2.") for name in read_checkpoint(tmp_path / "none"))
    done = dstrain("import", hf, tmp_path / "two", "--mtp", "2")
    assert "MTP layer 3" in done.stderr and "MTP layer 2" not in done.stderr
    tensors = read_checkpoint(tmp_path / "two")
    assert tensors["model.layers.2.eh_proj.weight"][2] == pack_f32(folder.values["model.layers.2.eh_proj.weight"])
    assert "model.layers.3.eh_proj.weight" in tensors
    assert tensors["model.layers.3.enorm.weight"][2] == pack_f32([1.0] * 20)
    with open(tmp_path / "two" / "config.json", encoding="utf-8") as f:
        assert json.load(f)["num_nextn_predict_layers"] == 2


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_unsaid_mtp(small, tmp_path, layers):
    """Without num_nextn_predict_layers in config.json there are as many MTP layers as have weights."""
    folder = Folder({**small, "num_nextn_predict_layers": layers})
    del folder.model["num_nextn_predict_layers"]
    done = dstrain("import", folder.write(tmp_path / "hf"), tmp_path / "ckpt")
    assert done.stderr == ""
    folder.model["num_nextn_predict_layers"] = layers
    check_values(tmp_path / "ckpt", folder)


def test_zero_scale(small, tmp_path):
    """A block of zeros may have a scale of zero."""
    folder = Folder(small, "F8_E4M3", block=(8, 8))
    rows, cols = folder.tensors[GATE][1]
    poke(folder, GATE, 0, b"\0" * (rows * cols))
    for i in range(len(folder.tensors[f"{GATE}_scale_inv"][2]) // 4):
        put_float(folder, f"{GATE}_scale_inv", i, 0.0)
    dstrain("import", folder.write(tmp_path / "hf"), tmp_path / "ckpt")
    assert read_checkpoint(tmp_path / "ckpt")[GATE][2] == pack_f32([0.0] * (rows * cols))


def test_differing_copies(small, tmp_path):
    """An MTP layer with an embedding of its own: the model has one, and it is said which."""
    folder = Folder(small)
    dtype, shape, data = folder.tensors["model.embed_tokens.weight"]
    folder.tensors["model.layers.2.embed_tokens.weight"] = (dtype, shape, b"\0" * len(data))
    done = dstrain("import", folder.write(tmp_path / "hf"), tmp_path / "ckpt")
    assert "model.layers.2.embed_tokens.weight differs" in done.stderr
    check_values(tmp_path / "ckpt", folder)


def test_tied_with_head(small, tmp_path):
    """A tied model may carry its head all the same."""
    folder = Folder({**small, "tie_word_embeddings": True})
    folder.tensors["lm_head.weight"] = folder.tensors["model.embed_tokens.weight"]
    done = dstrain("import", folder.write(tmp_path / "hf"), tmp_path / "ckpt")
    assert done.stderr == ""
    check_values(tmp_path / "ckpt", folder)


def test_odd_but_legal(small, tmp_path):
    """A single file under another name; an index for one file; leftovers of old versions; tokenizer files come along."""
    folder = Folder(small)
    folder.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", [2], pack_f32([1, 0.01]))
    hf = folder.write(tmp_path / "hf", 1, index=True)
    with open(f"{hf}/tokenizer.json", "w", encoding="utf-8") as f:
        f.write('{"model": {"vocab": {"a": 0}}}')
    dstrain("import", hf, tmp_path / "ckpt")
    check_values(tmp_path / "ckpt", folder)
    assert os.path.exists(tmp_path / "ckpt" / "tokenizer.json")
    os.unlink(f"{hf}/model.safetensors.index.json")
    os.rename(f"{hf}/model.safetensors", f"{hf}/weights.safetensors")
    os.mkdir(tmp_path / "empty")
    dstrain("import", hf, tmp_path / "empty")
    check_values(tmp_path / "empty", folder)


# ---- what is refused

GATE = "model.layers.1.mlp.experts.2.gate_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


def poke(folder, name, at, data):
    dtype, shape, old = folder.tensors[name]
    folder.tensors[name] = (dtype, shape, old[:at] + data + old[at + len(data) :])


def reshape(folder, name, shape):
    dtype, _, data = folder.tensors[name]
    folder.tensors[name] = (dtype, shape, data)


def retype(folder, name, dtype):
    _, shape, data = folder.tensors[name]
    folder.tensors[name] = (dtype, shape, data)


def put_float(folder, name, at, value):
    poke(folder, name, 4 * at, struct.pack("<f", value))


FP8_CASES = {
    "scale is NaN": (lambda f: put_float(f, f"{GATE}_scale_inv", 1, float("nan")), [f"{GATE}_scale_inv", "[0, 1]", "nan"]),
    "scale is infinite": (lambda f: put_float(f, f"{GATE}_scale_inv", 3, float("inf")), [f"{GATE}_scale_inv", "[1, 0]", "inf"]),
    "scale is negative": (lambda f: put_float(f, f"{GATE}_scale_inv", 0, -1e-3), [f"{GATE}_scale_inv", "-0.001"]),
    "scale is zero": (lambda f: (put_float(f, f"{GATE}_scale_inv", 0, 0.0), poke(f, GATE, 3, b"\x81")), [GATE, "row 0, column", "is 0"]),
    "code is NaN": (lambda f: poke(f, GATE, 25, b"\x7f"), [GATE, "row 1, column 5", "nan"]),
    "scale overflows": (lambda f: (put_float(f, f"{GATE}_scale_inv", 0, 3e38), poke(f, GATE, 0, b"\x7e")), [GATE, "row 0, column 0", "inf"]),
    "no scale": (lambda f: f.tensors.pop(f"{GATE}_scale_inv"), [GATE, "no _scale_inv"]),
    "scale of another shape": (lambda f: reshape(f, f"{GATE}_scale_inv", [3, 2]), [f"{GATE}_scale_inv", "[3, 2]", "[2, 3]"]),
    "scale of another dtype": (lambda f: retype(f, f"{GATE}_scale_inv", "U32"), [f"{GATE}_scale_inv", "F32"]),
    "vector in FP8": (lambda f: f.tensors.update({NORM: ("F8_E4M3", [20], b"\0" * 20)}), [NORM, "F8_E4M3", "allowed"]),
}
PLAIN_CASES = {
    "missing": (lambda f: f.tensors.pop(GATE), [GATE, "none of its"]),
    "missing bias": (lambda f: f.tensors.pop(BIAS), [BIAS, "none of its"]),
    "half an MTP layer": (lambda f: f.tensors.pop("model.layers.2.hnorm.weight"), ["model.layers.2.hnorm.weight", "none of its"]),
    "unknown": (lambda f: f.tensors.update({"model.layers.0.self_attn.indexer.weight": ("F32", [1], b"\0" * 4)}), ["indexer", "no place"]),
    "other shape": (lambda f: reshape(f, GATE, [20, 12]), [GATE, "[20, 12]", "[12, 20]"]),
    "flat": (lambda f: reshape(f, GATE, [240]), [GATE, "[240]"]),
    "other dtype": (lambda f: retype(f, GATE, "I32"), [GATE, "I32", "allowed"]),
    "NaN": (lambda f: put_float(f, GATE, 47, float("nan")), [GATE, "row 2, column 7", "nan"]),
    "infinite": (lambda f: put_float(f, NORM, 3, float("-inf")), [NORM, "column 3", "inf"]),
    "NaN bias": (lambda f: put_float(f, BIAS, 0, float("nan")), [BIAS, "nan"]),
    "scale of what is not FP8": (lambda f: f.tensors.update({f"{GATE}_scale_inv": ("F32", [1, 1], b"\0" * 4)}), [f"{GATE}_scale_inv", "not FP8"]),
    "fused as well": (lambda f: f.tensors.update({"model.layers.1.mlp.experts.down_proj": ("F32", [1], b"\0" * 4)}), ["experts.down_proj", "no place"]),
    "another quantisation": (lambda f: f.model.update(quantization_config={"quant_method": "gptq"}), ["config.json", "gptq", "fp8"]),
    "another model": (lambda f: f.model.update(model_type="llama"), ["config.json", "model_type"]),
}


def refused(hf, ckpt, words, status):
    """One line with the words; nothing is left behind."""
    before = sorted(os.listdir(os.path.dirname(ckpt)))
    done = dstrain("import", hf, ckpt, status=status)
    lines = [line for line in done.stderr.splitlines() if line.startswith("dstrain: ")]
    assert len(lines) == 1
    for word in words:
        assert word in lines[0], f"'{word}' is not in: {lines[0]}"
    assert sorted(os.listdir(os.path.dirname(ckpt))) == before
    if status != 64:  # then the folder itself is wrong, and inspect says the same
        (line,) = dstrain("inspect", hf, "--verify", status=status).stderr.splitlines()
        for word in words:
            assert word in line, f"inspect: '{word}' is not in: {line}"


@pytest.mark.parametrize("case", [*FP8_CASES, *PLAIN_CASES])
def test_broken_tensors(small, tmp_path, case):
    """A tensor that is not what it must be is refused with its name and its file's; nothing is left behind."""
    fp8 = case in FP8_CASES
    folder = Folder(small, "F8_E4M3" if fp8 else "F32", block=(8, 8))
    change, words = (FP8_CASES if fp8 else PLAIN_CASES)[case]
    change(folder)
    hf = folder.write(tmp_path / "hf")
    status = 78 if "config.json" in words else 83
    refused(hf, tmp_path / "ckpt", words if "none of its" in words else [*words, hf], status)


def cut(hf, folder):
    os.truncate(f"{hf}/model-00002-of-00003.safetensors", os.path.getsize(f"{hf}/model-00002-of-00003.safetensors") - 10)
    return ["model-00002-of-00003", "tensor ", "truncated"]


def cut_header(hf, folder):
    os.truncate(f"{hf}/model-00002-of-00003.safetensors", 100)
    return ["model-00002-of-00003", "does not fit"]


def empty(hf, folder):
    os.truncate(f"{hf}/model-00002-of-00003.safetensors", 0)
    return ["model-00002-of-00003", "truncated"]


def append(hf, folder):
    with open(f"{hf}/model-00002-of-00003.safetensors", "ab") as f:
        f.write(b"more")
    return ["model-00002-of-00003", "cover"]


def edit_header(hf, change):
    """change(header, name of its largest tensor, that tensor's entry) -> header text, or None for the changed header."""
    path = f"{hf}/model-00002-of-00003.safetensors"
    tensors = read_safetensors(path)
    header = header_of(tensors)
    name = max(tensors, key=lambda n: len(tensors[n][2]))
    text = change(header, name, header[name])
    write_safetensors(path, tensors, text or json.dumps(header))
    return ["model-00002-of-00003", f"tensor {name}"]


def lying_offsets(hf, folder):
    def change(header, name, entry):
        entry["data_offsets"][1] -= 4

    return edit_header(hf, change)


def overlap(hf, folder):
    def change(header, name, entry):
        entry["data_offsets"] = [at - 4 if at else at + 4 for at in entry["data_offsets"]]

    return edit_header(hf, change)[:1] + ["ends at"]


def negative_offsets(hf, folder):
    def change(header, name, entry):
        entry["data_offsets"] = [-8, entry["data_offsets"][1] - entry["data_offsets"][0] - 8]

    return edit_header(hf, change)


def huge_shape(hf, folder):
    def change(header, name, entry):
        entry["shape"] = [1 << 62, 1 << 62]

    return edit_header(hf, change)


def twice_in_header(hf, folder):
    def change(header, name, entry):
        return json.dumps(header)[:-1] + f', "{name}": {json.dumps(entry)}}}'

    words = edit_header(hf, change)
    return [words[0], words[1].removeprefix("tensor "), "twice"]


def twice_over_files(hf, folder):
    first, second = (read_safetensors(f"{hf}/model-0000{i}-of-00003.safetensors") for i in (1, 2))
    name = next(iter(first))
    write_safetensors(f"{hf}/model-00002-of-00003.safetensors", {**second, name: first[name]})
    return [name, "twice", "model-00001-of-00003", "model-00002-of-00003"]


def edit_index(hf, change):
    path = f"{hf}/model.safetensors.index.json"
    with open(path, encoding="utf-8") as f:
        index = json.load(f)
    text = change(index["weight_map"])
    with open(path, "w", encoding="utf-8") as f:
        f.write(text or json.dumps(index))


def huge_header(hf, folder):
    with open(f"{hf}/model-00002-of-00003.safetensors", "r+b") as f:
        f.write(struct.pack("<Q", 1 << 63))
    return ["model-00002-of-00003", "a header of 9223372036854775808 bytes does not fit"]


def not_utf8(hf, folder):
    with open(f"{hf}/model-00002-of-00003.safetensors", "r+b") as f:
        data = f.read()
        at = data.index(b"model.layers")
        f.seek(at)
        f.write(b"\xff\xfe")
    return ["model-00002-of-00003", "the header is no JSON object", "byte 0xff"]


def not_json(hf, folder):
    return [edit_header(hf, lambda header, name, entry: json.dumps(header)[:-1])[0], "the header is no JSON object"]


def unknown_dtype(hf, folder):
    return edit_header(hf, lambda header, name, entry: entry.update(dtype="F6_E2M3")) + ["F6_E2M3"]


def gap(hf, folder):
    path = f"{hf}/model-00002-of-00003.safetensors"
    tensors = read_safetensors(path)
    header = header_of(tensors)
    last = max(header, key=lambda n: header[n]["data_offsets"][1] if n != "__metadata__" else -1)
    header[last]["data_offsets"] = [at + 4 for at in header[last]["data_offsets"]]
    write_safetensors(path, {**tensors, "": ("F32", [1], b"\0" * 4)}, json.dumps(header))
    return ["model-00002-of-00003", f"tensor {last}", "begins at"]


def index_not_utf8(hf, folder):
    with open(f"{hf}/model.safetensors.index.json", "r+b") as f:
        f.seek(30)
        f.write(b"\xff")
    return ["index.json", "byte 0xff"]


def index_twice(hf, folder):
    edit_index(hf, lambda m: json.dumps({"weight_map": m})[:-2] + f', "{NORM}": "model-00001-of-00003.safetensors"}}}}')
    return ["index.json", NORM, "twice"]


def index_absent_file(hf, folder):
    edit_index(hf, lambda m: m.update({NORM: "model-00009-of-00003.safetensors"}))
    return ["index.json", "model-00009-of-00003", "not there"]


def index_wrong_file(hf, folder):
    def change(m):
        m[NORM] = next(file for file in set(m.values()) if file != m[NORM])

    edit_index(hf, change)
    return ["index.json", NORM, "not there"]


def index_more(hf, folder):
    edit_index(hf, lambda m: m.update({"a.weight": m[NORM]}))
    return ["index.json", "a.weight", "not there"]


def index_less(hf, folder):
    edit_index(hf, lambda m: m.pop(NORM) and None)
    return ["index.json", NORM, "does not name"]


def index_elsewhere(hf, folder):
    edit_index(hf, lambda m: m.update({NORM: "../hf/model-00001-of-00003.safetensors"}))
    return ["index.json", NORM, "not the name of"]


def index_cut(hf, folder):
    os.truncate(f"{hf}/model.safetensors.index.json", 200)
    return ["index.json"]


def no_index(hf, folder):
    os.unlink(f"{hf}/model.safetensors.index.json")
    return ["3 .safetensors files", "index.json"]


@pytest.mark.parametrize(
    "breakage",
    [
        cut,
        cut_header,
        empty,
        append,
        lying_offsets,
        overlap,
        negative_offsets,
        huge_shape,
        twice_in_header,
        twice_over_files,
        huge_header,
        not_utf8,
        not_json,
        unknown_dtype,
        gap,
        index_not_utf8,
        index_twice,
        index_absent_file,
        index_wrong_file,
        index_more,
        index_less,
        index_elsewhere,
        index_cut,
        no_index,
    ],
)
def test_broken_files(small, tmp_path, breakage):
    """A file or an index that is not what it must be is refused with the names; nothing is left behind."""
    folder = Folder(small)
    hf = folder.write(tmp_path / "hf", 3)
    refused(hf, tmp_path / "ckpt", breakage(hf, folder), 83)


def test_absent(small, tmp_path):
    """A folder that is not there, or has no weights; a target that is there already stays as it was."""
    dstrain("import", tmp_path / "nothing", tmp_path / "ckpt", status=66)
    hf = Folder(small).write(tmp_path / "hf")
    os.mkdir(tmp_path / "ckpt")
    (tmp_path / "ckpt" / "mine").write_text("x")
    refused(hf, tmp_path / "ckpt", ["is there already"], 64)
    assert os.listdir(tmp_path / "ckpt") == ["mine"]
    shutil.rmtree(tmp_path / "ckpt")
    os.unlink(f"{hf}/model.safetensors")
    refused(hf, tmp_path / "ckpt", [hf, "safetensors"], 66)


def test_random_damage(small, tmp_path):
    """Whatever byte of a folder's files is changed, import succeeds or refuses in one line: it neither crashes nor hangs."""
    import random

    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    hf = Folder(small, "F8_E4M3", block=(8, 8)).write(tmp_path / "hf", 2)
    files = [name for name in sorted(os.listdir(hf)) if name != "config.json"]
    for round_ in range(40):
        name = rng.choice(files)
        with open(f"{hf}/{name}", "rb") as f:
            good = f.read()
        bad = bytearray(good)
        size = 3000 if rng.random() < 0.8 else len(good)  # mostly in the header
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(min(size, len(good)))] = rng.randrange(256)
        with open(f"{hf}/{name}", "wb") as f:
            f.write(bad)
        ckpt = tmp_path / f"ckpt{round_}"
        try:
            dstrain("import", hf, ckpt)
        except AssertionError as failed:
            assert re.match(r"status (83|78|66),", str(failed)), failed
            assert not ckpt.exists()
        with open(f"{hf}/{name}", "wb") as f:
            f.write(good)
