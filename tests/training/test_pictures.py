import math

import numpy as np
import pytest
import torch
from PIL import Image

from wgan_fast.training.pictures import save_curves, save_grid, save_level_sets, save_scatter


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(("size", "factor"), [(16, 4), (28, 2), (32, 2), (64, 1), (100, 1)])
def test_grid_enlarges_by_a_whole_factor(size, factor, tmp_path):
    values = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, size, size)
    save_grid(values, tmp_path / "grid.png")
    pixels = read(tmp_path / "grid.png")
    side = size * factor
    assert pixels.shape == (2 * (side + 4) + 4, 2 * (side + 4) + 4, 3)
    middle = 4 + side // 2
    assert pixels[middle, middle].tolist() == [0, 0, 0]
    assert pixels[middle, middle + side + 4].tolist() == [128, 128, 128]
    assert pixels[middle + side + 4, middle].tolist() == [255, 255, 255]


def test_grid_keeps_colours(tmp_path):
    image = torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 64, 64)
    save_grid(image, tmp_path / "grid.png")
    assert read(tmp_path / "grid.png")[30, 30].tolist() == [255, 0, 128]


@pytest.mark.parametrize("axis", [0, 1])
def test_level_sets_run_the_right_way(axis, tmp_path):
    # The points sit outside of the window that is looked at.
    corners = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    save_level_sets(lambda points: points[:, axis], corners, corners, tmp_path / "sets.png")
    window = read(tmp_path / "sets.png").mean(2)[150:450, 150:450]
    along_x, along_y = window.std(axis=1).mean(), window.std(axis=0).mean()
    # f(x, y) = x changes along x alone, and f(x, y) = y along y alone.
    changing, constant = (along_x, along_y) if axis == 0 else (along_y, along_x)
    assert changing > 10
    assert constant < 1


def test_real_and_generated_points_are_where_they_belong(tmp_path):
    real, generated = torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, -1.0]])
    save_level_sets(lambda points: points.sum(1), real, generated, tmp_path / "sets.png")
    pixels = read(tmp_path / "sets.png")
    orange = (pixels[..., 0] - pixels[..., 2] > 50) & (pixels[..., 0] > pixels[..., 1])
    green = pixels[..., 1] - pixels[..., 0] > 50
    # The legend is in the top tenth, the axes' middle a little below the picture's.
    axes, half = slice(60, None), 315
    rows, columns = np.nonzero(orange[axes])
    assert len(rows) > 0
    assert rows.max() + 60 < half
    assert columns.min() > 300
    rows, columns = np.nonzero(green[axes])
    assert len(rows) > 0
    assert rows.min() + 60 > half
    assert columns.max() < 330


def test_scatter_shows_every_quadrant_it_is_given(tmp_path):
    save_scatter(torch.tensor([[1.0, -1.0]]), tmp_path / "scatter.png")
    pixels = read(tmp_path / "scatter.png")
    half = len(pixels) // 2
    green = pixels[..., 1] - pixels[..., 0] > 50
    assert green[half:, half:].any()
    assert not green[:half].any()
    assert not green[:, :half].any()


def test_curves_leave_out_what_the_objective_has_not(tmp_path):
    rows = [
        {"step": 1, "critic_loss": 0.0, "generator_loss": 1.0, "wasserstein": 2.0},
        {"step": 2, "critic_loss": 1.0, "generator_loss": math.pi, "wasserstein": 3.0},
    ]
    save_curves(rows, tmp_path / "with.png")
    for row in rows:
        del row["wasserstein"]
    save_curves(rows, tmp_path / "without.png")
    for name, has_estimate in (("with", True), ("without", False)):
        drawn = (read(tmp_path / f"{name}.png") < 250).any(2)
        middle = drawn.shape[1] // 2
        assert drawn[:, : middle - 10].any()
        assert drawn[:, middle + 60 :].any() == has_estimate
