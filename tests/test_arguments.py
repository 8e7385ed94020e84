"""Bad input: each error names the argument, what came and what was expected."""

import pytest
import torch
from torch import nn

import wgan_fast

REAL, FAKE = torch.randn(2, 4, 3)
CRITIC = nn.Linear(3, 1)


def penalty(critic=CRITIC, real=REAL, fake=FAKE, *positional, **options):
    return wgan_fast.gradient_penalty(critic, real, fake, *positional, **options)


class Detached(nn.Module):
    def forward(self, x):
        return CRITIC(x.detach())


# ruff: noqa: E501
BAD = {
    "rank 1": (ValueError, r"real: expected rank ≥ 2.*shape \(4,\)", {"real": torch.randn(4)}),
    "empty": (ValueError, r"real: expected at least one sample", {"real": torch.randn(0, 3)}),
    "integers": (TypeError, r"real: expected a floating point.*int64", {"real": torch.ones(4, 3).long()}),
    "complex": (TypeError, r"real: .*complex64", {"real": torch.randn(4, 3) * 1j}),
    "no tensor": (TypeError, r"fake: expected a tensor.*list", {"fake": [[1.0]]}),
    "shape": (ValueError, r"fake: expected the shape of real, \(4, 3\), got \(2, 3\)", {"fake": FAKE[:2]}),
    "dtype": (TypeError, r"fake: expected the dtype of real, .*32, got .*64", {"fake": FAKE.double()}),
    "device": (ValueError, r"fake: expected the device of real, cpu, got meta", {"fake": FAKE.to("meta")}),
    "critic called": (TypeError, r"critic: expected a callable", {"critic": CRITIC(REAL)}),
    "alpha an element each": (ValueError, r"alpha: .*per sample.*\(4, 3\)", {"alpha": torch.rand(4, 3)}),
    "alpha a batch": (ValueError, r"alpha: .*one per batch", {"alpha": torch.rand(())}),
    "alpha number": (TypeError, r"alpha: expected a floating point tensor, got 0.5", {"alpha": 0.5}),
    "alpha device": (ValueError, r"alpha: expected the device", {"alpha": torch.rand(4, device="meta")}),
    "alpha and generator": (
        ValueError,
        r"generator: .*alpha was given",
        {"alpha": torch.rand(4), "generator": torch.Generator()},
    ),
    "generator": (TypeError, r"generator: expected a torch.Generator.*nn|Linear", {"generator": CRITIC}),
    "weight": (ValueError, r"weight: expected a finite number ≥ 0, got -1.0", {"weight": -1}),
    "weight tensor": (TypeError, r"weight: expected a number", {"weight": torch.ones(3)}),
    "target": (ValueError, r"target: .*nan", {"target": float("nan")}),
    "sided": (ValueError, r"sided: expected one of 'two', 'one', got 'both'", {"sided": "both"}),
    "reduction": (ValueError, r"reduction: expected one of", {"reduction": "max"}),
    "backend": (ValueError, r"backend: expected one of 'auto', 'explicit', 'autograd', 'first_order', got 'magic'", {"backend": "magic"}),
    "ignores input": (
        ValueError,
        r"critic: expected a score that depends on the critic's input",
        {"critic": lambda x: CRITIC(torch.ones(4, 3))},
    ),
    "detaches": (ValueError, r"critic: .*depends.*detach\(\)", {"critic": Detached()}),
    "no graph at all": (ValueError, r"critic: .*depends", {"critic": lambda x: torch.ones(4, 1)}),
    "integer score": (TypeError, r"critic: expected floating point scores.*int64", {"critic": lambda x: x.long()}),
    "tuple": (TypeError, r"critic: .*tensor of scores.*tuple", {"critic": lambda x: (CRITIC(x), x)}),
    "mean score": (ValueError, r"critic: .*one score per sample.*mean", {"critic": lambda x: CRITIC(x).mean()}),
    "wrong batch": (ValueError, r"critic: .*first size 4.*\(12,\)", {"critic": lambda x: x.flatten()}),
}  # fmt: skip


@pytest.mark.parametrize(("error", "message", "given"), BAD.values(), ids=BAD)
def test_gradient_penalty(error, message, given):
    with pytest.raises(error, match=message):
        penalty(**given)


SHARED = [name for name, (_, _, given) in BAD.items() if "reduction" not in given]


@pytest.mark.parametrize("name", SHARED)
def test_critic_loss(name):
    error, message, given = BAD[name]
    arguments = {"critic": CRITIC, "real": REAL, "fake": FAKE, **given}
    with pytest.raises(error, match=message):
        wgan_fast.critic_loss(**arguments)


def test_a_tensor_in_the_place_of_device():
    with pytest.raises(TypeError, match=r"device: .*got a torch.float32 tensor.*alpha=.*lambda"):
        penalty(CRITIC, REAL, FAKE, torch.rand(4, 1))


@pytest.mark.parametrize(
    ("device", "error"), [("meta", ValueError), ("gpu7", TypeError), (3.5, TypeError)]
)
def test_device(device, error):
    with pytest.raises(error, match="device: expected"):
        penalty(CRITIC, REAL, FAKE, device)


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu"), torch.device("cpu", 0)])
def test_devices_that_are_right(device):
    assert penalty(CRITIC, REAL, FAKE, device).requires_grad


@pytest.mark.parametrize(
    ("clip_value", "error"), [(0, ValueError), (-0.01, ValueError), (float("inf"), ValueError),
                              (float("nan"), ValueError), ("0.01", TypeError), (None, TypeError)]
)  # fmt: skip
def test_clip_value(clip_value, error):
    before = CRITIC.weight.detach().clone()
    with pytest.raises(error, match="clip_value: expected"):
        wgan_fast.clip_weights_(CRITIC, clip_value)
    assert torch.equal(CRITIC.weight, before)


@pytest.mark.parametrize("given", [3, [torch.ones(2).long()], [CRITIC], None])
def test_what_to_clip(given):
    with pytest.raises(TypeError, match="module_or_parameters: expected"):
        wgan_fast.clip_weights_(given, 0.1)


def test_other_functions_check_too():
    with pytest.raises(ValueError, match=r"x: expected rank ≥ 2"):
        wgan_fast.gradient_norms(CRITIC, torch.randn(3))
    with pytest.raises(TypeError, match="critic: expected a callable"):
        wgan_fast.gradient_norms(None, REAL)
    with pytest.raises(ValueError, match=r"critic: .*depends"):
        wgan_fast.gradient_norms(Detached(), REAL)
    with pytest.raises(ValueError, match="fake: expected at least one"):
        wgan_fast.generator_loss(CRITIC, FAKE[:0])
    with pytest.raises(TypeError, match=r"weight: expected a number .*, got None; .*not applied"):
        wgan_fast.gradient_penalty(CRITIC, REAL, FAKE, penalty="r1", weight=None)
    with pytest.raises(ValueError, match="alpha: expected one number per sample"):
        wgan_fast.interpolate(REAL, FAKE, torch.rand(3))
    with pytest.raises(ValueError, match="drift: expected a finite number"):
        wgan_fast.critic_loss(CRITIC, REAL, FAKE, drift=-0.1)
