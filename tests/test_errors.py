"""An error is one line with case, file, cause and remedy."""

from __future__ import annotations

import pickle
import traceback

import pytest
from pydantic import BaseModel, ValidationError

from fseft.errors import (
    FseftError,
    IncompatibleError,
    PluginError,
    did_you_mean,
    is_out_of_memory,
    summarise_exception,
)


def test_all_parts_appear_in_one_line():
    error = FseftError("spacing is 0 mm", hint="Repair\nthe header.", case="p07", file="p07.nii.gz")
    assert str(error) == "case p07, p07.nii.gz: spacing is 0 mm. Repair the header."


def test_a_cause_alone_is_a_sentence():
    assert str(FseftError("the disk is full")) == "the disk is full."
    assert str(FseftError("the disk is full.", hint="Free some.")) == "the disk is full. Free some."


@pytest.mark.parametrize("kind", [FseftError, IncompatibleError, PluginError])
def test_an_error_keeps_its_class_and_parts_when_it_is_pickled(kind):
    error = kind("a", hint="b", case="c", file="d")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert (copy.case, copy.file) == ("c", "d")


def test_a_location_is_added_where_it_is_unset():
    error = FseftError("bad", case="inner").located(case="outer", file="f")
    assert (error.case, error.file) == ("inner", "f")


def test_a_located_error_keeps_class_cause_and_traceback():
    def fail():
        raise IncompatibleError("no attention layers") from KeyError("attn")

    with pytest.raises(IncompatibleError) as caught:
        fail()
    located = caught.value.located(case="a")
    assert type(located) is IncompatibleError
    assert located.__cause__ is caught.value.__cause__
    assert traceback.extract_tb(located.__traceback__)[-1].name == "fail"


@pytest.mark.parametrize(
    ("name", "choices", "hint"),
    [
        ("lorra", ["full", "lora"], "Did you mean lora?"),
        ("xyz", ["b", "a"], "Known: a, b."),
        ("xyz", [], "None is known."),
    ],
)
def test_the_hint_for_an_unknown_name_lists_similar_or_all_choices(name, choices, hint):
    assert did_you_mean(name, choices) == hint


def test_a_long_list_of_names_is_cut_short():
    choices = [f"case_{number:03d}" for number in range(262)]
    assert did_you_mean("zzz", choices).endswith("case_018, case_019 and 242 more.")


class Settings(BaseModel):
    rank: int


def test_an_exception_is_summarised_in_one_line():
    assert summarise_exception(ValueError("no\nluck")) == "ValueError: no luck"
    assert summarise_exception(KeyError()) == "KeyError"
    with pytest.raises(ValidationError) as caught:
        Settings(rank="four")
    assert summarise_exception(caught.value).startswith(
        "ValidationError: Settings: rank: must be a whole number"
    )


def test_out_of_memory_is_recognised_on_cpu_and_gpu():
    cpu = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes."
    gpu = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
    assert all(map(is_out_of_memory, (MemoryError(), RuntimeError(cpu), gpu)))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
