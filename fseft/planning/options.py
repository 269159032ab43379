"""Values of a plan that the user sets."""

from __future__ import annotations

from typing import Any

from fseft.documents import validate
from fseft.schemas import PlanOptions

NO_OPTIONS = PlanOptions()
"""Everything is planned."""


def plan_options(**values: Any) -> PlanOptions:
    """Returns validated options of a plan.

    Raises:
        FseftError: A value is invalid.
    """
    hint = "Correct it, or leave it to the planner."
    options: PlanOptions = validate(values, PlanOptions, name="set of plan options", hint=hint)
    return options
