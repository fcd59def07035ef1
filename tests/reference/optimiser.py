"""AdamW, clipping and the learning rate's course against torch.optim, in FP64, step after step."""
import json
import math
import random

import torch
from safetensors.torch import save_file

STEPS = 50
DECAYED, BARE = 23, 9  # elements of a matrix, which decays, and of a norm's weight, which does not

BASE = dict(lr=1e-2, lr_min=1e-3, warmup_steps=8, constant_steps=12, steps=STEPS, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, grad_clip=1.0,
            decay_until=0, tail_until=0, tail_lr=0.0, last_lr=0.0)  # steps, and rates of the constant tails after the cosine; 0: none
# name -> changes, size of the gradients
NAMED = {
    "clipped": ({}, 3.0),
    "not_clipped": (dict(grad_clip=100.0), 1.0),
    "now_and_then": (dict(grad_clip=5.0), 1.0),
    "no_clipping": (dict(grad_clip=0.0), 3.0),
    "zeros": ({}, 0.0),
    "eps_dominant": (dict(eps=1e-3), 1e-9),
    "long_memory": (dict(beta1=0.99, beta2=0.999, weight_decay=0.01), 1.0),
    "no_warm_up": (dict(warmup_steps=0, constant_steps=0, lr_min=0.0), 1.0),
    "tails": (dict(decay_until=30, tail_until=41, tail_lr=7e-4, last_lr=2e-4), 1.0),
    "ends_early": (dict(steps=130, warmup_steps=1, constant_steps=3, weight_decay=0.0), 0.3),
}


def random_cases(seed, count):
    rng = random.Random(f"optimiser {seed}")
    out = {}
    for i in range(count):
        lr, warm_up = 10 ** rng.uniform(-5, -1), rng.randint(0, 20)
        changes = dict(lr=lr, lr_min=rng.choice([0.0, lr / 10, lr]), warmup_steps=warm_up, constant_steps=rng.randint(0, 15),
                       steps=rng.choice([STEPS, 3 * STEPS, warm_up + 16]), beta1=rng.choice([0.0, 0.8, 0.9, 0.99]),
                       beta2=rng.choice([0.9, 0.95, 0.99, 0.999]), eps=10 ** rng.uniform(-12, -3), weight_decay=rng.choice([0.0, 0.1, rng.uniform(0, 1)]),
                       decay_until=0 if i % 3 else warm_up + 17, tail_until=warm_up + 23, tail_lr=lr / 7, last_lr=lr / 20,
                       grad_clip=rng.choice([0.0, 1.0, 10 ** rng.uniform(-0.3, 2)]))
        out[f"optimiser_{i}"] = (changes, 10 ** rng.uniform(-6, 2))
    return out


def course(s):
    """The factor of lr at step e + 1: linear from 0, constant, half a cosine down to lr_min at the last step, or before it and then two
    constants."""
    from_step = s["warmup_steps"] + s["constant_steps"]
    to_step = s["decay_until"] or s["steps"]

    def factor(e):
        step, low = e + 1, s["lr_min"] / s["lr"]
        if step <= s["warmup_steps"]:
            return step / s["warmup_steps"]
        if step <= from_step:
            return 1.0
        if s["decay_until"] and step > to_step:
            return (s["tail_lr"] if step <= s["tail_until"] else s["last_lr"]) / s["lr"]
        done = min((step - from_step) / (to_step - from_step), 1.0) if to_step > from_step else 1.0
        return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2

    return factor


def torch_schedulers(s):
    """The learning rates of torch's own schedulers, one after the other, where they can say the same."""
    from_step = s["warmup_steps"] + s["constant_steps"]
    if s["warmup_steps"] < 2 or s["steps"] <= from_step or s["decay_until"]:
        return None
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=s["lr"])
    lr = torch.optim.lr_scheduler
    parts = [lr.LinearLR(optimiser, 1 / s["warmup_steps"], 1.0, s["warmup_steps"] - 1), lr.CosineAnnealingLR(optimiser, s["steps"] - from_step, s["lr_min"])]
    milestones = [from_step - 1]
    if s["constant_steps"] > 0:
        parts.insert(1, lr.ConstantLR(optimiser, 1.0, 1))
        milestones.insert(0, s["warmup_steps"] - 1)
    scheduler, out = lr.SequentialLR(optimiser, parts, milestones), []
    for _ in range(min(STEPS, s["steps"])):
        out.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return out


def gradients(name, size, seed):
    generator = torch.Generator().manual_seed(random.Random(f"{seed} {name}").randrange(1 << 62))
    g = size * torch.randn(STEPS, DECAYED + BARE, generator=generator, dtype=torch.float64)
    g *= torch.exp(torch.randn(STEPS, 1, generator=generator, dtype=torch.float64))
    g[:, ::7] = 0  # elements whose gradient is 0 always, some now and then, and steps without any
    g[:, 1::5] *= torch.randint(0, 2, g[:, 1::5].shape, generator=generator)
    g[STEPS // 2] = 0
    return g.float(), torch.randn(DECAYED + BARE, generator=generator)


def write(out, name, changes, size, seed, report):
    s = {**BASE, **changes}
    given, start = gradients(name, size, seed)
    parts = [torch.nn.Parameter(part.clone()) for part in start.double().split([DECAYED, BARE])]
    optimiser = torch.optim.AdamW([dict(params=parts[:1]), dict(params=parts[1:], weight_decay=0.0)], lr=s["lr"], betas=(s["beta1"], s["beta2"]),
                                  eps=s["eps"], weight_decay=s["weight_decay"], foreach=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, course(s))
    kept = {key: [] for key in ("weight", "m", "v", "norm", "lr")}
    for step in range(STEPS):
        for part, grad in zip(parts, given[step].double().split([DECAYED, BARE])):
            part.grad = grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(parts, s["grad_clip"] if s["grad_clip"] > 0 else math.inf, foreach=False)
        kept["norm"].append(norm)
        kept["lr"].append(torch.tensor(optimiser.param_groups[0]["lr"], dtype=torch.float64))
        optimiser.step()
        scheduler.step()
        kept["weight"].append(torch.cat([p.detach().clone() for p in parts]))
        kept["m"].append(torch.cat([optimiser.state[p]["exp_avg"].clone() for p in parts]))
        kept["v"].append(torch.cat([optimiser.state[p]["exp_avg_sq"].clone() for p in parts]))
    own = torch_schedulers(s)
    if own:
        error = max(abs(a - b.item()) for a, b in zip(own, kept["lr"])) / s["lr"]
        report.row(name, "LambdaLR against torch's own schedulers", error, 1e-12)
    tensors = {key: torch.stack(values).contiguous() for key, values in kept.items()}
    for key in ("weight", "m", "v"):
        tensors[key] = tensors[key].float()
    save_file({"grad": given, "start": start, **tensors}, out / f"{name}.safetensors",
              metadata={"facts": json.dumps({key: repr(value) for key, value in {**s, "decayed": DECAYED}.items()})})
    often = int((tensors["norm"] > s["grad_clip"]).sum()) if s["grad_clip"] > 0 else 0
    report.say(f"{name}: betas {s['beta1']}, {s['beta2']}; eps {s['eps']:.1e}; clipped {often} of {STEPS} times")


def write_all(out, seed, large, report):
    out.mkdir(parents=True, exist_ok=True)
    cases = {**NAMED, **random_cases(seed, 12)} if large else NAMED
    for name, (changes, size) in cases.items():
        write(out, name, changes, size, seed, report)
