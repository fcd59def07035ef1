#!/usr/bin/env python3
"""dstrain's Hugging Face folders against those who read and write them: transformers, safetensors, tokenizers, ml_dtypes.

For each of several small random models:
  a folder that transformers saved (FP32, BF16 or F16, one file or many)  -> dstrain import -> the same logits
  trained ten steps from there                                            -> dstrain export in fp32, bf16, fp8
  each export in transformers: no key missing, none unexpected but the MTP layers', and the logits that dstrain computes of it
  the fp8 export decoded by ml_dtypes and numpy                           -> the values that dstrain imports
  the tokenizer                                                           -> bytes, there and back

Needs torch, transformers, safetensors and ml_dtypes; with accelerate, transformers also decodes the FP8 itself.
`make check-export REFERENCE_PYTHON=venv/bin/python` runs it.
usage: check_export.py [--bin build/bin] [--logits build/tests/tools/logits] [--seed N] [--only CASE] [--keep DIR]
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, DeepseekV3Config, DeepseekV3ForCausalLM, FineGrainedFP8Config
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH, LENGTH = 2, 13
LOGITS = 1e-4  # of the logits' range, as `make check-reference` has it

BASE = dict(
    vocab_size=259, hidden_size=72, intermediate_size=150, moe_intermediate_size=40, num_hidden_layers=3, first_k_dense_replace=1,
    num_attention_heads=3, num_key_value_heads=3, q_lora_rank=20, kv_lora_rank=24, qk_nope_head_dim=10, qk_rope_head_dim=6,
    v_head_dim=14, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3, n_group=4, topk_group=2, norm_topk_prob=True,
    routed_scaling_factor=2.5, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.06,
    num_nextn_predict_layers=1,
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=16)
# name -> (changes, dtype that transformers saves, size of its files)
CASES = {
    "plain": ({}, torch.float32, "5GB"),
    "no_q_lora": (dict(q_lora_rank=None, num_nextn_predict_layers=0), torch.bfloat16, "60KB"),
    "one_group": (dict(n_group=1, topk_group=1, n_shared_experts=2), torch.float16, "5GB"),
    "large_blocks": (dict(hidden_size=200, intermediate_size=260, moe_intermediate_size=136), torch.float32, "500KB"),
    "even_blocks": (dict(hidden_size=256, intermediate_size=384, moe_intermediate_size=128), torch.float32, "5GB"),
    "yarn": (dict(rope_parameters=YARN, num_nextn_predict_layers=2), torch.float32, "5GB"),
    "tied": (dict(tie_word_embeddings=True), torch.bfloat16, "5GB"),
    "all_moe": (dict(first_k_dense_replace=0), torch.float32, "5GB"),
    "all_dense": (dict(first_k_dense_replace=3, num_nextn_predict_layers=0), torch.float32, "5GB"),
}


class Check:
    def __init__(self, args, case, folder, seed):
        self.args, self.case, self.folder = args, case, folder
        self.changes, self.dtype, self.shard = CASES[case]
        self.random = random.Random(f"{seed} {case}")
        torch.manual_seed(self.random.randrange(1 << 31))
        self.tokens = np.array([[self.random.randrange(259) for _ in range(LENGTH)] for _ in range(BATCH)], dtype=np.int32)

    def dstrain(self, *words):
        done = subprocess.run([f"{self.args.bin}/dstrain", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}"
        return done

    def our_logits(self, ckpt, precision="fp32"):
        done = subprocess.run([self.args.logits, ckpt, str(BATCH), str(LENGTH), precision], input=self.tokens.tobytes(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return np.frombuffer(done.stdout, dtype=np.float32).reshape(BATCH, LENGTH, -1)

    def their_logits(self, model):
        with torch.no_grad():
            return model(torch.tensor(self.tokens, dtype=torch.long), use_cache=False).logits.float().numpy()

    def same(self, what, ours, theirs, tolerance=LOGITS):
        error = np.abs(ours - theirs).max() / (theirs.max() - theirs.min())
        print(f"  {what}: logits differ by {error:.2e} of their range")
        assert error <= tolerance, f"{self.case}: {what}: {error} over {tolerance}"

    def near(self, what, ours, theirs, tolerance):
        """On the average: a rounded weight may tip a router, and then a whole token goes another way."""
        error = np.abs(ours - theirs).mean() / (theirs.max() - theirs.min())
        print(f"  {what}: logits differ by {error:.2e} of their range on the average")
        assert error <= tolerance, f"{self.case}: {what}: {error} over {tolerance}"

    def load(self, path, **options):
        model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, experts_implementation="eager", **options)
        layers = model.config.num_hidden_layers
        rest = [k for k in info["unexpected_keys"] if not any(k.startswith(f"model.layers.{layers + i}.") for i in range(2))]
        assert not info["missing_keys"] and not info["mismatched_keys"] and not rest, info
        return model.eval()

    # ---- what transformers saved

    def foreign(self):
        config = DeepseekV3Config(**{**BASE, **self.changes})
        model = DeepseekV3ForCausalLM(config)
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if "norm" in name:
                    tensor += 0.3 * torch.randn_like(tensor)
                if name.endswith("e_score_correction_bias"):
                    tensor += 0.2 * torch.randn_like(tensor)
        hf = self.folder / "foreign"
        model.to(self.dtype).save_pretrained(hf, max_shard_size=self.shard)
        ckpt = self.folder / "imported"
        self.dstrain("import", hf, ckpt, "--init-std", "0.06")
        self.same("import", self.our_logits(ckpt), self.their_logits(self.load(hf, dtype=torch.float32)))
        return ckpt

    def train(self, ckpt):
        corpus = self.folder / "corpus"
        self.dstrain("pack", ROOT / "LICENSE", ROOT / "proto" / "ds.proto", "-o", corpus)
        spec = self.folder / "job.json"
        steps = dict(sequence_length=24, global_batch=4, steps=10, precision="fp8", optimizer=dict(lr=1e-3, warmup_steps=2))
        spec.write_text(json.dumps(dict(name="check", train=dict(model=str(ckpt / "config.json"), data=dict(train=str(corpus)), init_from=str(ckpt), **steps))))
        self.dstrain("run", spec, "--ranks", "1", "--out", self.folder / "run")
        (trained,) = (self.folder / "run" / "checkpoints").glob("*/step-0000000010")
        before, after = self.our_logits(ckpt), self.our_logits(trained)
        assert np.abs(before - after).max() > 0.01, "ten steps changed nothing"
        return trained

    # ---- what dstrain exported

    def export(self, trained, dtype):
        hf = self.folder / f"export-{dtype}"
        self.dstrain("export", trained, hf, "--dtype", dtype, "--tokenizer", "bytes", "--shard-size", self.random.choice(["100KB", "5GB"]))
        again = self.folder / f"again-{dtype}"
        self.dstrain("import", hf, again)
        return hf, again

    def check_fp32(self, trained):
        hf, again = self.export(trained, "fp32")
        model = self.load(hf)
        assert model.dtype == torch.float32
        self.same("fp32 export", self.our_logits(trained), self.their_logits(model))
        assert np.array_equal(self.our_logits(trained), self.our_logits(again))
        self.check_tokenizer(hf, model)

    def check_bf16(self, trained):
        hf, again = self.export(trained, "bf16")
        assert AutoModelForCausalLM.from_pretrained(hf).dtype == torch.bfloat16
        self.same("bf16 export", self.our_logits(again), self.their_logits(self.load(hf, dtype=torch.float32)))
        self.near("what bf16 costs", self.our_logits(again), self.our_logits(trained), 0.01)

    def check_fp8(self, trained):
        hf, again = self.export(trained, "fp8")
        weights = decode(hf)
        stored = {}
        for shard in again.glob("*.safetensors"):
            with safe_open(shard, "np") as f:
                stored.update({name: f.get_tensor(name) for name in f.keys()})
        for name, want in weights.items():
            got = stored[name]
            assert got.dtype == np.float32 and np.array_equal(got, want), name
        ours = self.our_logits(again)
        self.same("fp8 export, decoded by ml_dtypes", ours, self.their_logits(self.of_weights(hf, weights)))
        self.near("what fp8 costs", ours, self.our_logits(trained), 0.1)
        # transformers takes a matrix as cut into equal blocks, so it is wrong about ragged ones, or refuses them
        even = all(n <= 128 or n % 128 == 0 for name, w in weights.items() if w.ndim == 2 and "_proj" in name and "eh_" not in name for n in w.shape)
        if not even:
            return
        try:
            import accelerate  # noqa: F401
        except ImportError:
            print("  transformers decodes no FP8 here: accelerate is not installed")
            return
        model = self.load(hf, dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True))
        self.near("fp8 export, decoded by transformers to bf16", ours, self.their_logits(model.float()), 0.01)

    def of_weights(self, hf, weights):
        """A model with just these weights, filled tensor by tensor."""
        config = DeepseekV3Config.from_pretrained(hf)
        del config.quantization_config
        config._experts_implementation = "eager"
        model = DeepseekV3ForCausalLM(config).float().eval()
        state = {}
        for name in model.state_dict():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                layer = name.rsplit(".", 1)[0]
                parts = ["gate", "up"] if name.endswith("gate_up_proj") else ["down"]
                rows = [np.concatenate([weights[f"{layer}.{e}.{p}_proj.weight"] for p in parts]) for e in range(config.n_routed_experts)]
                state[name] = torch.tensor(np.stack(rows))
            else:
                tied = name == "lm_head.weight" and config.tie_word_embeddings
                state[name] = torch.tensor(weights["model.embed_tokens.weight" if tied else name])
        model.load_state_dict(state, strict=True)
        return model

    def check_tokenizer(self, hf, model):
        tokenizer = AutoTokenizer.from_pretrained(hf)
        text = "int main(void)\n{\n    return 0; /* äöü 中文字 😀 \u0000\u007f */\n}\n" + "    " * 9 + "\t\r\n  naïve  "
        ids = tokenizer(text)["input_ids"]
        assert ids == list(text.encode()), "the ids are not the bytes"
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert tokenizer.eos_token_id == 256 and tokenizer("a<|endoftext|>")["input_ids"] == [97, 256]
        out = model.generate(torch.tensor([ids[:8]]), max_new_tokens=4, do_sample=False)
        assert out.shape[1] <= 12 and model.generation_config.eos_token_id == 256

    def run(self):
        print(self.case)
        trained = self.train(self.foreign())
        self.check_fp32(trained)
        self.check_bf16(trained)
        self.check_fp8(trained)


def decode(hf):
    """name -> FP32 array of every tensor of a folder, without copies in MTP layers: E4M3 by ml_dtypes, scales by numpy."""
    config = json.loads((hf / "config.json").read_text())
    assert config["quantization_config"]["weight_block_size"] == [128, 128]
    raw = {}
    for file in sorted(hf.glob("*.safetensors")):
        data = file.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__")
        types = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn}
        for name, t in header.items():
            begin, end = t["data_offsets"]
            raw[name] = np.frombuffer(data[8 + size + begin : 8 + size + end], dtype=types[t["dtype"]]).reshape(t["shape"])
    out = {}
    for name, array in raw.items():
        if name.endswith("_scale_inv") or ("model.layers." in name and name.endswith(("embed_tokens.weight", "shared_head.head.weight"))):
            continue
        values = array.astype(np.float32)
        if array.dtype == ml_dtypes.float8_e4m3fn:
            scale = raw[f"{name}_scale_inv"].repeat(128, axis=0).repeat(128, axis=1)
            values = values * scale[: values.shape[0], : values.shape[1]]
        out[name] = values
    assert sum(a.dtype == ml_dtypes.float8_e4m3fn for a in raw.values()) > 10
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--logits", default=str(ROOT / "build" / "tests" / "tools" / "logits"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--keep", help="leave the folders there")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    print(f"check_export: seed {args.seed}")
    failed = 0
    cases = [args.only] if args.only else list(CASES)
    for case in cases:
        folder = pathlib.Path(args.keep or tempfile.mkdtemp()).absolute() / case
        folder.mkdir(parents=True)
        try:
            Check(args, case, folder, args.seed).run()
        except AssertionError as why:
            failed += 1
            print(f"  FAILED: {why}")
        if not args.keep:
            shutil.rmtree(folder.parent)
    print(f"check_export: {len(cases) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
