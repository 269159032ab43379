"""The planner `field-of-view`: as fine as a patch still holds enough of the body."""

from fseft.plugin import PlannerSpec

SPEC = PlannerSpec(
    name="field-of-view",
    factory="fseft.planning.spacing:choose_grid",
    summary="coarsens until a patch holds the largest structure, or a quarter of the volume",
    reference="Isensee et al. 2021, Nature Methods 18:203 (the rule of the low resolution)",
)
