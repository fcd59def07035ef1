"""A byte-level BPE vocabulary of a text, as a Hugging Face tokenizer.json: what `dstrain pack --tokenizer` reads. Deterministic."""

import collections
import heapq
import json
import os
import re

END = "<|endoftext|>"
# GPT-2's words (the ByteLevel pre-tokenizer), in what Python's re has of them
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def alphabet():
    """The character that stands for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(other)}}


def merges_of(text, count):
    """The pairs of byte strings to merge into `count` tokens, in order: each time the most frequent within words, of equals the least."""
    words = collections.Counter(w.encode() for w in WORD.findall(text.decode("utf-8", "replace")))
    parts = [([bytes([b]) for b in word], n) for word, n in words.items()]
    pairs, places = collections.Counter(), collections.defaultdict(set)
    for i, (word, n) in enumerate(parts):
        for pair in zip(word, word[1:]):
            pairs[pair] += n
            places[pair].add(i)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    out, made = [], set()  # two pairs may make the same token: "a" "bc" and "ab" "c"
    while heap and len(made) < count:
        n, pair = heapq.heappop(heap)
        if -n != pairs[pair]:
            continue  # out of date: the pair is in the heap again with what it is now
        out.append(pair)
        made.add(pair[0] + pair[1])
        changed = set()
        for i in places.pop(pair):
            word, times = parts[i]
            for old in zip(word, word[1:]):
                pairs[old] -= times
                changed.add(old)
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == pair:
                    word[at : at + 2] = [word[at] + word[at + 1]]
                at += 1
            for new in zip(word, word[1:]):
                pairs[new] += times
                places[new].add(i)
                changed.add(new)
        for p in changed:
            if pairs[p] > 0:
                heapq.heappush(heap, (-pairs[p], p))
    return out


def train(text, vocabulary, folder):
    """Writes tokenizer.json and tokenizer_config.json of so many tokens: 256 bytes, merges, and the end of a document."""
    letters = alphabet()

    def spell(token):
        return "".join(letters[b] for b in token)

    merges = merges_of(text, vocabulary - 257)
    tokens = list(dict.fromkeys([letters[b] for b in range(256)] + [spell(a + b) for a, b in merges]))
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": len(tokens), "content": END, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [f"{spell(a)} {spell(b)}" for a, b in merges]}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump({"version": "1.0", "added_tokens": [end], "normalizer": None, "pre_tokenizer": words, "post_processor": None,
                   "decoder": words, "model": model}, f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}, f)
    return len(tokens) + 1
