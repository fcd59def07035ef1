"""dstrain export: Hugging Face folders from checkpoints of any layout; what they say; training that goes on from them."""

import glob
import json
import os
import struct
import sys

import pytest

from dstrain import LAYOUTS, ROOT, dstrain, read_checkpoint, wait_for
from hf import bf16_code, bf16_of, decode, e4m3_of, elements, f32, is_recipe, read_folder, shapes
from test_damage import edit_manifest, flip, shard_of, truncate

sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from disk import SmallDisk  # noqa: E402


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A run of 20 steps on two ranks, with experts spread over them: (trainer, run)."""
    from dstrain import Trainer

    trainer = Trainer(tmp_path_factory.mktemp("trained"), corpus)
    return trainer, trainer.run("run", layout="ep2")


@pytest.fixture
def checkpoint(trained):
    return trained[1].checkpoint(20)


def weights_of(checkpoint):
    """name -> (shape, values), without the optimiser's moments."""
    tensors = {n: t for n, t in read_checkpoint(checkpoint).items() if not n.startswith("optimizer.")}
    return {n: (shape, struct.unpack(f"<{elements(shape)}f", data)) for n, (_, shape, data) in tensors.items()}


def copies(model):
    """Copies in MTP layers: name -> what they copy."""
    layers, depth = model["num_hidden_layers"], model["num_nextn_predict_layers"]
    out = {}
    for layer in range(layers, layers + depth):
        out[f"model.layers.{layer}.embed_tokens.weight"] = "model.embed_tokens.weight"
        out[f"model.layers.{layer}.shared_head.head.weight"] = "lm_head.weight"
    return out


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def quantised(values, rows, cols):
    """What FP8 keeps of a matrix, by the definition: a scale of amax / 448 for each 128x128 block, codes to nearest, ties to even."""
    codes = [e4m3_of(c) for c in range(0x7F)]
    out = [0.0] * (rows * cols)
    for r0 in range(0, rows, 128):
        for c0 in range(0, cols, 128):
            block = [(r, c) for r in range(r0, min(r0 + 128, rows)) for c in range(c0, min(c0 + 128, cols))]
            amax = max(max(abs(values[r * cols + c]) for r, c in block), f32(1e-4))
            scale = f32(amax / 448.0)
            for r, c in block:
                x = f32(values[r * cols + c] / scale)
                near = min(range(len(codes)), key=lambda k: (abs(codes[k] - abs(x)), k & 1))
                out[r * cols + c] = f32((codes[near] if x >= 0 else -codes[near]) * scale)
    return out


def test_fp32(trained, checkpoint, model, tmp_path):
    """FP32: the checkpoint's own bits under the published names, with the MTP layer's copies of embedding and head."""
    done = dstrain("export", checkpoint, tmp_path / "hf", "--format", "hf", "--dtype", "fp32")
    assert done.stderr == ""
    tensors, weights = read_folder(tmp_path / "hf"), weights_of(checkpoint)
    assert {name: shape for name, (shape, _) in weights.items()} == shapes(model)
    assert set(tensors) == set(weights) | set(copies(model))
    for name, (dtype, shape, _) in tensors.items():
        assert dtype == "F32"
        assert (shape, tuple(decode(tensors, name))) == weights[copies(model).get(name, name)]
    assert sorted(os.listdir(tmp_path)) == ["hf"]


def test_bf16(checkpoint, model, tmp_path):
    """BF16, rounded to nearest even; balancing biases stay FP32."""
    dstrain("export", checkpoint, tmp_path / "hf")
    tensors = read_folder(tmp_path / "hf")
    for name, (shape, values) in weights_of(checkpoint).items():
        bias = name.endswith("e_score_correction_bias")
        assert tensors[name][:2] == ("F32" if bias else "BF16", shape)
        assert tuple(decode(tensors, name)) == (values if bias else tuple(bf16_of(bf16_code(x)) for x in values))
    config = load(tmp_path / "hf" / "config.json")
    assert config["torch_dtype"] == "bfloat16" and "quantization_config" not in config


def test_fp8(checkpoint, model, tmp_path):
    """FP8: the Linears of the recipe with a scale for each block, the rest as in BF16."""
    dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp8")
    tensors = read_folder(tmp_path / "hf")
    scales = {name for name in tensors if name.endswith("_scale_inv")}
    assert scales == {f"{name}_scale_inv" for name in shapes(model) if is_recipe(name)}
    for name, (shape, values) in weights_of(checkpoint).items():
        if is_recipe(name):
            assert tensors[name][:2] == ("F8_E4M3", shape)
            if ".experts." not in name or ".experts.3." in name:  # the definition is slow
                assert decode(tensors, name) == quantised(values, *shape), name
        else:
            assert tensors[name][0] == ("F32" if name.endswith("e_score_correction_bias") else "BF16")
    quantisation = load(tmp_path / "hf" / "config.json")["quantization_config"]
    assert quantisation == {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(trained, tmp_path, layout):
    """Whatever layout a checkpoint is of, its export has every tensor with its bits."""
    trainer, _ = trained
    trainer.write(steps=2, ckpt_every=2)
    checkpoint = trainer.run(f"of-{layout}", layout=layout).checkpoint(2)
    trainer.write()
    dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp32", "--shard-size", "50KB")
    tensors = read_folder(tmp_path / "hf")
    for name, (shape, values) in weights_of(checkpoint).items():
        assert tensors[name][1] == shape and tuple(decode(tensors, name)) == values, name


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp8"])
def test_shard_size(checkpoint, tmp_path, dtype):
    """Files of a size, a matrix and its scale in the same one; what they hold does not depend on it."""
    dstrain("export", checkpoint, tmp_path / "one", "--dtype", dtype)
    dstrain("export", checkpoint, tmp_path / "many", "--dtype", dtype, "--shard-size", "20KB")
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "many")
    files = sorted(os.path.basename(f) for f in glob.glob(f"{tmp_path}/many/*.safetensors"))
    assert files == [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))] and len(files) > 3
    assert os.listdir(tmp_path / "one").count("model-00001-of-00001.safetensors") == 1
    weight_map = load(tmp_path / "many" / "model.safetensors.index.json")["weight_map"]
    for name, file in weight_map.items():
        assert weight_map.get(f"{name}_scale_inv", file) == file


def test_round_trip(checkpoint, tmp_path):
    """Export, import, export: the same bytes, of every file but the card; and the checkpoint's own weights in between."""
    options = ("--dtype", "fp32", "--shard-size", "40KB", "--tokenizer", "bytes")
    dstrain("export", checkpoint, tmp_path / "a", *options)
    done = dstrain("import", tmp_path / "a", tmp_path / "ckpt")
    assert done.stderr == ""
    dstrain("export", tmp_path / "ckpt", tmp_path / "b", *options)
    names = set(os.listdir(tmp_path / "a"))
    assert names == set(os.listdir(tmp_path / "b")) and "tokenizer.json" in names
    for name in names - {"README.md"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert weights_of(tmp_path / "ckpt") == weights_of(checkpoint)


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_round_trip_coarse(checkpoint, tmp_path, dtype):
    """What was rounded once is not rounded again: BF16 to the byte, FP8 to the value."""
    dstrain("export", checkpoint, tmp_path / "a", "--dtype", dtype)
    dstrain("import", tmp_path / "a", tmp_path / "ckpt")
    weights = weights_of(tmp_path / "ckpt")
    tensors = read_folder(tmp_path / "a")
    for name, (_, values) in weights.items():
        assert values == tuple(decode(tensors, name)), name
    if dtype == "bf16":
        dstrain("export", tmp_path / "ckpt", tmp_path / "b", "--dtype", dtype)
        assert read_folder(tmp_path / "b") == tensors


# ---- training that goes on


def test_begin_with_weights(trained, checkpoint, tmp_path, corpus):
    """A run that begins with a checkpoint's weights, with its export imported again, or by --resume of that is one and the same run."""
    trainer, first = trained
    dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp32")
    dstrain("import", tmp_path / "hf", tmp_path / "ckpt")
    trainer.write(steps=10, init_from=checkpoint)
    direct = trainer.run("direct")
    trainer.write(steps=10, init_from=str(tmp_path / "ckpt"))
    imported = trainer.run("imported", layout="1")
    trainer.write(steps=10)
    resumed = trainer.run("resumed", "--resume", tmp_path / "ckpt")
    scratch = trainer.run("scratch")
    trainer.write()
    assert direct.series() == imported.series() == resumed.series()
    assert min(direct.metrics()) == 1 and direct.metrics()[1]["tokens"] == 8 * 32
    trained_loss, fresh_loss = first.metrics()[20]["loss"], scratch.metrics()[1]["loss"]
    assert abs(direct.metrics()[1]["loss"] - trained_loss) < 0.3 < fresh_loss - direct.metrics()[1]["loss"]
    assert "starts with the weights of" in direct.stderr and "of step 20" in direct.stderr
    assert "fresh optimiser moments" in resumed.stderr and "the data order differs" not in resumed.stderr


def test_restart_of_such_a_run(trained, checkpoint):
    """Once it has checkpoints of its own, a run resumes from these and not from the weights it began with."""
    trainer, _ = trained
    trainer.write(steps=10, ckpt_every=5, init_from=checkpoint)
    whole = trainer.run("whole")
    broken = trainer.start("broken")
    wait_for(broken.committed, "the checkpoint of step 5")
    broken.process.kill()
    broken.process.wait()
    resumed = trainer.run("broken", "--resume", "auto")
    trainer.write()
    assert "resumed from" in resumed.stderr
    assert resumed.series(first=6) == whole.series(first=6)


@pytest.mark.parametrize("case", ["absent", "damaged", "other shape"])
def test_wrong_start(trained, checkpoint, tmp_path, model, case):
    """Weights that cannot be had are wrong data, 65: no earlier checkpoint of the job could mend it, so it is not tried again."""
    trainer, _ = trained
    folder = f"{tmp_path}/start"
    if case != "absent":
        dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp32")
        dstrain("import", tmp_path / "hf", folder)
    if case == "damaged":
        flip(f"{folder}/shard-00000-of-00001.safetensors", 100000)
    other = {**model, "num_hidden_layers": 2} if case == "other shape" else model
    trainer.write(steps=5, init_from=folder, model=other)
    run = trainer.run(f"wrong {case}", status=65)
    trainer.write()
    line = next(line for line in run.stderr.splitlines() if "train.init_from" in line)
    assert folder in line
    assert run.metrics() == {}


# ---- what the folder says


def test_config(checkpoint, model, tmp_path):
    """config.json is the model's, generation ends where the tokenizer's documents do."""
    dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp32")
    config = load(tmp_path / "hf" / "config.json")
    for key, value in model.items():
        assert config[key] == value or key in ("torch_dtype", "eos_token_id", "bos_token_id"), key
    assert config["architectures"] == ["DeepseekV3ForCausalLM"] and "auto_map" not in config
    assert config["torch_dtype"] == "float32"
    assert config["eos_token_id"] == load(tmp_path / "hf" / "generation_config.json")["eos_token_id"] == 256


def gpt2_bytes():
    """GPT-2's table of characters that stand for bytes, as OpenAI's bytes_to_unicode makes it."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table, more = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + more)
            more += 1
    return table


def test_byte_tokenizer(checkpoint, tmp_path):
    """The bytes as a byte-level BPE without merges: the ids are the bytes, 256 ends a document."""
    dstrain("export", checkpoint, tmp_path / "hf")
    tokenizer = load(tmp_path / "hf" / "tokenizer.json")
    assert tokenizer["model"]["vocab"] == {char: byte for byte, char in gpt2_bytes().items()}
    assert tokenizer["model"]["merges"] == [] and tokenizer["pre_tokenizer"]["type"] == "ByteLevel"
    assert [(t["id"], t["special"]) for t in tokenizer["added_tokens"]] == [(256, True)]
    config = load(tmp_path / "hf" / "tokenizer_config.json")
    assert config["eos_token"] == tokenizer["added_tokens"][0]["content"]


def test_tokenizer_choice(checkpoint, tmp_path):
    """A tokenizer given by file or folder is copied; one with ids that the model has not is refused; weights from elsewhere get none."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 256}}}')
    (own / "tokenizer_config.json").write_text('{"x": 1}')
    dstrain("export", checkpoint, tmp_path / "a", "--tokenizer", own)
    assert (tmp_path / "a" / "tokenizer.json").read_text() == (own / "tokenizer.json").read_text()
    assert (tmp_path / "a" / "tokenizer_config.json").read_text() == '{"x": 1}'
    assert load(tmp_path / "a" / "config.json")["eos_token_id"] == 1  # the model's own word
    (tmp_path / "bpe.json").write_text('{"model": {"vocab": {"a": 0, "b": 256}}}')
    dstrain("export", checkpoint, tmp_path / "b", "--tokenizer", tmp_path / "bpe.json")
    assert (tmp_path / "b" / "tokenizer.json").read_text() == (own / "tokenizer.json").read_text()
    assert load(tmp_path / "b" / "tokenizer_config.json")["model_max_length"] == 256
    dstrain("export", checkpoint, tmp_path / "c", "--tokenizer", "none")
    assert not (tmp_path / "c" / "tokenizer.json").exists()
    (own / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 257}]}')
    done = dstrain("export", checkpoint, tmp_path / "d", "--tokenizer", own, status=78)
    assert "257" in done.stderr and "another model" in done.stderr
    dstrain("import", tmp_path / "c", tmp_path / "ckpt")
    done = dstrain("export", tmp_path / "ckpt", tmp_path / "e")
    assert "no tokenizer" in done.stderr and not (tmp_path / "e" / "tokenizer.json").exists()
    dstrain("import", tmp_path / "a", tmp_path / "ckpt2")
    dstrain("export", tmp_path / "ckpt2", tmp_path / "f")
    assert (tmp_path / "f" / "tokenizer.json").read_bytes() == (tmp_path / "a" / "tokenizer.json").read_bytes()
    assert not (tmp_path / "d").exists()


def test_tokenizer_of_the_text(trained, checkpoint, corpus, tmp_path, model):
    """The tokenizer that the text was packed with is found beside it; a large vocabulary is not taken for bytes."""
    beside = f"{corpus}.tokenizer.json"
    try:
        with open(beside, "w", encoding="utf-8") as f:
            f.write('{"model": {"vocab": {"z": 256}}}')
        dstrain("export", checkpoint, tmp_path / "hf")
    finally:
        os.unlink(beside)
    assert (tmp_path / "hf" / "tokenizer.json").read_text() == '{"model": {"vocab": {"z": 256}}}'
    trainer, _ = trained
    trainer.write(steps=1, model={**model, "vocab_size": 600})
    large = trainer.run("large").checkpoint(1)
    trainer.write()
    done = dstrain("export", large, tmp_path / "none")
    assert "no tokenizer" in done.stderr and not (tmp_path / "none" / "tokenizer.json").exists()


def test_older_checkpoint(trained, tmp_path, model):
    """A checkpoint that does not hold its configuration is exported with the one given; another one than it was made with is warned of."""
    trainer, _ = trained
    trainer.write(steps=2, ckpt_every=2)
    checkpoint = trainer.run("older").checkpoint(2)
    trainer.write()
    dstrain("export", checkpoint, tmp_path / "new")
    edit_manifest(checkpoint, lambda m: m["layout"].pop("model"))
    done = dstrain("export", checkpoint, tmp_path / "no", status=78)
    assert "--model" in done.stderr
    config = tmp_path / "config.json"
    config.write_text(json.dumps(model))
    done = dstrain("export", checkpoint, tmp_path / "old", "--model", config)
    assert done.stderr == "" and read_folder(tmp_path / "old") == read_folder(tmp_path / "new")
    config.write_text(json.dumps({**model, "rope_theta": 5000.0}))
    done = dstrain("export", checkpoint, tmp_path / "other", "--model", config)
    assert "not the configuration" in done.stderr
    config.write_text(json.dumps({**model, "hidden_size": 48}))
    done = dstrain("export", checkpoint, tmp_path / "no", "--model", config, status=83)
    assert "the model needs" in done.stderr and not (tmp_path / "no").exists()


def rows_of(card):
    """label -> value of the card's two-column tables."""
    rows = [line.strip("| ").split(" | ", 1) for line in card.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_card(trained, checkpoint, corpus, tmp_path):
    """The card has what the checkpoint and the run's metrics know: data, tokens, schedule, losses. What is not known is not there."""
    _, run = trained
    dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp32")
    card = (tmp_path / "hf" / "README.md").read_text()
    rows = rows_of(card)
    assert card.startswith("---\nlibrary_name: transformers\n") and "# tiny" in card
    assert rows["steps"] == "20 of 20"
    assert corpus in rows["data"] and f"{corpus}-valid" in rows["data"]
    assert rows["trained on"].startswith("5,120 tokens")
    assert rows["batch"] == "8 sequences of 32 tokens"
    assert rows["started from"] == "random weights, seed 7"
    assert "linear over 5 steps to 0.003" in rows["learning rate"] and "at step 20" in rows["learning rate"]
    assert "AdamW" in rows["optimiser"]
    assert rows["ranks"] == "2: pipeline 1 x expert 2 x data 1"
    last = run.metrics()[20]
    assert f"after step 20 {last['loss']:.4f}, multi-token prediction {last['mtp_loss']:.4f}" in card
    assert f"validation after step 20 {last['valid_loss']:.4f}" in card
    for step in (1, 2, 5, 10, 20):
        m = run.metrics()[step]
        assert f"| {step} | {m['tokens']:,} | {m['loss']:.4f} | {m['mtp_loss']:.4f} |" in card
    assert "| 3 |" not in card
    assert "GPU-hours" not in card and "cost" not in rows


def facts(path, **job):
    body = {"schema": "ds/job/v1", "id": 0, "name": "tiny", "state": "COMPLETED", "account": "a|b`c", "ended_at": "2026-01-02T03:04:05.678Z"}
    path.write_text(json.dumps({**body, **job}))
    return path


def test_card_facts(checkpoint, tmp_path):
    """What the coordinator knows of the job goes into the card; facts of another job, or of something else, are refused."""
    usage = {"gpu_ms": 7200000, "productive_gpu_ms": 5400000, "cost_micro_usd": 4000000}
    metrics = [{"step": 1, "tokens": 256, "loss": 7.25}, {"step": 3, "tokens": 768, "loss": 6}, {"step": 40, "tokens": 1, "loss": 1}]
    given = facts(tmp_path / "facts.json", usage=usage, restarts=2, metrics=metrics)
    dstrain("export", checkpoint, tmp_path / "hf", "--facts", given)
    card = (tmp_path / "hf" / "README.md").read_text()
    rows = rows_of(card)
    assert rows["GPU-hours"] == "2.000, of which productive 1.500" and rows["cost"] == "$4.000000"
    assert rows["account"] == "`a\\|b?c`" and rows["restarts"] == "2"
    assert "| 1 | 256 | 7.2500 |" in card and "| 3 |" not in card and "| 40 |" not in card
    for bad, word in ((facts(tmp_path / "other.json", id=5), "job 5"), (facts(tmp_path / "x.json", schema="ds/node/v1"), "schema")):
        done = dstrain("export", checkpoint, tmp_path / "no", "--facts", bad, status=78)
        assert word in done.stderr and not (tmp_path / "no").exists()


def test_inspect(checkpoint, tmp_path):
    """inspect shows what was imported and what was exported."""
    dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp8", "--shard-size", "50KB")
    dstrain("import", tmp_path / "hf", tmp_path / "ckpt")
    text = dstrain("inspect", tmp_path / "hf").stdout
    assert "F8_E4M3" in text and "model.layers.3.eh_proj.weight" in text and "1 MTP layer" in text
    text = dstrain("inspect", tmp_path / "ckpt", "--verify").stdout
    assert "weights alone" in text and f"Hugging Face folder {tmp_path}/hf" in text and "verified" in text
    text = dstrain("inspect", checkpoint).stdout
    assert "valid_loss" in text and "step 20" in text
    assert "verified: all" in dstrain("inspect", tmp_path / "hf", "--verify").stdout


# ---- what is refused


def leave(checkpoint):
    os.unlink(shard_of(checkpoint))


def cut_manifest(checkpoint):
    os.truncate(f"{checkpoint}/MANIFEST.json", 60)


def flip_moment(checkpoint):
    """A bit in the optimiser's state: not exported, but of the file that is vouched for."""
    path = shard_of(checkpoint)
    with open(path, "rb") as f:
        (header_bytes,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(header_bytes))
    moment = next(t for name, t in header.items() if name.startswith("optimizer.m."))
    flip(path, 8 + header_bytes + moment["data_offsets"][0] + 1)


def flip_last(checkpoint):
    flip(shard_of(checkpoint), os.path.getsize(shard_of(checkpoint)) - 2)


@pytest.mark.parametrize("damage,word", [(truncate, "shard-00001"), (flip_moment, "digest"), (flip_last, "shard-00001"), (leave, "shard-00001"), (cut_manifest, "MANIFEST")])
def test_damaged_checkpoint(trained, tmp_path, damage, word):
    """A damaged checkpoint is not exported: 83, and nothing is left behind."""
    trainer, _ = trained
    trainer.write(steps=2, ckpt_every=2)
    checkpoint = trainer.run(f"damaged {damage.__name__}", layout="dp2").checkpoint(2)
    trainer.write()
    damage(checkpoint)
    done = dstrain("export", checkpoint, tmp_path / "hf", status=83)
    lines = [line for line in done.stderr.splitlines() if line.startswith("dstrain: ")]
    assert len(lines) == 1 and word in lines[0]
    assert os.listdir(tmp_path) == []


def test_target(checkpoint, tmp_path):
    """A folder that has something in it is left alone; an empty one is filled; one that is missing is made, with its parents."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    dstrain("export", checkpoint, tmp_path / "full", status=64)
    assert os.listdir(tmp_path / "full") == ["mine"]
    (tmp_path / "empty").mkdir()
    dstrain("export", checkpoint, f"{tmp_path}/empty/")
    dstrain("export", checkpoint, tmp_path / "a" / "b" / "c")
    assert read_folder(tmp_path / "empty") == read_folder(tmp_path / "a" / "b" / "c")
    assert sorted(os.listdir(tmp_path)) == ["a", "empty", "full"]
    dstrain("export", tmp_path / "empty", tmp_path / "no", status=83)


def test_full_disk(checkpoint, tmp_path):
    """No room: one line with the advice, 86, and nothing left."""
    with SmallDisk(f"{tmp_path}/disk", megabytes=1) as disk:
        disk.fill()
        done = dstrain("export", checkpoint, f"{tmp_path}/disk/hf", "--dtype", "fp32", status=86, env={**os.environ, **disk.env})
        assert "No space left" in done.stderr
        assert not glob.glob(f"{tmp_path}/disk/hf*")


@pytest.mark.parametrize(
    "words",
    [
        ["export"],
        ["export", "a"],
        ["export", "a", "b", "c"],
        ["export", "a", "b", "--dtype", "fp4"],
        ["export", "a", "b", "--format", "gguf"],
        ["export", "a", "b", "--shard-size", "0"],
        ["export", "a", "b", "--shard-size", "much"],
        ["import", "a"],
        ["import", "a", "b", "--mtp", "17"],
        ["import", "a", "b", "--mtp", "-1"],
        ["import", "a", "b", "--seed", "x"],
        ["import", "a", "b", "--init-std", "nan"],
        ["import", "a", "b", "--init-std", "0"],
    ],
)
def test_wrong_use(words, tmp_path):
    """Wrong use is 64, and points at the help."""
    done = dstrain(*words, status=64, cwd=tmp_path)
    assert f"dstrain {words[0]} --help" in done.stderr and os.listdir(tmp_path) == []
