"""Training that is killed and taken up again ends as if it had not been killed."""

import signal

import keras
import numpy as np
import pytest
from replicas import run

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
        # Keras looks at a batch or two before the first epoch, for their shapes.
        order = np.random.default_rng(self.epoch or 0).permutation(32 * steps)
        chosen = order[32 * index : 32 * (index + 1)]
        return images[chosen], labels[chosen]

class Epochs(keras.callbacks.Callback):
    '''Tells the dataset which epoch it is.

    `fit` tells a dataset that an epoch begins, not which one: counting, it would begin at 0 again
    when training is taken up. Callbacks are told, before the first batch of the epoch is asked
    for. (Not with `steps_per_epoch`: then TensorFlow asks for it as the epoch before ends.)
    '''

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch, logs=None):
        self.dataset.epoch = epoch

class Record(keras.callbacks.Callback):
    '''Notes the epochs that begin.'''

    def on_epoch_begin(self, epoch, logs=None):
        with open(folder + "/epochs.txt", "a") as file:
            print(epoch, file=file)

class Kill(keras.callbacks.Callback):
    '''Ends the process after a batch, as nothing can prevent.'''

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (last_epoch, last_batch):
            os.kill(os.getpid(), signal.SIGKILL)

def trained(*callbacks):
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
    # Kernels of more coordinates than projections have.
    regularize(network, hidden=CoMHE(), where="second")
    model = regularize(network, hidden=CoMHE(projection="adversarial"), where="third").model
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    dataset = Digits()
    callbacks = [Epochs(dataset), *callbacks]
    model.fit(dataset, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return [*model.weights, *model.optimizer.variables]

backup = keras.callbacks.BackupAndRestore(
    folder + "/backup", save_freq="epoch", double_checkpoint=True
)
resumed = trained(backup, Record(), Kill())
uninterrupted = trained()
names = " ".join(variable.path for variable in resumed)
assert "momentum" in names and "projection_of_kernel" in names, names
for variable, expected in zip(resumed, uninterrupted, strict=True):
    np.testing.assert_array_equal(
        np.asarray(variable), np.asarray(expected), err_msg=variable.path
    )
"""


def test_killed_training_ends_with_the_weights_of_uninterrupted_training(tmp_path):
    """Weights, momenta and what the wrapper learned, bit for bit; draws are random in one layer."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("resuming is tested on TensorFlow and JAX")
    rng = np.random.default_rng(0)
    deaths = np.sort(rng.choice(np.arange(1, EPOCHS), size=1, replace=False))
    for epoch in deaths:
        killed = run(_TRAINING, tmp_path, EPOCHS, STEPS, epoch, rng.integers(STEPS))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    result = run(_TRAINING, tmp_path, EPOCHS, STEPS, EPOCHS, 0)
    assert result.returncode == 0, result.stderr
    # Each process began with the epoch in which the one before it died.
    begun = [int(line) for line in (tmp_path / "epochs.txt").read_text().split()]
    starts, ends = [0, *deaths], [*(deaths + 1), EPOCHS]
    assert begun == [epoch for pair in zip(starts, ends, strict=True) for epoch in range(*pair)]
