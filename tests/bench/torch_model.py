"""The other side of `make bench-torch`: transformers' DeepseekV3ForCausalLM trained by torch on the CPU. Started with one JSON argument; then each
number N on stdin is answered by a JSON line with the seconds of N training steps (forward, backward, clip, AdamW) and the peak memory."""

import json
import os
import resource
import sys
import time

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, logging

logging.set_verbosity_error()


class Training:
    def __init__(self, model, attention, experts, compiled, batch, sequence, threads):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        config = DeepseekV3Config.from_json_file(model)
        config.use_cache = False
        config._attn_implementation = attention
        config._experts_implementation = experts
        self.model = DeepseekV3ForCausalLM(config).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.shape = (batch, sequence)
        self.vocab = config.vocab_size

    def step(self):
        tokens = torch.randint(self.vocab, self.shape)
        began = time.perf_counter()
        self.forward(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began


def main():
    training = Training(**json.loads(sys.argv[1]))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print
    for line in sys.stdin:
        seconds = [training.step() for _ in range(int(line))]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak": peak}), file=out, flush=True)


main()
