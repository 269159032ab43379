"""The planner `native`: the spacing of the files."""

from fseft.plugin import PlannerSpec

SPEC = PlannerSpec(
    name="native",
    factory="fseft.planning.spacing:native_grid",
    summary="the median spacing of the files, whatever a patch holds",
    reference="Isensee et al. 2021, Nature Methods 18:203 (the rule of the full resolution)",
)
