"""The checks of an exporter, as parameters of a test, and a tiny adapted network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.registry import registry
from fseft.schemas import Intensity, Manifest, Preprocessing, Provenance
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters
from fseft.testing.tiny_networks import TINY_NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet
    from torch import nn

    from fseft.testing.tiny_networks import TinyNetwork


def exporter_checks(
    name: str,
    *,
    architecture: str = "resunet",
    network: TinyNetwork | None = None,
    xfail: Mapping[str, str] | None = None,
) -> list[ParameterSet]:
    """Returns the checks of an exporter, as parameters of a test that calls each.

    ```python
    @pytest.mark.parametrize("check", exporter_checks("my-format"))
    def test_my_format(check):
        check()
    ```

    Args:
        name: Name of the exporter in the registry.
        architecture: Architecture of the network, for formats that can express some only.
        network: A tiny network of an architecture that is not built in.
        xfail: Reason for each check that must fail.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    subject = _Exporter(name, architecture, network or TINY_NETWORKS[architecture])
    return parameters(name, CHECKS, subject, xfail)


def tiny_adapter(
    architecture: str = "resunet", tiny: TinyNetwork | None = None
) -> tuple[nn.Module, Manifest]:
    """Returns a merged network with random weights and two structures, and its manifest.

    Args:
        architecture: Name of the architecture.
        tiny: A tiny network of it; None for that in `TINY_NETWORKS`.

    Returns:
        A network (B, 1, i, j, k) -> logits (B, 3, i, j, k) in evaluation mode, and the manifest of
        an adapter for CT.
    """
    tiny = tiny or TINY_NETWORKS[architecture]
    network = build_network(
        get_architecture(architecture), in_channels=1, out_channels=3, hparams=tiny.hparams, seed=0
    )
    intensity = Intensity(scheme="window", low=-200, high=300)
    manifest = Manifest(
        method=Provenance(name="full", distribution="fseft", version="0"),
        config={},
        model="tiny",
        backbone_sha256="0" * 64,
        architecture=architecture,
        hparams=dict(tiny.hparams),
        decoder="fine-tuned",
        preprocessing=Preprocessing(
            orientation="RAS",
            spacing_mm=(1.5, 1.5, 2.0),
            modality="ct",
            intensity=(intensity,),
            patch_size=tiny.shape,
        ),
        channels=("CT",),
        labels={"liver": 1, "spleen": 3},
        support=("case_a", "case_b"),
        dataset="livers",
        init_seed=0,
        trained_parameters=1000,
    )
    return network.eval(), manifest


@dataclass(frozen=True)
class _Exporter:
    """An exporter, and the network that it must write."""

    name: str
    architecture: str
    tiny: TinyNetwork

    def files(self, folder: Path) -> list[str]:
        """Exports the network, and returns the paths of all files in the folder."""
        network, manifest = tiny_adapter(self.architecture, self.tiny)
        registry().factory("exporter", self.name)(network, manifest, folder)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(folder)) for path in paths)


def writes_files_into_the_folder_only(exporter: _Exporter) -> None:
    """It writes files into the folder, and none next to it."""
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "export"
        folder.mkdir()
        assert exporter.files(folder)
        assert list(Path(parent).iterdir()) == [folder]


def writes_the_same_files_again(exporter: _Exporter) -> None:
    """Two exports of a network have files of the same names."""
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        assert exporter.files(Path(first)) == exporter.files(Path(second))


def leaves_the_network_unchanged(exporter: _Exporter) -> None:
    """The network computes the same outputs afterwards."""
    network, manifest = tiny_adapter(exporter.architecture, exporter.tiny)
    image = torch.randn(1, 1, *manifest.preprocessing.patch_size)
    with torch.no_grad(), TemporaryDirectory() as folder:
        before = network(image)
        registry().factory("exporter", exporter.name)(network, manifest, Path(folder))
        assert torch.equal(network(image), before)
        assert not network.training


def loads_no_torch_before_it_is_chosen(exporter: _Exporter) -> None:
    """Listing the plugin of the exporter does not import torch."""
    assert_listed_without_torch("exporter", exporter.name)


CHECKS: tuple[Callable[[_Exporter], None], ...] = (
    writes_files_into_the_folder_only,
    writes_the_same_files_again,
    leaves_the_network_unchanged,
    loads_no_torch_before_it_is_chosen,
)
