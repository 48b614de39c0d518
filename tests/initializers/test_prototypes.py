"""Fixed class vectors: angles, and use as a frozen head."""

import keras
import numpy as np
import pytest

from keras_mhe.initializers import prototypes


def largest_cosine(vectors):
    cosines = vectors.T @ vectors
    return np.max(cosines[~np.eye(len(cosines), dtype=bool)])


@pytest.mark.parametrize("classes", [2, 10, 17])
def test_smallest_angle_of_few_classes_is_that_of_the_simplex(classes):
    vectors = prototypes(classes, 16)
    assert vectors.shape == (16, classes)
    assert vectors.dtype == "float32"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1, atol=1e-6)
    assert largest_cosine(vectors) == pytest.approx(-1 / (classes - 1), abs=1e-6)


@pytest.mark.parametrize("classes", [18, 25, 32])
def test_smallest_angle_of_up_to_twice_as_many_classes_is_ninety_degrees(classes):
    assert largest_cosine(prototypes(classes, 16)) == pytest.approx(0, abs=1e-6)


def test_ten_classes_in_two_and_three_dimensions():
    assert largest_cosine(prototypes(10, 2)) == pytest.approx(np.cos(np.radians(36)), abs=1e-6)
    # Of ten points in three dimensions, the best smallest angle is 66.15 degrees.
    assert 64 < np.degrees(np.arccos(largest_cosine(prototypes(10, 3)))) < 66.15


def test_twelve_classes_in_three_dimensions_are_the_icosahedron():
    vectors = prototypes(12, 3)
    assert largest_cosine(vectors) == pytest.approx(1 / np.sqrt(5), abs=1e-5)


def test_one_class_and_one_dimension():
    np.testing.assert_allclose(np.linalg.norm(prototypes(1, 8), axis=0), 1, rtol=1e-6)
    np.testing.assert_array_equal(np.sort(prototypes(4, 1)), [[-1, -1, 1, 1]])


def test_seeds_select_the_rotation_and_the_order():
    np.testing.assert_array_equal(prototypes(10, 3), prototypes(10, 3, seed=0))
    assert np.max(np.abs(prototypes(10, 3) - prototypes(10, 3, seed=1))) > 0.1


def test_no_steps_leave_a_tight_frame():
    assert largest_cosine(prototypes(40, 8, steps=0)) > largest_cosine(prototypes(40, 8))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 3), ValueError, "Received: classes=0"),
        ((3, 2.0), TypeError, r"Received: dim=2\.0"),
        ((3, 2, {"seed": None}), TypeError, "Received: seed=None"),
        ((3, 2, {"steps": -1}), ValueError, "Received: steps=-1"),
        ((3, 2, {"s": "one"}), TypeError, "Received: s='one'"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    classes, dim, *options = arguments
    with pytest.raises(error, match=message):
        prototypes(classes, dim, **(options[0] if options else {}))


def test_a_frozen_head_keeps_the_array_and_the_features_learn(tmp_path):
    vectors = prototypes(5, 4, seed=3)
    head = keras.layers.Dense(
        5,
        use_bias=False,
        trainable=False,
        kernel_initializer=keras.initializers.Constant(vectors),
    )
    features = keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((8,)), features, head])
    model.compile("sgd", "mse", jit_compile=False)
    before = keras.ops.convert_to_numpy(features.kernel)
    model.fit(np.ones((8, 8)), np.ones((8, 5)), verbose=0)
    assert np.max(np.abs(keras.ops.convert_to_numpy(features.kernel) - before)) > 0
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(head.kernel), vectors)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_weights()[-1], vectors)
