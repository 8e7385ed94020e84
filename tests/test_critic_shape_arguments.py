"""Bad ``cond``, ``cond_kwargs``, ``select``, ``pac``, ``mask`` and ``inputs``: what the errors say."""

import pytest
import torch
from torch import nn

import wgan_fast

REAL, FAKE = torch.randn(2, 4, 3)
CRITIC = nn.Linear(3, 1)
PAIR, OTHER_PAIR = (REAL, torch.randn(4, 2)), (FAKE, torch.randn(4, 2))


def two(x):
    return x, CRITIC(x)


def named(x):
    return {"features": x, "score": CRITIC(x)}


# ruff: noqa: E501
BAD = {
    "cond is no tensor": (TypeError, r"cond: expected a tensor with a row per sample.*got 3 \(int\).*cond_kwargs", {"cond": 3}),
    "cond is one of two": (TypeError, r"cond: expected a tensor.*'seven'", {"cond": (torch.ones(4), "seven")}),
    "cond's rows": (ValueError, r"cond: expected a row per sample, first size 4, got .*\(3,\)", {"cond": torch.ones(3)}),
    "a number's tensor": (ValueError, r"cond: expected a row per sample", {"cond": torch.ones(())}),
    "cond's device": (ValueError, r"cond: expected the device of the samples, cpu, got meta", {"cond": torch.ones(4, device="meta")}),
    "named device": (ValueError, r"y: expected the device of the samples, cpu, got meta", {"cond_kwargs": {"y": torch.ones(4, device="meta")}}),
    "cond_kwargs": (TypeError, r"cond_kwargs: expected a dict.*tensor", {"cond_kwargs": torch.ones(4)}),
    "no such index": (ValueError, r"select: expected an index or a key.*tuple of 2, got 2", {"critic": two, "select": 2}),
    "no such key": (ValueError, r"select: .*keys \['features', 'score'\], got 'scores'", {"critic": named, "select": "scores"}),
    "a key of a tuple": (ValueError, r"select: .*got 'score'", {"critic": two, "select": "score"}),
    "nothing selected": (ValueError, r"select: expected the scores of at least one scale", {"critic": two, "select": lambda out: ()}),
    "selected features": (TypeError, r"critic: expected it to return a tensor.*dict", {"critic": lambda x: (named(x), 0), "select": lambda out: list(out)}),
    "selected wrong size": (ValueError, r"critic: expected one score per sample, first size 4", {"critic": lambda x: (x.flatten(), 0), "select": 0}),
    "one scale's wrong size": (ValueError, r"critic: expected one score per sample, first size 4", {"critic": lambda x: [CRITIC(x), x.flatten()], "select": list}),
    "no select": (TypeError, r"critic: expected it to return a tensor of scores, got a tuple.*select=", {"critic": two}),
    "pac": (ValueError, r"pac: expected a divisor of the batch's 4 samples, got 3", {"pac": 3}),
    "no pac": (ValueError, r"pac: expected a divisor.*got 0", {"pac": 0}),
    "pac's type": (TypeError, r"pac: expected how many samples a pack has, got 2.0", {"pac": 2.0}),
    "a score per sample": (ValueError, r"critic: expected one score per sample, first size 2, got.*\(4, 1\)", {"pac": 2}),
    "alpha per sample": (ValueError, r"alpha: .*\(2,\)", {"pac": 2, "alpha": torch.rand(4)}),
    "half a pack": (ValueError, r"chunk_size: expected whole packs, a multiple of pac=2, got 3", {"pac": 2, "chunk_size": 3}),
    "mask is no tensor": (TypeError, r"mask: expected a tensor of numbers or bools, got True", {"mask": True}),
    "complex mask": (TypeError, r"mask: expected a tensor of numbers", {"mask": torch.ones(3) * 1j}),
    "mask's shape": (ValueError, r"mask: expected one that broadcasts to the samples' shape, \(4, 3\), got .*\(2, 3\)", {"mask": torch.ones(2, 3)}),
    "mask's device": (ValueError, r"mask: expected the device of the samples, cpu, got meta", {"mask": torch.ones(3, device="meta")}),
    "one mask for two": (ValueError, r"mask: expected the structure of the samples", {"real": PAIR, "fake": OTHER_PAIR, "mask": torch.ones(3)}),
    "inputs": (ValueError, r"inputs: expected one of 'joint', 'separate', got 'apart'", {"inputs": "apart"}),
    "one tensor": (ValueError, r"inputs: expected samples of several tensors", {"inputs": "separate"}),
    "none at all": (ValueError, r"real: expected at least one tensor, got a tuple of 0", {"real": (), "fake": ()}),
    "rows": (ValueError, r"real\[1\]: expected as many samples as in real\[0\], 4, got", {"real": (REAL, FAKE[:2]), "fake": PAIR}),
    "dtypes": (TypeError, r"real\['b'\]: expected the dtype of real\['a'\], .*32, got .*64; the norm", {"real": {"a": REAL, "b": FAKE.double()}, "fake": PAIR}),
    "devices": (ValueError, r"real\[1\]: expected the device of real\[0\], cpu, got meta", {"real": (REAL, FAKE.to("meta")), "fake": PAIR}),
    "rank": (ValueError, r"real\[1\]: expected rank ≥ 2", {"real": (REAL, torch.ones(4)), "fake": PAIR}),
    "structure": (TypeError, r"fake: expected the structure of real, a tuple of 2, .*got a .*tensor", {"real": PAIR, "fake": FAKE}),
    "a pair's shape": (ValueError, r"fake\[1\]: expected the shape of real, \(4, 2\), got \(4, 3\)", {"real": PAIR, "fake": (FAKE, FAKE)}),
    "several fakes alone": (TypeError, r"fake: expected a tensor of shape.*tuple", {"fake": OTHER_PAIR}),
}  # fmt: skip


def call(function, given):
    arguments = {"critic": CRITIC, "real": REAL, "fake": FAKE, **given}
    return function(**arguments)


@pytest.mark.parametrize("function", [wgan_fast.gradient_penalty, wgan_fast.critic_loss])
@pytest.mark.parametrize(("kind", "message", "given"), BAD.values(), ids=BAD)
def test_errors(kind, message, given, function):
    with pytest.raises(kind, match=message):
        call(function, given)


def test_gradient_norms_check_too():
    with pytest.raises(ValueError, match=r"x\[1\]: expected as many samples as in x\[0\]"):
        wgan_fast.gradient_norms(CRITIC, (REAL, FAKE[:2]))
    with pytest.raises(ValueError, match=r"x: expected rank"):
        wgan_fast.gradient_norms(CRITIC, REAL[:, 0], pac=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cond": REAL[:2]}, "cond: expected a row per sample, first size 4"),
        ({"cond_kwargs": 3}, "cond_kwargs: expected a dict"),
        ({"select": "score"}, "select: expected an index or a key"),
        ({"pac": 3}, "pac: expected a divisor of the batch's 4 samples"),
        ({"mask": torch.ones(4, 2)}, "mask: expected one that broadcasts"),
        ({"inputs": "separate"}, "inputs: expected samples of several tensors"),
    ],
)
def test_frozen_steps(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        wgan_fast.freeze(CRITIC, REAL, **options)


def test_what_the_loop_does_not_offer():
    generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
    optimizers = (torch.optim.SGD(module.parameters(), 0.1) for module in (generator, critic))
    loop = wgan_fast.CriticLoop(generator, critic, *optimizers, latent_shape=2, n_critic=2)
    for name in ("cond_kwargs", "inputs"):
        with pytest.raises(TypeError, match=name):
            loop(torch.randn(2, 4, 3), **{name: None})
