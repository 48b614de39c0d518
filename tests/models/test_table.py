"""The table that `regularize` returns."""

import keras
import pytest
from keras import layers
from small_models import dense_model, row_of, transformer_model

from keras_mhe import MHE, CoMHE, regularize, unregularize


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def blocks(count=25):
    """A model with `count` kernels of 1 x 1, as many depthwise ones, and two others."""
    x = inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    for i in range(count):
        x = layers.DepthwiseConv2D(3, padding="same", name=f"block_{i}_depthwise")(x)
        x = layers.Conv2D(4 + i % 2, 1, name=f"block_{i}_project")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def rows_of(text):
    """The lines of the rows, without their indentation."""
    lines = text.splitlines()
    [rule] = [number for number, line in enumerate(lines) if "─" in line]
    return [line.strip() for line in lines[rule + 1 :] if line[:2].strip()]


def test_kernels_that_are_alike_share_a_row_if_there_are_many():
    table = regularize(blocks())
    text, _, notes = repr(table).partition("\n\nSkipped")
    assert [row.split("  ")[0] for row in rows_of(text)] == [
        "stem",
        "block_0_project and 24 more",
        "head",
    ]
    assert rows_of(text)[1].split()[4:] == ["(1,", "1,", "…,", "…)", "4-5", "4-5", "hidden"]
    assert "`where` can include it (25 in all): block_0_depthwise," in " ".join(notes.split())
    assert "`.rows` has a row for each kernel" in notes
    assert len(table.rows) == 52


def test_each_kernel_has_a_row_if_there_are_few():
    table = regularize(blocks(9))
    text, _, _ = repr(table).partition("\n\nSkipped")
    rows = [row.split() for row in rows_of(text)]
    assert [row[0] for row in rows] == [row.layer for row in table.rows]
    assert [row[-1] for row in rows] == [row.action for row in table.rows]


@pytest.mark.parametrize("count", [3, 25])
def test_layers_that_where_did_not_select_are_counted(count):
    lines = repr(regularize(blocks(count), where="head")).splitlines()
    assert len(lines) == 7
    assert lines[4].split() == ["head", "(4,", "3)", "3", "4", "output"]
    assert lines[-1] == f"Skipped, not selected by `where`: {2 * count + 1} kernels."


def test_title_names_the_regularizers_of_each_role():
    model = dense_model(6, 4)
    title = regularize(model, CoMHE(0.5) + keras.regularizers.L2(1e-4), where="dense_0").title
    assert title == "Kernels regularized: 1 of 2. Hidden layers: CoMHE(0.5) + L2(0.0001)."
    assert "Output layers: MHE(2)." in regularize(model, output=MHE(2.0)).title
    assert unregularize(model).title == "Kernels whose energy was removed: 2."


_NETWORKS = [
    "MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0", "NASNetMobile", "ConvNeXtTiny",
    "VGG16", "Xception", "InceptionResNetV2",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", _NETWORKS)
def test_tables_of_large_networks_fit_one_screen_with_whole_names(name):
    model = getattr(keras.applications, name)(weights=None)
    tables = [
        regularize(model, where=model.layers[-1].name),
        regularize(model),
        regularize(model, "l2"),
        unregularize(model),
    ]
    for table in tables:
        text = repr(table)
        assert len(text.splitlines()) <= 40
        assert max(map(len, text.splitlines())) <= 80
        assert table.rows[-1].layer in text
        assert text.count("…") == text.count("…,") + text.count("…)")


def test_table_fits_80_columns_and_has_the_shape_of_each_kernel():
    table = regularize(transformer_model())
    text = repr(table)
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("Kernels regularized: 14 of 14.")
    row = row_of(table, "head")
    assert (row.groups, row.dimension, row.neurons, row.shape) == (1, 8, 5, (8, 5))
    assert {row.groups for row in table.rows if row.layer == "both"} == {4}


def test_names_of_layers_are_escaped():
    names = ["a\nb", "a\x1b[2J", ":x:"]
    stack = [layers.DepthwiseConv2D(3, name=name) for name in names]
    pooling = layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((20, 20, 4)), *stack, pooling, layers.Dense(3)])
    text = repr(regularize(model))
    assert "\x1b" not in text
    assert r"can include it: a\x0ab, a\x1b[2J, :x:." in " ".join(text.split())


def test_notes_are_listed_below_the_table_once_for_each_reason():
    stack = [layers.DepthwiseConv2D(3, name=f"depthwise_{i}") for i in range(6)]
    pooling = layers.GlobalAveragePooling2D()
    head = layers.Dense(3, kernel_regularizer="l2", name="head")
    model = keras.Sequential([keras.Input((20, 20, 4)), *stack, pooling, head])
    notes = " ".join(repr(regularize(model)).split("\n \n")[-1].split())
    assert "Skipped, filters of different channels do not compete" in notes
    assert "depthwise_0, depthwise_1, depthwise_2, depthwise_3 and 2 more." in notes
    assert "Regularized, in addition to L2: head." in notes
