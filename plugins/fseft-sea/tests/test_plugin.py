"""fseft finds the plugin, and nothing is wrong with it."""

from fseft.registry import registry


def test_fseft_knows_it():
    source = registry().resolve("method", "sea").source
    assert source.distribution == "fseft-sea"
    assert source.problems == []
