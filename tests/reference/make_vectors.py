#!/usr/bin/env python3
"""Reference vectors for the trainer's numerics, computed by `transformers` on `torch` in FP32.

Each case is a small random DeepseekV3ForCausalLM; the file holds its weights, the tokens, the logits, the losses and the gradient of
every parameter. The multi-token-prediction modules, which transformers has not, are written here from the report's equations 21-25 with
the released weight order (embedding first in eh_proj, hidden state after the final norm), around transformers' own decoder layer. The
sequence-wise balance loss is equations 17-20.

usage: make_vectors.py OUT_DIR [--seed N] [--only CASE]
"""
import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

BASE = dict(
    vocab_size=48, hidden_size=24, intermediate_size=40, moe_intermediate_size=12, num_hidden_layers=2,
    first_k_dense_replace=1, num_attention_heads=2, num_key_value_heads=2, q_lora_rank=12, kv_lora_rank=8,
    qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, n_routed_experts=8, n_shared_experts=1,
    num_experts_per_tok=3, n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5,
    rms_norm_eps=1e-6, rope_theta=10000.0, max_position_embeddings=64, rope_scaling=None,
    attention_bias=False, hidden_act="silu", tie_word_embeddings=False, num_nextn_predict_layers=0,
    bos_token_id=0, eos_token_id=1,
)
YARN = dict(rope_type="yarn", type="yarn", factor=40.0, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
            original_max_position_embeddings=16)

# name -> (config changes, batch, sequence length, extra)
CASES = {
    "plain": ({}, 1, 13, {}),
    "bias": ({}, 3, 11, dict(bias=0.3)),
    "negative_bias": (dict(topk_group=3), 2, 9, dict(bias=0.3, bias_mean=-1.5)),
    "no_q_lora": (dict(q_lora_rank=None), 1, 17, dict(bias=0.1)),
    "one_group": (dict(n_group=1, topk_group=1), 2, 7, dict(bias=0.2)),
    "eight_experts_a_group": (dict(n_routed_experts=16, n_group=2, topk_group=1), 1, 10, dict(bias=0.2)),
    "eight_groups": (dict(n_routed_experts=16, n_group=8, topk_group=4, num_experts_per_tok=4), 1, 9, dict(bias=0.2)),
    "two_shared": (dict(n_shared_experts=2, routed_scaling_factor=1.0), 1, 8, {}),
    "all_moe": (dict(first_k_dense_replace=0), 1, 12, dict(bias=0.1)),
    "all_dense": (dict(first_k_dense_replace=2), 2, 12, {}),
    "no_norm_topk": (dict(norm_topk_prob=False), 1, 12, dict(bias=0.1)),
    "yarn": (dict(rope_scaling=YARN), 1, 19, {}),
    "mtp": (dict(num_nextn_predict_layers=1), 2, 11, dict(mtp_lambda=0.3, bias=0.1)),
    "mtp_two": (dict(num_nextn_predict_layers=2), 1, 9, dict(mtp_lambda=0.3)),
    "balance": ({}, 3, 10, dict(balance_alpha=0.05, bias=0.2)),
    "mtp_balance": (dict(num_nextn_predict_layers=1), 2, 9, dict(mtp_lambda=0.1, balance_alpha=0.05)),
}


class MtpModule(torch.nn.Module):
    """Module k of equation 21-24; layer_idx places it behind the main layers, so that it is a MoE block."""

    def __init__(self, config, layer_idx):
        super().__init__()
        eps = config.rms_norm_eps
        self.enorm = DeepseekV3RMSNorm(config.hidden_size, eps)
        self.hnorm = DeepseekV3RMSNorm(config.hidden_size, eps)
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = DeepseekV3DecoderLayer(config, layer_idx)
        self.shared_head = torch.nn.Module()
        self.shared_head.norm = DeepseekV3RMSNorm(config.hidden_size, eps)


def causal_mask(length):
    return torch.full((1, 1, length, length), float("-inf")).triu(1)


def balance_loss(router_logits, batch, length, top_k, alpha):
    """Equations 17-20, mean over the sequences."""
    scores = router_logits.sigmoid().view(batch, length, -1)
    experts = scores.shape[-1]
    chosen = torch.zeros_like(scores).scatter_(2, scores.topk(top_k, dim=-1)[1], 1.0)
    f = chosen.sum(1) * experts / (top_k * length)
    p = (scores / scores.sum(-1, keepdim=True)).mean(1)
    return alpha * (f.detach() * p).sum(-1).mean()



def split_experts(name, tensor):
    """The fused expert tensors of transformers 5 as the published per-expert ones."""
    if name.endswith("mlp.experts.gate_up_proj"):
        stem = name[: -len("gate_up_proj")]
        half = tensor.shape[1] // 2
        for e in range(tensor.shape[0]):
            yield f"{stem}{e}.gate_proj.weight", tensor[e, :half]
            yield f"{stem}{e}.up_proj.weight", tensor[e, half:]
    elif name.endswith("mlp.experts.down_proj"):
        stem = name[: -len("down_proj")]
        for e in range(tensor.shape[0]):
            yield f"{stem}{e}.down_proj.weight", tensor[e]
    else:
        yield name, tensor


def make(name, changes, batch, length, extra, seed, out_dir):
    torch.manual_seed(seed)
    config = DeepseekV3Config(**{**BASE, **changes})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = DeepseekV3ForCausalLM(config).float().train()
    depth = config.num_nextn_predict_layers
    wide = DeepseekV3Config(**{**BASE, **changes, "num_hidden_layers": config.num_hidden_layers + depth})
    wide._attn_implementation = "eager"
    wide._experts_implementation = "eager"
    mtp = [MtpModule(wide, config.num_hidden_layers + k).float() for k in range(depth)]

    named = {}  # published name -> module parameter, before the experts are split
    for key, p in model.named_parameters():
        named[key] = p
    for k, module in enumerate(mtp):
        for key, p in module.named_parameters():
            key = key[len("block."):] if key.startswith("block.") else key
            named[f"model.layers.{config.num_hidden_layers + k}.{key}"] = p
    with torch.no_grad():
        for key, p in named.items():
            if p.dim() == 1:
                p.copy_(1.0 + 0.2 * torch.randn_like(p))
            else:
                p.copy_(0.3 * torch.randn_like(p))

    gates = {}
    layers = list(enumerate(model.model.layers)) + [(config.num_hidden_layers + k, m.block) for k, m in enumerate(mtp)]
    biases, router_logits = {}, []
    for index, layer in layers:
        gate = getattr(layer.mlp, "gate", None)
        if gate is None:
            continue
        with torch.no_grad():
            bias = extra.get("bias_mean", 0.0) + extra.get("bias", 0.0) * torch.randn(config.n_routed_experts)
            gate.e_score_correction_bias.copy_(bias)
        biases[f"model.layers.{index}.mlp.gate.e_score_correction_bias"] = bias
        gate.register_forward_hook(lambda m, a, out, i=index: router_logits.append((i, out[0])))
        gates[index] = gate

    tokens = torch.randint(0, config.vocab_size, (batch, length + 1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    out = model.model(input_ids=inputs, use_cache=False)
    hidden = out.last_hidden_state
    logits = model.lm_head(hidden)
    cross_entropy = torch.nn.functional.cross_entropy
    loss = cross_entropy(logits.reshape(-1, config.vocab_size), targets.reshape(-1))

    mtp_losses = []
    previous = hidden
    for k, module in enumerate(mtp, start=1):
        span = length - k
        embedded = model.model.embed_tokens(tokens[:, k:k + span])
        joined = torch.cat([module.enorm(embedded), module.hnorm(previous[:, :span])], dim=-1)
        x = module.eh_proj(joined)
        position_ids = torch.arange(span)[None].expand(batch, -1)
        cos_sin = model.model.rotary_emb(x, position_ids)
        y = module.block(x, attention_mask=causal_mask(span), position_ids=position_ids, position_embeddings=cos_sin)
        y = y[0] if isinstance(y, tuple) else y
        normed = module.shared_head.norm(y)
        mtp_logits = model.lm_head(normed)
        total = cross_entropy(mtp_logits.reshape(-1, config.vocab_size), tokens[:, k + 1:].reshape(-1), reduction="sum")
        mtp_losses.append(total / (batch * length))
        previous = y
    mtp_loss = sum(mtp_losses) / depth if depth else torch.tensor(0.0)

    balance = torch.tensor(0.0)
    alpha = extra.get("balance_alpha", 0.0)
    for index, r in router_logits:
        span = length - max(0, index - config.num_hidden_layers + 1)
        balance = balance + balance_loss(r, batch, span, config.num_experts_per_tok, alpha)

    objective = loss + extra.get("mtp_lambda", 0.0) * mtp_loss + balance
    objective.backward()

    tensors = {"tokens": tokens.to(torch.float32), "logits": logits.detach()}
    for key, p in named.items():
        grad = p.grad if p.grad is not None else torch.zeros_like(p)
        for part, value in split_experts(key, p.detach()):
            tensors[part] = value
        for part, value in split_experts(key, grad):
            tensors["grad." + part] = value
    tensors.update(biases)
    facts = dict(
        config=json.dumps({**BASE, **changes, "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}),
        batch=str(batch), length=str(length), seed=str(seed), loss=repr(loss.item()), mtp_loss=repr(mtp_loss.item()),
        balance=repr(balance.item()), mtp_lambda=repr(extra.get("mtp_lambda", 0.0)), balance_alpha=repr(alpha),
    )
    save_file({k: v.contiguous() for k, v in tensors.items()}, out_dir / f"{name}.safetensors", metadata=facts)
    print(f"{name}: loss {loss.item():.6f} mtp {mtp_loss.item():.6f} balance {balance.item():.6f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=20240)
    parser.add_argument("--only")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (changes, batch, length, extra) in CASES.items():
        if args.only in (None, name):
            make(name, changes, batch, length, extra, args.seed, args.out)


if __name__ == "__main__":
    main()
