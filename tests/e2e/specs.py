"""Job files for the tests: command jobs, and training jobs of a model that makes a hundred steps in a few seconds."""

import json
import os
import subprocess

from cluster import BIN, ROOT

TINY_MODEL = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "num_nextn_predict_layers": 1,
    "tie_word_embeddings": False,
}


def pack_corpus(folder):
    """Text that is in the tree anyway, packed as a user would."""
    folder = str(folder)
    texts = {"train": ["LICENSE", "HACKING.md", "proto/ds.proto"], "valid": ["README.md"]}
    prefixes = {}
    for part, files in texts.items():
        prefixes[part] = os.path.join(folder, part)
        command = [f"{BIN}/dstrain", "pack", *(os.path.join(ROOT, f) for f in files), "-o", prefixes[part], "--tokenizer", "bytes"]
        subprocess.run(command, check=True, capture_output=True)
    return prefixes


def command(script, name="cmd", nodes=1, gpus=1, **more):
    """A shell script as a job."""
    lines = [f"name: {name}", f"nodes: {nodes}", f"gpus_per_node: {gpus}", f"command: [sh, -c, {json.dumps(script)}]"]
    return "\n".join(lines + [f"{key}: {json.dumps(value)}" for key, value in more.items()]) + "\n"


def train(cluster, corpus, steps=60, every=10, nodes=2, gpus=2, expert=2, precision="fp32", restart_max=3, keep=3, model=None, **train_more):
    """A training job over 2 nodes x 2 slots, expert parallel 2."""
    model_path = os.path.join(cluster.folder, "model.json")
    with open(model_path, "w", encoding="utf-8") as f:
        json.dump(model or TINY_MODEL, f)
    body = {
        "name": "tiny",
        "nodes": nodes,
        "gpus_per_node": gpus,
        "train": {
            "model": model_path,
            "data": dict(corpus),
            "sequence_length": 32,
            "global_batch": 64,  # a step of some 30 ms: what happens "in mid-run" has time to
            "steps": steps,
            "precision": precision,
            "parallel": {"pipeline": 1, "expert": expert},
            "optimizer": {"lr": 3e-3, "warmup_steps": 5},
            "seed": 7,
            "valid_every": 20,
            **train_more,
        },
        "checkpoint": {"every": every, "keep": keep},
        "restart": {"max": restart_max},
    }
    return json.dumps(body)  # JSON is YAML
