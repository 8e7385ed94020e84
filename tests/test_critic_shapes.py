"""Critics of every shape against their penalties written out by hand in autograd."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.critic_shapes import CASES, B, textbook
from tests.double_backward.oracle import error, gradients


def alpha_of(case):
    return torch.rand(B // case.pac, dtype=torch.float64)


def distances(theirs, critic):
    """How far losses are from ``theirs``, in value and in the gradient of every parameter."""
    expected = gradients(theirs, critic)

    def distance(ours):
        off = abs(ours - theirs).item() / max(abs(theirs).item(), 1.0)
        return max(off, error(gradients(ours, critic), expected))

    return distance


SMOOTH = [name for name in CASES if name != "piecewise_linear"]


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, backend) for name in CASES for backend in ("explicit", "in slices", "autograd")),
        *((name, "first_order") for name in SMOOTH),
    ],
)
def test_gradient_penalty(name, backend):
    case = CASES[name]()
    alpha = alpha_of(case)
    how = {"backend": backend}
    if backend == "in slices":
        how = {"backend": "explicit", "chunk_size": 3 * case.pac if case.pac < 4 else 4}
    ours = wgan_fast.gradient_penalty(
        case.critic, case.real, case.fake, alpha=alpha, **how, **case.options
    )
    tolerance = 1e-6 if backend == "first_order" else 1e-10
    assert distances(textbook(case, alpha)[0], case.critic)(ours) < tolerance


@pytest.mark.parametrize("at", ["mix", "real", "both"])
@pytest.mark.parametrize("name", CASES)
def test_critic_loss(name, at):
    case = CASES[name]()
    drawn = alpha_of(case)
    distance = distances(textbook(case, drawn, at)[1], case.critic)

    def ours(backend, **more):
        return wgan_fast.critic_loss(
            case.critic, case.real, case.fake, alpha=drawn if at == "mix" else None, at=at,
            weight=3.0, backend=backend, **case.options, **more,
        )  # fmt: skip

    assert distance(ours("explicit")) < 1e-10
    case.critic.batches.clear()
    assert distance(ours("auto")) < 1e-10
    parts = 3 if at == "mix" else 2
    twice = at != "mix" and name.startswith("multi_scale")
    # A scale's scores enter the loss and the penalty with other weights; their samples part.
    apart = [(4 if at == "both" else 3) * B] if twice else []
    assert case.critic.batches == [parts * B, *apart]
    chunk_size = 2 * case.pac
    assert distance(ours("explicit", chunk_size=chunk_size)) < 1e-10
    assert distance(ours("autograd")) < 1e-10


@pytest.mark.parametrize("name", ["packed_with_labels", "separate_under_masks_in_packs", "text"])
def test_gradient_norms(name):
    case = CASES[name]()
    real = case.real
    x = list(real.values()) if isinstance(real, dict) else [real]
    x = [tensor.clone().requires_grad_() for tensor in x]
    total = sum(scale.sum() for scale in case.score(x))
    gradients_of = torch.autograd.grad(total, x, create_graph=True)
    masks = case.masks or [torch.ones(())] * len(x)
    rows = [(g * m).reshape(B // case.pac, -1) for g, m in zip(gradients_of, masks, strict=True)]
    expected = torch.stack([row.norm(2, dim=1) for row in rows], 1)
    expected = expected if case.separate else expected.squeeze(1)
    ours = wgan_fast.gradient_norms(case.critic, real, **case.options)
    assert ours.shape == expected.shape
    weights = torch.randn_like(expected)
    distance = distances((weights * expected).sum(), case.critic)
    assert distance((weights * ours).sum()) < 1e-10


def test_statistics_and_reductions():
    case = CASES["separate_under_masks_in_packs"]()
    common = {"alpha": alpha_of(case), **case.options}
    arguments = case.critic, case.real, case.fake
    norms = wgan_fast.gradient_penalty(*arguments, return_stats=True, **common)[1].gradient_norms
    assert norms.shape == (B // 2, 2)
    each = wgan_fast.gradient_penalty(*arguments, reduction="none", **common)
    torch.testing.assert_close(each.detach(), ((norms - 1) ** 2).sum(1))
    total = wgan_fast.gradient_penalty(*arguments, reduction="sum", weight=2.0, **common)
    torch.testing.assert_close(total, 2 * each.sum())


def test_critic_loss_module():
    case = CASES["joint_dict_with_labels_masks_and_packs"]()
    alpha = alpha_of(case)
    loss = wgan_fast.CriticLoss(case.critic, weight=3.0, pac=2, inputs="joint")
    of_batch = {name: case.options[name] for name in ("cond", "mask")}
    distance = distances(textbook(case, alpha)[1], case.critic)
    assert distance(loss(case.real, case.fake, alpha, **of_batch)) < 1e-10

    case = CASES["dict_output"]()
    alpha = alpha_of(case)
    loss = wgan_fast.CriticLoss(case.critic, weight=3.0, select="score")
    assert (
        distances(textbook(case, alpha)[1], case.critic)(loss(case.real, case.fake, alpha)) < 1e-10
    )
    assert "select='score'" in repr(loss)


def test_pac_is_ctgans():
    """calc_gradient_penalty as ctgan 0.12 has it, from the same seed, dropout included."""
    pac, width = 4, 5
    critic = nn.Sequential(
        nn.Unflatten(0, (-1, pac)), nn.Flatten(), nn.Linear(pac * width, 9), nn.LeakyReLU(0.2),
        nn.Dropout(0.5), nn.Linear(9, 1),
    ).double()  # fmt: skip
    real, fake = torch.randn(2, B, width, dtype=torch.float64)
    torch.manual_seed(5)
    alpha = torch.rand(B // pac, 1, 1, dtype=torch.float64)
    alpha = alpha.repeat(1, pac, width).view(-1, width)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    scores = critic(interpolates)
    (found,) = torch.autograd.grad(scores, interpolates, torch.ones_like(scores), create_graph=True)
    expected = ((found.view(-1, pac * width).norm(2, dim=1) - 1) ** 2).mean() * 10
    distance = distances(expected, critic)
    for backend in ("explicit", "autograd"):
        torch.manual_seed(5)
        ours = wgan_fast.gradient_penalty(
            critic, real, fake, "cpu", weight=10, pac=pac, backend=backend
        )
        assert distance(ours) < 1e-10


@pytest.mark.parametrize("name", ["embedded", "packed_with_labels", "multi_scale", "separate"])
def test_penalties_of_the_family(name):
    case = CASES[name]()
    distance = distances(textbook(case, alpha_of(case), "real", 5.0, 0.0)[1], case.critic)
    for backend in ("explicit", "autograd"):
        ours = wgan_fast.critic_loss(
            case.critic, case.real, case.fake, penalty="r1", backend=backend, **case.options
        )
        assert distance(ours) < 1e-10
    for penalty in ("max", "dragan", "banach-1", "div"):
        found = []
        for backend in ("explicit", "autograd"):
            torch.manual_seed(3)
            found.append(
                wgan_fast.critic_loss(
                    case.critic, case.real, case.fake, penalty=penalty, backend=backend,
                    **case.options,
                )
            )  # fmt: skip
        assert distances(found[1], case.critic)(found[0]) < 1e-10


@pytest.mark.parametrize("name", ["embedded", "packed_with_labels", "multi_scale"])
def test_lazy_penalty(name):
    case = CASES[name]()
    options = dict(case.options)
    of_batch = {key: options.pop(key) for key in ("cond",) if key in options}
    loss = wgan_fast.CriticLoss(case.critic, every=2, weight=3.0, **options)
    alpha = alpha_of(case)
    arguments = case.real, case.fake, alpha
    first = distances(textbook(case, alpha, weight=6.0)[1], case.critic)
    assert first(loss(*arguments, **of_batch)) < 1e-10
    second = distances(textbook(case, alpha, weight=0.0)[1], case.critic)
    assert second(loss(*arguments, **of_batch)) < 1e-10


# Those whose options are more than a mask and a penalty for each tensor.
GENERATED = [name for name in CASES if {"mask", "inputs"}.isdisjoint(CASES[name]().options)]


@pytest.mark.parametrize("name", GENERATED)
def test_generator_loss(name):
    """−Σ over the scales of E f(fake), with gradients in the fakes and in the critic."""
    case = CASES[name]()
    single, named = isinstance(case.fake, torch.Tensor), isinstance(case.fake, dict)
    values = [case.fake] if single else list(case.fake.values() if named else case.fake)
    leaves = [value.clone().requires_grad_() for value in values]
    made = [2 * leaf for leaf in leaves]  # a generator's graph
    fake = made[0] if single else dict(zip(case.fake, made, strict=True)) if named else tuple(made)
    ours = wgan_fast.generator_loss(case.critic, fake, **case.options)
    expected = -sum(scale.mean() for scale in case.score(made))
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    every = [*leaves, *case.critic.parameters()]
    found, wanted = (
        torch.autograd.grad(
            loss, every, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for loss in (ours, expected)
    )
    assert all(gradient.abs().max() > 0 for gradient in found[: len(leaves)])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_generator_loss_differentiates_its_conditions():
    table, critic = nn.Embedding(3, 4).double(), nn.Linear(8, 1).double()
    fake = torch.randn(B, 4, dtype=torch.float64)
    rows = table(torch.randint(3, (B,)))
    ours = wgan_fast.generator_loss(lambda x, y: critic(torch.cat([x, y], 1)), fake, cond=rows)
    (found,) = torch.autograd.grad(ours, rows)
    torch.testing.assert_close(found, -critic.weight[:, 4:].expand(B, 4).detach() / B)


def test_generator_loss_checks_its_arguments():
    critic, fake = nn.Linear(3, 1), torch.randn(4, 3)
    for message, samples, options in (
        (r"cond: expected a row per sample, first size 4", fake, {"cond": torch.ones(3)}),
        (r"pac: expected a divisor of the batch's 4", fake, {"pac": 3}),
        (r"select: expected an index or a key", fake, {"select": "score"}),
        (r"fake\[1\]: expected as many samples as in fake\[0\], 4", (fake, fake[:2]), {}),
        (r"fake: expected rank ≥ 2", fake[0], {}),
    ):
        with pytest.raises(ValueError, match=message):
            wgan_fast.generator_loss(critic, samples, **options)
