"""Critics of every kind that users bring, and a sampler of random ones."""

# ruff: noqa: E501

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class Apply(nn.Module):
    """A critic from a function of (modules, x)."""

    def __init__(self, function: Callable, *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x):
        return self.function(self.parts, x)


ACTIVATIONS = {
    "ReLU": nn.ReLU,
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "LeakyReLU in place": lambda: nn.LeakyReLU(0.2, inplace=True),
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "SiLU": nn.SiLU,
    "SiLU in place": lambda: nn.SiLU(inplace=True),
    "GELU": nn.GELU,
    "GELU tanh": lambda: nn.GELU(approximate="tanh"),
    "ELU": nn.ELU,
    "ELU in place": lambda: nn.ELU(inplace=True),
    "CELU": nn.CELU,
    "SELU": nn.SELU,
    "Softplus": nn.Softplus,
    "Mish": nn.Mish,
    "Hardswish": nn.Hardswish,
    "Hardtanh": nn.Hardtanh,
    "ReLU6": nn.ReLU6,
    "Hardshrink": nn.Hardshrink,
    "Softshrink": lambda: nn.Softshrink(0.1),
    "Tanhshrink": nn.Tanhshrink,
    "Softsign": nn.Softsign,
    "LogSigmoid": nn.LogSigmoid,
    "Threshold": lambda: nn.Threshold(0.1, 0.3),
    "PReLU": nn.PReLU,
    "RReLU": nn.RReLU,
    "Dropout": lambda: nn.Dropout(0.3),
    "Softmax": lambda: nn.Softmax(1),
    "Softmin": lambda: nn.Softmin(1),
    "LogSoftmax": lambda: nn.LogSoftmax(1),
}


def _layer(*modules: nn.Module) -> nn.Module:
    """A critic of images (B, 3, 8, 8) around a layer that takes (B, 4, 8, 8)."""

    def score(parts, x):
        hidden = F.leaky_relu(parts[0](x), 0.2)
        for part in parts[1:]:
            hidden = part(hidden)
        return hidden.tanh().flatten(1).square().sum(1, keepdim=True)

    return Apply(score, nn.Conv2d(3, 4, 3, padding=1), *modules)


def _norm(function: Callable) -> Callable:
    return lambda: function(nn.Conv2d(4, 4, 3))


_parametrize = nn.utils.parametrizations
LAYERS = {
    "LayerNorm": lambda: nn.LayerNorm((4, 8, 8)),
    "LayerNorm over an axis": lambda: nn.LayerNorm(8),
    "LayerNorm without parameters": lambda: nn.LayerNorm((8, 8), elementwise_affine=False),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "InstanceNorm": lambda: nn.InstanceNorm2d(4, affine=True),
    "InstanceNorm plain": lambda: nn.InstanceNorm2d(4),
    "InstanceNorm tracked": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "BatchNorm": lambda: nn.BatchNorm2d(4),
    "BatchNorm eval": lambda: nn.BatchNorm2d(4).eval(),
    "slopes fixed in evaluation": lambda: nn.RReLU().eval(),
    "RMSNorm": lambda: nn.RMSNorm((8, 8)),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
    "MaxPool": lambda: nn.MaxPool2d(2),
    "MaxPool overlapping": lambda: nn.MaxPool2d(3, 1, 1),
    "AvgPool": lambda: nn.AvgPool2d(2),
    "AvgPool overlapping": lambda: nn.AvgPool2d(3, 2, 1),
    "AdaptiveAvgPool": lambda: nn.AdaptiveAvgPool2d(3),
    "AdaptiveAvgPool to 1": lambda: nn.AdaptiveAvgPool2d(1),
    "AdaptiveMaxPool": lambda: nn.AdaptiveMaxPool2d(3),
    "LPPool": lambda: nn.LPPool2d(2, 2),
    "FractionalMaxPool": lambda: nn.FractionalMaxPool2d(2, output_size=4),
    "Upsample nearest": lambda: nn.Upsample(scale_factor=2),
    "Upsample bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "Upsample bicubic": lambda: nn.Upsample(size=(5, 7), mode="bicubic", align_corners=True),
    "PixelShuffle": lambda: nn.PixelShuffle(2),
    "PixelUnshuffle": lambda: nn.PixelUnshuffle(2),
    "ChannelShuffle": lambda: nn.ChannelShuffle(2),
    "ReflectionPad": lambda: nn.ReflectionPad2d(2),
    "ReplicationPad": lambda: nn.ReplicationPad2d(1),
    "ZeroPad": lambda: nn.ZeroPad2d((1, 0, -1, 2)),
    "ConstantPad": lambda: nn.ConstantPad2d(1, 3.5),
    "CircularPad": lambda: nn.CircularPad2d((2, 1, 0, 3)),
    "Conv padded in circles": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "Conv reflected in groups": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="reflect"),
    "Conv dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2, bias=False),
    "Conv strided": lambda: nn.Conv2d(4, 6, 4, 2, 1),
    "ConvTranspose": lambda: nn.ConvTranspose2d(4, 4, 4, 2, 1),
    "Dropout2d": lambda: nn.Dropout2d(0.3),
    "AlphaDropout": lambda: nn.AlphaDropout(0.2),
    "spectral norm": _norm(_parametrize.spectral_norm),
    "weight norm": _norm(_parametrize.weight_norm),
    "orthogonal": lambda: _parametrize.orthogonal(nn.Linear(8, 8)),
    "GLU": lambda: nn.GLU(1),
}  # fmt: skip


def _attention(mask: bool = False) -> nn.Module:
    def score(parts, x):
        allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril() if mask else None
        return parts[0](F.scaled_dot_product_attention(x, x.tanh(), x, allowed).mean(1))

    return Apply(score, nn.Linear(8, 1))


def _last(parts, x):
    return parts[1](parts[0](x)[0][:, -1])


LABELS = torch.arange(4) % 3
WIDE = (4, 8)
SEQUENCE = (4, 5, 8)
# name: (critic, shape of its input); the sizes are odd and small.
STRUCTURES = {
    "residual": (
        lambda: Apply(
            lambda m, x: m[1](torch.relu(x + m[0](x).relu())), nn.Linear(8, 8), nn.Linear(8, 1)
        ),
        WIDE,
    ),
    "residual in place": (
        lambda: Apply(lambda m, x: m[1](m[0](x).add_(x).relu_()), nn.Linear(8, 8), nn.Linear(8, 1)),
        WIDE,
    ),
    "dense": (
        lambda: Apply(
            lambda m, x: m[1](torch.cat([x, m[0](x).tanh()], 1)), nn.Linear(8, 8), nn.Linear(16, 1)
        ),
        WIDE,
    ),
    "stacked": (
        lambda: Apply(
            lambda m, x: m[1](torch.stack([x, m[0](x)], 1).tanh().flatten(1)),
            nn.Linear(8, 8),
            nn.Linear(16, 1),
        ),
        WIDE,
    ),
    "split": (
        lambda: Apply(lambda m, x: m[0](x.chunk(2, 1)[0] * x.split([4, 4], 1)[1]), nn.Linear(4, 1)),
        WIDE,
    ),
    "shared parameter": (
        lambda: Apply(
            lambda m, x: m[1](m[0](m[0](x).tanh()).tanh()), nn.Linear(8, 8), nn.Linear(8, 1)
        ),
        WIDE,
    ),
    "tied weight": (
        lambda: Apply(
            lambda m, x: m[1](F.linear(F.linear(x, m[0].weight).tanh(), m[0].weight.t())),
            nn.Linear(8, 6),
            nn.Linear(8, 1),
        ),
        WIDE,
    ),
    "tensor used twice": (
        lambda: Apply(
            lambda m, x: (m[0](x) * m[0](x)).sum(1) / (1 + x.square().sum(1)), nn.Linear(8, 8)
        ),
        WIDE,
    ),
    "minibatch stddev": (
        lambda: Apply(
            lambda m, x: m[0](torch.cat([x, x.std(0).mean().expand(x.shape[0], 1)], 1)).tanh(),
            nn.Linear(9, 1),
        ),
        WIDE,
    ),
    "projection": (
        lambda: Apply(
            lambda m, x: (
                m[1](m[0](x).tanh()) + (m[2](LABELS) * m[0](x).tanh()).sum(1, keepdim=True)
            ),
            nn.Linear(8, 6),
            nn.Linear(6, 1),
            nn.Embedding(3, 6),
        ),
        WIDE,
    ),
    "control flow": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x).tanh()) if x.mean() < 9 else m[1](m[0](x)),
            nn.Linear(8, 6),
            nn.Linear(6, 1),
        ),
        WIDE,
    ),
    "einsum": (
        lambda: Apply(
            lambda m, x: m[0](torch.einsum("bi,bj->bij", x, x.tanh()).flatten(1)), nn.Linear(64, 1)
        ),
        WIDE,
    ),
    "bilinear": (lambda: Apply(lambda m, x: m[0](x, x.tanh()), nn.Bilinear(8, 8, 1)), WIDE),
    "weight without an axis": (
        lambda: Apply(
            lambda m, x: (
                F.linear(m[0](x).tanh(), m[1].bias)
                + F.linear(torch.stack([m[0](x), m[0](x).sigmoid()], 1), m[1].bias).prod(1)
            ),
            nn.Linear(8, 5),
            nn.Linear(1, 5),
        ),
        WIDE,
    ),
    "learned scale": (
        lambda: Apply(
            lambda m, x: m[0](x).tanh() * m[0].bias.exp() / (1 + m[0].weight.norm()),
            nn.Linear(8, 1),
        ),
        WIDE,
    ),
    "written into a buffer": (
        lambda: Apply(
            lambda m, x: m[0](torch.zeros(x.shape[0], 8, dtype=x.dtype).copy_(x.sin())),
            nn.Linear(8, 1),
        ),
        WIDE,
    ),
    "comparisons": (
        lambda: Apply(
            lambda m, x: m[0](torch.where(x > 0, x.square(), x.abs() * x.sign())), nn.Linear(8, 1)
        ),
        WIDE,
    ),
    "detached part": (
        lambda: Apply(lambda m, x: m[0](x * x.detach().sigmoid()), nn.Linear(8, 1)),
        WIDE,
    ),
    "one number each": (
        lambda: Apply(lambda m, x: m[0](x).tanh().squeeze(1), nn.Linear(8, 1)),
        WIDE,
    ),
    "vector norm": (lambda: Apply(lambda m, x: m[0](x).norm(dim=1), nn.Linear(8, 5)), WIDE),
    "logsumexp": (lambda: Apply(lambda m, x: m[0](x).logsumexp(1), nn.Linear(8, 5)), WIDE),
    "maxout": (
        lambda: Apply(lambda m, x: m[0](x).view(-1, 5, 2).max(2).values.sum(1), nn.Linear(8, 10)),
        WIDE,
    ),
    "sorted pairs": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x).view(-1, 4, 2).sort(2).values.flatten(1)),
            nn.Linear(8, 8),
            nn.Linear(8, 1),
        ),
        WIDE,
    ),
    "LSTM cell": (
        lambda: Apply(lambda m, x: m[1](m[0](x)[0]), nn.LSTMCell(8, 6), nn.Linear(6, 1)),
        WIDE,
    ),
    "GRU cell": (
        lambda: Apply(lambda m, x: m[1](m[0](x)), nn.GRUCell(8, 6), nn.Linear(6, 1)),
        WIDE,
    ),
    "RNN": (lambda: Apply(_last, nn.RNN(8, 6, batch_first=True), nn.Linear(6, 1)), SEQUENCE),
    "LSTM": (lambda: Apply(_last, nn.LSTM(8, 6, 2, batch_first=True), nn.Linear(6, 1)), SEQUENCE),
    "GRU": (
        lambda: Apply(_last, nn.GRU(8, 6, batch_first=True, bidirectional=True), nn.Linear(12, 1)),
        SEQUENCE,
    ),
    "attention": (_attention, SEQUENCE),
    "masked attention": (lambda: _attention(mask=True), SEQUENCE),
    "multihead attention": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x, x, x, need_weights=False)[0].mean(1)),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 1),
        ),
        SEQUENCE,
    ),
    "multihead attention with weights": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x, x, x)[0].mean(1)),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 1),
        ),
        SEQUENCE,
    ),
    "transformer": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x).mean(1)),
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1),
            nn.Linear(8, 1),
        ),
        SEQUENCE,
    ),
    "transformer eval": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x).mean(1)),
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
            nn.Linear(8, 1),
        ),
        SEQUENCE,
    ),
    "conv 1d": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x).tanh().mean(2)), nn.Conv1d(3, 4, 3, 2), nn.Linear(4, 1)
        ),
        (4, 3, 9),
    ),
    "conv 3d": (
        lambda: Apply(
            lambda m, x: m[1](F.max_pool3d(m[0](x).tanh(), 2).mean((2, 3, 4))),
            nn.Conv3d(2, 4, 3),
            nn.Linear(4, 1),
        ),
        (3, 2, 6, 6, 6),
    ),
    "sort": (
        lambda: Apply(
            lambda m, x: m[1](m[0](x).unflatten(1, (2, 4)).sort(2, descending=True)[0].flatten(1)),
            nn.Linear(8, 8),
            nn.Linear(8, 1),
        ),
        WIDE,
    ),
    "maximum and minimum": (
        lambda: Apply(
            lambda m, x: m[2](torch.maximum(m[0](x), torch.minimum(m[1](x), m[0].bias)).tanh()),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 1),
        ),
        WIDE,
    ),
    "maximum of equals": (
        lambda: Apply(
            lambda m, x: m[1](torch.maximum(m[0](x).relu(), m[0](x).relu()).tanh()),
            nn.Linear(8, 8),
            nn.Linear(8, 1),
        ),
        WIDE,
    ),
    "whole part": (
        lambda: Apply(lambda m, x: m[0]((x + (3 * x).int()).tanh()), nn.Linear(8, 1)),
        WIDE,
    ),
    "patch": (lambda: Apply(lambda m, x: m[0](x).tanh(), nn.Conv2d(3, 1, 3)), (3, 3, 8, 8)),
}

CRITICS = {
    **{
        f"activation {name}": (
            lambda make=make: nn.Sequential(
                nn.Linear(5, 8), make(), nn.Linear(8, 8), make(), nn.Linear(8, 1)
            ),
            (6, 5),
        )
        for name, make in ACTIVATIONS.items()
    },
    **{
        f"layer {name}": (lambda make=make: _layer(make()), (3, 3, 8, 8))
        for name, make in LAYERS.items()
    },
    **STRUCTURES,
}


def random_critic(seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A random critic and the shape of its input: vectors or images, up to seven blocks deep."""
    draw = random.Random(seed)
    activations = [
        make for name, make in ACTIVATIONS.items() if "in place" not in name or draw.random() < 0.5
    ]

    def activation() -> nn.Module:
        return draw.choice(activations)()

    batch = draw.randint(3, 5)  # BatchNorm of two samples is a sign: nothing left to differentiate
    if draw.random() < 0.5:
        width = draw.randint(2, 7)
        return _random_mlp(draw, width, activation), (batch, width)
    channels, size = draw.randint(1, 3), draw.choice((6, 8, 9))
    return _random_network(draw, channels, size, activation), (batch, channels, size, size)


def _random_mlp(draw: random.Random, width: int, activation: Callable) -> nn.Module:
    modules: list[nn.Module] = []
    for _ in range(draw.randint(1, 4)):
        out = draw.choice((4, 6, 8))
        linear: nn.Module = nn.Linear(width, out, bias=draw.random() < 0.8)
        wrap = draw.choice([None] * 6 + [_parametrize.spectral_norm, _parametrize.weight_norm])
        modules.append(linear if wrap is None else wrap(linear))
        modules.append(activation())
        kind = draw.choice(("none", "norm", "residual", "dense", "product"))
        if kind == "norm":
            # Never a norm right before the scores: BatchNorm's then sum to a constant.
            modules.append(draw.choice((nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm))(out))
            modules.append(activation())
        elif kind == "residual":
            inner = nn.Linear(out, out)
            modules.append(Apply(lambda m, x: x + m[1](m[0](x)), inner, activation()))
        elif kind == "dense":
            modules.append(Apply(lambda m, x: torch.cat([x, m[0](x)], 1), nn.Linear(out, 3)))
            out += 3
        elif kind == "product":
            modules.append(Apply(lambda m, x: x * m[0](x).sigmoid(), nn.Linear(out, out)))
        width = out
    return nn.Sequential(*modules, nn.Linear(width, 1))


def _random_network(
    draw: random.Random, channels: int, size: int, activation: Callable
) -> nn.Module:
    modules: list[nn.Module] = []
    for _ in range(draw.randint(1, 3)):
        out = draw.choice((4, 8))
        kernel, padding = draw.choice(((3, 1), (3, 1), (1, 0), (5, 2) if size > 2 else (3, 1)))
        modules.append(
            nn.Conv2d(
                channels, out, kernel, padding=padding, bias=draw.random() < 0.8,
                padding_mode=draw.choice(("zeros", "reflect", "replicate", "circular")),
            )
        )  # fmt: skip
        norm = draw.choice(("none", "layer", "group", "instance", "batch"))
        if norm == "layer":
            modules.append(nn.LayerNorm((out, size, size)))
        elif norm != "none":
            modules.append(
                {"group": nn.GroupNorm(2, out), "instance": nn.InstanceNorm2d(out, affine=True),
                 "batch": nn.BatchNorm2d(out)}[norm]
            )  # fmt: skip
        modules.append(activation())
        if draw.random() < 0.4:
            modules.append(Apply(lambda m, x: x + m[0](x), nn.Conv2d(out, out, 3, padding=1)))
        pool = draw.choice(("none", "average", "max", "stride"))
        if pool != "none" and size >= 4:
            modules.append(
                {
                    "average": nn.AvgPool2d(2),
                    "max": nn.MaxPool2d(2),
                    "stride": nn.Conv2d(out, out, 2, 2),
                }[pool]
            )
            size //= 2
        channels = out
    head = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 1))
    return nn.Sequential(*modules, head)


def scale_of(gradients) -> float:
    """The largest number among gradients: what errors are relative to."""
    return max(
        [g.abs().max().item() for g in gradients if g is not None and g.numel()] + [math.ulp(1)]
    )
