"""The examples of docs/critics.md, run line by line, each on a critic of its kind."""

import ast
import math
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import wgan_fast
from tests.harness import ROOT

B = 20
GRAPHS = "In graphs, in loops, from the command line"
PAGE = (ROOT / "docs" / "critics.md").read_text()


def samples(*shape):
    return torch.randn(2, B, *shape)


def flat(*tensors):
    """A smooth score of tensors ``(B, ...)``; its one parameter is ``WEIGHT``."""
    return sum(WEIGHT * x.flatten(1).tanh().sum(1) for x in tensors)


def labelled(x, *conditions, y=None, scale=1):
    given = conditions if y is None else (y,)
    return scale * flat(x) * sum(1 + one.reshape(len(x), -1).sum(1) for one in given)


WEIGHT = torch.tensor(0.3, requires_grad=True)
PATCHES = nn.Conv2d(3, 1, 3)
IMAGE, FAKE_IMAGE = samples(3, 8, 8)
TABLE, FAKE_TABLE = samples(5)
IMAGES = {"real": IMAGE, "fake": FAKE_IMAGE, "device": "cpu"}
PAIRS = {"image": IMAGE, "table": TABLE, "fake_image": FAKE_IMAGE, "fake_table": FAKE_TABLE}

# By section: what the names of its lines stand for, and the critic of each line.
SECTIONS = {
    "The published functions": (IMAGES, [flat] * 3),
    "Packs": (
        {"real_cat": TABLE, "fake_cat": FAKE_TABLE, "device": "cpu",
         "discriminator": lambda x: flat(x.view(-1, 50))},
        [None] * 2,
    ),
    "Labels and attributes": (
        IMAGES | {"labels": torch.randint(4, (B,)), "attributes": torch.rand(B, 3)}, [labelled] * 3,
    ),
    "Outputs of several parts": (
        IMAGES,
        [lambda x: (flat(x), x), lambda x: {"score": flat(x)},
         lambda x: SimpleNamespace(logits=flat(x), bias=0.5 * flat(x))],
    ),
    "Patches and scales": (
        IMAGES | {"patch_critic": PATCHES},
        [None, lambda x: [PATCHES(x), flat(x)], lambda x: [[x, PATCHES(x)], [x, flat(x)]]],
    ),
    "Several tensors": (
        PAIRS | {"reals": {"image": IMAGE, "table": TABLE},
                 "fakes": {"image": FAKE_IMAGE, "table": FAKE_TABLE}},
        [lambda x: flat(*x), lambda x: flat(x["image"], x["table"]), flat],
    ),
    "Any rank": (
        {"signals": IMAGE[..., 0], "fake_signals": FAKE_IMAGE[..., 0],
         "one_hot": nn.functional.one_hot(torch.randint(6, (B, 7)), 6).float(),
         "generator_probabilities": torch.rand(B, 7, 6).softmax(2),
         "volumes": IMAGE[..., None], "fake_volumes": FAKE_IMAGE[..., None]},
        [flat] * 3,
    ),
    "Masks": (
        PAIRS | {"real": IMAGE, "completed": FAKE_IMAGE, "fakes": (FAKE_IMAGE, FAKE_TABLE),
                 "hole": torch.rand(B, 1, 8, 8) > 0.5, "frame": torch.ones(1, 1, 8, 8)},
        [flat, flat, lambda x: flat(*x)],
    ),
}  # fmt: skip


def lines(title):
    block = re.search(rf"^## {title}\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    return [ast.unparse(statement) for statement in ast.parse(block.group(1)).body]


@pytest.mark.parametrize("title", SECTIONS)
def test_lines(title):
    names, critics = SECTIONS[title]
    for line, critic in zip(lines(title), critics, strict=True):
        scope = {"G": wgan_fast.gradient_penalty, "L": wgan_fast.critic_loss, "torch": torch}
        scope |= {"critic": critic, **names}
        exec(line, scope)
        result = scope["loss" if line.startswith("loss") else "penalty"]
        assert result.requires_grad, line
        assert result.isfinite(), line


def test_from_an_output():
    scope = {"wgan_fast": wgan_fast, "real": IMAGE.clone(), "critic": flat}
    exec("\n".join(lines("From an output")), scope)
    expected = wgan_fast.critic_loss(flat, IMAGE, IMAGE, at="real", target=0.0, weight=5.0)
    torch.testing.assert_close(scope["penalty"], expected)


class Labelled(nn.Module):
    """A generator, or a critic, of one linear layer on its input and its label."""

    def __init__(self, width, *shape):
        super().__init__()
        self.layer, self.shape = nn.Linear(width + 4, math.prod(shape)), shape

    def forward(self, x, labels):
        given = torch.cat([x.flatten(1), nn.functional.one_hot(labels, 4).float()], 1)
        return self.layer(given).tanh().view(-1, *self.shape)


def test_graphs_and_loops():
    generator, critic = Labelled(128, 3, 8, 8), Labelled(192, 1)
    scope = IMAGES | {
        "wgan_fast": wgan_fast, "critic": critic, "generator": generator,
        "optimizers": [torch.optim.SGD(m.parameters(), 0.1) for m in (generator, critic)],
        "labels": torch.randint(4, (B,)), "labels_of_reals": torch.randint(4, (2, B)),
        "reals": torch.randn(2, B, 3, 8, 8), "holes": torch.rand(2, B, 1, 8, 8) > 0.5,
    }  # fmt: skip
    exec("\n".join(lines(GRAPHS)), scope)
    assert scope["loss"].requires_grad
    assert scope["stats"].generator_loss.isfinite()


def test_every_example_is_there():
    for name in re.findall(r"\(\.\./(examples/\w+\.py)\)", PAGE):
        assert (ROOT / name).exists(), name


def test_every_section_is_run():
    with_code = {
        title
        for title, text in re.findall(
            r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE
        )
        if "```python" in text
    }
    assert with_code == {*SECTIONS, "From an output", GRAPHS}
