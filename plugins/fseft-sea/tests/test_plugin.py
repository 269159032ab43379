"""fseft finds the plugin without problems."""

from fseft.registry import registry


def test_fseft_finds_the_method():
    source = registry().resolve("method", "sea").source
    assert source.distribution == "fseft-sea"
    assert source.problems == []
