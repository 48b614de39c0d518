"""Adds energies to every kernel of an existing model, or removes them."""

from keras_mhe.models._regularize import regularize
from keras_mhe.models._table import Row, Table
from keras_mhe.models._unregularize import unregularize

__all__ = ["Row", "Table", "regularize", "unregularize"]
