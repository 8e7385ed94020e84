"""``explain`` on critics whose answer is known by hand, and against what the calls really do."""

import functools

import pytest
import torch
from torch import nn

import wgan_fast
from bench.harness.allocator import allocator_peak_bytes
from bench.harness.flops import count_flops
from tests.double_backward.critics import CRITICS, Apply
from tests.double_backward.test_independence import SEEING
from wgan_fast import Explanation
from wgan_fast.explanation import RecordedOp, Route

WIDTH = 6
CALLS = {
    "gradient_penalty": wgan_fast.gradient_penalty,
    "critic_loss": wgan_fast.critic_loss,
    "r1": functools.partial(wgan_fast.critic_loss, at="real", target=0.0),
    "r1_and_r2": functools.partial(wgan_fast.critic_loss, at="both", target=0.0),
}


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, incoming):
        return 2 * incoming * ctx.saved_tensors[0]


class Once(Square):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, incoming):
        return 2 * incoming * ctx.saved_tensors[0]


def mlp(activation=nn.ReLU):
    return nn.Sequential(nn.Linear(WIDTH, 8), activation(), nn.Linear(8, 1))


def batch():
    return torch.randn(5, WIDTH)


def routes(explained):
    return {call: getattr(explained, call) for call in CALLS}


def costs(explained):
    return [route.cost for route in routes(explained).values()]


def test_a_piecewise_linear_critic():
    explained = wgan_fast.explain(mlp(), batch())
    assert explained.critic == "Sequential"
    assert explained.batch == "torch.float32 tensor of shape (5, 6) on cpu"
    assert explained.ops == (
        RecordedOp("aten.linear.default", "bilinear", 2, False, False),
        RecordedOp("aten.relu.default", "piecewise linear", 1, False, False),
    )
    assert {(route.backend, route.reason) for route in routes(explained).values()} == {
        ("explicit", None)
    }
    assert costs(explained) == [4, 10, 7, 8]
    assert [route.autograd_cost for route in routes(explained).values()] == [6, 12, 9, 12]
    assert (explained.merged, explained.unmerged_reason) == (True, None)
    assert explained.curved is False
    assert explained.warnings == ()


def test_a_curved_critic():
    explained = wgan_fast.explain(mlp(nn.Tanh), batch())
    assert explained.ops[1] == RecordedOp("aten.tanh.default", "smooth elementwise", 1, True, False)
    assert explained.curved is True
    assert costs(explained) == [6, 12, 9, 12]


@pytest.mark.parametrize(
    ("score", "op", "curved"),
    [
        (lambda net, x: net(x.tanh()), "aten.tanh.default", True),  # no parameter comes before
        (lambda net, x: net(x) / 2, "aten.div.Tensor", False),  # though a quotient may be curved
    ],
)
def test_curvature_that_costs_nothing(score, op, curved):
    net = mlp()
    explained = wgan_fast.explain(lambda x: score(net, x), batch())
    assert {one.op: one.curved for one in explained.ops}[op] is curved
    assert explained.curved is False
    assert costs(explained) == [4, 10, 7, 8]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("backend", ["auto", "autograd"])
def test_costs_are_what_is_computed(activation, backend):
    # Deep, so that the first layer, whose input's gradient is left out at times, counts little.
    layers = [part for _ in range(20) for part in (nn.Linear(64, 64), activation())]
    critic = nn.Sequential(*layers)
    samples = torch.randn(2, 8, 64)
    explained = wgan_fast.explain(critic, samples[0])
    one = count_flops(lambda: critic(samples[0]))
    for call, route in routes(explained).items():

        def step(call=call):
            CALLS[call](critic, *samples, backend=backend).backward()

        step()
        expected = route.cost if backend == "auto" else route.autograd_cost
        assert count_flops(step) / one == pytest.approx(expected, abs=0.2), call


def test_peak_memory_is_the_allocators():
    # A count that shares nothing with explain's.
    critic = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 1))
    real, fake = torch.randn(2, 256, 64)
    explained = wgan_fast.explain(critic, real)

    def peak(call, backend):
        def step():
            CALLS[call](critic, real, fake, backend=backend).backward()
            critic.zero_grad()

        step()
        return allocator_peak_bytes(step)

    for call, route in routes(explained).items():
        # ... and a few numbers are made out of operators' sight.
        assert 0 <= peak(call, "autograd") - route.autograd_peak_bytes <= 64, call
        # The engine keeps the random number generator's state, of which no operator tells.
        assert 0 <= peak(call, "auto") - route.peak_bytes <= 4 * 5056, call
    assert explained.r1.peak_bytes != explained.r1.autograd_peak_bytes


def test_batch_norm():
    critic = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    explained = wgan_fast.explain(critic, batch())
    reason = "aten.native_batch_norm.default mixes the samples of a batch"
    assert (explained.merged, explained.unmerged_reason) == (False, reason)
    assert costs(explained) == [6, 12, 9, 12]
    assert [route.backend for route in routes(explained).values()] == [
        "explicit", "explicit", "autograd", "autograd",
    ]  # fmt: skip
    assert explained.r1.reason == explained.r1_and_r2.reason == reason
    first, second = explained.warnings
    assert first.startswith("BatchNorm in training mode")
    assert second.startswith("samples see each other")
    assert f"one batch: no, {reason}" in str(explained)

    critic.eval()
    explained = wgan_fast.explain(critic, batch())
    assert explained.merged
    assert explained.warnings == ()


def test_batch_norm_in_a_critic_that_cannot_be_recorded():
    norm = nn.BatchNorm1d(WIDTH)
    explained = wgan_fast.explain(Apply(lambda m, x: Square.apply(m[0](x)).sum(1), norm), batch())
    assert explained.warnings[0].startswith("BatchNorm in training mode")


def test_a_function_of_ones_own():
    net = mlp()
    explained = wgan_fast.explain(lambda x: net(Square.apply(x)), batch())
    for route in routes(explained).values():
        assert route.backend == "autograd"
        assert "aten.mul.Tensor runs on the critic's input with gradients turned off" in (
            route.reason
        )
        assert route.reason.endswith("(autograd.Function: Square)")
        assert route.cost == route.autograd_cost
    assert costs(explained) == [6, 12, 9, 12]
    assert (explained.ops, explained.curved) == ((), None)
    assert (explained.merged, explained.unmerged_reason) == (False, explained.critic_loss.reason)
    assert str(explained).count("with gradients turned off") == 1


def test_a_function_without_double_backward():
    net = mlp(nn.Tanh)

    def critic(x):
        return net(Once.apply(x))

    explained = wgan_fast.explain(critic, batch())
    for route in routes(explained).values():
        assert route.backend is route.cost is route.autograd_cost is route.peak_bytes is None
        assert 'backend="first_order" needs none' in route.reason
        assert "Once" in route.reason
    with pytest.raises(RuntimeError, match="once_differentiable"):
        wgan_fast.gradient_penalty(critic, batch(), batch()).backward()
    wgan_fast.gradient_penalty(critic, batch(), batch(), backend="first_order").backward()


def test_an_op_that_autograd_alone_cannot_take():
    critic, shape = CRITICS["attention"]
    explained = wgan_fast.explain(critic(), torch.randn(shape))
    assert explained.gradient_penalty.backend == "explicit"
    assert explained.gradient_penalty.autograd_cost is None
    assert explained.gradient_penalty.autograd_peak_bytes is None


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_backward_hooks():
    critic = mlp()
    critic[0].register_full_backward_hook(lambda *_: None)
    explained = wgan_fast.explain(critic, batch())
    assert explained.gradient_penalty.backend == "autograd"
    reason = "a Linear has backward hooks, which need autograd's graph"
    assert explained.gradient_penalty.reason == reason


def test_a_score_that_ignores_its_input():
    net = mlp()
    explained = wgan_fast.explain(lambda x: net(x.detach()), batch())
    (warning,) = explained.warnings
    assert warning.startswith("the score ignores the input")
    assert explained.gradient_penalty.backend is None
    assert "a score that depends on the critic's input" in explained.gradient_penalty.reason

    explained = wgan_fast.explain(lambda x: net(x.round()), batch())
    (warning,) = explained.warnings
    assert warning.startswith("the score's gradient in the input is zero")
    assert explained.gradient_penalty.backend == "autograd"
    assert explained.gradient_penalty.reason.startswith("no op with a derivative other than zero")


# Whether a sample's gradient holds another's score: not so where a derivative does not see it.
_MIXING = {"a mean", "flipped", "sorted", "shifted by padding"}


@pytest.mark.parametrize("name", SEEING)
def test_samples_that_see_each_other(name):
    critic = Apply(lambda m, x: SEEING[name](m[0], x), mlp()).double()
    explained = wgan_fast.explain(critic, torch.randn(5, WIDTH, dtype=torch.float64))
    assert not explained.merged
    assert explained.unmerged_reason is not None
    assert [warning[:22] for warning in explained.warnings] == ["samples see each other"] * (
        name in _MIXING
    )


@pytest.mark.parametrize("kind", ["dropout", "instance norm", "patch", "labels"])
def test_samples_that_do_not(kind):
    labels, table = torch.arange(4), nn.Embedding(4, 8)
    critic, *example = {
        "dropout": (nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 1)),
                    torch.randn(4, 8)),
        "instance norm": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Flatten(),
                          nn.Tanh(), nn.Linear(144, 1)), torch.randn(4, 3, 8, 8)),
        "patch": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3)),
                  torch.randn(4, 3, 8, 8)),
        "labels": (lambda x, labels: (x * table(labels)).sum(1).square(), torch.randn(4, 8),
                   labels),
    }[kind]  # fmt: skip
    explained = wgan_fast.explain(critic, *example)
    assert explained.warnings == ()
    assert explained.gradient_penalty.backend == "explicit"
    assert explained.merged


def test_a_compiled_critic_is_unwrapped():
    critic, x = mlp(), batch()
    assert wgan_fast.explain(torch.compile(critic), x) == wgan_fast.explain(critic, x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off(mode):
    critic, x = mlp(), batch()
    with mode():
        explained = wgan_fast.explain(critic, x.clone())
    assert explained == wgan_fast.explain(critic, x)


def test_bad_arguments():
    with pytest.raises(TypeError, match="critic: expected a callable"):
        wgan_fast.explain(3, batch())
    with pytest.raises(TypeError, match=r"x: expected the samples .* explain\(critic, x, ...\)"):
        wgan_fast.explain(mlp())
    with pytest.raises(TypeError, match="x: expected a floating point tensor"):
        wgan_fast.explain(mlp(), torch.arange(6)[None])
    with pytest.raises(ValueError, match="x: expected rank ≥ 2"):
        wgan_fast.explain(mlp(), torch.randn(6))
    with pytest.raises(ValueError, match="expected one score per sample"):
        wgan_fast.explain(lambda x: x.mean(), batch())
    with pytest.raises(ZeroDivisionError):
        wgan_fast.explain(lambda x: x / 0 if 1 // 0 else x, batch())


def test_what_is_printed():
    explained = Explanation(
        critic="Critic",
        batch="torch.float32 tensor of shape (5, 6) on cpu",
        ops=(
            RecordedOp("aten.linear.default", "bilinear", 12, False, False),
            RecordedOp("aten.mv.default", "bilinear", 1, False, True),
        ),
        gradient_penalty=Route("explicit", None, 4, 6, 1000, 3 * 2**20),
        critic_loss=Route("explicit", None, 10, None, 2**40, None),
        r1=Route("autograd", "it mixes", 9, 9, 1024, 1536),
        r1_and_r2=Route(None, "no double backward", None, None, None, None),
        merged=False,
        unmerged_reason="it mixes",
        curved=None,
        warnings=("too deep",),
    )
    assert str(explained) == (
        "Critic on torch.float32 tensor of shape (5, 6) on cpu\n"
        "\n"
        "op                               rule      times  curved\n"
        "-------------------------------  --------  -----  ------\n"
        "aten.linear.default              bilinear     12      no\n"
        "aten.mv.default (of parameters)  bilinear      1      no\n"
        "\n"
        'call                   backend="auto"  cost  by autograd  peak memory  by autograd\n'
        "---------------------  --------------  ----  -----------  -----------  -----------\n"
        "gradient_penalty       explicit          4F           6F       1000 B      3.0 MiB\n"
        "critic_loss            explicit         10F            -      1.0 TiB            -\n"
        '  at="real" (R1)       autograd          9F           9F      1.0 KiB      1.5 KiB\n'
        '  at="both" (R1 + R2)  none               -            -            -            -\n'
        "\n"
        "none: no double backward\n"
        "one batch: no, it mixes\n"
        "curved, for one more reverse pass: unknown\n"
        "warning: too deep"
    )
