"""A packed text and a model that makes a step in milliseconds, for every test of the trainer."""

import json
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from dstrain import ROOT, Trainer, dstrain  # noqa: E402

TEXTS = ["LICENSE", "proto/ds.proto", "lib/file.c", "lib/err.c", "trainer/data.c"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Prefix of the training corpus; the validation corpus is at prefix-valid."""
    prefix = str(tmp_path_factory.mktemp("corpus") / "text")
    dstrain("pack", *(os.path.join(ROOT, text) for text in TEXTS), "-o", prefix, "--document-bytes", "2000", "--split-valid", "0.1")
    return prefix


@pytest.fixture
def trainer(corpus, tmp_path):
    """Writes a job file; trainer.run(...) runs it."""
    return Trainer(tmp_path, corpus)


@pytest.fixture
def model():
    with open(os.path.join(ROOT, "etc", "models", "tiny.json"), encoding="utf-8") as f:
        return json.load(f)
