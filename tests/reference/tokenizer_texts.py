"""Texts that are hard for tokenizers: every plane of Unicode, code, CJK, emoji, combining marks, long runs, bytes that are no UTF-8."""
import unicodedata

CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'Ll", "'\u017f", "\u2019s", "''s", "'", "don't", "I'LL", "we'Ve"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\n\n", "\u00a0", "\u3000", "\u2003", "\u2028", "\u2029", "\u0085", "\v", "\f", "\u200b", "\ufeff", "\u1680",
          "\x1c", "\x1f", " \n", "\n ", "\r\n\r\n", "\u202f", "\u180e"]
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f44d\U0001f3fd",
         "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "1\ufe0f\u20e3", "\U0001f9d1\U0001f3ff\u200d\U0001f680", "\U0001f3f4\U000e0067\U000e0062\U000e007f",
         "\u263a", "\U0001fae8", "\U0001f1e6"]
WORDS = ["the", "The", "of", "tokenizer", "hello", "World", "naïve", "Straße", "ǅungla", "Ωmega", "привет", "мир", "שלום", "مرحبا", "नमस्ते", "สวัสดี", "こんにちは",
         "カタカナ", "한국어", "中文分词", "龥龦", "ﬁne", "e\u0301te\u0301", "\u0301", "q\u0323\u0307", "q\u0307\u0323", "İstanbul", "x\u200dy", "½", "²", "Ⅷ", "①", "٣٤٥", "१२३", "𝟙𝟚", "𐒠𐒡",
         "ÅÅ", "가각힣", "\u1100\u1161\u11a8", "ｶﾞ", "㌀", "ﷺ", "𝔘𝔫𝔦", "ꙮ", "\u0f77", "ſ", "K", "\u00ad", "\u0300\u0301\u0302"]
CODE = ["def f(x):\n    return x", "if (a && b) { c[i]++; }", "#include <stdio.h>", "x = {'a': 1.5e-3}", "// ----------", "<div class=\"x\">", "a->b::c", "\\n\\t",
        "```python", "http://a.b/c?d=e&f=%20", "0xDEADBEEF", "1,234,567.89", "$x^2_i$", "!important", "...", "—", "¿Qué?", "`~@#$%^&*()_+-=[]{}|;':\",./<>?",
        "\t\t\tfoo();\r\n", "/* */", "i18n_2", "_a_", "3.14159265358979"]
INVALID = [b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x28\xa1",
           b"\xf0\x28\x8c\xbc", b"\xc3\xc3", b"\x00", b"\xfe\xff"]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»“”„–—…、。「」・！？％＃§¶†‡•‰′″‹›¡¿€£¥©®™±×÷≤≥≠∞∂∑√"


def character(rng):
    """One code point: of any plane, or of a place where something happens."""
    kind = rng.randrange(6)
    if kind == 0:
        c = rng.randrange(0x110000)
    elif kind == 1:
        c = rng.randrange(0x3100)
    elif kind == 2:
        c = rng.randrange(0x10000)
    elif kind == 3:
        c = 0x10000 * rng.randrange(17) + rng.randrange(0x10000)
    elif kind == 4:
        c = rng.randrange(0x10000, 0x20000)
    else:
        c = rng.choice([0x4E00, 0x9FA5, 0x9FA6, 0x3040, 0x309F, 0x30A0, 0x30FF, 0x3100, 0xFFFD, 0xFFFF, 0x10FFFF, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0])
    return chr(c) if not 0xD800 <= c < 0xE000 else "\ud7ff"


def piece(rng, tokens):
    kind = rng.randrange(13)
    if kind == 0:
        return "".join(character(rng) for _ in range(rng.randrange(1, 8)))
    if kind == 1:
        return rng.choice(CONTRACTIONS)
    if kind == 2:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3, 7])
    if kind == 3:
        return rng.choice(EMOJI)
    if kind == 4:
        return rng.choice(CODE)
    if kind == 5:
        return "".join(rng.choice(PUNCTUATION) for _ in range(rng.randrange(1, 6)))
    if kind == 6:
        return "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 12)))
    if kind == 7:  # a letter and marks
        return rng.choice("aeoqΩ中か") + "".join(chr(rng.randrange(0x300, 0x370)) for _ in range(rng.randrange(1, 5)))
    if kind == 8 and tokens:
        token = rng.choice(tokens)
        return rng.choice([token, token, token[: rng.randrange(len(token) + 1)], token + token, " " + token + "  ", token.upper(), unicodedata.normalize("NFD", token)])
    if kind == 9:
        return rng.choice(WORDS).upper()
    return rng.choice(WORDS) + rng.choice(["", " ", " ", "\n"])


def text(rng, tokens, pieces):
    """UTF-8, sometimes with bytes that are none."""
    broken = rng.random() < 0.2
    out = b""
    for _ in range(rng.randrange(1, pieces + 1)):
        out += piece(rng, tokens).encode()
        if broken and rng.random() < 0.1:
            out += rng.choice(INVALID)
    return out


def whole(tokens):
    """What is the same every time: all of Unicode, long runs, nothing."""
    planes = ["".join(chr(c) for c in range(start, start + 0x1000) if not 0xD800 <= c < 0xE000) for start in range(0, 0x110000, 0x1000)]
    spaced = [" ".join(chr(c) for c in range(start, start + 0x400)) for start in range(0, 0x3400, 0x400)]
    runs = [unit * 3000 for unit in (" ", "\n", "\r\n", "7", "a", "中", "\t", "!", " \n", "\u0301", "é", "ab", "\U0001f600", "'s")]
    everything = "".join(WORDS + EMOJI + CODE + CONTRACTIONS + SPACES)
    out = [t.encode() for t in ["", *planes, *spaced, *runs, everything, " ".join(WORDS), "".join(tokens), "  ".join(tokens), "x".join(tokens)]]
    return out + INVALID + [b"".join(INVALID), b"a".join(INVALID), bytes(range(256)), b"\xf0\x9f\x98" * 100]
