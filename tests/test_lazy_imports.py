"""A package whose modules are imported one by one behaves as if it were imported as a whole."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from fseft.lazy_imports import import_lazily

FILES = {
    "__init__.py": "__version__ = '1.2'\nfrom .nets import Net\nfrom . import costly as dear\nfrom .costly import Heavy as Alias\nANSWER = 42\n",
    "nets/__init__.py": "from .net import Net\nfrom .other import Other\n",
    "nets/net.py": "from lazy_toy import __version__\nclass Net: version = __version__\n",
    "nets/other.py": "from lazy_toy.nets import Net\nclass Other(Net): pass\n",
    "costly.py": "class Heavy: pass\n",
}

SCRIPT = """
import json, sys
from fseft.lazy_imports import import_lazily
import_lazily("monai")
from monai.networks.nets import DynUNet, MedNeXt, SegResNet, SegResNetDS, SwinUNETR, UNet
optional = {"transformers", "sklearn", "pandas", "skimage", "torchvision", "nibabel"}
before = sorted(optional & sys.modules.keys())
import monai
print(json.dumps([before, monai.networks.nets.UNet is UNet, callable(monai.losses.DiceLoss)]))
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / "lazy_toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("fseft.lazy_imports.version", lambda _: "1.2")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    importlib.invalidate_caches()
    yield "lazy_toy"
    for name in [name for name in sys.modules if name.startswith("lazy_toy")]:
        del sys.modules[name]


def test_only_the_module_of_a_name_is_imported(toy):
    import_lazily(toy)
    from lazy_toy.nets import Net

    assert Net.version == "1.2"
    assert {name for name in sys.modules if name.startswith(toy)} == {
        "lazy_toy",
        "lazy_toy.nets",
        "lazy_toy.nets.net",
    }


def test_everything_else_is_found_later(toy):
    import_lazily(toy)
    import lazy_toy
    from lazy_toy.nets import Net

    assert issubclass(lazy_toy.nets.Other, Net)
    assert lazy_toy.dear.Heavy is lazy_toy.costly.Heavy is lazy_toy.Alias
    assert lazy_toy.Net is Net
    assert lazy_toy.ANSWER == 42
    assert sys.modules[toy] is lazy_toy


def test_a_star_import_brings_all_names(toy):
    import_lazily(toy)
    names: dict[str, object] = {}
    exec("from lazy_toy.nets import *", names)  # noqa: S102 - not allowed in a function
    assert {"Net", "Other"} <= names.keys()


def test_a_missing_name_is_an_error_as_ever(toy):
    import_lazily(toy)
    with pytest.raises(ImportError, match="Nothing"):
        from lazy_toy import Nothing  # noqa: F401
    import lazy_toy

    with pytest.raises(AttributeError, match="nothing"):
        lazy_toy.nothing  # noqa: B018


def test_a_package_that_is_imported_already_stays(toy):
    import lazy_toy

    import_lazily(toy)
    from lazy_toy.nets import Net

    assert lazy_toy.Net is Net
    assert type(lazy_toy) is type(sys)


def test_networks_of_monai_import_none_of_its_optional_packages():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == [[], True, True]
