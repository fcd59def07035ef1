"""What a run is trained on: sources with weights, documents packed whole, fill in the middle, positions that are skipped."""

import os

import pytest

FIM = {"rate": 0.5, "begin": 1, "hole": 2, "end": 3}  # control characters: no text has them


def sources(corpus, **more):
    return {
        "train": [{"prefix": corpus, "weight": 0.7}, {"prefix": f"{corpus}-valid", "weight": 0.3}],
        "valid": f"{corpus}-valid",
        "packing": "documents",
        "fim": FIM,
        **more,
    }


def losses(run):
    return [step["loss"] for _, step in sorted(run.metrics().items())]


def close(a, b):
    return all(abs(x - y) < 1e-4 * abs(x) for x, y in zip(a, b)) and len(a) == len(b)


def test_mixture_resumes_on_any_ranks(trainer, corpus):
    """Two sources, packed documents, fill in the middle and a skip list: half a run and its rest are the whole run bit for bit, and
    two ranks see what one sees."""
    trainer.write(data=sources(corpus, skip=[{"first": 40, "count": 13}, {"first": 100, "count": 9}]))
    whole = trainer.run("whole")
    half = trainer.run("half", "--resume", whole.checkpoint(10))
    assert half.series() == whole.series(first=11) and len(half.series()) == 10
    assert close(losses(trainer.run("dp2", layout="dp2")), losses(whole))


def test_skip_changes_what_follows(trainer, corpus):
    """Up to the skipped positions a run is the same, then it is what another order of the data gives; what lies behind the run's
    end changes nothing."""
    trainer.write()
    plain = losses(trainer.run("plain"))
    trainer.write(data={"train": corpus, "valid": f"{corpus}-valid", "skip": [{"first": 80, "count": 8}]})
    skipped = losses(trainer.run("skipped"))
    assert skipped[:10] == plain[:10] and skipped[10] != plain[10]
    trainer.write(data={"train": corpus, "valid": f"{corpus}-valid", "skip": [{"first": 160, "count": 8}]})
    assert losses(trainer.run("behind")) == plain


def test_packing_is_another_order(trainer, corpus):
    """Packed documents are other sequences than the stream's, and learning goes on from them."""
    trainer.write()
    plain = losses(trainer.run("plain"))
    trainer.write(data={"train": corpus, "packing": "documents"}, valid_every=0)
    packed = losses(trainer.run("packed"))
    assert packed != plain and packed[-1] < packed[0] - 0.5


@pytest.mark.parametrize(
    "data, status, words",
    [
        ({"fim": {"rate": 0.1, "begin": 1, "hole": 2, "end": 3}}, 78, ["packing: documents"]),
        ({"packing": "documents", "fim": {"rate": 0.1, "begin": 1, "hole": 2, "end": 257}}, 78, ["257", "vocabulary"]),
        ({"packing": "documents", "fim": {"rate": 0.1}}, 78, ["begin"]),
        ({"packing": "documents", "fim": {"rate": 0.1, "begin": 1, "hole": 2, "end": 1}}, 78, ["1, 2 and 1", "three tokens"]),
        ({"packing": "pages"}, 78, ["stream", "documents"]),
        ({"train": []}, 78, ["no corpus"]),
        ({"train": [{"weight": 1}]}, 78, ["prefix"]),
        ({"train": [{"prefix": "x", "weight": 0}]}, 78, ["weight"]),
        ({"train": [{"prefix": "nowhere"}]}, 66, ["nowhere"]),
        ({"skip": [{"first": 5}]}, 78, ["count"]),
        ({"skip": 7}, 78, ["a list"]),
    ],
)
def test_refused(trainer, corpus, data, status, words):
    """What cannot be is refused before the first step, with what is allowed."""
    trainer.write(data={"train": corpus, **data}, valid_every=0)
    run = trainer.run("run", status=status)
    assert all(word in run.stderr for word in words), run.stderr
    assert not os.path.exists(f"{run.out}/metrics.jsonl") or not run.metrics()
