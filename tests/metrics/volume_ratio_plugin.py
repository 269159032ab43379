"""A plugin in one file: the metric that `test_plugin_metric.py` installs."""

from __future__ import annotations

from fseft.plugin import MetricSpec, hookimpl


def volume_ratio(masks):
    """Return the volume of the prediction divided by that of the reference."""
    return masks.prediction_voxels / masks.reference_voxels


@hookimpl
def fseft_metrics():
    """Return the metric."""
    return [
        MetricSpec(
            name="volume-ratio",
            title="VR",
            direction="higher",
            missing=0.0,
            digits=2,
            note="is prediction / reference",
            factory="tests.metrics.volume_ratio_plugin:volume_ratio",
        )
    ]
