"""What the studies' pictures share: the page's width, colours, and panels with labels."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for colour-blind readers.
GREEN, ORANGE, BLUE, RED, GREY = "#007a5e", "#e69f00", "#0072b2", "#d55e00", "0.45"


def panels(count: int, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with so many panels side by side."""
    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, [figure.add_subplot(1, count, place) for place in range(1, count + 1)]


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Titles a panel and its axes, and lays a grid."""
    axes.set_title(title, fontsize=10.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
