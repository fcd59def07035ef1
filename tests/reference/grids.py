"""The grids of low precision: E4M3 and BF16 against ml_dtypes, all of them against exact rational arithmetic, and block-scaled products
against FP64.

Rational numbers round here as the definition says and by nothing else: to the nearest, ties to the even code. Where the definition of a
quantiser has an FP32 operation in it (the published one divides in FP32) so has this, rounded exactly once.
"""
import math
import random
from fractions import Fraction

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

TILE = 128
AMAX_MIN = Fraction(float(np.float32(1e-4)))


class Format:
    """Sign, exponent and mantissa; codes of positive numbers are in the order of the numbers."""

    def __init__(self, name, exponent_bits, mantissa_bits, bias, top, nan, dtype):
        self.name, self.mantissa, self.bias, self.top, self.nan, self.dtype = name, mantissa_bits, bias, top, nan, dtype
        self.sign = 1 << (exponent_bits + mantissa_bits)
        self.values = [self.definition(code) for code in range(top + 1)]
        self.codes = {value: code for code, value in enumerate(self.values)}
        self.largest = self.values[top]

    def definition(self, code):
        exponent, mantissa = code >> self.mantissa, code & ((1 << self.mantissa) - 1)
        if exponent == 0:
            return Fraction(mantissa) * Fraction(2) ** (1 - self.bias - self.mantissa)
        return (Fraction(1 << self.mantissa) + mantissa) * Fraction(2) ** (exponent - self.bias - self.mantissa)

    def encode(self, x):
        """x: an FP32 number."""
        sign = self.sign if math.copysign(1, x) < 0 else 0
        if math.isnan(x):
            return sign | self.nan
        if math.isinf(x):
            return sign | self.top
        return sign | self.codes[nearest(abs(Fraction(float(x))), self.mantissa, 1 - self.bias, self.largest)]

    def decode(self, code):
        low = code & (self.sign - 1)
        magnitude = float(self.values[low]) if low <= self.top else math.inf if self.beyond(low) else math.nan
        return math.copysign(magnitude, -1 if code & self.sign else 1)

    def beyond(self, low):
        return self.name == "E5M6" and low == self.top + 1


def nearest(x, mantissa, lowest, largest):
    """The nearest number with so many mantissa bits, exponents from `lowest`; not above `largest`. x >= 0."""
    if x == 0:
        return x
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > x
    step = Fraction(2) ** (max(exponent, lowest) - mantissa)
    return min(round(x / step) * step, largest)  # Python's round: nearest, ties to even


E4M3 = Format("E4M3", 4, 3, 7, 0x7E, 0x7F, np.uint8)
E5M6 = Format("E5M6", 5, 6, 15, 0x7BF, 0x7E0, np.uint16)


def f32(x):
    """A rational as the nearest FP32 number, a Python float."""
    largest = Fraction(float(np.finfo(np.float32).max))
    return math.copysign(float(nearest(abs(x), 23, -126, largest)), -1 if x < 0 else 1)


def scale_divided(amax, form):
    return f32(amax / form.largest)


def scale_power(amax, form):
    """The least power of two that brings amax to the largest number or below."""
    k = math.frexp(amax / form.largest)[1] - 2
    while Fraction(2) ** k * form.largest < amax:
        k += 1
    return float(Fraction(2) ** k)


# name -> format, rows and columns of a tile, scale
GRIDS = {
    "fp8_row": (E4M3, 1, TILE, scale_divided), "fp8_col": (E4M3, TILE, 1, scale_divided), "fp8_block": (E4M3, TILE, TILE, scale_divided),
    "fp8_row_pow2": (E4M3, 1, TILE, scale_power), "fp8_col_pow2": (E4M3, TILE, 1, scale_power),
    "e5m6_row": (E5M6, 1, TILE, scale_power), "e5m6_col": (E5M6, TILE, 1, scale_power),
}


def quantise(x, grid):
    """Codes of x, and scales of its tiles."""
    form, rows, cols, scale_of = GRIDS[grid]
    codes = np.zeros(x.shape, form.dtype)
    scales = np.zeros((-(-x.shape[0] // rows), -(-x.shape[1] // cols)), np.float32)
    for i, j in np.ndindex(scales.shape):
        tile = x[i * rows:(i + 1) * rows, j * cols:(j + 1) * cols]
        if not np.isfinite(tile).all():  # what is not a number must not vanish: the whole tile is none
            codes[i * rows:(i + 1) * rows, j * cols:(j + 1) * cols] = form.nan
            scales[i, j] = np.nan
            continue
        scale = scale_of(max(Fraction(float(np.abs(tile).max())), AMAX_MIN), form)
        scales[i, j] = scale
        for r, c in np.ndindex(tile.shape):
            q = f32(Fraction(float(tile[r, c])) / Fraction(scale)) if tile[r, c] else float(tile[r, c])
            codes[i * rows + r, j * cols + c] = form.encode(q)
    return codes, scales


def spread_scales(scales, grid, shape):
    _, rows, cols, _ = GRIDS[grid]
    return scales.repeat(rows, 0).repeat(cols, 1)[:shape[0], :shape[1]]


def quantise_fast(x, grid):
    """The same for E4M3 by numpy's FP32 division and the cast of ml_dtypes; codes as that type, scales of every element."""
    _, rows, cols, _ = GRIDS[grid]
    amax = np.zeros((-(-x.shape[0] // rows), -(-x.shape[1] // cols)), np.float32)
    for i, j in np.ndindex(amax.shape):
        amax[i, j] = np.abs(x[i * rows:(i + 1) * rows, j * cols:(j + 1) * cols]).max()
    scale = spread_scales(np.maximum(amax, np.float32(1e-4)) / np.float32(448), grid, x.shape)
    with np.errstate(all="ignore"):
        return (x / scale).astype(ml_dtypes.float8_e4m3fn), scale


def count_different(a, b):
    return int(np.sum((a != b) & ~(np.isnan(a) & np.isnan(b))))


# ---- single numbers

def interesting(rng, count):
    """FP32 numbers: ends of the formats, every tie and its neighbours, and any."""
    out = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 448, 464, 480, 65024, 65535, 65536, 1e30, 3.4e38, 1e-45, -1e-45, 1e-40, 2**-9, 2**-10,
           2**-11, 2**-20, 2**-21, 2**-22, 2**-6, 2**-14, 1 + 2**-8, 1 + 3 * 2**-8, 2.0**-133, 2.0**-134]
    ties = [(form.values[c] + form.values[c + 1]) / 2 for form in (E4M3, E5M6) for c in range(form.top)]
    ties += [form.largest * (1 + Fraction(1, 2 << form.mantissa)) for form in (E4M3, E5M6)]
    x = np.array([float(t) for t in ties], np.float32)
    out = np.concatenate([np.array(out, np.float32), x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(np.inf))])
    out = out * np.array([rng.choice([-1, 1]) for _ in out], np.float32)
    bits = np.array([rng.getrandbits(32) for _ in range(count)], np.uint32)
    near = np.array([rng.choice([-1, 1]) * rng.uniform(1, 2) * 2.0 ** rng.randint(-24, 18) for _ in range(count)], np.float32)
    return np.concatenate([out, bits.view(np.float32), near])


def write_codes(out, rng, count, report):
    with np.errstate(all="ignore"):
        x = interesting(rng, count)
        e4m3 = np.array([E4M3.encode(v) for v in x.tolist()], np.uint8)
        e5m6 = np.array([E5M6.encode(v) for v in x.tolist()], np.uint16)
        values4 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
        values6 = np.array([E5M6.decode(code) for code in range(4096)], np.float32)
        bf16 = x.astype(ml_dtypes.bfloat16).astype(np.float32)
        # the rational definitions against the packages
        cast = np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn)
        report.row("codes", "rational E4M3 against ml_dtypes", count_different(cast.astype(np.float32), values4[e4m3]), 0)
        defined = np.array([E4M3.decode(code) for code in range(256)], np.float32)
        report.row("codes", "E4M3's numbers against ml_dtypes", count_different(defined, values4), 0)
        half = (np.arange(4096, dtype=np.uint16) << 4).view(np.float16).astype(np.float32)
        report.row("codes", "E5M6's numbers against numpy's FP16", count_different(half, values6), 0)
        rational = [v if not math.isfinite(v) or v == 0 else math.copysign(float(nearest(abs(Fraction(v)), 7, -126, Fraction(2) ** 129)), v) for v in x.tolist()]
        rational = np.array([math.copysign(math.inf, v) if abs(v) >= 2.0**128 else v for v in rational], np.float32)
        report.row("codes", "rational BF16 against ml_dtypes", count_different(rational, bf16), 0)
    save_file({"x": x, "e4m3": e4m3, "e5m6": e5m6, "bf16": bf16, "e4m3_values": values4, "e5m6_values": values6}, out / "codes.safetensors",
              metadata={"facts": '{"kind": "codes"}'})


# ---- tiles

def random_matrix(rng, rows, cols, poison):
    """Magnitudes that differ by element, some rows and columns of zeros, denormal numbers, or what is no number."""
    numbers = np.random.default_rng(rng.randrange(1 << 62))
    x = numbers.standard_normal((rows, cols)) * 2.0 ** numbers.integers(-30, 3, (rows, cols))
    x *= 2.0 ** numbers.integers(-20, 12, (rows, 1)) if rng.random() < 0.5 else 1
    x = x.astype(np.float32)
    some_row, some_col = rng.randrange(rows), rng.randrange(cols)
    x[rng.randrange(rows)] = 0
    x[:, rng.randrange(cols)] = 0
    x[some_row] = (numbers.standard_normal(cols) * 1e-40).astype(np.float32)
    x[:, some_col] = (numbers.standard_normal(rows) * 1e-41).astype(np.float32)
    x[rng.randrange(rows), rng.randrange(cols)] = np.float32(448)
    x[rng.randrange(rows)] *= np.float32(rng.choice([1e30, 1e-30]))
    for what in [np.nan, np.inf, -np.inf] if poison else []:
        x[rng.randrange(rows), rng.randrange(cols)] = what
    return x


def write_tiles(out, name, rng, rows, cols, grids, poison, report):
    x = random_matrix(rng, rows, cols, poison)
    tensors, different = {"x": x}, 0
    for grid in grids:
        codes, scales = quantise(x, grid)
        tensors[grid], tensors[grid + ".scale"] = codes, scales
        if grid in ("fp8_row", "fp8_col", "fp8_block"):
            fast, scale = quantise_fast(x, grid)
            ours = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * spread_scales(scales, grid, x.shape)
            with np.errstate(all="ignore"):
                different += count_different(fast.astype(np.float32) * scale, ours)
    report.row(name, "rational quantisers against ml_dtypes", different, 0)
    save_file(tensors, out / f"{name}.safetensors", metadata={"facts": '{"kind": "tiles"}'})
    report.say(f"{name}: {rows}x{cols}, {', '.join(grids)}{', not all numbers' if poison else ''}")


# ---- products of quantised operands

def in_double(codes, scale):
    return codes.astype(np.float64) * scale.astype(np.float64)


def in_single(codes, scale):
    return codes.astype(np.float32) * scale


def write_product(out, name, rng, m, n, k, report):
    numbers = np.random.default_rng(rng.randrange(1 << 62))
    x = (numbers.standard_normal((m, k)) * 2.0 ** numbers.integers(-6, 3, (m, 1))).astype(np.float32)
    w = (numbers.standard_normal((n, k)) * 0.05).astype(np.float32)
    dy = (numbers.standard_normal((m, n)) * 2.0 ** numbers.integers(-6, 3, (m, 1))).astype(np.float32)
    x_row, w_block, dy_row, dy_col = quantise_fast(x, "fp8_row"), quantise_fast(w, "fp8_block"), quantise_fast(dy, "fp8_row"), quantise_fast(dy, "fp8_col")
    x_col = quantise_fast(in_single(*x_row), "fp8_col")
    save_file({"x": x, "w": w, "dy": dy, "y": in_double(*x_row) @ in_double(*w_block).T, "dx": in_double(*dy_row) @ in_double(*w_block),
               "dw": in_double(*dy_col).T @ in_double(*x_col)}, out / f"{name}.safetensors", metadata={"facts": '{"kind": "product"}'})
    report.say(f"{name}: {m}x{n}x{k}")


def write_all(out, seed, large, report):
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"grids {seed}")
    write_codes(out, rng, 20000 if large else 200, report)
    rows = ["fp8_row", "fp8_row_pow2", "e5m6_row"]
    cols = ["fp8_col", "fp8_col_pow2", "e5m6_col"]
    if large:
        for i, (high, wide) in enumerate([(300, 40), (40, 300), (270, 270), (150, 40), (40, 150)]):
            write_tiles(out, f"tiles_{i}", rng, rng.randint(high // 2, high), rng.randint(wide // 2, wide), list(GRIDS), i > 2, report)
        for i in range(4):
            write_product(out, f"product_{i}", rng, rng.randint(1, 300), rng.randint(1, 300), rng.randint(1, 700), report)
    else:
        write_tiles(out, "tiles_rows", rng, 12, 261, rows, False, report)
        write_tiles(out, "tiles_cols", rng, 261, 12, cols, False, report)
        write_tiles(out, "tiles_block", rng, 131, 133, ["fp8_block"], False, report)
        write_tiles(out, "tiles_poison", rng, 5, 140, [*rows, *cols, "fp8_block"], True, report)
        write_product(out, "product", rng, 9, 20, 300, report)
