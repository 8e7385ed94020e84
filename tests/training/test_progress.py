import io

from rich.console import Console

from wgan_fast.training.progress import ProgressLine

METRICS = {
    "critic_loss": -1.25,
    "generator_loss": 0.5,
    "wasserstein": 1.5,
    "gradient_norm": 0.987654,
    "steps_per_second": 12.34,
}


def lines_of(steps, every, metrics=METRICS, **console):
    out = io.StringIO()
    with ProgressLine(steps, Console(file=out, width=200, **console)) as progress:
        for step in range(every, steps + 1, every):
            progress.update(step, metrics)
    return out.getvalue()


def test_where_nobody_watches_there_are_ten_plain_lines():
    text = lines_of(1000, 10)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == [f"{n}00/1000" for n in range(1, 11)]
    assert lines[0] == "100/1000  critic -1.25  generator 0.5  W 1.5  ‖∇f‖ 0.988  12.3 it/s"
    assert "\x1b" not in text


def test_coarse_logging_gives_fewer_lines():
    assert [line.split()[0] for line in lines_of(7, 3).splitlines()] == ["3/7", "6/7"]


def test_on_a_terminal_one_line_is_redrawn():
    text = lines_of(1000, 10, force_terminal=True)
    last = text.split("\r")[-1] or text
    assert "1000/1000" in text
    assert "W 1.5" in text
    # Redrawing in place: no more line breaks than the one that ends it.
    assert text.count("\n") <= 1, last


def test_metrics_that_an_objective_lacks_are_left_out():
    metrics = {name: value for name, value in METRICS.items() if name != "wasserstein"}
    assert " W " not in lines_of(10, 5, metrics)
