#!/usr/bin/env python3
"""Text and scores of dstrain against transformers, on random models that transformers made.

For each of several random shapes (YaRN, q_lora null, groups, shared experts, tied embeddings, dense layers, MTP):
  a folder as others write it: sharded; config.json in today's or yesterday's manner, with keys that mean nothing here; FP32, BF16, or FP8 with
  128x128 scales made by this script; with an MTP layer or without
  -> dstrain import -> dstrain generate                     the tokens of transformers' greedy generate, from prompts of odd lengths up to the model's
                                                            end, past the original context of YaRN; the same with --speculate
  -> dstrain export in fp32 and bf16 -> transformers        the same again
  -> dstrain eval of questions                              acc, acc_norm, acc_bytes, cloze_acc, cloze_perplexity as lm-evaluation-harness computes them
A token may differ from transformers' where the two best logits are as near as rounding.

Needs torch, transformers, safetensors and ml_dtypes. `make check-generate REFERENCE_PYTHON=venv/bin/python` runs it.
usage: check_generate.py [--bin build/bin] [--seed N] [--models N] [--keep DIR]
"""
import argparse
import json
import math
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
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEAR = 2e-4  # of the logits' range: what FP32 in another order may do


def random_config(r):
    rope = r.choice([4, 6, 8, 16])
    groups, per_group = r.choice([(1, 2), (1, 8), (2, 2), (2, 4), (4, 2), (8, 2)])
    topk_group = r.randint(1, groups)
    layers = r.randint(1, 4)
    positions = r.choice([96, 130, 200])
    config = dict(
        vocab_size=r.randint(257, 400),
        hidden_size=8 * r.randint(4, 14),
        intermediate_size=r.randint(20, 160),
        moe_intermediate_size=r.randint(8, 70),
        num_hidden_layers=layers,
        first_k_dense_replace=r.randint(0, layers),
        num_attention_heads=(heads := r.randint(1, 5)),
        num_key_value_heads=heads,
        q_lora_rank=r.choice([None, r.randint(6, 40)]),
        kv_lora_rank=r.randint(6, 40),
        qk_nope_head_dim=r.randint(2, 20),
        qk_rope_head_dim=rope,
        v_head_dim=r.randint(2, 20),
        n_routed_experts=groups * per_group,
        n_shared_experts=r.randint(1, 2),
        num_experts_per_tok=r.randint(1, min(4, topk_group * per_group)),
        n_group=groups,
        topk_group=topk_group,
        norm_topk_prob=r.random() < 0.7,
        routed_scaling_factor=r.choice([1.0, 2.5]),
        rms_norm_eps=r.choice([1e-6, 1e-5]),
        max_position_embeddings=positions,
        tie_word_embeddings=r.random() < 0.3,
        initializer_range=0.15,
        bos_token_id=256,
        eos_token_id=256,
        rope_theta=r.choice([10000.0, 500.0]),
    )
    yarn = None
    if r.random() < 0.6:
        yarn = dict(
            factor=r.choice([2.0, 8.0, 40.0]),
            beta_fast=32.0,
            beta_slow=1.0,
            mscale=r.choice([1.0, 0.7]),
            mscale_all_dim=r.choice([1.0, 0.0, 0.5]),
            original_max_position_embeddings=r.choice([16, 32]),
        )
    return config, yarn


def model_of(config, yarn):
    changes = {k: v for k, v in config.items() if k != "rope_theta"}
    rope = dict(rope_type="yarn" if yarn else "default", rope_theta=config["rope_theta"], **(yarn or {}))
    described = DeepseekV3Config(**changes, rope_parameters=rope)
    described._experts_implementation = "eager"  # the others want sizes that are multiples of something
    model = DeepseekV3ForCausalLM(described).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                tensor += 0.3 * torch.randn_like(tensor)
            if name.endswith("e_score_correction_bias"):
                tensor += 0.2 * torch.randn_like(tensor)
    return model


def mtp_layer(model, config):
    """Tensors of an MTP layer under the released names: a copy of the last layer's shapes, and its own five."""
    n, hidden = config["num_hidden_layers"], config["hidden_size"]
    like = max(config["first_k_dense_replace"], n - 1)
    sizes = None
    if like < n:
        state = {}
        for name, tensor in published(model).items():
            if name.startswith(f"model.layers.{like}."):
                state[name.replace(f".{like}.", f".{n}.", 1)] = tensor + 0.1 * torch.randn_like(tensor)
        sizes = state
    if sizes is None:
        return None
    p = f"model.layers.{n}."
    sizes[p + "enorm.weight"] = 1 + 0.2 * torch.randn(hidden)
    sizes[p + "hnorm.weight"] = 1 + 0.2 * torch.randn(hidden)
    sizes[p + "eh_proj.weight"] = 0.15 * torch.randn(hidden, 2 * hidden)
    sizes[p + "shared_head.norm.weight"] = 1 + 0.2 * torch.randn(hidden)
    sizes[p + "embed_tokens.weight"] = model.model.embed_tokens.weight.detach().clone()
    sizes[p + "shared_head.head.weight"] = model.lm_head.weight.detach().clone()
    return sizes


def published(model):
    """Per-expert names, whatever transformers calls them in memory."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        state = {}
        for file in pathlib.Path(folder).glob("*.safetensors"):
            state.update(load_file(file))
        return state


def blocks_fp8(w):
    """E4M3 codes and a scale for each 128x128 block."""
    x = w.detach().float().numpy()
    rows, cols = x.shape
    down, across = -(-rows // 128), -(-cols // 128)
    scale = np.zeros((down, across), np.float32)
    codes = np.zeros((rows, cols), ml_dtypes.float8_e4m3fn)
    for i in range(down):
        for j in range(across):
            part = x[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128]
            scale[i, j] = max(np.abs(part).max() / 448, 1e-12)
            codes[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128] = (part / scale[i, j]).astype(ml_dtypes.float8_e4m3fn)
    values = codes.astype(np.float32) * scale.repeat(128, 0).repeat(128, 1)[:rows, :cols]
    return torch.tensor(codes.view(np.uint8)).view(torch.float8_e4m3fn), torch.tensor(scale), torch.tensor(values)


class Check:
    def __init__(self, args, number, folder):
        self.args, self.folder = args, folder
        self.r = random.Random(f"{args.seed} {number}")
        torch.manual_seed(self.r.randrange(1 << 31))
        self.tokens = self.differed = 0

    def dstrain(self, *words, status=0):
        done = subprocess.run([f"{self.args.bin}/dstrain", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == status, f"{' '.join(map(str, words))}: {done.stderr}"
        return done

    # ---- a folder as others write it

    def write_foreign(self, model, config, yarn):
        """Also makes the model's weights those that the folder's dtype keeps."""
        kind = self.r.choice(["fp32", "bf16", "fp8", "saved"])
        hf = self.folder / "foreign"
        if kind == "saved":
            model.save_pretrained(hf, max_shard_size=self.r.choice(["40KB", "200KB", "5GB"]))
            return hf, f"transformers' own, {len(list(hf.glob('*.safetensors')))} files"
        hf.mkdir()
        state = published(model)
        mtp = mtp_layer(model, config) if self.r.random() < 0.7 else None
        state.update(mtp or {})
        tensors = {}
        for name, w in state.items():
            if kind == "fp8" and name.endswith("_proj.weight") and "eh_proj" not in name:
                tensors[name], tensors[f"{name}_scale_inv"], state[name] = blocks_fp8(w)
            elif kind == "fp32" or name.endswith("e_score_correction_bias"):
                tensors[name] = w.clone()
            else:
                tensors[name] = w.to(torch.bfloat16)
                state[name] = tensors[name].float()
        self.write_files(hf, tensors)
        old = self.r.random() < 0.5
        text = dict(config, architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", torch_dtype="bfloat16", hidden_act="silu")
        text.update(scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1, ep_size=1, seq_aux=True, aux_loss_alpha=0.001, use_cache=True)
        text.update(attention_bias=False, attention_dropout=0.0, pretraining_tp=1, auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"})
        text["num_nextn_predict_layers"] = 1 if mtp else 0
        if old:
            text["rope_scaling"] = dict(type="yarn", **yarn) if yarn else None
        else:
            theta = text.pop("rope_theta")
            text["rope_parameters"] = dict(rope_type="yarn" if yarn else "default", rope_theta=theta, **(yarn or {}))
        if kind == "fp8":
            text["quantization_config"] = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[128, 128])
        (hf / "config.json").write_text(json.dumps(text, indent=2))
        self.load_state(model, state)
        return hf, f"{kind}, {'rope_scaling' if old else 'rope_parameters'}, {'an' if mtp else 'no'} MTP layer, {len(list(hf.glob('*.safetensors')))} files"

    def write_files(self, hf, tensors):
        names = list(tensors)
        self.r.shuffle(names)
        count = self.r.choice([1, 2, 5])
        weight_map = {}
        for i in range(count):
            file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
            mine = names[i::count]
            save_file({n: tensors[n].contiguous() for n in mine}, hf / file, metadata={"format": "pt"})
            weight_map.update({n: file for n in mine})
        (hf / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    def load_state(self, model, state):
        layers = model.config.num_hidden_layers
        for name in model.state_dict():
            target = model.state_dict()[name]
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                layer = name.rsplit(".", 1)[0]
                parts = ["gate", "up"] if name.endswith("gate_up_proj") else ["down"]
                rows = [torch.cat([state[f"{layer}.{e}.{p}_proj.weight"].float() for p in parts]) for e in range(model.config.n_routed_experts)]
                target.copy_(torch.stack(rows))
            elif name in state:
                target.copy_(state[name].float())
            else:
                assert name == "lm_head.weight" and model.config.tie_word_embeddings, (name, layers)

    # ---- text

    def greedy(self, model, prompt, count):
        with torch.no_grad():
            out = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0, attention_mask=torch.ones(1, len(prompt), dtype=torch.long))
        return out[0, len(prompt) :].tolist()

    def same_text(self, model, prompt, ours, theirs, near=NEAR):
        if theirs and theirs[-1] == 256:
            theirs = theirs[:-1]
        self.tokens += len(theirs)
        if ours == theirs:
            return
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        with torch.no_grad():
            logits = model(torch.tensor([prompt + theirs[:at]])).logits[0, -1].float()
        mine = ours[at] if at < len(ours) else 256
        gap = (logits.max() - logits[mine]) / (logits.max() - logits.min())
        self.differed += 1
        assert gap <= near, f"prompt of {len(prompt)}: token {at} is {mine}, not {theirs[at] if at < len(theirs) else 256}, whose logit is larger by {gap:.2e} of the range"

    def generate(self, ckpt, prompt, count, *more):
        done = self.dstrain("generate", ckpt, "--prompt-ids", " ".join(map(str, prompt)), "--max-new-tokens", count, *more)
        return [int(i) for i in done.stdout.split()]

    def check_text(self, ckpt, model, positions, vocab, near=NEAR, speculate=False, prompts=4):
        for length in [1, *(self.r.choice([2, 3, 7, 17, 31, 33, 45, 64, 71]) for _ in range(prompts - 1))]:
            prompt = [self.r.randrange(vocab) for _ in range(length)]
            count = positions - length
            ours = self.generate(ckpt, prompt, count)
            self.same_text(model, prompt, ours, self.greedy(model, prompt, count), near)
            if speculate:
                assert ours == self.generate(ckpt, prompt, count, "--speculate"), "--speculate gives another text"

    # ---- scores

    def likelihood(self, model, context, continuation, positions):
        """lm-evaluation-harness, _encode_pair and _loglikelihood_tokens; a byte is a token."""
        stripped = context.rstrip()
        moved = context[len(stripped) :] + continuation
        before = list(stripped.encode()) or [256]
        tokens = (before + list(moved.encode()))[-(positions + 1) :]
        n = len(moved.encode())
        with torch.no_grad():
            logits = torch.log_softmax(model(torch.tensor([tokens[:-1]])).logits[0, -n:].double(), dim=-1)
        target = torch.tensor(tokens[-n:])
        return logits.gather(1, target[:, None]).sum().item(), bool((logits.argmax(-1) == target).all())

    def check_scores(self, ckpt, model, positions):
        def text(most):
            return "".join(self.r.choice(["a", "B", " ", "é", "中", "x", "\n", "ss"]) for _ in range(self.r.randint(1, most)))

        items, want = [], {"acc": [], "acc_norm": [], "acc_bytes": [], "cloze": [], "nats": []}
        for i in range(24):
            context = self.r.choice([text(20), text(20) + "  ", "", text(20) + " ", text(3 * positions)])
            if i % 2:
                choices = [text(12) for _ in range(self.r.randint(2, 5))]
                answer = self.r.randrange(len(choices))
                nats = [self.likelihood(model, context, c, positions)[0] for c in choices]
                items.append({"context": context, "choices": choices, "answer": answer})
                for key, length in (("acc", lambda c: 1), ("acc_norm", len), ("acc_bytes", lambda c: len(c.encode()))):
                    want[key].append(max(range(len(choices)), key=lambda k: nats[k] / length(choices[k])) == answer)
            else:
                target = text(8)
                nats, greedy = self.likelihood(model, context, target, positions)
                items.append({"context": context, "target": target})
                want["nats"].append(nats)
                want["cloze"].append(greedy)
        path = self.folder / "questions.jsonl"
        path.write_text("".join(json.dumps(i, ensure_ascii=self.r.random() < 0.5) + "\n" for i in items))
        got = json.loads(self.dstrain("eval", ckpt, "--data", path, "--tokenizer", "bytes", "--json").stdout)
        for key in ("acc", "acc_norm", "acc_bytes"):
            assert abs(got[key] - np.mean(want[key])) < 1e-9, f"{key}: {got[key]}, transformers {np.mean(want[key])}"
        assert abs(got["cloze_acc"] - np.mean(want["cloze"])) < 1e-9
        perplexity = math.exp(min(-np.mean(want["nats"]), 700))
        assert abs(math.log(got["cloze_perplexity"]) - math.log(perplexity)) < 1e-4 * abs(math.log(perplexity)), (got["cloze_perplexity"], perplexity)

    def load(self, hf, layers, **options):
        model, info = AutoModelForCausalLM.from_pretrained(hf, output_loading_info=True, experts_implementation="eager", **options)
        rest = [k for k in info["unexpected_keys"] if not k.startswith(f"model.layers.{layers}.")]
        assert not info["missing_keys"] and not info["mismatched_keys"] and not rest, info
        return model.eval()

    def run(self):
        config, yarn = random_config(self.r)
        model = model_of(config, yarn)
        hf, what = self.write_foreign(model, config, yarn)
        positions, layers = config["max_position_embeddings"], config["num_hidden_layers"]
        shape = f"{layers} layers, {config['first_k_dense_replace']} dense, q_lora {config['q_lora_rank']}, {config['n_group']} groups"
        print(f"  {shape}, {'YaRN' if yarn else 'no YaRN'}, {'tied, ' if config['tie_word_embeddings'] else ''}{what}")
        ckpt = self.folder / "ckpt"
        self.dstrain("import", hf, ckpt, "--init-std", "0.1")
        with open(ckpt / "config.json", encoding="utf-8") as f:
            mtp = json.load(f)["num_nextn_predict_layers"] > 0
        self.check_text(ckpt, model, positions, config["vocab_size"], speculate=mtp)
        self.check_scores(ckpt, model, positions)
        self.dstrain("export", ckpt, self.folder / "fp32", "--dtype", "fp32", "--tokenizer", "none")
        self.check_text(ckpt, self.load(self.folder / "fp32", layers), positions, config["vocab_size"], prompts=2)
        self.dstrain("export", ckpt, self.folder / "bf16", "--tokenizer", "none")
        self.dstrain("import", self.folder / "bf16", self.folder / "rounded")
        rounded = self.load(self.folder / "bf16", layers, dtype=torch.float32)
        self.check_text(self.folder / "rounded", rounded, positions, config["vocab_size"], prompts=2)
        print(f"    {self.tokens} tokens, {self.differed} texts differ by a tie")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--keep", help="leave the folders there")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    print(f"check_generate: seed {args.seed}")
    failed = 0
    for number in range(args.models):
        folder = pathlib.Path(args.keep or tempfile.mkdtemp()).absolute() / f"model-{number}"
        folder.mkdir(parents=True)
        try:
            Check(args, number, folder).run()
        except AssertionError as why:
            failed += 1
            print(f"  FAILED: model {number}: {why}")
        if not args.keep:
            shutil.rmtree(folder.parent)
    print(f"check_generate: {args.models - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
