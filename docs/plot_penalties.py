"""Draw φ(n) of every penalty of the family: ``python docs/plot_penalties.py`` writes the picture.

The curves are those of the operator that training uses, on gradients of one number each, so that
the norm is the number whatever its kind.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt

from wgan_fast.penalties import NAMED, Penalty

TITLES = {
    "gp": "gp: (n − 1)²\nbetween real and fake",
    "lp": "lp: max(0, n − 1)²\nbetween real and fake",
    "zero": "zero: n²\nbetween real and fake",
    "r1": "r1: n²\nat real",
    "r2": "r2: n²\nat fake",
    "r1+r2": "r1+r2: n²\nat real, and at fake",
    "dragan": "dragan: (n − 1)²\naround real",
    "div": "div: n⁶\nbetween real and fake",
    "max": "max: n² of the steepest\nbetween real and fake",
    "banach-1": "banach-1: (‖∇f‖∞ − 1)²\nbetween real and fake",
    "banach-2": "banach-2: (‖∇f‖₂ − 1)²\nbetween real and fake",
    "banach-inf": "banach-inf: (‖∇f‖₁ − 1)²\nbetween real and fake",
}
PHI, SLOPE = "#1f5f99", "#d0672a"


def draw(axes: plt.Axes, penalty: Penalty, norms: torch.Tensor, title: str) -> None:
    """φ, and its slope, which is what a sample of that norm is pulled with."""
    batches = norms.view(-1, 1, 1)  # a batch of one for each: a maximum is over a batch
    values, slopes = [], []
    for gradient in batches:
        _, value, direction = penalty.of(gradient)
        values.append(value.item())
        slopes.append(direction.item())
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.axvline(penalty.target, color="0.6", linewidth=0.9, linestyle=":")
    axes.plot(norms, values, color=PHI, linewidth=2, label="φ(n)")
    axes.plot(norms[1:], slopes[1:], color=SLOPE, linewidth=1.2, linestyle="--", label="φ′(n)")
    axes.plot(0, slopes[0], color=SLOPE, marker="o", markersize=4, clip_on=False)  # taken as 0
    axes.set_title(title, fontsize=9)
    axes.set_xlim(0, 2.2)
    axes.set_ylim(-2.3, 3.2)
    axes.set_xticks([0, 1, 2])
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "images" / "penalties.png"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    norms = torch.linspace(0, 2.2, 221, dtype=torch.float64)
    figure, grid = plt.subplots(3, 4, figsize=(11, 7.6), sharex=True, sharey=True)
    for axes, (name, penalty) in zip(grid.flat, NAMED.items(), strict=True):
        draw(axes, penalty, norms, TITLES[name])
    for axes in grid[-1]:
        axes.set_xlabel("gradient norm n")
    grid[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(output, dpi=110)
    plt.close(figure)
    print(output)


if __name__ == "__main__":
    main()
