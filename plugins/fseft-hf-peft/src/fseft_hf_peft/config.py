"""The settings of each method: the selected layers, and PEFT's settings under PEFT's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, create_model

from fseft.plugin import Config

if TYPE_CHECKING:
    from fseft_hf_peft.tuners import Tuner


class TunerConfig(Config):
    """Settings of all tuners; subclasses add `roles`, the kinds of layers that PEFT supports."""

    tuner: ClassVar[Tuner]

    parts: tuple[Literal["encoder", "bottleneck", "decoder"], ...] = Field(
        default=("encoder", "bottleneck"), description="parts of the network"
    )
    stages: tuple[int, ...] = Field(
        default=(), description="resolution levels, 0 the finest; empty: all"
    )

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of PEFT's configuration, except the names of the layers."""
        return {key: getattr(self, key) for key in self.tuner.settings} | dict(self.tuner.fixed)


def config_type(tuner: Tuner) -> type[TunerConfig]:
    """Returns the configuration class of a tuner; its fields are the keys of `--set`."""
    roles: Any = Literal[tuner.roles]
    fields: dict[str, Any] = {
        "roles": (tuple[roles, ...], Field(default=tuner.roles, description="roles of the layers")),
        **{
            key: (type(value), Field(default=value, description=f"of peft.{tuner.config}"))
            for key, value in tuner.settings.items()
        },
    }
    config = create_model(tuner.config, __base__=TunerConfig, __module__=__name__, **fields)
    config.tuner = tuner
    return config
