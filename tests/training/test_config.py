import dataclasses
import json

import pytest

from wgan_fast.training import ConfigError, TrainConfig


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"objective": "dcgan"},
            {
                "batch_size": 128,
                "n_critic": 1,
                "critic_learning_rate": 2e-4,
                "generator_learning_rate": 2e-4,
                "beta1": 0.5,
                "beta2": 0.999,
                "normalisation": "batch",
            },
        ),
        (
            {"objective": "wgan"},
            {
                "batch_size": 64,
                "n_critic": 5,
                "critic_learning_rate": 5e-5,
                "generator_learning_rate": 5e-5,
                "clip_value": 0.01,
                "normalisation": "none",
            },
        ),
        (
            {"objective": "wgan-gp"},
            {
                "batch_size": 64,
                "n_critic": 5,
                "critic_learning_rate": 1e-4,
                "generator_learning_rate": 1e-4,
                "beta1": 0.0,
                "beta2": 0.9,
                "penalty_weight": 10.0,
                "normalisation": "none",
            },
        ),
        (
            {"objective": "wgan-gp", "data": "swiss-roll"},
            {
                "batch_size": 256,
                "n_critic": 5,
                "critic_learning_rate": 1e-4,
                "beta1": 0.5,
                "beta2": 0.9,
                "penalty_weight": 0.1,
                "latent_dim": 2,
                "hidden_dim": 512,
            },
        ),
        (
            {"objective": "wgan", "data": "gaussians-8"},
            {"batch_size": 256, "critic_learning_rate": 5e-5, "clip_value": 0.01},
        ),
    ],
)
def test_settings_left_out_are_the_papers(arguments, expected):
    config = TrainConfig(**arguments)
    assert {name: getattr(config, name) for name in expected} == expected


def test_settings_given_are_kept():
    given = {
        "batch_size": 3,
        "n_critic": 2,
        "critic_learning_rate": 0.5,
        "generator_learning_rate": 0.25,
        "beta1": 0.125,
        "beta2": 0.75,
        "penalty_weight": 0.0,
        "clip_value": 2.0,
        "latent_dim": 9,
        "normalisation": "layer",
    }
    config = TrainConfig(**given)
    assert {name: getattr(config, name) for name in given} == given


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 3


@pytest.mark.parametrize("objective", ["dcgan", "wgan", "wgan-gp"])
def test_json_holds_every_setting_and_gives_the_config_back(objective, tmp_path):
    config = TrainConfig(objective=objective, run_folder=tmp_path, seed=7)
    text = json.dumps(config.to_json(), allow_nan=False)
    settings = json.loads(text)
    assert set(settings) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert [name for name, value in settings.items() if value is None] == []
    assert TrainConfig(**settings) == config


def test_whole_numbers_become_floats():
    config = TrainConfig(beta1=0, critic_learning_rate=1)
    assert isinstance(config.beta1, float)
    assert isinstance(config.critic_learning_rate, float)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"objective": "gan"}, r"objective: expected one of dcgan, wgan, wgan-gp; got 'gan'"),
        ({"data": "mnist"}, r"data: expected one of digits, .*got 'mnist'"),
        ({"image_size": 20}, r"image_size: expected one of 16, 28, 32, 64; got 20"),
        ({"dtype": "float16"}, r"dtype: expected one of float32, float64; got 'float16'"),
        ({"backend": "magic"}, r"backend: expected one of auto, .*got 'magic'"),
        ({"loop": "graph"}, r"loop: expected one of auto, captured, compiled, eager; got 'graph'"),
        (
            {"backend": "first_order", "loop": "captured"},
            r"backend: first_order goes with loop eager, and with auto; got loop captured",
        ),
        ({"drift": -0.1}, r"drift: expected a number of at least 0, got -0.1"),
        ({"drift": "much"}, r"drift: expected a finite number, got 'much'"),
        ({"penalty_every": 0}, r"penalty_every: expected an integer of at least 1, got 0"),
        (
            {"lipschitz": "sn", "penalty_every": 2},
            r"penalty_every: only a gradient penalty takes one, so sn expects 1; got 2",
        ),
        (
            {"lipschitz": "adaptive", "penalty_weight": 0.01},
            r"penalty_weight: adaptive keeps λ between 0.1 and 1000, .*got 0.01",
        ),
        ({"lipschitz": "adaptive", "normalisation": "batch"}, r"normalisation: batch does not go"),
        ({"normalisation": "group"}, r"normalisation: expected one of none, .*got 'group'"),
        ({"steps": 0}, r"steps: expected an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, r"batch_size: expected an integer of at least 1, got 2.5"),
        ({"n_critic": True}, r"n_critic: expected an integer .*got True"),
        ({"latent_dim": -1}, r"latent_dim: .*got -1"),
        ({"channels": 0}, r"channels: .*got 0"),
        ({"hidden_dim": 0}, r"hidden_dim: .*got 0"),
        ({"threads": 0}, r"threads: expected an integer of at least 1, got 0"),
        ({"log_every": 0}, r"log_every: .*got 0"),
        ({"picture_every": 0}, r"picture_every: .*got 0"),
        ({"seed": -1}, r"seed: expected an integer of at least 0, got -1"),
        ({"critic_learning_rate": 0}, r"critic_learning_rate: expected a number above 0"),
        ({"generator_learning_rate": float("nan")}, r"generator_learning_rate: .*finite.*got nan"),
        ({"penalty_weight": -1.0}, r"penalty_weight: .*at least 0, got -1.0"),
        ({"penalty_weight": "10"}, r"penalty_weight: expected a finite number, got '10'"),
        ({"clip_value": float("inf")}, r"clip_value: expected a finite number, got inf"),
        ({"beta1": 1.0}, r"beta1: expected a number in \[0, 1\), got 1.0"),
        ({"beta2": -0.1}, r"beta2: expected a number in \[0, 1\), got -0.1"),
        ({"device": "tpu9"}, r"device: expected auto, cpu, cuda or cuda:<index>; got 'tpu9'"),
        ({"normalisation": "batch"}, r"normalisation: batch does not go with wgan-gp"),
        ({"objective": "wgan", "backend": "autograd"}, r"backend: only a gradient penalty takes"),
        ({"lipschitz": "wgp"}, r"lipschitz: expected one of clip, gp, .*, none; got 'wgp'"),
        (
            {"objective": "wgan", "lipschitz": "gp"},
            r"lipschitz: gp does not go with objective wgan; expected objective wgan-gp",
        ),
        (
            {"objective": "wgan-gp", "lipschitz": "sn"},
            r"lipschitz: sn does not go with objective wgan-gp; expected objective wgan,",
        ),
        ({"objective": "dcgan", "lipschitz": "clip"}, r"lipschitz: clip does not go with .*dcgan"),
        ({"objective": "dcgan", "lipschitz": "div"}, r"lipschitz: div does not go with .*dcgan"),
        (
            {"objective": "dcgan", "lipschitz": "r1", "normalisation": "batch"},
            r"normalisation: batch does not go with dcgan and a gradient penalty",
        ),
        (
            {"lipschitz": "groupsort", "normalisation": "layer"},
            r"normalisation: layer does not go with groupsort",
        ),
        ({"lipschitz": "sn", "normalisation": "instance"}, r"normalisation: .* go with sn"),
        ({"lipschitz": "groupsort", "channels": 5}, r"channels: groupsort sorts in pairs.* got 5"),
        (
            {"lipschitz": "groupsort", "data": "swiss-roll", "hidden_dim": 7},
            r"hidden_dim: groupsort sorts in pairs, expected an even number, got 7",
        ),
    ],
)
def test_bad_settings_name_themselves(arguments, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**arguments)
