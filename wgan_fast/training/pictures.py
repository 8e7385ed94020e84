"""The pictures of a run: sample grids, curves, and samples over the critic's level sets."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid, save_image

# Two colours that stay apart for colour-blind readers and in grey.
_REAL, _GENERATED = "#e69f00", "#007a5e"


def save_grid(images: Tensor, path: Path) -> None:
    """Writes images (N, C, H, W) with values in [-1, 1] as one PNG grid, as square as it may be.

    Small images are enlarged by a whole factor, so that every pixel stays a sharp square.
    """
    height, width = images.shape[-2:]
    factor = max(1, 64 // height)
    enlarged = images.detach().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    columns = math.ceil(math.sqrt(len(images) * height / width))
    grid = make_grid(enlarged, nrow=columns, padding=4, normalize=True, value_range=(-1, 1))
    save_image(grid, path)


def save_scatter(points: Tensor, path: Path) -> None:
    """Writes points (N, 2) as a scatter plot."""
    figure, axes = _square_figure(_reach(points))
    _scatter(axes, points, _GENERATED, f"{len(points)} generated")
    _finish(figure, path)


def save_level_sets(
    critic: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor, path: Path
) -> None:
    """Writes real and generated points over the critic's level sets.

    Figure 1 of Gulrajani et al. 2017, arXiv 1704.00028, with the trained generator's samples.
    """
    reach = _reach(real)
    axis = torch.linspace(-reach, reach, 128, dtype=real.dtype, device=real.device)
    with torch.no_grad():
        score = critic(torch.cartesian_prod(axis, axis)).reshape(128, 128)
    figure, axes = _square_figure(reach)
    ticks = axis.cpu().numpy()
    # cartesian_prod runs along y first, contour wants x along the columns.
    axes.contourf(ticks, ticks, score.T.cpu().numpy(), levels=24, cmap="Greys", alpha=0.5)
    axes.contour(ticks, ticks, score.T.cpu().numpy(), levels=24, colors="0.45", linewidths=0.5)
    _scatter(axes, real, _REAL, "real")
    _scatter(axes, generated, _GENERATED, "generated")
    # Outside of the axes, where it hides no mode.
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    _finish(figure, path)


def save_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes the logged metrics against the generator step, as far as the objective has them."""
    panels = (
        ("losses", ("critic_loss", "generator_loss")),
        ("Wasserstein estimate", ("wasserstein",)),
        ("critic's mean gradient norm", ("gradient_norm",)),
        ("mean scores", ("real_score", "fake_score")),
    )
    figure = Figure(figsize=(9, 6), layout="constrained")
    steps = [row["step"] for row in rows]
    for position, (title, names) in enumerate(panels, start=1):
        present = [name for name in names if name in rows[0]]
        if not present:
            continue
        axes = figure.add_subplot(2, 2, position)
        for name in present:
            curve = [row[name] for row in rows]
            axes.plot(steps, curve, label=name.replace("_", " "), linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("generator step")
        axes.grid(alpha=0.3)
        if len(present) > 1:
            axes.legend()
    _finish(figure, path)


def _reach(points: Tensor) -> float:
    """Half the side of a square around the origin that holds the points with some room."""
    return 1.15 * float(points.detach().abs().max())


def _square_figure(reach: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    return figure, axes


def _scatter(axes: Axes, points: Tensor, colour: str, label: str) -> None:
    x, y = points.detach().cpu().T.numpy()
    axes.scatter(x, y, s=6, color=colour, alpha=0.7, linewidths=0, label=label)


def _finish(figure: Figure, path: Path) -> None:
    # A canvas of its own keeps pyplot's global state, and any display, out of it.
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=100)
