"""Small random models: logits, loss and the gradient of every parameter, of `transformers` in FP32.

What transformers has not, prediction of further tokens and the sequence-wise balance loss, is of plain.py in FP64; there transformers still
vouches for the logits. Where both compute the same they are compared with each other too.
"""
import copy
import json
import math
import random

import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

import plain

MARGIN = 1e-5  # a router that must choose between scores nearer than this may rightly choose either: such a draw is not used
CONDITION = 2e-5  # nor one where FP32 arithmetic itself moves a gradient by more than this: nothing could be told from it
ZERO = 1e-12  # of the whole gradient's norm, in FP64: zero but for rounding (the gate where one expert is chosen and weights are normalised)
LOGITS, LOSS, GRADIENT = 1e-4, 1e-5, 1e-4

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

# name -> config changes, batch, sequence length, the rest: bias (its spread), bias_mean, mtp_lambda, balance_alpha
NAMED = {
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
    "two_dense": (dict(first_k_dense_replace=2, num_hidden_layers=3), 1, 11, dict(bias=0.1)),
    "no_norm_topk": (dict(norm_topk_prob=False), 1, 12, dict(bias=0.1)),
    "yarn": (dict(rope_scaling=YARN), 1, 19, {}),
    "tied": (dict(tie_word_embeddings=True), 1, 9, {}),
    "mtp": (dict(num_nextn_predict_layers=1), 2, 11, dict(mtp_lambda=0.3, bias=0.1)),
    "mtp_two": (dict(num_nextn_predict_layers=2), 1, 9, dict(mtp_lambda=0.3)),
    "balance": ({}, 3, 10, dict(balance_alpha=0.05, bias=0.2)),
    "mtp_balance": (dict(num_nextn_predict_layers=1), 2, 9, dict(mtp_lambda=0.1, balance_alpha=0.05)),
}


def spread(rng, count, *values):
    """count values, each of the given as often as any other, shuffled."""
    out = [values[i % len(values)] for i in range(count)]
    rng.shuffle(out)
    return out


def random_cases(seed, count):
    """Like NAMED. Every kind of thing a model may have or not comes up however few cases there are; shapes are free."""
    rng = random.Random(f"models {seed}")
    groups = spread(rng, count, *range(1, 9))
    shared, first_dense, batch = spread(rng, count, 1, 2), spread(rng, count, 0, 2, 1), spread(rng, count, 1, 3, 2)
    q_lora, yarn, depth = spread(rng, count, True, False), spread(rng, count, True, False), spread(rng, count, 0, 1, 0, 2)
    bias = spread(rng, count, {}, dict(bias=0.3), dict(bias=0.3, bias_mean=-1.5), dict(bias=0.5, bias_mean=1.0))
    balance, normalise, tied = spread(rng, count, 0.0, 0.05, 0.0), spread(rng, count, True, True, False), spread(rng, count, *[False] * 5, True)
    scale = spread(rng, count, 1.0, 2.5, rng.uniform(0.3, 4))
    out = {}
    for i in range(count):
        experts = rng.randint(2, 5)
        top_groups = rng.randint(1, groups[i])
        rope = None
        if yarn[i]:
            rope = {**YARN, "factor": rng.choice([2.0, 8.0, 40.0]), "original_max_position_embeddings": rng.choice([8, 16, 100]),
                    "mscale": rng.choice([1.0, 0.7]), "mscale_all_dim": rng.choice([1.0, 0.4]), "beta_fast": rng.choice([32.0, 8.0])}
        hidden = rng.randint(9, 44)
        heads = rng.randint(1, 4)
        changes = dict(
            vocab_size=rng.randint(17, 70), hidden_size=hidden, intermediate_size=rng.randint(5, 50),
            moe_intermediate_size=rng.randint(3, 20), first_k_dense_replace=first_dense[i],
            num_hidden_layers=max(1, first_dense[i]) + rng.randint(0, 2), num_attention_heads=heads, num_key_value_heads=heads,
            q_lora_rank=rng.randint(5, 20) if q_lora[i] else None, kv_lora_rank=rng.randint(5, 20), qk_nope_head_dim=rng.randint(3, 12),
            qk_rope_head_dim=2 * rng.randint(1, 5), v_head_dim=rng.randint(3, 12), n_routed_experts=groups[i] * experts,
            n_shared_experts=shared[i], num_experts_per_tok=rng.randint(1, min(8, top_groups * experts)), n_group=groups[i],
            topk_group=top_groups, norm_topk_prob=normalise[i], routed_scaling_factor=scale[i], rope_scaling=rope,
            rope_theta=rng.choice([10000.0, 500.0, 1e6]), rms_norm_eps=rng.choice([1e-6, 1e-5]),
            tie_word_embeddings=tied[i], num_nextn_predict_layers=depth[i])
        extra = dict(bias[i], balance_alpha=balance[i], mtp_lambda=rng.choice([0.1, 0.3]) if depth[i] else 0.0)
        length = rng.choice([n for n in range(5, 38) if n % 4 != 0])
        out[f"random_{i:02d}"] = (changes, batch[i], length, extra)
    return out


def describe(name, config, batch, length, extra):
    """A line that tells what is special about a model."""
    c = config
    words = [f"{batch}x{length}", f"{c['num_hidden_layers']} layers, {c['first_k_dense_replace']} dense"]
    words.append(f"{c['n_routed_experts']} experts in {c['n_group']} groups, top {c['num_experts_per_tok']} of {c['topk_group']}")
    words.append(f"{c['n_shared_experts']} shared, scale {c['routed_scaling_factor']:.3g}{'' if c['norm_topk_prob'] else ', not normalised'}")
    words.append("q_lora" if c["q_lora_rank"] else "no q_lora")
    words += ["yarn"] if c["rope_scaling"] else []
    words += ["tied"] if c["tie_word_embeddings"] else []
    words.append(f"bias {extra.get('bias_mean', 0):g}+-{extra['bias']:g}" if extra.get("bias") else "bias 0")
    words += [f"mtp {c['num_nextn_predict_layers']}"] if c["num_nextn_predict_layers"] else []
    words += ["balance loss"] if extra.get("balance_alpha") else []
    return f"{name}: {'; '.join(words)}"


def draw(config, batch, length, extra, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    weights = {}
    for name, shape in plain.shapes(config).items():
        weights[name] = 1 + 0.2 * normal(*shape) if len(shape) == 1 else normal(*shape) * (1.4 / math.sqrt(shape[1]))
    biases = {name: extra.get("bias_mean", 0.0) + extra.get("bias", 0.0) * normal(config["n_routed_experts"]) for name in plain.bias_names(config)}
    tokens = torch.randint(0, config["vocab_size"], (batch, length + 1), generator=generator)
    return weights, biases, tokens


def run_plain(config, weights, biases, tokens, extra, dtype=torch.float64):
    """The model of plain.py: how clear its routers' choices are, its results, and the gradient of the whole objective."""
    leaves = {name: w.to(dtype, copy=True).requires_grad_() for name, w in weights.items()}
    model = plain.Plain(config, {**leaves, **{name: b.to(dtype) for name, b in biases.items()}})
    logits, loss, further, balance = model.run(tokens)
    balance = extra.get("balance_alpha", 0.0) * balance
    (loss + extra.get("mtp_lambda", 0.0) * further + balance).backward()
    gradients = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in leaves.items()}
    return model.margin, dict(logits=logits.detach(), loss=loss.item(), mtp_loss=further.item(), balance=balance.item()), gradients


def fused_names(config):
    """Name of transformers' fused tensor -> how it is made of the published ones, and how those are cut out of it."""
    for i in range(config["first_k_dense_replace"], config["num_hidden_layers"]):
        prefix = f"model.layers.{i}.mlp.experts."
        yield prefix + "gate_up_proj", [[f"{prefix}{e}.{part}_proj.weight" for part in ("gate", "up")] for e in range(config["n_routed_experts"])]
        yield prefix + "down_proj", [[f"{prefix}{e}.down_proj.weight"] for e in range(config["n_routed_experts"])]


def run_transformers(config, weights, biases, tokens):
    """Logits, loss and the loss's gradient, in FP32."""
    settings = DeepseekV3Config(**copy.deepcopy(config))  # which writes into what it is given
    settings._attn_implementation = "eager"
    settings._experts_implementation = "eager"
    model = DeepseekV3ForCausalLM(settings).float().train()
    last = config["num_hidden_layers"]
    state = {n: t for n, t in {**weights, **biases}.items() if not n.startswith("model.layers.") or int(n.split(".")[2]) < last}
    fused = dict(fused_names(config))
    for name, parts in fused.items():
        state[name] = torch.stack([torch.cat([state.pop(part) for part in expert]) for expert in parts])
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    logits = model(tokens[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if name not in fused:
            gradients[name] = gradient
            continue
        for expert, parts in enumerate(fused[name]):
            gradients.update(zip(parts, gradient[expert].chunk(len(parts))))
    return dict(logits=logits.detach(), loss=loss.item(), mtp_loss=0.0, balance=0.0), gradients


def whole_norm(gradients):
    return math.sqrt(sum(g.double().norm().item() ** 2 for g in gradients.values()))


def gradient_errors(got, want):
    """Relative L2 error of each tensor's gradient that is not zero."""
    floor = ZERO * whole_norm(want)
    return {n: ((got[n] - g).norm() / g.norm()).item() for n, g in want.items() if g.norm() > floor}


def compare(report, name, ours, theirs, our_gradients, their_gradients):
    """plain.py against transformers."""
    size = (theirs["logits"].max() - theirs["logits"].min()).item()
    report.row(name, "plain PyTorch's logits", (ours["logits"] - theirs["logits"]).abs().max().item() / size, LOGITS)
    report.row(name, "plain PyTorch's loss", abs(ours["loss"] - theirs["loss"]) / theirs["loss"], LOSS)
    if their_gradients:
        assert set(our_gradients) == set(their_gradients), set(our_gradients) ^ set(their_gradients)
        errors = gradient_errors(their_gradients, our_gradients)
        worst = max(errors, key=errors.get)
        report.row(name, "plain PyTorch's gradients", errors[worst], GRADIENT, worst)


def clear_draw(name, case, seed, report):
    """Weights and tokens at random, with what plain.py makes of them."""
    config, (_, batch, length, extra) = {**BASE, **case[0]}, case
    for attempt in range(20):
        number = random.Random(f"{seed} {name} {attempt}").randrange(1 << 62)
        drawn = draw(config, batch, length, extra, number)
        margin, results, gradients = run_plain(config, *drawn, extra)
        if margin <= MARGIN:
            report.say(f"{name}: drawn again, a router's choice hangs on {margin:.1e}")
            continue
        _, _, single = run_plain(config, *drawn, extra, torch.float32)
        errors = gradient_errors(single, gradients)
        worst = max(errors, key=errors.get)
        if errors[worst] <= CONDITION:
            return drawn, results, gradients
        report.say(f"{name}: drawn again, FP32 alone moves the gradient of {worst} by {errors[worst]:.1e}")
    raise RuntimeError(f"{name}: no usable draw of 20")


def write(out, name, case, seed, report):
    changes, batch, length, extra = case
    config = {**BASE, **changes}
    further = config["num_nextn_predict_layers"] > 0 or extra.get("balance_alpha", 0.0) > 0
    (weights, biases, tokens), ours, our_gradients = clear_draw(name, case, seed, report)
    theirs, their_gradients = run_transformers(config, weights, biases, tokens)
    compare(report, name, ours, theirs, our_gradients, None if further else their_gradients)
    results, gradients = (ours, our_gradients) if further else (theirs, their_gradients)
    floor = ZERO * whole_norm(our_gradients)
    gradients = {n: torch.zeros_like(g) if our_gradients[n].norm() <= floor else g for n, g in gradients.items()}
    tensors = {"tokens": tokens, "logits": results["logits"], **weights, **biases}
    tensors.update({"grad." + n: g for n, g in gradients.items()})
    facts = dict(
        config=json.dumps({**config, "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}),
        reference="plain PyTorch, FP64" if further else "transformers, FP32", batch=str(batch), length=str(length),
        loss=repr(results["loss"]), mtp_loss=repr(results["mtp_loss"]), balance=repr(results["balance"]),
        mtp_lambda=repr(extra.get("mtp_lambda", 0.0)), balance_alpha=repr(extra.get("balance_alpha", 0.0)))
    save_file({n: t.to(torch.float32).contiguous().clone() for n, t in tensors.items()}, out / f"{name}.safetensors", metadata={"facts": json.dumps(facts)})
    report.say(describe(name, config, batch, length, extra))


def write_all(out, cases, seed, report):
    out.mkdir(parents=True, exist_ok=True)
    for name, case in cases.items():
        write(out, name, case, seed, report)
