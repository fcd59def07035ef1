"""Hugging Face folders written and read by hand: no code of dstrain's, no numpy, no torch."""

import glob
import json
import os
import random
import struct


def f32(x):
    """Rounded to FP32."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bf16_of(code):
    return struct.unpack("<f", struct.pack("<I", code << 16))[0]


def bf16_code(x):
    """Nearest, ties to even."""
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def f16_of(code):
    return struct.unpack("<e", struct.pack("<H", code))[0]


def e4m3_of(code):
    """The value of an E4M3 code by its definition; NaN for 0x7f and 0xff."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 15, code & 7
    if code & 0x7F == 0x7F:
        return float("nan")
    return sign * (mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10))


def shapes(model):
    """name -> shape of every tensor, the published names (without copies in MTP layers)."""
    hidden, heads = model["hidden_size"], model["num_attention_heads"]
    nope, rope, v = model["qk_nope_head_dim"], model["qk_rope_head_dim"], model["v_head_dim"]
    q_rank, kv_rank = model["q_lora_rank"], model["kv_lora_rank"]
    out = {"model.embed_tokens.weight": [model["vocab_size"], hidden], "model.norm.weight": [hidden]}
    if not model["tie_word_embeddings"]:
        out["lm_head.weight"] = [model["vocab_size"], hidden]

    def mlp(prefix, width):
        out[f"{prefix}.gate_proj.weight"] = out[f"{prefix}.up_proj.weight"] = [width, hidden]
        out[f"{prefix}.down_proj.weight"] = [hidden, width]

    layers = model["num_hidden_layers"]
    for layer in range(layers + model["num_nextn_predict_layers"]):
        p = f"model.layers.{layer}"
        out[f"{p}.input_layernorm.weight"] = out[f"{p}.post_attention_layernorm.weight"] = [hidden]
        a = f"{p}.self_attn"
        if q_rank:
            out[f"{a}.q_a_proj.weight"], out[f"{a}.q_a_layernorm.weight"] = [q_rank, hidden], [q_rank]
            out[f"{a}.q_b_proj.weight"] = [heads * (nope + rope), q_rank]
        else:
            out[f"{a}.q_proj.weight"] = [heads * (nope + rope), hidden]
        out[f"{a}.kv_a_proj_with_mqa.weight"], out[f"{a}.kv_a_layernorm.weight"] = [kv_rank + rope, hidden], [kv_rank]
        out[f"{a}.kv_b_proj.weight"] = [heads * (nope + v), kv_rank]
        out[f"{a}.o_proj.weight"] = [hidden, heads * v]
        if layer < model["first_k_dense_replace"]:
            mlp(f"{p}.mlp", model["intermediate_size"])
        else:
            experts, width = model["n_routed_experts"], model["moe_intermediate_size"]
            out[f"{p}.mlp.gate.weight"], out[f"{p}.mlp.gate.e_score_correction_bias"] = [experts, hidden], [experts]
            for e in range(experts):
                mlp(f"{p}.mlp.experts.{e}", width)
            if model["n_shared_experts"]:
                mlp(f"{p}.mlp.shared_experts", width * model["n_shared_experts"])
        if layer >= layers:
            for norm in ("enorm", "hnorm", "shared_head.norm"):
                out[f"{p}.{norm}.weight"] = [hidden]
            out[f"{p}.eh_proj.weight"] = [hidden, 2 * hidden]
    return out


def is_recipe(name):
    """A Linear of the FP8 recipe."""
    high = ("embed_tokens", "lm_head", "eh_proj", "norm", "mlp.gate.", "shared_head")
    return not any(word in name for word in high)


def elements(shape):
    n = 1
    for size in shape:
        n *= size
    return n


def pack_f32(values):
    return struct.pack(f"<{len(values)}f", *values)


class Folder:
    """Tensors of a folder, and what each should read as: .tensors name -> (dtype, shape, bytes), .values name -> list of floats."""

    def __init__(self, model, dtype="F32", seed=1, block=(128, 128), mtp_copies=True):
        self.model = dict(model)
        self.block = block
        self.random = random.Random(seed)
        self.tensors, self.values = {}, {}
        for name, shape in shapes(model).items():
            if name.endswith("e_score_correction_bias"):
                self.add(name, "F32", shape)
            else:
                self.add(name, dtype if dtype != "F8_E4M3" or is_recipe(name) else "BF16", shape)
        if mtp_copies:
            layers = model["num_hidden_layers"]
            head = "model.embed_tokens.weight" if model["tie_word_embeddings"] else "lm_head.weight"
            for layer in range(layers, layers + model["num_nextn_predict_layers"]):
                self.tensors[f"model.layers.{layer}.embed_tokens.weight"] = self.tensors["model.embed_tokens.weight"]
                self.tensors[f"model.layers.{layer}.shared_head.head.weight"] = self.tensors[head]
        if dtype == "F8_E4M3":
            self.model["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(block)}

    def add(self, name, dtype, shape):
        """Random values around 0.1 in size, exactly representable."""
        n, r = elements(shape), self.random
        if dtype == "F32":
            values = [f32(r.uniform(-0.2, 0.2)) for _ in range(n)]
            data = pack_f32(values)
        elif dtype == "BF16":
            codes = [bf16_code(r.uniform(-0.2, 0.2)) for _ in range(n)]
            values, data = [bf16_of(c) for c in codes], struct.pack(f"<{n}H", *codes)
        elif dtype == "F16":
            codes = [r.choice((0, 0x8000)) | r.randrange(0x3000) for _ in range(n)]
            values, data = [f16_of(c) for c in codes], struct.pack(f"<{n}H", *codes)
        else:
            codes = [c if c & 0x7F != 0x7F else 0 for c in r.randbytes(n)]
            values, data = self.scaled(name, shape, codes), bytes(codes)
        self.tensors[name], self.values[name] = (dtype, shape, data), values

    def scaled(self, name, shape, codes):
        """Adds the scales of a matrix, or of each of a stack of them; returns the values."""
        rows, cols = shape[-2:]
        down, across = -(-rows // self.block[0]), -(-cols // self.block[1])
        stack = elements(shape[:-2])
        scales = [f32(self.random.uniform(1e-5, 1e-3)) for _ in range(stack * down * across)]
        self.tensors[f"{name}_scale_inv"] = ("F32", [*shape[:-2], down, across], pack_f32(scales))
        values = []
        for i, code in enumerate(codes):
            matrix, row, col = i // (rows * cols), i // cols % rows, i % cols
            scale = scales[(matrix * down + row // self.block[0]) * across + col // self.block[1]]
            values.append(f32(e4m3_of(code) * scale))
        return values

    def fuse(self, dtype="F32"):
        """The experts of each layer as two tensors, as some versions of transformers keep them."""
        experts, width, hidden = (self.model[k] for k in ("n_routed_experts", "moe_intermediate_size", "hidden_size"))
        layers = self.model["num_hidden_layers"] + self.model["num_nextn_predict_layers"]
        for layer in range(self.model["first_k_dense_replace"], layers):
            p = f"model.layers.{layer}.mlp.experts"
            for e in range(experts):
                for part in ("gate", "up", "down"):
                    name = f"{p}.{e}.{part}_proj.weight"
                    del self.tensors[name]
                    self.tensors.pop(f"{name}_scale_inv", None)
            self.add(f"{p}.gate_up_proj", dtype, [experts, 2 * width, hidden])
            self.add(f"{p}.down_proj", dtype, [experts, hidden, width])
            both, down = self.values.pop(f"{p}.gate_up_proj"), self.values.pop(f"{p}.down_proj")
            n = width * hidden
            for e in range(experts):
                for k, part in enumerate(("gate", "up")):
                    self.values[f"{p}.{e}.{part}_proj.weight"] = both[(2 * e + k) * n : (2 * e + k + 1) * n]
                self.values[f"{p}.{e}.down_proj.weight"] = down[e * n : (e + 1) * n]
        return self

    def write(self, path, files=1, index=None):
        """files: over how many files the tensors are dealt; index: whether there is one, default with several files."""
        os.makedirs(path, exist_ok=True)
        path = str(path)
        with open(f"{path}/config.json", "w", encoding="utf-8") as f:
            json.dump(self.model, f)
        names = list(self.tensors)
        self.random.shuffle(names)
        weight_map = {}
        for i in range(files):
            file = "model.safetensors" if files == 1 else f"model-{i + 1:05d}-of-{files:05d}.safetensors"
            mine = names[i::files]
            write_safetensors(f"{path}/{file}", {name: self.tensors[name] for name in mine})
            weight_map.update({name: file for name in mine})
        if index or (index is None and files > 1):
            with open(f"{path}/model.safetensors.index.json", "w", encoding="utf-8") as f:
                json.dump({"metadata": {"total_size": 0}, "weight_map": weight_map}, f)
        return path


def header_of(tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return header


def write_safetensors(path, tensors, header=None):
    """header: a JSON text in place of the right one."""
    text = (header if header is not None else json.dumps(header_of(tensors))).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def read_safetensors(path):
    """name -> (dtype, shape, bytes)."""
    with open(path, "rb") as f:
        data = f.read()
    (header_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    body = data[8 + header_bytes :]
    return {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items()}


def read_folder(path):
    """All tensors of a folder, checked against its index."""
    with open(f"{path}/model.safetensors.index.json", encoding="utf-8") as f:
        index = json.load(f)
    tensors = {}
    for file in sorted(glob.glob(f"{path}/*.safetensors")):
        for name, tensor in read_safetensors(file).items():
            assert name not in tensors, f"{name} is in two files"
            assert index["weight_map"][name] == os.path.basename(file)
            tensors[name] = tensor
    assert set(tensors) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in tensors.values())
    return tensors


def decode(tensors, name):
    """The values of a tensor of a folder, FP8 with its scales of 128x128."""
    dtype, shape, data = tensors[name]
    n = elements(shape)
    if dtype == "F32":
        return list(struct.unpack(f"<{n}f", data))
    if dtype == "BF16":
        return [bf16_of(code) for code in struct.unpack(f"<{n}H", data)]
    assert dtype == "F8_E4M3"
    kind, scale_shape, scale_data = tensors[f"{name}_scale_inv"]
    rows, cols = shape
    assert kind == "F32" and scale_shape == [-(-rows // 128), -(-cols // 128)]
    scales = struct.unpack(f"<{elements(scale_shape)}f", scale_data)
    return [f32(e4m3_of(code) * scales[i // cols // 128 * scale_shape[1] + i % cols // 128]) for i, code in enumerate(data)]
