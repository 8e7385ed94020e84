"""Critics of every shape, how users hand them over, and their penalties written out by hand."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

B = 8


class Case(NamedTuple):
    """A critic, what it is called with, and ``score``: from tensors to the scores of its scales."""

    critic: nn.Module
    real: Any
    fake: Any
    options: dict[str, Any]
    score: Any
    masks: Any = None
    pac: int = 1
    separate: bool = False


class Counting(nn.Module):
    """A critic that remembers how large its batches were."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts, self.batches = function, nn.ModuleList(parts), []

    def forward(self, x, *arguments, **named):
        first = x if isinstance(x, Tensor) else next(iter(x.values() if isinstance(x, dict) else x))
        self.batches.append(len(first))
        return self.function(self.parts, x, *arguments, **named)


def textbook(case, alpha, at="mix", weight=3.0, target=1.0):
    """(penalty, critic loss) in plain autograd; several tensors and scales are lists."""
    real, fake = ([x] if isinstance(x, Tensor) else list(x) for x in (case.real, case.fake))
    if isinstance(case.real, dict):
        real, fake = list(case.real.values()), list(case.fake.values())
    each = alpha.repeat_interleave(case.pac)
    mixed = [
        each.view(-1, *[1] * (r.dim() - 1)) * r + (1 - each.view(-1, *[1] * (r.dim() - 1))) * f
        for r, f in zip(real, fake, strict=True)
    ]
    points = {"mix": [mixed], "real": [real], "fake": [fake], "both": [fake, real]}[at]
    penalty = 0.0
    for point in points:
        x = [tensor.clone().requires_grad_() for tensor in point]
        total = sum(scale.sum() for scale in case.score(x))
        gradients = list(torch.autograd.grad(total, x, create_graph=True))
        if case.masks is not None:
            gradients = [g * mask for g, mask in zip(gradients, case.masks, strict=True)]
        rows = [g.reshape(B // case.pac, -1) for g in gradients]
        for row in rows if case.separate else [torch.cat(rows, 1)]:
            penalty = penalty + ((row.norm(2, dim=1) - target) ** 2).mean()
    pairs = zip(case.score(fake), case.score(real), strict=True)
    loss = sum(of_fake.mean() - of_real.mean() for of_fake, of_real in pairs)
    return penalty, loss + weight * penalty


def _mlp(inputs, outputs=1):
    return nn.Sequential(nn.Linear(inputs, 7), nn.SiLU(), nn.Linear(7, outputs))


def _pair(*shape):
    return torch.randn(2, B, *shape, dtype=torch.float64).unbind()


def _case(function, parts, samples, options=None, arguments=(), named=None, **rest):
    """By default, the critic's whole output is one scale's scores."""
    critic = Counting(function, *parts).double()

    def score(x):
        return [function(critic.parts, x[0], *arguments, **(named or {}))]

    return Case(critic, *samples, options or {}, score, **rest)


def _labels():
    return torch.randint(4, (B,))


def embedded():
    labels = _labels()

    def function(parts, x, y):
        return parts[1](torch.cat([x, parts[0](y)], 1))

    return _case(function, (nn.Embedding(4, 3), _mlp(8)), _pair(5), {"cond": labels}, (labels,))


def projected():
    labels = _labels()

    def function(parts, x, y):
        hidden = parts[0](x)
        return (hidden * parts[1](y)).sum(1) + parts[2](hidden.tanh()).squeeze(1)

    parts = nn.Linear(5, 6), nn.Embedding(4, 6), nn.Linear(6, 1)
    return _case(function, parts, _pair(5), {"cond": (labels,)}, (labels,))


def piecewise_linear():
    labels = _labels()

    def function(parts, x, y):
        return parts[1](torch.cat([x, parts[0](y)], 1))

    net = nn.Sequential(nn.Linear(8, 9), nn.LeakyReLU(0.2), nn.Linear(9, 1))
    return _case(function, (nn.Embedding(4, 3), net), _pair(5), {"cond": labels}, (labels,))


def one_hot_and_attributes():
    labels, attributes = _labels(), torch.randn(B, 3, dtype=torch.float64)

    def function(parts, x, y, attributes):
        y = F.one_hot(y, 4).to(x.dtype)
        gate = parts[1](F.silu(parts[0](attributes)))
        return parts[2](torch.cat([x, y], 1)) * gate.sigmoid()

    parts = nn.Linear(3, 6), nn.Linear(6, 1), _mlp(9)
    given = (labels, attributes)
    return _case(function, parts, _pair(5), {"cond": given}, given)


def modulated_images():
    labels = _labels()

    def function(parts, x, labels, *, slope=0.2, temperature):
        scale, shift = parts[1](labels).chunk(2, 1)
        hidden = F.elu(parts[0](x), slope)
        hidden = hidden * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return parts[2](hidden.tanh().flatten(1)) * temperature

    parts = nn.Conv2d(2, 4, 3, padding=1), nn.Embedding(4, 8), nn.Linear(4 * 25, 1)
    named = {"labels": labels, "slope": 0.1, "temperature": torch.tensor([2.0]).double()}
    return _case(function, parts, _pair(2, 5, 5), {"cond_kwargs": named}, (), named)


def tuple_output():
    def function(parts, x):
        hidden = parts[0](x)
        return hidden, parts[1](hidden.tanh())

    parts = nn.Linear(5, 6), nn.Linear(6, 1)
    case = _case(function, parts, _pair(5), {"select": 1})
    return case._replace(score=lambda x: [function(case.critic.parts, x[0])[1]])


def dict_output():
    def function(parts, x):
        hidden = parts[0](x)
        return {"features": hidden, "score": parts[1](hidden.tanh())}

    parts = nn.Linear(5, 6), nn.Linear(6, 1)
    case = _case(function, parts, _pair(5), {"select": "score"})
    return case._replace(score=lambda x: [function(case.critic.parts, x[0])["score"]])


def computed_output():
    def function(parts, x):
        return {"a": parts[0](x), "b": parts[1](x)}

    case = _case(
        function, (_mlp(5), _mlp(5)), _pair(5), {"select": lambda out: out["a"] - out["b"]}
    )
    return case._replace(score=lambda x: [case.critic.parts[0](x[0]) - case.critic.parts[1](x[0])])


def packed():
    """CTGAN's critic: it views four samples as one row."""

    def function(parts, x):
        return parts[0](x.view(-1, 20))

    return _case(function, (_mlp(20),), _pair(5), {"pac": 4}, pac=4)


def packed_with_labels():
    labels = _labels()

    def function(parts, x, y):
        return parts[1](torch.cat([x, parts[0](y)], 1).reshape(len(x) // 2, -1))

    parts = nn.Embedding(4, 3), _mlp(2 * (12 + 3))
    options = {"pac": 2, "cond": labels}

    def with_signals(parts, x, y):
        return function(parts, x.flatten(1), y)

    return _case(with_signals, parts, _pair(3, 4), options, (labels,), pac=2)


def masked():
    mask = torch.rand(B, 1, 5, 5, dtype=torch.float64)

    def function(parts, x):
        return parts[1](parts[0](x).tanh().flatten(1))

    parts = nn.Conv2d(2, 4, 3), nn.Linear(36, 1)
    return _case(function, parts, _pair(2, 5, 5), {"mask": mask}, masks=[mask])


def one_mask_for_all():
    mask = torch.rand(1, 5) > 0.4
    case = _case(lambda parts, x: parts[0](x), (_mlp(5),), _pair(5), {"mask": mask})
    return case._replace(masks=[mask])


def packed_under_a_mask():
    mask = torch.rand(B, 5, dtype=torch.float64)

    def function(parts, x):
        return parts[0](x.reshape(-1, 10))

    return _case(function, (_mlp(10),), _pair(5), {"mask": mask, "pac": 2}, masks=[mask], pac=2)


def _image_and_table(parts, x):
    image, table = x
    return parts[2](torch.cat([parts[0](image).tanh().flatten(1), parts[1](table)], 1))


def _image_and_table_parts():
    return nn.Conv2d(2, 3, 3), nn.Linear(4, 5), _mlp(27 + 5)


def _image_and_table_samples():
    (image, other), (table, another) = _pair(2, 5, 5), _pair(4)
    return (image, table), (other, another)


def joint():
    case = _case(_image_and_table, _image_and_table_parts(), _image_and_table_samples())
    return case._replace(score=lambda x: [_image_and_table(case.critic.parts, x)])


def separate():
    case = joint()
    return case._replace(options={"inputs": "separate"}, separate=True)


def joint_dict_with_labels_masks_and_packs():
    labels = _labels()
    (image, other), (table, another) = _pair(2, 3, 3), _pair(4)
    masks = {"image": torch.rand(1, 1, 3, 3), "table": torch.rand(B, 4, dtype=torch.float64)}

    def function(parts, x, y):
        flat = torch.cat([x["image"].flatten(1), x["table"], parts[0](y)], 1)
        return parts[1](flat.reshape(len(flat) // 2, -1))

    parts = nn.Embedding(4, 3), _mlp(2 * (18 + 4 + 3))
    real, fake = {"image": image, "table": table}, {"image": other, "table": another}
    options = {"cond": labels, "mask": masks, "pac": 2}
    case = _case(function, parts, (real, fake), options, masks=list(masks.values()), pac=2)
    return case._replace(
        score=lambda x: [function(case.critic.parts, dict(zip(real, x, strict=True)), labels)]
    )


def separate_under_masks_in_packs():
    case = joint_dict_with_labels_masks_and_packs()
    return case._replace(options=case.options | {"inputs": "separate"}, separate=True)


def patch():
    def function(parts, x):
        return parts[1](parts[0](x).tanh())

    return _case(function, (nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 2)), _pair(2, 6, 6))


def _scales(parts, x):
    fine = parts[1](parts[0](x).tanh())
    coarse = parts[3](parts[2](F.avg_pool2d(x, 2)).tanh())
    return [fine, coarse, parts[4](x.flatten(1)).squeeze(1)]


def _scale_parts():
    pairs = [part for _ in range(2) for part in (nn.Conv2d(2, 3, 2), nn.Conv2d(3, 1, 2))]
    return (*pairs, _mlp(72))


def multi_scale():
    case = _case(_scales, _scale_parts(), _pair(2, 6, 6), {"select": list})
    return case._replace(score=lambda x: _scales(case.critic.parts, x[0]))


def multi_scale_in_a_dict():
    def function(parts, x):
        return {"features": x, "scores": _scales(parts, x)}

    case = _case(function, _scale_parts(), _pair(2, 6, 6), {"select": "scores"})
    return case._replace(score=lambda x: _scales(case.critic.parts, x[0]))


def multi_scale_with_features():
    """pix2pixHD's output: for every scale its layers' results, the scores last."""

    def function(parts, x):
        return [[x, scores] for scores in _scales(parts, x)]

    options = {"select": lambda scales: [layers[-1] for layers in scales]}
    case = _case(function, _scale_parts(), _pair(2, 6, 6), options)
    return case._replace(score=lambda x: _scales(case.critic.parts, x[0]))


def text():
    def function(parts, x):
        return parts[1](parts[0](x.transpose(1, 2)).tanh().flatten(1))

    return _case(function, (nn.Conv1d(6, 4, 3), nn.Linear(20, 1)), _pair(7, 6))


CASES = {
    function.__name__: function
    for function in (
        embedded, projected, piecewise_linear, one_hot_and_attributes, modulated_images,
        tuple_output, dict_output, computed_output, packed, packed_with_labels, masked,
        one_mask_for_all, packed_under_a_mask, joint, separate,
        joint_dict_with_labels_masks_and_packs, separate_under_masks_in_packs, patch, multi_scale,
        multi_scale_in_a_dict, multi_scale_with_features, text,
    )
}  # fmt: skip
