"""BERT and GPT-2 of KerasHub, small and with random weights: kernels, training, saving, LoRA."""

import keras
import numpy as np
import pytest
from helpers import energy_value, normals

from keras_mhe import energy_report, regularize, unregularize

pytestmark = pytest.mark.slow

# The axes of the neurons of each kernel, by the names of its layer and of the weight.
AXES = {
    "token_embedding/embeddings": 0,
    "segment_embedding/embeddings": 0,
    "query/kernel": (1, 2),
    "key/kernel": (1, 2),
    "value/kernel": (1, 2),
    "attention_output/kernel": 2,
    "feedforward_intermediate_dense/kernel": 1,
    "feedforward_output_dense/kernel": 1,
    "pooled_dense/kernel": 1,
    "logits/kernel": 1,
}
# The output layer of each model. GPT-2 computes logits from the embeddings of the tokens, so these
# are its class vectors.
OUTPUT = {
    "BertBackbone": "pooled_dense/kernel",
    "BertTextClassifier": "logits/kernel",
    "GPT2Backbone": None,
    "GPT2CausalLM": "token_embedding/embeddings",
}


@pytest.fixture(scope="module")
def hub():
    # Not imported by the quick tests: it takes seconds and imports TensorFlow on every backend.
    reason = "the extra `ecosystem` is not installed"
    return pytest.importorskip("keras_hub", reason=reason).models


def build(hub, name, num_layers=1):
    """A model of KerasHub with 8 features, 2 attention heads and no dropout."""
    keras.utils.set_random_seed(0)
    family = "Bert" if name.startswith("Bert") else "GPT2"
    backbone = getattr(hub, f"{family}Backbone")(
        vocabulary_size=12,
        num_layers=num_layers,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        dropout=0.0,
        max_sequence_length=6,
    )
    if name == "BertTextClassifier":
        return hub.BertTextClassifier(backbone, num_classes=3, dropout=0.0)
    return hub.GPT2CausalLM(backbone) if name == "GPT2CausalLM" else backbone


def batch(model):
    """Random texts, and the class of each text or the next token of each token."""
    tokens = np.random.default_rng(0).integers(0, 12, (8, 6), "int32")
    inputs = {name: np.ones_like(tokens) for name in model.input} | {"token_ids": tokens}
    return inputs, np.arange(8) % 3 if "segment_ids" in inputs else np.roll(tokens, -1, axis=1)


def fit(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, weighted_metrics=[])
    # Tasks of KerasHub turn arrays into a data set, which Keras does not shuffle: it would warn.
    return model.fit(*batch(model), epochs=10, shuffle=False, verbose=0).history["loss"]


def predict(model):
    return model.predict(batch(model)[0], verbose=0)


def short(path):
    return "/".join(path.split("/")[-2:])


def kernels_of(model):
    """The kernels by their paths, without biases, positions and factors of LoRA."""
    kernels = {weight.path: weight for weight in model.weights if short(weight.path) in AXES}
    assert len(kernels) > 6
    return kernels


def energy(path, kernel, output=False):
    half_space = not output and not path.endswith("embeddings")
    return energy_value(kernel, neuron_axis=AXES[short(path)], half_space=half_space)


def energies(model):
    """The loss of each kernel: embeddings and class vectors in full space, the latter ten times."""
    output = OUTPUT[type(model).__name__]
    return {
        path: 10 * energy(path, kernel, True) if short(path) == output else energy(path, kernel)
        for path, kernel in kernels_of(model).items()
    }


def assert_losses_are(model, *values):
    assert sorted(map(float, model.losses)) == pytest.approx(sorted(values), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "count"),
    # Six kernels in each of two blocks, and those of embeddings and dense layers around them.
    [("BertBackbone", 15), ("BertTextClassifier", 16), ("GPT2Backbone", 13), ("GPT2CausalLM", 13)],
)
def test_each_kernel_gets_the_energy_of_its_neurons(hub, name, count):
    model = build(hub, name, num_layers=2)
    table = regularize(model)
    assert_losses_are(model, *energies(model).values())
    assert len(model.losses) == count
    skipped = [(row.layer, row.note) for row in table.rows if row.action != "regularized"]
    assert skipped == [("position_embedding", "its neurons are unknown")]


@pytest.mark.parametrize("name", ["BertTextClassifier", "GPT2CausalLM"])
def test_training_lowers_the_energies(hub, name):
    model = build(hub, name)
    regularize(model)
    before = energies(model)
    losses = fit(model)
    after = energies(model)
    assert np.isfinite(losses).all()
    # The loss that `fit` reports contains the energies.
    assert losses[0] > sum(before.values())
    outputs = {path for path in before if short(path) == OUTPUT[name]}
    for paths in (outputs, before.keys() - outputs):
        assert sum(after[path] for path in paths) < 0.95 * sum(before[path] for path in paths)


def test_saved_model_gets_equal_energies_by_another_call(hub, tmp_path):
    # The config of a model of KerasHub contains no layers, so no regularizers: the table says so.
    task = build(hub, "BertTextClassifier")
    assert not any(row.saved for row in regularize(task).rows)
    task.save(tmp_path / "task.keras")
    # Tasks compile themselves. Keras warns if it should do it.
    loaded = keras.models.load_model(tmp_path / "task.keras", compile=False)
    backbone = build(hub, "GPT2Backbone")
    regularize(backbone)
    backbone.save_to_preset(tmp_path / "preset")
    from_preset = hub.Backbone.from_preset(str(tmp_path / "preset"))
    for model, again in ((task, loaded), (backbone, from_preset)):
        assert again.losses == []
        np.testing.assert_array_equal(predict(again), predict(model))
        regularize(again)
        assert_losses_are(again, *map(float, model.losses))


def test_own_model_on_a_backbone_keeps_the_energies_that_the_table_calls_saved(hub, tmp_path):
    backbone = build(hub, "BertBackbone")
    logits = keras.layers.Dense(3, name="logits")(backbone.output["pooled_output"])
    model = keras.Model(backbone.inputs, logits)
    saved = {f"{row.layer}/{row.kernel}" for row in regularize(model).rows if row.saved}
    # Layers of Keras are saved with their regularizers, blocks of KerasHub without them.
    blocks = {path for path in kernels_of(model) if path.startswith("transformer")}
    assert saved == kernels_of(model).keys() - blocks
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    kernels = kernels_of(model)
    hidden = [energy(path, kernels[path]) for path in saved - {"logits/kernel"}]
    output = 10 * energy("logits/kernel", kernels["logits/kernel"], True)
    assert_losses_are(loaded, output, *hidden)


def test_unregularize_gives_back_the_losses_of_a_backbone(hub):
    model = build(hub, "GPT2Backbone")
    decay = keras.regularizers.L2(0.1)
    for path in ("position_embedding/embeddings", "token_embedding/embeddings"):
        [weight] = [weight for weight in model.weights if weight.path == path]
        weight.regularizer = decay
    before = list(map(float, model.losses))
    assert len(before) == 2
    regularize(model)
    total = sum(before) + sum(energies(model).values())
    assert sum(map(float, model.losses)) == pytest.approx(total, rel=1e-5)
    unregularize(model)
    assert_losses_are(model, *before)


def test_report_measures_each_kernel_of_a_backbone(hub):
    model = build(hub, "BertBackbone", num_layers=2)
    report = energy_report(model)
    rows = {f"{row.layer}/{row.kernel}": row for row in report.rows}
    assert rows.keys() == kernels_of(model).keys()
    for path, kernel in kernels_of(model).items():
        output = short(path) == OUTPUT["BertBackbone"]
        assert rows[path].role == ("output" if output else "hidden")
        assert rows[path].energy == pytest.approx(energy(path, kernel, output), rel=1e-5)
    assert report.left_out == {"position_embedding/embeddings": "its neurons are unknown"}


def effective_kernels(model):
    """The kernels of queries and values with LoRA, `W + A B`, by path."""
    weights = {weight.path: np.array(weight) for weight in model.weights}
    paths = [path for path in weights if short(path) in ("query/kernel", "value/kernel")]
    factors = {p: [weights[p.replace("kernel", f"lora_kernel_{x}")] for x in "ab"] for p in paths}
    return {path: weights[path] + a @ b for path, (a, b) in factors.items()}


def test_lora_of_a_backbone_trains_the_effective_kernels(hub):
    model = build(hub, "BertTextClassifier")

    def expected():
        effective = [energy(path, kernel) for path, kernel in effective_kernels(model).items()]
        return [*effective, energies(model)["logits/kernel"]]

    regularize(model)
    model.backbone.enable_lora(2)
    # The factors have no energy: B is zero, where directions are undefined.
    assert sum(map(float, model.losses)) == pytest.approx(expected()[-1], rel=1e-5)

    regularize(model)
    before, frozen = expected(), {path: np.array(w) for path, w in kernels_of(model).items()}
    assert_losses_are(model, *before)
    assert np.isfinite(fit(model)).all()
    after = expected()
    assert_losses_are(model, *after)
    assert sum(after[:-1]) < 0.95 * sum(before[:-1])
    for path in frozen.keys() - {"logits/kernel"}:
        np.testing.assert_array_equal(np.array(kernels_of(model)[path]), frozen[path])

    unregularize(model)
    assert model.losses == []


def test_saved_backbone_with_lora_has_the_effective_kernels(hub, tmp_path):
    model = build(hub, "BertTextClassifier")
    model.backbone.enable_lora(2)
    for weight in model.weights:
        if weight.name == "lora_kernel_b":
            weight.assign(0.1 * normals(*weight.shape))
    regularize(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(predict(loaded), predict(model), rtol=1e-5, atol=1e-6)
    # The loaded model has no LoRA, so all its kernels are trained and regularized again.
    regularize(loaded)
    assert_losses_are(loaded, *energies(loaded).values())
    for path, kernel in effective_kernels(model).items():
        assert energy(path, kernel) != pytest.approx(
            energy(path, kernels_of(model)[path]), rel=1e-3
        )
        assert energy(path, kernels_of(loaded)[path]) == pytest.approx(
            energy(path, kernel), rel=1e-5
        )
