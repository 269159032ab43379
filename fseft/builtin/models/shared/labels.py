"""Classes of public models in the order of their output channels, without the background."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


BTCV_13 = _names("""
    spleen, right kidney, left kidney, gallbladder, esophagus, liver, stomach, aorta, inferior
    vena cava, portal and splenic veins, pancreas, right adrenal gland, left adrenal gland
""")
"""BTCV: Multi-Atlas Labeling Beyond the Cranial Vault."""

UNIVERSAL_32 = _names("""
    Spleen, Right Kidney, Left Kidney, Gall Bladder, Esophagus, Liver, Stomach, Aorta, Postcava,
    Portal Vein and Splenic Vein, Pancreas, Right Adrenal Gland, Left Adrenal Gland, Duodenum,
    Hepatic Vessel, Right Lung, Left Lung, Colon, Intestine, Rectum, Bladder, Prostate, Left Head
    of Femur, Right Head of Femur, Celiac Truck, Kidney Tumor, Liver Tumor, Pancreas Tumor,
    Hepatic Vessel Tumor, Lung Tumor, Colon Tumor, Kidney Cyst
""")
"""CLIP-driven universal model, and SuPreM's checkpoints of epoch 2100."""

ABDOMENATLAS_9 = _names("""
    aorta, gall_bladder, kidney_left, kidney_right, liver, pancreas, postcava, spleen, stomach
""")
"""SuPreM's checkpoints trained on AbdomenAtlas 1.0."""

ABDOMENATLAS_25 = _names("""
    aorta, gall_bladder, kidney_left, kidney_right, liver, pancreas, postcava, spleen, stomach,
    adrenal_gland_left, adrenal_gland_right, bladder, celiac_trunk, colon, duodenum, esophagus,
    femur_left, femur_right, hepatic_vessel, intestine, lung_left, lung_right,
    portal_vein_and_splenic_vein, prostate, rectum
""")
"""SuPreM's checkpoints trained on AbdomenAtlas 1.1."""

VOCOMNI_20 = _names("""
    spleen, kidney_right, kidney_left, gallbladder, esophagus, liver, stomach, aorta,
    inferior_vena_cava, portal_and_splenic_veins, pancreas, adrenal_gland_right,
    adrenal_gland_left, liver_tumor, pancreas_tumor, kidney_tumor, covid, colon, colon_tumor,
    lung_tumor
""")
"""VoComni: `labels` of VoComni.json, with `rkid`, `veins` and others spelled out."""

FSEFT_29 = _names("""
    spleen, kidney_right, kidney_left, gallbladder, esophagus, liver, stomach, aorta, postcava,
    portal_and_splenic_vein, pancreas, adrenal_gland_right, adrenal_gland_left, duodenum, bladder,
    prostate_uterus, liver_tumor, kidney_tumor, kidney_cyst, celiac_trunk, lung_right, lung_left,
    bone, brain, lung_tumor, pancreas_tumor, hepatic_vessel, hepatic_vessel_tumor, colon_tumor
""")
"""The supervised model of the FSEFT paper."""

TOTALSEGMENTATOR_104 = _names("""
    spleen, kidney_right, kidney_left, gallbladder, liver, stomach, aorta, inferior_vena_cava,
    portal_vein_and_splenic_vein, pancreas, adrenal_gland_right, adrenal_gland_left,
    lung_upper_lobe_left, lung_lower_lobe_left, lung_upper_lobe_right, lung_middle_lobe_right,
    lung_lower_lobe_right, vertebrae_L5, vertebrae_L4, vertebrae_L3, vertebrae_L2, vertebrae_L1,
    vertebrae_T12, vertebrae_T11, vertebrae_T10, vertebrae_T9, vertebrae_T8, vertebrae_T7,
    vertebrae_T6, vertebrae_T5, vertebrae_T4, vertebrae_T3, vertebrae_T2, vertebrae_T1,
    vertebrae_C7, vertebrae_C6, vertebrae_C5, vertebrae_C4, vertebrae_C3, vertebrae_C2,
    vertebrae_C1, esophagus, trachea, heart_myocardium, heart_atrium_left, heart_ventricle_left,
    heart_atrium_right, heart_ventricle_right, pulmonary_artery, brain, iliac_artery_left,
    iliac_artery_right, iliac_vena_left, iliac_vena_right, small_bowel, duodenum, colon,
    rib_left_1, rib_left_2, rib_left_3, rib_left_4, rib_left_5, rib_left_6, rib_left_7,
    rib_left_8, rib_left_9, rib_left_10, rib_left_11, rib_left_12, rib_right_1, rib_right_2,
    rib_right_3, rib_right_4, rib_right_5, rib_right_6, rib_right_7, rib_right_8, rib_right_9,
    rib_right_10, rib_right_11, rib_right_12, humerus_left, humerus_right, scapula_left,
    scapula_right, clavicula_left, clavicula_right, femur_left, femur_right, hip_left, hip_right,
    sacrum, face, gluteus_maximus_left, gluteus_maximus_right, gluteus_medius_left,
    gluteus_medius_right, gluteus_minimus_left, gluteus_minimus_right, autochthon_left,
    autochthon_right, iliopsoas_left, iliopsoas_right, urinary_bladder
""")
"""TotalSegmentator v1."""

TOTALSEGMENTATOR_117 = _names("""
    spleen, kidney_right, kidney_left, gallbladder, liver, stomach, pancreas, adrenal_gland_right,
    adrenal_gland_left, lung_upper_lobe_left, lung_lower_lobe_left, lung_upper_lobe_right,
    lung_middle_lobe_right, lung_lower_lobe_right, esophagus, trachea, thyroid_gland, small_bowel,
    duodenum, colon, urinary_bladder, prostate, kidney_cyst_left, kidney_cyst_right, sacrum,
    vertebrae_S1, vertebrae_L5, vertebrae_L4, vertebrae_L3, vertebrae_L2, vertebrae_L1,
    vertebrae_T12, vertebrae_T11, vertebrae_T10, vertebrae_T9, vertebrae_T8, vertebrae_T7,
    vertebrae_T6, vertebrae_T5, vertebrae_T4, vertebrae_T3, vertebrae_T2, vertebrae_T1,
    vertebrae_C7, vertebrae_C6, vertebrae_C5, vertebrae_C4, vertebrae_C3, vertebrae_C2,
    vertebrae_C1, heart, aorta, pulmonary_vein, brachiocephalic_trunk, subclavian_artery_right,
    subclavian_artery_left, common_carotid_artery_right, common_carotid_artery_left,
    brachiocephalic_vein_left, brachiocephalic_vein_right, atrial_appendage_left,
    superior_vena_cava, inferior_vena_cava, portal_vein_and_splenic_vein, iliac_artery_left,
    iliac_artery_right, iliac_vena_left, iliac_vena_right, humerus_left, humerus_right,
    scapula_left, scapula_right, clavicula_left, clavicula_right, femur_left, femur_right,
    hip_left, hip_right, spinal_cord, gluteus_maximus_left, gluteus_maximus_right,
    gluteus_medius_left, gluteus_medius_right, gluteus_minimus_left, gluteus_minimus_right,
    autochthon_left, autochthon_right, iliopsoas_left, iliopsoas_right, brain, skull, rib_left_1,
    rib_left_2, rib_left_3, rib_left_4, rib_left_5, rib_left_6, rib_left_7, rib_left_8,
    rib_left_9, rib_left_10, rib_left_11, rib_left_12, rib_right_1, rib_right_2, rib_right_3,
    rib_right_4, rib_right_5, rib_right_6, rib_right_7, rib_right_8, rib_right_9, rib_right_10,
    rib_right_11, rib_right_12, sternum, costal_cartilages
""")
"""TotalSegmentator v2, task `total`."""

VISTA3D_132 = _names("""
    liver, kidney, spleen, pancreas, right kidney, aorta, inferior vena cava, right adrenal gland,
    left adrenal gland, gallbladder, esophagus, stomach, duodenum, left kidney, bladder, prostate
    or uterus, portal vein and splenic vein, rectum, small bowel, lung, bone, brain, lung tumor,
    pancreatic tumor, hepatic vessel, hepatic tumor, colon cancer primaries, left lung upper lobe,
    left lung lower lobe, right lung upper lobe, right lung middle lobe, right lung lower lobe,
    vertebrae L5, vertebrae L4, vertebrae L3, vertebrae L2, vertebrae L1, vertebrae T12, vertebrae
    T11, vertebrae T10, vertebrae T9, vertebrae T8, vertebrae T7, vertebrae T6, vertebrae T5,
    vertebrae T4, vertebrae T3, vertebrae T2, vertebrae T1, vertebrae C7, vertebrae C6, vertebrae
    C5, vertebrae C4, vertebrae C3, vertebrae C2, vertebrae C1, trachea, left iliac artery, right
    iliac artery, left iliac vena, right iliac vena, colon, left rib 1, left rib 2, left rib 3,
    left rib 4, left rib 5, left rib 6, left rib 7, left rib 8, left rib 9, left rib 10, left rib
    11, left rib 12, right rib 1, right rib 2, right rib 3, right rib 4, right rib 5, right rib 6,
    right rib 7, right rib 8, right rib 9, right rib 10, right rib 11, right rib 12, left humerus,
    right humerus, left scapula, right scapula, left clavicula, right clavicula, left femur, right
    femur, left hip, right hip, sacrum, left gluteus maximus, right gluteus maximus, left gluteus
    medius, right gluteus medius, left gluteus minimus, right gluteus minimus, left autochthon,
    right autochthon, left iliopsoas, right iliopsoas, left atrial appendage, brachiocephalic
    trunk, left brachiocephalic vein, right brachiocephalic vein, left common carotid artery,
    right common carotid artery, costal cartilages, heart, left kidney cyst, right kidney cyst,
    prostate, pulmonary vein, skull, spinal cord, sternum, left subclavian artery, right
    subclavian artery, superior vena cava, thyroid gland, vertebrae S1, bone lesion, kidney mass,
    liver tumor, vertebrae L6, airway
""")
"""VISTA3D's class prompts 1 to 132."""
