"""What is run: for each group a list of runs, each a name and what of the base it changes. Why it is so is in docs/recipe.md §5."""

import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
GROUPS = ("main", "gradient", "ablation", "balance", "mtp", "context")
PRECISIONS = ("bf16", "fp8", "fp32")

VOCABULARY = 4096

# Sequences of 256, 8,192 tokens a step, once over 2M tokens. The warm-up is the part that the bound leaves out.
MAIN = {
    "sequence_length": 256,
    "global_batch": 32,
    "micro_batch": 8,
    "steps": 250,
    "optimizer": {"lr": 4.2e-4, "warmup_steps": 12},
    "schedule": {"preset": "deepseek-v3"},
    "init_std": 0.03,
    "bias_update_speed": 0.01,
    "valid_every": 50,
    "valid_batches": 4,
}
# The tables: a smaller model on shorter sequences.
SMALL = {**MAIN, "sequence_length": 128, "steps": 100, "optimizer": {"lr": 4.2e-4, "warmup_steps": 5}}
LONG = {
    **SMALL,
    "global_batch": 8,
    "steps": 600,
    "optimizer": {"lr": 1e-3, "warmup_steps": 30},
    "bias_update_speed": 0.001,
    "valid_every": 150,
    "valid_batches": 32,
}
BALANCE = {**LONG, "global_batch": 4, "micro_batch": 4, "valid_batches": 64, "balance_loss": 0}
# One step at no rate: its first moment is the gradient, unclipped and unrounded.
GRADIENT = {
    **MAIN,
    "steps": 1,
    "optimizer": {"lr": 1e-12, "lr_min": 1e-12, "warmup_steps": 0, "beta1": 0, "grad_clip": 0, "weight_decay": 0},
    "schedule": None,
    "valid_every": 0,
}
# The published phases go on at the last rate of the training before.
CONTEXT = {
    **MAIN,
    "steps": 12,
    "optimizer": {"lr": 1.4e-5, "lr_min": 1.4e-5, "warmup_steps": 1},
    "schedule": None,
    "bias_update_speed": 0,
    "precision": "bf16",
    "valid_every": 12,
    "valid_batches": 8,
}
YARN = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 256, "mscale": 1, "mscale_all_dim": 1}

SMALL_MODEL = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "moe_intermediate_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
}

OFF = [  # each choice of the recipe taken back
    "fprop=bf16",
    "dgrad=bf16",
    "wgrad=bf16",
    "x_tile=128x128",
    "dy_tile=128x128",
    "requantise=false",
    "attention_output=fp8",
    "attention_output=fp32",
    "swiglu_input=fp32",
    "dispatch=bf16",
    "dispatch_scale=exact",
    "combine=fp32",
    "moments=fp32",
    "rest=bf16",
]


class Run:
    """A run of `dstrain`: name, train section, what of the model is other, overrides of the section, and the (group, name) of the run whose last
    checkpoint it begins with."""

    def __init__(self, name, train, model, overrides, after=None):
        self.name, self.train, self.model, self.overrides, self.after = name, dict(train), model, overrides, after
        self.full_steps = train["steps"]

    def shorten(self, steps):
        """Schedules are shares of the run's tokens; the warm-up shrinks along."""
        if steps < self.full_steps:
            self.train["steps"] = steps
            optimizer = self.train["optimizer"]
            self.train["optimizer"] = {**optimizer, "warmup_steps": optimizer["warmup_steps"] * steps // self.full_steps}
            if self.train["valid_every"] > 0:
                self.train["valid_every"] = max(1, self.train["valid_every"] * steps // self.full_steps)
        return self

    def job(self, data, seed, folder, init_from=None):
        """The job file, beside the model's."""
        with open(os.path.join(HERE, "model.json"), encoding="utf-8") as f:
            config = {**json.load(f), **self.model}
        path = os.path.join(folder, "model.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        steps = self.train["steps"]
        tokens = steps * self.train["global_batch"] * self.train["sequence_length"]
        train = {**self.train, "model": path, "data": data, "seed": seed, "tokens": tokens, "init_from": init_from}
        del train["steps"]
        return {"name": "recipe", "train": train, "checkpoint": {"every": 1000000, "keep": 1}}


def main():
    return [Run(p, MAIN, {}, [f"precision={p}"]) for p in PRECISIONS]


def gradient():
    """At the end of main's bf16 run: the precisions, each choice taken back, and single products in FP8 where all else is FP32."""

    def one(name, precision, *recipe):
        overrides = [f"precision={precision}", "recipe.moments=fp32", *(f"recipe.{x}" for x in recipe)]
        return Run(name, GRADIENT, {}, overrides, ("main", "bf16"))

    plain = [one(p, p) for p in ("fp32", "bf16", "fp8")]
    off = [one(f"fp8 {x}", "fp8", x) for x in OFF if not x.startswith("moments")]
    alone = [("fprop=fp8",), ("fprop=fp8", "x_tile=128x128"), ("dgrad=fp8",), ("dgrad=fp8", "dy_tile=128x128"), ("wgrad=fp8",)]
    return plain + off + [one(f"fp32 {' '.join(x)}", "fp32", *x) for x in alone]


def ablation():
    plain = [Run(p, SMALL, SMALL_MODEL, [f"precision={p}"]) for p in ("bf16", "fp32", "fp8")]
    return plain + [Run(f"fp8 {x}", SMALL, SMALL_MODEL, ["precision=fp8", f"recipe.{x}"]) for x in OFF]


def balance():
    """The preset sets gamma to 0 for the last 3.4%."""
    tokens = BALANCE["steps"] * BALANCE["global_batch"] * BALANCE["sequence_length"]
    end = f"schedule.bias_update_until={tokens}"

    def one(name, gamma, *more):
        return Run(name, BALANCE, SMALL_MODEL, ["precision=fp8", f"bias_update_speed={gamma}", *more])

    return [
        one("bias update off", 0),
        one("gamma 0.001, then 0", 0.001),
        one("gamma 0.001", 0.001, end),
        one("gamma 0.01, then 0", 0.01),
        one("gamma 0.01", 0.01, end),
    ]


def mtp():
    """The preset goes from 0.3 to 0.1 after two thirds."""
    module = {**SMALL_MODEL, "num_nextn_predict_layers": 1}
    return [
        Run("off", LONG, SMALL_MODEL, ["precision=fp8"]),
        Run("lambda 0.3, then 0.1", LONG, module, ["precision=fp8", "mtp_lambda=0.3"]),
        Run("lambda 0.1", LONG, module, ["precision=fp8", "mtp_lambda=0.1"]),
        Run("lambda 0.3", LONG, module, ["precision=fp8", "mtp_lambda=0.3", "schedule.mtp_lambda_then=0.3"]),
    ]


def context():
    """From main's bf16 run, 256 to 512 to 1024, with and without YaRN."""
    out = []
    for name, scaling in (("plain", None), ("yarn", YARN)):
        before = ("main", "bf16")
        for length in (512, 1024):
            phase = {**CONTEXT, "sequence_length": length, "global_batch": 8192 // length, "micro_batch": 2048 // length, "rope_scaling": scaling}
            out.append(Run(f"{name} {length}", phase, {}, [], before))
            before = ("context", f"{name} {length}")
    return out


def runs_of(group):
    return {"main": main, "gradient": gradient, "ablation": ablation, "balance": balance, "mtp": mtp, "context": context}[group]()
