"""``gradient_penalty_from_output`` against autograd by hand, and its errors."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.critic_shapes import CASES, B
from tests.double_backward.oracle import error, gradients


def forward(case):
    """The samples as leaves, and the scores of one call."""
    real = case.real
    if isinstance(real, torch.Tensor):
        x = real.clone().requires_grad_()
        leaves = [x]
    elif isinstance(real, dict):
        x = {name: tensor.clone().requires_grad_() for name, tensor in real.items()}
        leaves = list(x.values())
    else:
        x = tuple(tensor.clone().requires_grad_() for tensor in real)
        leaves = list(x)
    (scores,) = case.score(leaves)
    return x, leaves, scores


@pytest.mark.parametrize(
    "name",
    ["embedded", "packed", "masked", "joint", "joint_dict_with_labels_masks_and_packs", "patch"],
)
def test_value_and_gradients(name):
    case = CASES[name]()
    _, leaves, scores = forward(case)
    found = torch.autograd.grad(scores.sum(), leaves, create_graph=True)
    masks = case.masks or [1.0] * len(leaves)
    rows = [(g * m).reshape(B // case.pac, -1) for g, m in zip(found, masks, strict=True)]
    each = (torch.cat(rows, 1).norm(2, dim=1) - 0.5).clamp(min=0) ** 2
    expected = gradients(2 * each.mean() + scores.sum(), case.critic)

    options = {key: case.options[key] for key in ("pac", "mask") if key in case.options}
    options |= {"target": 0.5, "sided": "one"}
    x, _, again = forward(case)
    ours, stats = wgan_fast.gradient_penalty_from_output(
        x, again, weight=2.0, return_stats=True, **options
    )
    mean = each.mean().detach()
    torch.testing.assert_close(ours.detach(), 2 * mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stats.penalty, mean)
    assert stats.gradient_norms.shape == each.shape
    # The scores' own graph is still there.
    assert error(gradients(ours + again.sum(), case.critic), expected) < 1e-10


def test_reductions():
    critic = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1)).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    each = wgan_fast.gradient_penalty_from_output(x, critic(x), reduction="none")
    total = wgan_fast.gradient_penalty_from_output(x, critic(x), reduction="sum")
    assert each.shape == (5,)
    torch.testing.assert_close(each.sum(), total)
    scores = critic(x)
    with torch.no_grad():
        value = wgan_fast.gradient_penalty_from_output(x, scores, reduction="sum")
    assert not value.requires_grad
    torch.testing.assert_close(value, total.detach())


@pytest.mark.parametrize("penalty", ["lp", "div", "max", "banach-1", "banach-inf"])
def test_penalties_of_the_family(penalty):
    critic = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1)).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    expected = wgan_fast.gradient_penalty(critic, x, x, penalty=penalty)
    ours = wgan_fast.gradient_penalty_from_output(x, critic(x), penalty=penalty)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    assert error(gradients(ours, critic), gradients(expected, critic)) < 1e-10


def test_r1_on_the_scores_of_the_loss():
    critic = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1)).double()
    real, fake = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = wgan_fast.critic_loss(critic, real, fake, at="real", target=0.0, weight=5.0)
    x = real.clone().requires_grad_()
    real_scores = critic(x)
    penalty = wgan_fast.gradient_penalty_from_output(x, real_scores, target=0.0, weight=5.0)
    loss = critic(fake).mean() - real_scores.mean() + penalty
    torch.testing.assert_close(loss, expected)
    assert error(gradients(loss, critic), gradients(expected, critic)) < 1e-10


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_weight_may_be_a_tensor(reduction, dtype):
    critic = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1))
    x = torch.randn(5, 3, requires_grad=True)
    expected = 2.5 * wgan_fast.gradient_penalty_from_output(x, critic(x), reduction=reduction)
    weight = torch.tensor(2.5, dtype=dtype, requires_grad=True)
    ours = wgan_fast.gradient_penalty_from_output(x, critic(x), weight=weight, reduction=reduction)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected)
    assert error(gradients(ours.sum(), critic), gradients(expected.sum(), critic)) < 1e-5
    again = wgan_fast.gradient_penalty(critic, x, x, weight=weight, reduction=reduction)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, expected)


# ruff: noqa: E501
CRITIC = nn.Linear(3, 1)
LEAF = torch.randn(4, 3, requires_grad=True)
OTHER = torch.randn(4, 3, requires_grad=True)
BAD = {
    "no gradient": (ValueError, r"inputs: expected a tensor that requires.*inputs.requires_grad_\(\)", (LEAF.detach(), CRITIC(LEAF)), {}),
    "one of several": (ValueError, r"inputs\[1\]: expected a tensor that requires", ((LEAF, OTHER.detach()), CRITIC(LEAF)), {}),
    "no graph": (ValueError, r"output: .*no_grad, or its scores were detached", (LEAF, CRITIC(LEAF).detach()), {}),
    "another tensor": (ValueError, r"output: expected scores that depend on inputs, .*very tensor", (OTHER, CRITIC(LEAF)), {}),
    "one unused": (ValueError, r"output: expected scores that depend on inputs\['b'\]", ({"a": LEAF, "b": OTHER}, CRITIC(LEAF)), {}),
    "mean": (ValueError, r"output: .*first size 4.*not their mean", (LEAF, CRITIC(LEAF).mean()), {}),
    "no scores": (TypeError, r"output: expected a floating point tensor, got a list", (LEAF, [CRITIC(LEAF)]), {}),
    "inputs": (TypeError, r"inputs: expected a tensor of shape", (3, CRITIC(LEAF)), {}),
    "inputs' dtypes": (TypeError, r"inputs\[1\]: expected the dtype of inputs\[0\]", ((LEAF, OTHER.double()), CRITIC(LEAF)), {}),
    "pac": (ValueError, r"pac: expected a divisor of the batch's 4", (LEAF, CRITIC(LEAF)), {"pac": 3}),
    "packs": (ValueError, r"output: .*first size 2", (LEAF, CRITIC(LEAF)), {"pac": 2}),
    "mask": (ValueError, r"mask: expected one that broadcasts", (LEAF, CRITIC(LEAF)), {"mask": torch.ones(5)}),
    "sided": (ValueError, r"sided: expected one of", (LEAF, CRITIC(LEAF)), {"sided": "both"}),
    "reduction": (ValueError, r"reduction: expected one of", (LEAF, CRITIC(LEAF)), {"reduction": "max"}),
    "weight": (ValueError, r"weight: expected a finite number", (LEAF, CRITIC(LEAF)), {"weight": -1}),
    "no weight": (TypeError, r"weight: expected a number or a 0-dim floating tensor, got None; .*weight=penalty.weight", (LEAF, CRITIC(LEAF)), {"weight": None}),
    "weights": (TypeError, r"weight: expected a number or a 0-dim floating tensor, got a .* shape \(4,\)", (LEAF, CRITIC(LEAF)), {"weight": torch.ones(4)}),
    "penalty and target": (ValueError, r"penalty, target: expected one of them", (LEAF, CRITIC(LEAF)), {"penalty": "gp", "target": 0.0}),
    "a maximum's sum": (ValueError, r'reduction: expected "mean" with a penalty that is the maximum over the batch, got .sum.', (LEAF, CRITIC(LEAF)), {"penalty": "max", "reduction": "sum"}),
    "target": (TypeError, r"target: expected a number", (LEAF, CRITIC(LEAF)), {"target": "1"}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "arguments", "options"), BAD.values(), ids=BAD)
def test_errors(kind, message, arguments, options):
    with pytest.raises(kind, match=message):
        wgan_fast.gradient_penalty_from_output(*arguments, **options)
