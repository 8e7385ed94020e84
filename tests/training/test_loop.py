import json

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from wgan_fast.training import ConfigError, NonFiniteLossError, load_checkpoint, loop
from wgan_fast.training.networks import build_networks

OBJECTIVES = ["dcgan", "wgan", "wgan-gp"]
COMMON = {"step", "critic_loss", "generator_loss", "gradient_norm", "real_score", "fake_score"}
COMMON |= {"seconds", "steps_per_second"}
METRICS = {
    "dcgan": COMMON,
    "wgan": COMMON | {"wasserstein"},
    "wgan-gp": COMMON | {"wasserstein", "penalty"},
}


def read_rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("objective", "data"),
    [
        ("dcgan", "digits"),
        ("dcgan", "gaussians-8"),
        ("wgan", "digits"),
        ("wgan", "swiss-roll"),
        ("wgan-gp", "digits"),
        ("wgan-gp", "gaussians-25"),
    ],
)
def test_a_run_leaves_everything_behind(objective, data, tiny_config, train_quietly):
    config = tiny_config(objective=objective, data=data)
    run = train_quietly(config)
    assert run == config.run_folder
    assert json.loads((run / "config.json").read_text()) == config.to_json()

    rows = read_rows(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(row) == METRICS[objective]
        assert all(isinstance(value, int | float) for value in row.values())
        if "wasserstein" in row:
            assert row["wasserstein"] == pytest.approx(
                row["real_score"] - row["fake_score"], abs=1e-6
            )

    pictures = ["samples/step-0000002.png", "samples/step-0000003.png"]
    assert sorted(p.relative_to(run).as_posix() for p in run.glob("samples/*")) == pictures
    for name in [*pictures, "curves.png"]:
        with Image.open(run / name) as picture:
            picture.load()
            assert min(picture.size) >= 600

    events = EventAccumulator(str(run))
    events.Reload()
    assert set(events.Tags()["scalars"]) == METRICS[objective] - {"step"}
    assert [(e.step, e.value) for e in events.Scalars("critic_loss")] == [
        (row["step"], pytest.approx(row["critic_loss"], rel=1e-6)) for row in rows
    ]
    assert [event.step for event in events.Images("samples")] == [2, 3]

    trained = load_checkpoint(run)
    assert trained.step == 3
    initial = build_networks(config, torch.device("cpu"), torch.float32)
    for before, after in zip(initial, (trained.generator, trained.critic), strict=True):
        changed = [
            not torch.equal(p, q)
            for p, q in zip(before.parameters(), after.parameters(), strict=True)
        ]
        assert sum(changed) > len(changed) / 2
        assert all(p.isfinite().all() for p in after.parameters())


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("data", ["digits", "swiss-roll"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_seed_one_result_bit_for_bit(objective, data, tiny_config, train_quietly):
    def parameters(seed, log_every):
        config = tiny_config(
            objective=objective, data=data, seed=seed, log_every=log_every, picture_every=log_every
        )
        trained = load_checkpoint(train_quietly(config))
        return {**trained.generator.state_dict(), **trained.critic.state_dict()}

    first = parameters(seed=1, log_every=1)
    # Neither watching nor the surrounding program's randomness changes what is learnt.
    torch.manual_seed(1234)
    again = parameters(seed=1, log_every=3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = parameters(seed=2, log_every=1)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.usefixtures("without_pictures")
def test_clip_bounds_hold_after_every_wgan_step(tiny_config, train_quietly, monkeypatch):
    largest = []

    def build_and_watch(config, *where):
        generator, critic = build_networks(config, *where)
        # The critic is next called after its step and the clipping.
        critic.register_forward_pre_hook(
            lambda module, _: largest.append(max(p.abs().max().item() for p in module.parameters()))
        )
        return generator, critic

    monkeypatch.setattr(loop, "build_networks", build_and_watch)
    config = tiny_config(objective="wgan", clip_value=0.02, critic_learning_rate=1.0)
    critic = load_checkpoint(train_quietly(config)).critic
    assert largest[0] > 0.02
    first_step = largest.count(largest[0])
    bound = torch.tensor(0.02).item()
    assert max(largest[first_step:]) == bound
    for parameter in critic.parameters():
        assert parameter.abs().max().item() <= bound


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_generators_step_builds_a_graph_of_it(
    objective, tiny_config, train_quietly, monkeypatch
):
    graphs = []

    def build_and_watch(config, *where):
        generator, critic = build_networks(config, *where)
        generator.register_forward_hook(
            lambda module, _, samples: graphs.append(samples.requires_grad and module.training)
        )
        return generator, critic

    monkeypatch.setattr(loop, "build_networks", build_and_watch)
    settings = {"steps": 2, "n_critic": 3, "log_every": 9, "loop": "eager"}
    train_quietly(tiny_config(objective=objective, **settings))
    # Pictures and the question whether samples keep apart take no graph either.
    assert graphs.count(True) == settings["steps"]
    assert len(graphs) >= 2 * settings["steps"]


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_metrics_are_read_from_the_device_once_per_interval(
    objective, tiny_config, train_quietly, monkeypatch, request
):
    reads, in_optimizer = [], []
    for name in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counting(self, *args, _original=original, _name=name, **kwargs):
            if not in_optimizer:
                reads.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counting)

    # Adam counts its steps in CPU tensors and reads those; they are not on the device.
    enter = register_optimizer_step_pre_hook(lambda *_: in_optimizer.append(True))
    leave = register_optimizer_step_post_hook(lambda *_: in_optimizer.clear())
    request.addfinalizer(enter.remove)
    request.addfinalizer(leave.remove)

    # The explicit backend looks at a value where that is free, on a CPU.
    settings = {"objective": objective, "log_every": 100, "picture_every": 100}
    settings["backend"] = "autograd" if objective == "wgan-gp" else "auto"

    def count(steps):
        reads.clear()
        train_quietly(tiny_config(steps=steps, **settings))
        return len(reads)

    assert count(2) == count(12) > 0


@pytest.mark.usefixtures("without_pictures")
def test_interval_mean_is_over_the_critic_steps_since_the_last_line(tiny_config, train_quietly):
    fine = read_rows(train_quietly(tiny_config(steps=4, log_every=1, data="gaussians-8")))
    coarse = read_rows(train_quietly(tiny_config(steps=4, log_every=2, data="gaussians-8")))
    assert [row["step"] for row in coarse] == [2, 4]
    for pair, row in zip((fine[:2], fine[2:]), coarse, strict=True):
        for name in ("critic_loss", "penalty", "real_score"):
            assert row[name] == pytest.approx((pair[0][name] + pair[1][name]) / 2, rel=1e-5)


class BreaksDown:
    """A data set that goes bad at its fifth batch."""

    def __init__(self, bad):
        self.calls = 0
        self.bad = bad

    def __call__(self, batch_size, rng):
        self.calls += 1
        batch = torch.rand(batch_size, 2, generator=rng)
        # The pictures' fixed batch is call 1, then come two batches per step.
        return batch * self.bad if self.calls == 6 else batch


@pytest.mark.parametrize(
    ("objective", "bad"),
    [("dcgan", float("nan")), ("wgan", float("inf")), ("wgan-gp", float("inf"))],
)
def test_a_loss_that_is_not_finite_stops_and_keeps_what_was_written(
    bad, objective, tiny_config, train_quietly, monkeypatch
):
    monkeypatch.setattr(loop, "load_data", lambda *_: BreaksDown(bad))
    config = tiny_config(objective=objective, data="gaussians-8", steps=50)
    with pytest.raises(NonFiniteLossError, match=r"at or just before step 3: .*= -?(nan|inf)"):
        train_quietly(config)
    run = config.run_folder
    assert [row["step"] for row in read_rows(run)] == [1, 2]
    assert load_checkpoint(run).step == 2
    assert (run / "curves.png").stat().st_size > 0
    assert json.loads((run / "config.json").read_text())["steps"] == 50


def test_stopping_by_hand_keeps_what_was_written(tiny_config, train_quietly, monkeypatch):
    original = loop.require_finite

    def stop_at_three(metrics, step):
        if step == 3:
            raise KeyboardInterrupt
        original(metrics, step)

    monkeypatch.setattr(loop, "require_finite", stop_at_three)
    config = tiny_config()
    with pytest.raises(KeyboardInterrupt):
        train_quietly(config)
    assert [row["step"] for row in read_rows(config.run_folder)] == [1, 2]
    assert load_checkpoint(config.run_folder).step == 2
    assert (config.run_folder / "curves.png").exists()


@pytest.mark.usefixtures("without_pictures")
def test_threads_are_set_for_the_run_alone(tiny_config, train_quietly, monkeypatch):
    seen = []
    original = loop.require_finite
    monkeypatch.setattr(
        loop, "require_finite", lambda *a: seen.append(torch.get_num_threads()) or original(*a)
    )
    before = torch.get_num_threads()
    train_quietly(tiny_config(threads=before + 1, steps=1))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
    assert tiny_config().threads == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_there_is_named(tiny_config, train_quietly):
    config = tiny_config(device="cuda")
    with pytest.raises(ConfigError, match="device: cuda is not there"):
        train_quietly(config)
    assert not config.run_folder.exists()
    assert loop.choose_device("auto").type == "cpu"


@pytest.mark.cuda
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("data", ["digits", "gaussians-8", "swiss-roll"])
def test_trains_on_cuda(objective, data, tiny_config, train_quietly):
    run = train_quietly(tiny_config(objective=objective, data=data, device="cuda"))
    assert load_checkpoint(run).step == 3
