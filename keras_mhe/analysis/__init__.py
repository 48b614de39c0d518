"""Reports on the neurons of a model, once or during training."""

from keras_mhe.analysis._drift_report import DriftReport, KernelChange
from keras_mhe.analysis._energy_report import energy_report
from keras_mhe.analysis._monitor import EnergyMonitor
from keras_mhe.analysis._report import KernelReport, Report

__all__ = [
    "DriftReport",
    "EnergyMonitor",
    "KernelChange",
    "KernelReport",
    "Report",
    "energy_report",
]
