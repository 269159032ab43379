"""Classes of the networks in the order of their output channels, without the background.

Names are those of fseft's vocabulary, which knows FreeSurfer's names of `labels.json` as aliases.
"""

from __future__ import annotations

_CORTEX = """
    banks_superior_temporal_sulcus caudal_anterior_cingulate caudal_middle_frontal cuneus
    entorhinal fusiform inferior_parietal inferior_temporal isthmus_cingulate lateral_occipital
    lateral_orbitofrontal lingual medial_orbitofrontal middle_temporal parahippocampal
    paracentral pars_opercularis pars_orbitalis pars_triangularis pericalcarine postcentral
    posterior_cingulate precentral precuneus rostral_anterior_cingulate rostral_middle_frontal
    superior_frontal superior_parietal superior_temporal supramarginal frontal_pole
    temporal_pole transverse_temporal insula
"""
_SUBCORTICAL_17 = """
    cerebral_white_matter cerebral_cortex lateral_ventricle inferior_lateral_ventricle
    cerebellum_white_matter cerebellum_cortex thalamus caudate putamen pallidum third_ventricle
    fourth_ventricle brainstem hippocampus amygdala accumbens ventral_diencephalon
"""
_SUBCORTICAL_15 = """
    cerebral_white_matter brain_ventricles cerebellum_white_matter cerebellum_cortex thalamus
    caudate putamen pallidum brainstem hippocampus amygdala cerebrospinal_fluid accumbens
    ventral_diencephalon corpus_callosum
"""

CORTEX_34 = tuple(_CORTEX.split())
"""Regions of the Desikan-Killiany atlas, in the order of FreeSurfer's table."""

REGIONS_17 = tuple(_SUBCORTICAL_17.split())
"""Left and right together."""

REGIONS_49 = (*_SUBCORTICAL_15.split(), *(f"{region}_cortex" for region in CORTEX_34))
"""Left and right together."""


def _sides(name: str) -> tuple[str, str]:
    return f"{name}_left", f"{name}_right"


REGIONS_103 = (
    *(f"{region}_cortex_left" for region in CORTEX_34),
    *(f"{region}_cortex_right" for region in CORTEX_34),
    *_sides("thalamus"),
    *_sides("caudate"),
    *_sides("putamen"),
    *_sides("pallidum"),
    *_sides("hippocampus"),
    *_sides("amygdala"),
    *_sides("accumbens"),
    *_sides("ventral_diencephalon"),
    *_sides("cerebral_white_matter"),
    "lateral_ventricle_left",
    "inferior_lateral_ventricle_left",
    "lateral_ventricle_right",
    "inferior_lateral_ventricle_right",
    "third_ventricle",
    "fourth_ventricle",
    "cerebrospinal_fluid",
    "brainstem",
    *_sides("cerebellum_white_matter"),
    *_sides("cerebellum_cortex"),
    "corpus_callosum_posterior",
    "corpus_callosum_mid_posterior",
    "corpus_callosum_central",
    "corpus_callosum_mid_anterior",
    "corpus_callosum_anterior",
)
