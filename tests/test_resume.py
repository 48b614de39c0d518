"""Training that is killed and resumed gives the weights of uninterrupted training."""

import signal

import keras
import numpy as np
import pytest
from subprocesses import run

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 5, 4

_TRAINING = """
import os, signal, sys
import keras, numpy as np
from keras import layers
from sklearn.datasets import load_digits
from keras_mhe import CoMHE, regularize

folder, (epochs, steps, last_epoch, last_batch) = sys.argv[1], map(int, sys.argv[2:])
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()

images, labels = load_digits(n_class=8, return_X_y=True)
images = (images / 16).astype("float32")

class Digits(keras.utils.PyDataset):
    '''Batches in an order that is a function of the epoch.'''

    epoch = None

    def __len__(self):
        return steps

    def __getitem__(self, index):
        # Keras reads one or two batches before the first epoch to find their shapes.
        order = np.random.default_rng(self.epoch or 0).permutation(32 * steps)
        samples = order[32 * index : 32 * (index + 1)]
        return images[samples], labels[samples]

class SetEpoch(keras.callbacks.Callback):
    '''Sets the epoch of the dataset.

    `fit` tells a dataset that an epoch begins, but not its number, and a counter in the dataset
    would restart at 0 when training is resumed. Callbacks receive the number before `fit` requests
    the first batch. (With `steps_per_epoch`, TensorFlow requests it in the previous epoch.)
    '''

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch, logs=None):
        self.dataset.epoch = epoch

class RecordEpochs(keras.callbacks.Callback):
    '''Records each epoch that begins.'''

    def on_epoch_begin(self, epoch, logs=None):
        with open(folder + "/epochs.txt", "a") as file:
            print(epoch, file=file)

class Kill(keras.callbacks.Callback):
    '''Kills the process after a batch.'''

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (last_epoch, last_batch):
            os.kill(os.getpid(), signal.SIGKILL)

def train(*callbacks):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu"),
            layers.Conv2D(12, 3, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(24, activation="relu", name="third"),
            layers.Dense(8),
        ]
    )
    # Both kernels have more coordinates than the projections.
    regularize(network, hidden=CoMHE(), where="second")
    model = regularize(network, hidden=CoMHE(projection="adversarial"), where="third").model
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    dataset = Digits()
    callbacks = [SetEpoch(dataset), *callbacks]
    model.fit(dataset, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return [*model.weights, *model.optimizer.variables]

backup = keras.callbacks.BackupAndRestore(
    folder + "/backup", save_freq="epoch", double_checkpoint=True
)
resumed = train(backup, RecordEpochs(), Kill())
uninterrupted = train()
names = " ".join(variable.path for variable in resumed)
assert "momentum" in names and "projection_of_kernel" in names, names
for variable, expected in zip(resumed, uninterrupted, strict=True):
    np.testing.assert_array_equal(
        np.asarray(variable), np.asarray(expected), err_msg=variable.path
    )
"""


def test_resumed_training_gives_the_weights_of_uninterrupted_training(tmp_path):
    """Compares weights, momenta and projections bit by bit. One layer has random projections."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("resuming is tested on TensorFlow and JAX")
    rng = np.random.default_rng(0)
    kill_epochs = np.sort(rng.choice(np.arange(1, EPOCHS), size=1, replace=False))
    for epoch in kill_epochs:
        killed = run(_TRAINING, tmp_path, EPOCHS, STEPS, epoch, rng.integers(STEPS))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    result = run(_TRAINING, tmp_path, EPOCHS, STEPS, EPOCHS, 0)
    assert result.returncode == 0, result.stderr
    # Each process began with the epoch in which the previous process was killed.
    recorded = [int(line) for line in (tmp_path / "epochs.txt").read_text().split()]
    starts, ends = [0, *kill_epochs], [*(kill_epochs + 1), EPOCHS]
    assert recorded == [epoch for pair in zip(starts, ends, strict=True) for epoch in range(*pair)]
