"""The tuners of PEFT that work on volumetric networks: their layers, settings and corrections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
CONVOLUTION = (*LINEAR, "conv.spatial")
NORM = ("norm",)

HEAD_RATE = 1e-2
VECTORS_RATE = 1e-2
"""Learning rate of tuners that train vectors only; a tenth of it for matrices."""

OWN_BASES = {"save_projection": False}
"""Constant random matrices are recomputed from their seed instead of being saved."""

WIDTH = 12
"""A divisor of all widths of SwinUNETR, for tuners whose block size must divide the width."""


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """A tuner of PEFT.

    Attributes:
        name: Name of the method without `hf-`.
        config: Name of PEFT's configuration class.
        summary: Description of the trained parameters.
        settings: Keys of PEFT's configuration that can be set, with the defaults of this package.
        fixed: Keys with a fixed value.
        roles: Roles of the layers that PEFT can change.
        rate: Default learning rate.
        merges: Whether the change can be merged into the weights.
        factory: Class of the method.
        reference: Reference of the paper.
        note: Limitations, for the user.
    """

    name: str
    config: str
    summary: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = LINEAR
    rate: float = 1e-3
    merges: bool = True
    factory: str = "fseft_hf_peft.method:PeftMethod"
    reference: str = ""
    note: str = ""

    @property
    def method(self) -> str:
        """Name of the method."""
        return f"hf-{self.name}"


TUNERS = (
    Tuner(
        name="adalora",
        config="AdaLoraConfig",
        summary="AdaLoRA: low-rank deltas in SVD form that share a budget of ranks",
        settings={
            "target_r": 8,
            "init_r": 12,
            "lora_alpha": 8,
            "lora_dropout": 0.0,
            "tinit": 0,
            "deltaT": 1,
            "beta1": 0.85,
            "beta2": 0.85,
            "orth_reg_weight": 0.5,
        },
        factory="fseft_hf_peft.adalora:AdaLoRA",
        reference="Zhang et al. 2023, arXiv:2303.10512",
        note="the budget is scheduled over the planned steps: a time limit may end it above "
        "`target_r`",
    ),
    Tuner(
        name="adamss",
        config="AdamssConfig",
        summary="AdaMSS: changes within clustered subspaces of the weight's singular vectors",
        settings={"r": 32, "num_subspaces": 5, "subspace_rank": 1},
        note="`r` singular vectors of each layer are kept, or its full rank if that is lower",
    ),
    Tuner(
        name="beft",
        config="BeftConfig",
        summary="BEFT: an additional trained bias of each layer",
        rate=VECTORS_RATE,
        reference="arXiv:2509.15974",
    ),
    Tuner(
        name="boft",
        config="BOFTConfig",
        summary="BOFT: orthogonal butterfly factors on the weight",
        settings={"boft_block_size": 4, "boft_n_butterfly_factor": 1, "boft_dropout": 0.0},
        reference="Liu et al. 2023, arXiv:2311.06243",
        note="the block size must divide the inputs of each layer",
    ),
    Tuner(
        name="c3a",
        config="C3AConfig",
        summary="C3A: block-circular convolutions",
        settings={"block_size": WIDTH},
        fixed={"init_weights": True},
        reference="arXiv:2407.19342",
        note="the block size must divide the inputs and outputs of each layer; starts at zero",
    ),
    Tuner(
        name="deft",
        config="DeftConfig",
        summary="DEFT: a low-rank part of the weight is projected out and relearnt",
        settings={"r": 8, "decomposition_method": "relu", "para": False, "deft_dropout": 0.0},
    ),
    Tuner(
        name="delora",
        config="DeloraConfig",
        summary="DeLoRA: low-rank deltas with separate direction and strength",
        settings={"r": 8, "delora_lambda": 15, "module_dropout": 0.0},
        reference="Bini et al. 2025, arXiv:2503.18225",
    ),
    Tuner(
        name="fourierft",
        config="FourierFTConfig",
        summary="FourierFT: a few coefficients of the delta's Fourier transform",
        settings={"n_frequency": 1000, "scaling": 150.0, "random_loc_seed": 777},
        fixed={"init_weights": True},
        rate=VECTORS_RATE,
        reference="Gao et al. 2024, arXiv:2405.03003",
        note="starts at zero",
    ),
    Tuner(
        name="glora",
        config="GloraConfig",
        summary="GLoRA: low-rank scales and shifts of weights and biases",
        settings={"r": 8, "config_A_B": "lora", "config_C": "lora", "config_D_E": "constant"},
        reference="Chavan et al. 2023, arXiv:2306.07967",
    ),
    Tuner(
        name="hira",
        config="HiraConfig",
        summary="HiRA: the weight times a low-rank matrix, element by element",
        settings={"r": 32, "hira_dropout": 0.0},
        roles=CONVOLUTION,
        reference="Huang et al. 2025, openreview.net/forum?id=TwJrTz9cRS",
    ),
    Tuner(
        name="hra",
        config="HRAConfig",
        summary="HRA: Householder reflections of the weight",
        settings={"r": 8, "apply_GS": False},
        reference="Yuan et al. 2024, arXiv:2405.17484",
        note="for an odd `r` the initial output differs from the base",
    ),
    Tuner(
        name="ia3",
        config="IA3Config",
        summary="IA3: scales of queries, keys and values, and of the inputs of other layers",
        roles=("attn.qkv", "mlp.fc2", "conv.spatial"),
        rate=VECTORS_RATE,
        factory="fseft_hf_peft.method:IA3",
        reference="Liu et al. 2022, arXiv:2205.05638",
        note="queries are scaled with keys and values",
    ),
    Tuner(
        name="lily",
        config="LilyConfig",
        summary="Lily: low-rank deltas from parts that layers share, selected by a router",
        settings={"r": 32, "stride_A": 1, "num_B": 2, "scaling": 1.0},
        merges=False,
        reference="arXiv:2407.09946",
        note="depends on the input, and cannot be merged",
    ),
    Tuner(
        name="ln",
        config="LNTuningConfig",
        summary="LN tuning: the scales and shifts of norm layers",
        roles=NORM,
        rate=VECTORS_RATE,
        reference="Zhao et al. 2023, arXiv:2312.11420",
    ),
    Tuner(
        name="loha",
        config="LoHaConfig",
        summary="LoHa: element-wise products of two low-rank matrices",
        settings={"r": 8, "alpha": 8, "rank_dropout": 0.0, "module_dropout": 0.0},
        reference="Hyeon-Woo et al. 2021, arXiv:2108.06098",
    ),
    Tuner(
        name="lokr",
        config="LoKrConfig",
        summary="LoKr: Kronecker products with a low-rank factor",
        settings={
            "r": 8,
            "alpha": 8,
            "decompose_both": False,
            "decompose_factor": -1,
            "module_dropout": 0.0,
        },
        reference="Yeh et al. 2023, arXiv:2309.14859",
    ),
    Tuner(
        name="lora",
        config="LoraConfig",
        summary="LoRA: low-rank deltas, with rsLoRA and DoRA",
        settings={
            "r": 8,
            "lora_alpha": 8,
            "lora_dropout": 0.0,
            "use_rslora": False,
            "use_dora": False,
        },
        roles=CONVOLUTION,
        reference="Hu et al. 2021, arXiv:2106.09685",
        note="the method `lora` of fseft supports transposed and pointwise convolutions too",
    ),
    Tuner(
        name="miss",
        config="MissConfig",
        summary="MiSS: one small matrix for all shards of the weight",
        settings={"r": WIDTH, "mini_r": 1, "miss_dropout": 0.0},
        reference="Kang et al. 2024, arXiv:2409.15371",
        note="`r` is at most the inputs of each layer",
    ),
    Tuner(
        name="oft",
        config="OFTConfig",
        summary="OFT: block-diagonal orthogonal factors on the weight",
        settings={
            "oft_block_size": WIDTH,
            "coft": False,
            "eps": 6e-5,
            "block_share": False,
            "module_dropout": 0.0,
        },
        reference="Qiu et al. 2023, arXiv:2306.07280",
        note="the block size must divide the inputs of each layer",
    ),
    Tuner(
        name="osf",
        config="OSFConfig",
        summary="OSF: the small singular values and vectors, orthogonal to the large ones",
        settings={},
        rate=1e-4,
        reference="arXiv:2504.07097",
        note="half of the rank is trained: the adapter is large",
    ),
    Tuner(
        name="peanut",
        config="PeanutConfig",
        summary="PEANuT: a small network predicts the delta from the weight",
        settings={"r": 32, "depth": 0, "act_fn": "relu", "scaling": 1.0},
        reference="arXiv:2410.01870",
    ),
    Tuner(
        name="psoft",
        config="PsoftConfig",
        summary="PSOFT: an orthogonal factor within the principal subspace of the weight",
        settings={"r": 32, "psoft_alpha": 32, "psoft_dropout": 0.0, "psoft_orth": True},
        reference="openreview.net/forum?id=FSHrinMArK",
        note="`r` is at most the smaller side of each layer",
    ),
    Tuner(
        name="pvera",
        config="PveraConfig",
        summary="PVeRA: VeRA with a distribution over the scales, sampled in training",
        settings={"r": 256, "projection_prng_key": 0, "d_initial": 0.1, "pvera_dropout": 0.0},
        fixed=OWN_BASES,
        rate=VECTORS_RATE,
        note="predicts with the mean",
    ),
    Tuner(
        name="randlora",
        config="RandLoraConfig",
        summary="RandLoRA: scaled sums of random low-rank matrices, of full rank together",
        settings={
            "r": 32,
            "randlora_alpha": 640,
            "projection_prng_key": 0,
            "randlora_dropout": 0.0,
        },
        fixed=OWN_BASES,
        reference="Albert et al. 2025, arXiv:2502.00987",
    ),
    Tuner(
        name="road",
        config="RoadConfig",
        summary="RoAd: rotations and scales of pairs of outputs",
        settings={"variant": "road_1", "group_size": WIDTH},
        rate=VECTORS_RATE,
        reference="Liao et al. 2024, arXiv:2409.00119",
        note="the group size must divide the outputs of each layer",
    ),
    Tuner(
        name="shira",
        config="ShiraConfig",
        summary="SHiRA: a few entries of the weight, drawn at random",
        settings={"r": 8},
        reference="Bhardwaj et al. 2024, arXiv:2406.13175",
        note="as many entries as LoRA of rank `r` has parameters",
    ),
    Tuner(
        name="supertuning",
        config="SupertuningConfig",
        summary="Super-Tuning: the largest entries of the weight",
        settings={"sparsity": 0.99, "select_top": True},
        reference="arXiv:2607.09287",
    ),
    Tuner(
        name="tinylora",
        config="TinyLoraConfig",
        summary="TinyLoRA: a few numbers for each layer, along its singular vectors",
        settings={"r": 2, "u": 64, "weight_tying": 0.0, "projection_seed": 42},
        rate=VECTORS_RATE,
        reference="arXiv:2602.04118",
    ),
    Tuner(
        name="unilora",
        config="UniLoraConfig",
        summary="Uni-LoRA: one short vector, spread over all low-rank deltas",
        settings={"r": 4, "theta_d_length": 256, "proj_seed": 42},
        rate=VECTORS_RATE,
        reference="arXiv:2506.00799",
        note="the initial output is only close to the base",
    ),
    Tuner(
        name="vblora",
        config="VBLoRAConfig",
        summary="VB-LoRA: low-rank deltas composed of vectors that layers share",
        settings={"r": 4, "num_vectors": 256, "vector_length": WIDTH, "topk": 2},
        reference="Li et al. 2024, arXiv:2405.15179",
        note="the vector length must divide the widths of each layer; the initial output is only "
        "close to the base",
    ),
    Tuner(
        name="vera",
        config="VeraConfig",
        summary="VeRA: scales of random matrices that layers share",
        settings={"r": 256, "projection_prng_key": 0, "d_initial": 0.1, "vera_dropout": 0.0},
        fixed=OWN_BASES,
        rate=VECTORS_RATE,
        reference="Kopiczko et al. 2023, arXiv:2310.11454",
    ),
    Tuner(
        name="waveft",
        config="WaveFTConfig",
        summary="WaveFT: a few coefficients of the delta's wavelet transform",
        settings={"n_frequency": 1000, "scaling": 25.0, "random_loc_seed": 777},
        rate=VECTORS_RATE,
        reference="arXiv:2505.12532",
        note="`n_frequency` is at most the number of weights of each layer",
    ),
)
