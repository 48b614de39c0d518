"""Adds energies to every kernel of an existing model, removes them, or moves their factors."""

from keras_mhe.models._energy_every import EnergyEvery
from keras_mhe.models._factor_schedule import FactorSchedule
from keras_mhe.models._regularize import regularize
from keras_mhe.models._table import Row, Table
from keras_mhe.models._unregularize import unregularize

__all__ = ["EnergyEvery", "FactorSchedule", "Row", "Table", "regularize", "unregularize"]
