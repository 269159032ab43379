"""Settings: keys of the method and of the training, presets, and invalid values."""

from __future__ import annotations

from typing import ClassVar, get_args

import pytest

from fseft.cli.parsing import parse_settings
from fseft.errors import FseftError
from fseft.experiment.settings import configure_method, split_settings
from fseft.plugin import Config, MethodSpec, Preset
from fseft.registry import registry
from fseft.schemas import PartMode
from fseft.training_config import DEFAULT_AUGMENTATIONS, TrainingConfig


def split(*settings, method="lora"):
    return split_settings(registry().method(method), parse_settings("--set", settings))


def test_without_settings_all_is_as_by_default():
    config, recipe = split()
    assert (config, recipe) == (registry().method("lora").config(), TrainingConfig())


def test_keys_go_to_the_method_or_to_the_recipe():
    config, recipe = split(
        "rank=4", "epochs=7", "rslora=true", "learning_rate=1e-4", "loss=dice_ce", "augment=False"
    )
    assert (config.rank, config.rslora) == (4, True)
    assert (recipe.epochs, recipe.learning_rate, recipe.loss, recipe.augment) == (
        7,
        1e-4,
        "dice_ce",
        False,
    )


@pytest.mark.parametrize("text", ["encoder,decoder", '["encoder", "decoder"]', "encoder,decoder,"])
def test_a_list_is_written_with_commas_or_as_json(text):
    assert split(f"parts={text}")[0].parts == ("encoder", "decoder")


@pytest.mark.parametrize(
    ("text", "stages"), [("1", (1,)), ("0,2", (0, 2)), ("[0, 2]", (0, 2)), ("", ())]
)
def test_a_list_of_numbers_may_have_one_or_none(text, stages):
    assert split(f"stages={text}")[0].stages == stages


def test_the_last_of_two_settings_counts():
    assert split("rank=4", "rank=2")[0].rank == 2


def test_a_key_of_both_means_the_method_s():
    class Own(Config):
        epochs: int = 1

    spec = MethodSpec(name="own", factory="", config=Own)
    config, recipe = split_settings(spec, {"epochs": 5})
    assert (config.epochs, recipe.epochs) == (5, TrainingConfig().epochs)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rnak=4", "the method 'lora' has no setting 'rnak'. Did you mean rank"),
        ("epoch=4", "no setting 'epoch'. Did you mean epochs"),
        ("rank", "--set 'rank': expected key=value"),
        ("=3", "no setting ''"),
        ("rank=many", "setting rank=many: must be a whole number"),
        ("rank=0", "setting rank=0: must be at least 1"),
        ("rank=2.5", "setting rank=2.5: must be a whole number"),
        ("loss=hinge", "unknown loss 'hinge'"),
        ("learning_rate=nan", "setting learning_rate="),
        (
            "parts=brain",
            r"setting parts=brain: must be 'encoder', 'bottleneck', 'decoder' or 'head'",
        ),
        ("stages=--1", "setting stages=--1: must be a whole number"),
        ("stages=²", "setting stages=²: must be a whole number"),
        ("alpha=Infinity", "setting alpha=inf: must be a finite number"),
        ("stages=deep", "setting stages=deep: must be a whole number"),
    ],
)
def test_an_invalid_setting_is_one_line(setting, message):
    with pytest.raises(FseftError) as caught:
        split(setting)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_settings_take_precedence_over_a_preset():
    config, recipe = split("rank=4", "preset=reference", "epochs=7")
    assert (config.rank, config.roles) == (4, ("attn.qkv",))
    assert (recipe.epochs, recipe.learning_rate, recipe.uniform_learning_rate) == (7, 1e-3, True)


def test_a_preset_may_differ_where_the_decoder_is_trained():
    spec = registry().method("lora")
    rates = {
        d: split_settings(spec, {"preset": "reference"}, d)[1].learning_rate
        for d in get_args(PartMode)
    }
    assert rates == {"frozen": 1e-3, "fine-tuned": 1e-4, "new": 1e-4, "low-rank": 1e-4}


def test_an_unknown_preset_is_refused():
    with pytest.raises(
        FseftError, match=r"the method 'lora' has no preset 'paper'. Known: reference"
    ):
        split("preset=paper")
    with pytest.raises(
        FseftError, match=r"the method 'ia3' has no preset 'reference'. None is known"
    ):
        split("preset=reference", method="ia3")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"schedule": "up"}, "unknown schedule 'up'"),
        ({"optimizer": "magic"}, "unknown optimizer 'magic'"),
        ({"augment": "fog"}, "unknown augmentation 'fog'"),
        ({"solver": "lbfgs"}, "has no setting 'solver'"),
    ],
)
def test_unknown_components_are_refused_before_any_work(settings, message):
    with pytest.raises(FseftError, match=message):
        configure_method("lora", settings)


def test_settings_of_another_method_are_unknown():
    with pytest.raises(FseftError, match="'linear-probe' has no setting 'rank'"):
        split("rank=4", method="linear-probe")


class Renamed(Config):
    former_names: ClassVar = {"ratio": "lora_plus_ratio"}
    former_values: ClassVar = {"init": {"zero": "zeros"}}

    lora_plus_ratio: float = 1.0
    init: str = "random"


def test_the_former_name_of_a_setting_is_accepted_and_the_current_one_is_written():
    spec = MethodSpec(name="renamed", factory="", config=Renamed)
    config, _ = split_settings(spec, {"ratio": 16, "init": "zero"})
    assert config.model_dump() == {"lora_plus_ratio": 16.0, "init": "zeros"}


def test_a_document_with_former_names_is_read():
    stored = '{"ratio": 16.0, "init": "zero"}'
    assert Renamed.model_validate_json(stored) == Renamed(lora_plus_ratio=16.0, init="zeros")


def test_the_last_of_two_names_of_a_setting_counts():
    spec = MethodSpec(name="renamed", factory="", config=Renamed)
    config, _ = split_settings(spec, {"ratio": 16, "lora_plus_ratio": 4})
    assert config.lora_plus_ratio == 4


def test_two_names_of_a_field_in_a_document_contradict_each_other():
    with pytest.raises(ValueError, match="lora_plus_ratio is set twice"):
        Renamed.model_validate({"ratio": 16.0, "lora_plus_ratio": 4.0})


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("one_rate=true", "uniform_learning_rate=true"),
        ("clip=2", "max_grad_norm=2"),
        ("ema=0.9", "ema_decay=0.9"),
        ("warm_up=0.1", "warmup_fraction=0.1"),
        ("crops=3", "crops_per_step=3"),
        ("foreground=1", "foreground_fraction=1"),
        ("rounds=2", "feature_passes=2"),
        ("plateau=false", "early_stopping=false"),
        ("features=fresh", "features=recomputed"),
        ("features=kept", "features=cached"),
    ],
)
def test_former_names_of_training_settings_are_accepted(former, current):
    assert split(former) == split(current)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss=dyce", "unknown loss 'dyce'.*dice"),
        ("optimizer=adam", "unknown optimizer 'adam'.*adamw"),
        ("schedule=cosin", "unknown schedule 'cosin'.*cosine"),
        ("augment=noise,blurr", "unknown augmentation 'blurr'.*blur"),
    ],
)
def test_components_of_the_training_are_checked(setting, message):
    with pytest.raises(FseftError, match=message):
        split(setting)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("true", DEFAULT_AUGMENTATIONS),
        ("False", ()),
        ("shift", ("shift",)),
        ("noise,rotation", ("noise", "rotation")),
        ("default,shift", (*DEFAULT_AUGMENTATIONS, "shift")),
    ],
)
def test_augmentations_are_selected_by_name(text, names):
    assert split(f"augment={text}")[1].augmentations == names


def test_a_preset_may_use_former_names():
    preset = Preset(settings={"ratio": 16})
    spec = MethodSpec(name="renamed", factory="", config=Renamed, presets={"old": preset})
    assert split_settings(spec, {"preset": "old"})[0].lora_plus_ratio == 16


def test_components_have_settings_that_are_named_after_them():
    _, config = split(
        *("loss=dice_ce", "loss.ce_weight=0.5", "optimizer=sgd", "optimizer.momentum=0.9"),
        *("schedule=poly", "schedule.exponent=2", "augment.noise.standard_deviation=0.1"),
    )
    assert config.components == {
        "loss": {"ce_weight": 0.5},
        "optimizer": {"momentum": 0.9},
        "schedule": {"exponent": 2},
        "augment.noise": {"standard_deviation": 0.1},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss=dice_ce", "loss.weight=1"], r"the loss 'dice_ce' has no setting 'weight'.*ce_weig"),
        (["loss=dice", "loss.ce_weight=1"], "the loss 'dice' has no setting 'ce_weight'"),
        (["loss.ce_weight=1"], r"loss\.ce_weight: no such component is selected"),
        (["loss=dice_ce", "loss.ce_weight=-1"], r"setting loss\.ce_weight=-1: must be"),
        (["schedule=poly", "schedule.exponent=x"], r"setting schedule\.exponent=x: must be"),
        (["augment.nose.standard_deviation=1"], r"no such component.*augment\.noise"),
        (["augment=false", "augment.noise.standard_deviation=1"], "no such component"),
        (["lora.rank=1"], "no such component"),
    ],
)
def test_a_setting_of_a_component_must_fit_the_selected_one(settings, message):
    with pytest.raises(FseftError, match=message):
        split(*settings)
