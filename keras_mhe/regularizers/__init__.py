"""Regularizers of the directions of neurons, the projections of CoMHE, and their base class."""

from keras_mhe.regularizers._attention import AttentionEnergy
from keras_mhe.regularizers._base import HypersphericalRegularizer, RegularizerSum
from keras_mhe.regularizers._comhe import CoMHE
from keras_mhe.regularizers._covering import MHC
from keras_mhe.regularizers._gram import MGD
from keras_mhe.regularizers._learned_projections import AdversarialProjection, AngleProjection
from keras_mhe.regularizers._mhe import MHE, HalfSpaceMHE
from keras_mhe.regularizers._polarization import MHP, RMHP
from keras_mhe.regularizers._projections import GroupProjection, RandomProjection
from keras_mhe.regularizers._separation import MHS

__all__ = [
    "MGD",
    "MHC",
    "MHE",
    "MHP",
    "MHS",
    "RMHP",
    "AdversarialProjection",
    "AngleProjection",
    "AttentionEnergy",
    "CoMHE",
    "GroupProjection",
    "HalfSpaceMHE",
    "HypersphericalRegularizer",
    "RandomProjection",
    "RegularizerSum",
]
