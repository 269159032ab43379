"""Settings of method and training: one flat set of keys for two validated configurations."""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import ValidationError

from fseft.errors import FseftError, did_you_mean, plain_message
from fseft.plugin import ConfigurableSpec
from fseft.registry import registry
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.plugin import Config, MethodSpec
    from fseft.schemas import FrozenModel, PartMode, Provenance

PRESET = "preset"
"""The key that names a preset of the method; all other settings take precedence over it."""


@dataclass(frozen=True)
class ConfiguredMethod:
    """A method with its settings, resolved once by `configure_method` and then passed on.

    Attributes:
        name: As the user wrote it; `package:name` where two packages offer the same name.
        spec: The entry of the registry.
        config: The method's own configuration, validated.
        training: The training configuration, validated.
        decoder: Requested mode of the decoder; None for the default of the method.
        bottleneck: Requested mode of the bottleneck; None for the default.
    """

    name: str
    spec: MethodSpec
    config: Config
    training: TrainingConfig
    decoder: PartMode | None = None
    bottleneck: PartMode | None = None

    @property
    def part_modes(self) -> dict[str, PartMode]:
        """Decoder and bottleneck -> how they are trained in addition to the method."""
        decoder = self.decoder or default_decoder_mode(self.spec)
        return {"decoder": decoder, "bottleneck": self.bottleneck or "frozen"}

    @property
    def caches_features(self) -> bool:
        """Whether training runs on cached features, as only the head of the network changes."""
        return (
            self.spec.access == "black-box"
            and set(self.part_modes.values()) == {"frozen"}
            and self.training.features == "cached"
        )


def default_decoder_mode(spec: MethodSpec) -> PartMode:
    """Returns the default mode of the decoder: fine-tuned for white-box methods."""
    frozen = spec.access == "black-box" or not spec.needs_model
    return "frozen" if frozen else "fine-tuned"


def configure_method(
    name: str,
    settings: Mapping[str, Any],
    *,
    decoder: PartMode | None = None,
    bottleneck: PartMode | None = None,
) -> ConfiguredMethod:
    """Resolves a method and validates its settings.

    Args:
        name: As listed by `fseft methods`.
        settings: Keys of the method's configuration and of `TrainingConfig`, and `preset`. A key of
            both belongs to the method. Values may be text from a command line, such as "1,2" for a
            tuple.
        decoder: Mode of the decoder; None for the default of the method.
        bottleneck: Mode of the bottleneck; None for "frozen".

    Raises:
        FseftError: Unknown method, key or preset (with the nearest names), an invalid value, or
            modes that contradict the method.
    """
    spec = registry().method(name)
    config, training = split_settings(spec, settings, decoder or default_decoder_mode(spec))
    method = ConfiguredMethod(name, spec, config, training, decoder, bottleneck)
    _check_part_modes(method)
    if config.closed_form and not method.caches_features:
        raise FseftError(
            f"the solver of the method {spec.name!r} requires cached features",
            hint="Leave out features=recomputed, the decoder and bottleneck modes, or the solver.",
        )
    return method


def split_settings(
    spec: MethodSpec, settings: Mapping[str, Any], decoder: PartMode = "frozen"
) -> tuple[Config, TrainingConfig]:
    """Validates settings as the method's configuration and the training configuration.

    Args:
        spec: The method.
        settings: As for `configure_method`.
        decoder: Mode of the decoder; presets may differ where it is trained.

    Raises:
        FseftError: As for `configure_method`.
    """
    values = dict(settings)
    preset = _preset(spec, str(values.pop(PRESET)), decoder) if PRESET in values else {}
    values = group_components({**_renamed(spec, preset), **_renamed(spec, values)})
    method = {key: value for key, value in values.items() if key in spec.config.model_fields}
    training = {key: value for key, value in values.items() if key not in method}
    hint = f"See `fseft show method {spec.name}`."
    config = _validate(TrainingConfig, training, hint)
    check_components(config)
    return _validate(spec.config, method, hint), config


def check_components(config: TrainingConfig) -> None:
    """Checks that installed packages provide all components of a configuration and their settings.

    Raises:
        FseftError: The loss, optimizer, schedule or an augmentation is unknown, or one of its
            settings is unknown or invalid.
    """
    selected = {}
    for group, kind, name in config.selected_components():
        spec = registry().resolve(kind, name).spec
        assert isinstance(spec, ConfigurableSpec)  # noqa: S101 - checked when it was collected
        selected[group] = spec
        settings = config.component_settings(group)
        for key in settings:
            if key not in spec.config.model_fields:
                hint = did_you_mean(key, list(spec.config.model_fields))
                raise FseftError(f"the {kind} {name!r} has no setting {key!r}", hint=hint)
        _validate(spec.config, settings, f"See `fseft show {kind} {name}`.", group=f"{group}.")
    for group, settings in config.components.items():
        if group not in selected:
            cause = f"setting {group}.{next(iter(settings), '')}: no such component is selected"
            raise FseftError(cause, hint=did_you_mean(group, list(selected)))


def component_provenance(config: TrainingConfig) -> tuple[Provenance, ...]:
    """Returns the packages of the loss, optimizer, schedule and augmentations of a training."""
    components = config.selected_components()
    return tuple(registry().provenance(kind, name) for _, kind, name in components)


def group_components(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Collects settings of components, such as `loss.alpha`, in the setting `components`.

    Examples:
        >>> group_components({"loss": "tversky", "loss.alpha": 0.3})
        {'loss': 'tversky', 'components': {'loss': {'alpha': 0.3}}}
    """
    grouped = {key: value for key, value in settings.items() if "." not in key}
    components = {key: dict(values) for key, values in settings.get("components", {}).items()}
    for key, value in settings.items():
        group, dot, name = key.rpartition(".")
        if dot:
            components.setdefault(group, {})[name] = value
    return {**grouped, "components": components} if components else grouped


def _renamed(spec: MethodSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces former names of settings by the current ones; an unknown name is refused."""
    return {_current_name(spec, key): value for key, value in settings.items()}


def _current_name(spec: MethodSpec, key: str) -> str:
    if "." in key:  # of a component
        return key
    for model in (spec.config, TrainingConfig):
        name = model.current_name(key)
        if name in model.model_fields:
            return name
    hint = did_you_mean(key, [*spec.config.model_fields, *TrainingConfig.model_fields, PRESET])
    raise FseftError(f"the method {spec.name!r} has no setting {key!r}", hint=hint)


def _preset(spec: MethodSpec, name: str, decoder: PartMode) -> dict[str, Any]:
    """Returns the settings of a preset."""
    if name not in spec.presets:
        raise FseftError(
            f"the method {spec.name!r} has no preset {name!r}",
            hint=did_you_mean(name, list(spec.presets)),
        )
    preset = spec.presets[name]
    return {**preset.settings, **(preset.with_decoder if decoder != "frozen" else {})}


def _check_part_modes(method: ConfiguredMethod) -> None:
    """Refuses modes of decoder and bottleneck that would change nothing."""
    spec = method.spec
    for part, mode in {"decoder": method.decoder, "bottleneck": method.bottleneck}.items():
        if not spec.trains and mode not in (None, "frozen"):
            cause = f"the method {spec.name!r} trains nothing, also no {part}"
            raise FseftError(cause, hint=f"Leave out the mode of the {part}.")
        if part in spec.tunes and mode in ("frozen", "low-rank"):
            cause = f"the method {spec.name!r} trains the whole {part}: {mode} would change nothing"
            raise FseftError(
                cause, hint=f"Leave out the mode of the {part}, or use another method."
            )


def training_config(defaults: TrainingConfig, settings: Mapping[str, Any]) -> TrainingConfig:
    """Changes some settings of a training configuration.

    Args:
        defaults: The configuration to change, which stays as it is.
        settings: Values by the names of `TrainingConfig`, in the current or an earlier spelling;
            also settings of components, as in "loss.alpha".

    Raises:
        FseftError: An unknown key (with the nearest ones), or an invalid value.

    Examples:
        >>> training_config(TrainingConfig(), {"epochs": 50}).epochs
        50
    """
    settings = group_components(TrainingConfig.upgrade(settings))
    names = TrainingConfig.model_fields
    for key in settings:
        if key not in names:
            cause = f"the training has no setting {key!r}"
            raise FseftError(cause, hint=did_you_mean(key, list(names)))
    changed = {**defaults.model_dump(), **settings}
    config: TrainingConfig = _validate(TrainingConfig, changed, "Use another value.")
    check_components(config)
    return config


def _validate(model: type[Any], values: Mapping[str, Any], hint: str, group: str = "") -> Any:
    """Builds a configuration; an invalid value is one line with its key."""
    values = {key: _as_field(model, key, value) for key, value in values.items()}
    try:
        return model(**values)
    except ValidationError as error:
        key = str(next(iter(error.errors()[0]["loc"]), ""))
        raise FseftError(
            f"setting {group}{key}={_written(values.get(key))}: {_expected(error, key)}", hint=hint
        ) from error


def _expected(error: ValidationError, key: str) -> str:
    """Describes the values that a setting accepts: "must be true or false, or a list"."""
    problems = [problem for problem in error.errors() if problem["loc"][:1] in ((key,), ())]
    messages = [plain_message(problem["msg"]) for problem in problems]
    first, *others = dict.fromkeys(messages)
    alternatives = [other.removeprefix("must be ") for other in others]
    return ", or ".join([first, *alternatives])


def _written(value: Any) -> str:
    """Formats a value as users write it: lists with commas."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _as_field(model: type[FrozenModel], key: str, value: Any) -> Any:
    """Turns text and single values into a list where the field is a tuple, as in `stages=1`."""
    if not _takes_tuple(model.model_fields[key].annotation) or isinstance(value, list | tuple):
        return value
    if not isinstance(value, str):
        return [value]
    return [item for item in value.split(",") if item]


def _takes_tuple(annotation: Any) -> bool:
    """Whether a type is a tuple, or a union with one."""
    origin = get_origin(annotation) or annotation
    if origin in (Union, UnionType):
        return any(map(_takes_tuple, get_args(annotation)))
    return origin is tuple
