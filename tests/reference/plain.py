"""DeepSeek-V3 in plain PyTorch, from the equations of the technical report (arXiv 2412.19437v2): nothing of transformers is in here.

A model is a dict of tensors under their published names; everything is computed in those tensors' dtype. What the report leaves open is as
the released weights want it: norms of the latents, interleaved rotary pairs, eh_proj with the embedding first, the hidden state after the
final norm, a norm of its own before the module's head.
"""
import math

import torch

LATENT_EPS = 1e-6  # of the two latent norms, whatever the config says


def shapes(c):
    """Published name -> shape, of everything a gradient reaches."""
    h, heads, nope, rope, v = c["hidden_size"], c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = (c["vocab_size"], h)

    def ffn(prefix, width):
        out[prefix + "gate_proj.weight"] = (width, h)
        out[prefix + "up_proj.weight"] = (width, h)
        out[prefix + "down_proj.weight"] = (h, width)

    for i in range(c["num_hidden_layers"] + c["num_nextn_predict_layers"]):
        p = f"model.layers.{i}."
        out[p + "input_layernorm.weight"] = out[p + "post_attention_layernorm.weight"] = (h,)
        a = p + "self_attn."
        if c["q_lora_rank"] is None:
            out[a + "q_proj.weight"] = (heads * (nope + rope), h)
        else:
            out[a + "q_a_proj.weight"] = (c["q_lora_rank"], h)
            out[a + "q_a_layernorm.weight"] = (c["q_lora_rank"],)
            out[a + "q_b_proj.weight"] = (heads * (nope + rope), c["q_lora_rank"])
        out[a + "kv_a_proj_with_mqa.weight"] = (c["kv_lora_rank"] + rope, h)
        out[a + "kv_a_layernorm.weight"] = (c["kv_lora_rank"],)
        out[a + "kv_b_proj.weight"] = (heads * (nope + v), c["kv_lora_rank"])
        out[a + "o_proj.weight"] = (h, heads * v)
        if i < c["first_k_dense_replace"]:
            ffn(p + "mlp.", c["intermediate_size"])
        else:
            out[p + "mlp.gate.weight"] = (c["n_routed_experts"], h)
            for e in range(c["n_routed_experts"]):
                ffn(f"{p}mlp.experts.{e}.", c["moe_intermediate_size"])
            ffn(p + "mlp.shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"])
        if i >= c["num_hidden_layers"]:
            out[p + "enorm.weight"] = out[p + "hnorm.weight"] = out[p + "shared_head.norm.weight"] = (h,)
            out[p + "eh_proj.weight"] = (h, 2 * h)
    return out


def bias_names(c):
    """The routers' correction biases, which no gradient reaches."""
    layers = range(c["first_k_dense_replace"], c["num_hidden_layers"] + c["num_nextn_predict_layers"])
    return [f"model.layers.{i}.mlp.gate.e_score_correction_bias" for i in layers]


def rms_norm(x, weight, eps):
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def silu_ffn(x, w, prefix):
    gate, up = x @ w[prefix + "gate_proj.weight"].T, x @ w[prefix + "up_proj.weight"].T
    return (gate / (1 + torch.exp(-gate)) * up) @ w[prefix + "down_proj.weight"].T


class Plain:
    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.margin = math.inf  # how near any choice of a router was to another one
        self.routed = []  # scores [batch, T, experts] of each MoE layer that ran
        self.set_rope()

    # ---- positions

    def set_rope(self):
        c, dim = self.c, self.c["qk_rope_head_dim"]
        theta, yarn = c["rope_theta"], c.get("rope_scaling")
        frequencies = [theta ** (-2 * i / dim) for i in range(dim // 2)]
        self.turn_scale = 1.0
        self.score_scale = (c["qk_nope_head_dim"] + dim) ** -0.5
        if yarn:
            s, length = yarn["factor"], yarn["original_max_position_embeddings"]

            def pair_that_turns(times):
                return dim * math.log(length / (times * 2 * math.pi)) / (2 * math.log(theta))

            def mscale(m):
                return 0.1 * m * math.log(s) + 1 if s > 1 else 1.0

            low = max(math.floor(pair_that_turns(yarn["beta_fast"])), 0)
            high = min(math.ceil(pair_that_turns(yarn["beta_slow"])), dim - 1)
            high = high + 0.001 if high == low else high
            for i, f in enumerate(frequencies):
                ramp = min(max((i - low) / (high - low), 0.0), 1.0)
                frequencies[i] = f / s * ramp + f * (1 - ramp)
            turn, score = yarn.get("mscale"), yarn.get("mscale_all_dim")
            self.turn_scale = mscale(turn) / mscale(score) if turn and score else mscale(1)
            self.score_scale *= mscale(score) ** 2 if score else 1.0
        self.frequencies = frequencies

    def rotate(self, x):
        """x [..., T, dim]: the pair (2i, 2i + 1) at position t as a complex number, times exp(i t f_i)."""
        t = torch.arange(x.shape[-2], dtype=torch.float64)
        angle = t[:, None] * torch.tensor(self.frequencies, dtype=torch.float64)
        cos, sin = (torch.cos(angle) * self.turn_scale).to(x.dtype), (torch.sin(angle) * self.turn_scale).to(x.dtype)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)

    # ---- equations 1-11: multi-head latent attention

    def attention(self, x, p):
        c, w = self.c, self.w
        batch, length, _ = x.shape
        heads, nope, rope, v = c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
        if c["q_lora_rank"] is None:
            q = x @ w[p + "q_proj.weight"].T
        else:
            q = rms_norm(x @ w[p + "q_a_proj.weight"].T, w[p + "q_a_layernorm.weight"], LATENT_EPS) @ w[p + "q_b_proj.weight"].T
        q = q.view(batch, length, heads, nope + rope).transpose(1, 2)
        latent, key = (x @ w[p + "kv_a_proj_with_mqa.weight"].T).split([c["kv_lora_rank"], rope], -1)
        kv = rms_norm(latent, w[p + "kv_a_layernorm.weight"], LATENT_EPS) @ w[p + "kv_b_proj.weight"].T
        kv = kv.view(batch, length, heads, nope + v).transpose(1, 2)
        scores = q[..., :nope] @ kv[..., :nope].transpose(-1, -2)
        scores = scores + self.rotate(q[..., nope:]) @ self.rotate(key)[:, None].transpose(-1, -2)
        scores = scores * self.score_scale
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        share = torch.softmax(scores.masked_fill(future, -math.inf), -1)
        out = (share @ kv[..., nope:]).transpose(1, 2).reshape(batch, length, heads * v)
        return out @ w[p + "o_proj.weight"].T

    # ---- equations 12-16: experts, and the choice of them restricted to some groups

    def choose(self, biased):
        """Ids of the chosen experts of one token; biased: its scores with the bias, a list."""
        c = self.c
        size = len(biased) // c["n_group"]
        groups = [biased[g * size:(g + 1) * size] for g in range(c["n_group"])]
        group_scores = [sum(sorted(g)[-2:]) for g in groups]
        best = self.highest(group_scores, range(c["n_group"]), c["topk_group"])
        return self.highest(biased, [e for e in range(len(biased)) if e // size in best], c["num_experts_per_tok"])

    def highest(self, scores, ids, count):
        order = sorted(ids, key=lambda i: -scores[i])
        if count < len(order):
            self.margin = min(self.margin, scores[order[count - 1]] - scores[order[count]])
        return order[:count]

    def experts(self, x, p):
        c, w = self.c, self.w
        rows = x.reshape(-1, x.shape[-1])
        scores = torch.sigmoid(rows @ w[p + "gate.weight"].T)
        biased = scores.detach() + w[p + "gate.e_score_correction_bias"]
        chosen = torch.zeros_like(scores)
        for t, row in enumerate(biased.tolist()):
            chosen[t, self.choose(row)] = 1
        gates = scores * chosen
        if c["norm_topk_prob"]:
            gates = gates / (gates.sum(-1, keepdim=True) + 1e-20)
        gates = gates * c["routed_scaling_factor"]
        out = silu_ffn(rows, w, p + "shared_experts.")
        for e in range(c["n_routed_experts"]):
            out = out + gates[:, e:e + 1] * silu_ffn(rows, w, f"{p}experts.{e}.")
        self.routed.append(scores.view(*x.shape[:2], -1))
        return out.view_as(x)

    def block(self, x, i):
        c, w, p = self.c, self.w, f"model.layers.{i}."
        eps = c["rms_norm_eps"]
        x = x + self.attention(rms_norm(x, w[p + "input_layernorm.weight"], eps), p + "self_attn.")
        normed = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
        dense = i < c["first_k_dense_replace"]
        return x + (silu_ffn(normed, w, p + "mlp.") if dense else self.experts(normed, p + "mlp."))

    # ---- the whole, and equations 21-25: prediction of further tokens

    def head(self, x):
        return x @ self.w["model.embed_tokens.weight" if self.c["tie_word_embeddings"] else "lm_head.weight"].T

    def run(self, tokens):
        """tokens [batch, T + 1] -> logits, loss, loss of the further tokens (mean over depths), balance loss without its factor."""
        c, w = self.c, self.w
        x = w["model.embed_tokens.weight"][tokens[:, :-1]]
        for i in range(c["num_hidden_layers"]):
            x = self.block(x, i)
        hidden = rms_norm(x, w["model.norm.weight"], c["rms_norm_eps"])
        logits = self.head(hidden)
        loss = self.cross_entropy(logits, tokens[:, 1:]).mean()
        further = self.further(hidden, tokens) if c["num_nextn_predict_layers"] else torch.zeros(())
        return logits, loss, further, self.balance()

    def further(self, hidden, tokens):
        c, w, eps = self.c, self.w, self.c["rms_norm_eps"]
        depth = c["num_nextn_predict_layers"]
        batch, length = tokens.shape[0], tokens.shape[1] - 1
        total = 0
        for k in range(1, depth + 1):
            p = f"model.layers.{c['num_hidden_layers'] + k - 1}."
            embedded = w["model.embed_tokens.weight"][tokens[:, k:length]]
            joined = torch.cat([rms_norm(embedded, w[p + "enorm.weight"], eps),
                                rms_norm(hidden[:, :length - k], w[p + "hnorm.weight"], eps)], -1)
            hidden = self.block(joined @ w[p + "eh_proj.weight"].T, c["num_hidden_layers"] + k - 1)
            logits = self.head(rms_norm(hidden, w[p + "shared_head.norm.weight"], eps))
            total = total + self.cross_entropy(logits, tokens[:, k + 1:]).sum() / (batch * length)
        return total / depth

    @staticmethod
    def cross_entropy(logits, target):
        return torch.logsumexp(logits, -1) - logits.gather(-1, target[..., None])[..., 0]

    def balance(self):
        """Equations 17-20, mean over sequences, added up over layers."""
        total = torch.zeros(())
        for scores in self.routed:
            length, experts = scores.shape[1:]
            top = self.c["num_experts_per_tok"]
            counted = torch.zeros_like(scores)
            for s, sequence in enumerate(scores.detach().tolist()):
                for t, row in enumerate(sequence):
                    counted[s, t, self.highest(row, range(experts), top)] = 1
            f = counted.sum(1) * experts / (top * length)
            share = (scores / scores.sum(-1, keepdim=True)).mean(1)
            total = total + (f * share).sum(-1).mean()
        return total
