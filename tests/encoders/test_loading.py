"""Folders that load, and one clear line for each folder that does not."""

import json
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.encoders import FOLDERS, tensors_of, write_folder
from jaxser import encoders
from jaxser.encoders.convert import main
from jaxser.encoders.encoder import FAMILIES
from jaxser.types import InputError, UsageError

PREFIXES = {
    "wav2vec2": "wav2vec2.",
    "hubert": "hubert.",
    "wavlm": "wavlm.",
    "data2vec-audio": "data2vec_audio.",
    "whisper": "model.encoder.",
}


def rejection(folder, **options) -> str:
    """The message with which a folder is rejected; a single line."""
    with pytest.raises(InputError) as caught:
        encoders.load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert a.digest == b.digest


@pytest.mark.parametrize("name", PREFIXES)
def test_prefixes_and_heads_change_nothing(name, tmp_path):
    plain = encoders.load(write_folder(tmp_path / "plain", name))
    tensors = {PREFIXES[name] + key: value for key, value in tensors_of(name).items()}
    heads = {"lm_head.weight": np.ones((2, 2), np.float32), "model.decoder.layer_norm.bias": np.ones(2)}
    other = encoders.load(write_folder(tmp_path / "head", name, {**tensors, **heads}))
    assert_same(plain, other)
    assert set(heads) <= set(other.ignored)
    assert (plain.width, plain.layers, plain.hop, plain.sample_rate) == (16, 2, 320, 16_000)


def test_whisper_encoders_with_and_without_a_decoder(tmp_path):
    plain = encoders.load(write_folder(tmp_path / "plain", "whisper"))
    assert_same(plain, encoders.load(write_folder(tmp_path / "encoder", "whisper", prefix="encoder.")))


def test_shards_are_one_file(tmp_path):
    plain = encoders.load(write_folder(tmp_path / "plain", "wavlm"))
    folder = write_folder(tmp_path / "shards", "wavlm")
    (folder / "model.safetensors").unlink()
    tensors, weight_map = tensors_of("wavlm"), {}
    for index, name in enumerate(tensors):
        weight_map[name] = f"model-{index % 2 + 1:05}-of-00002.safetensors"
    for file in set(weight_map.values()):
        save_file({n: tensors[n] for n in tensors if weight_map[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same(plain, encoders.load(folder))
    (folder / file).unlink()
    assert f"{file} is missing" in rejection(folder)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_as_it_is(dtype, tmp_path):
    tensors = {name: value.astype(dtype) for name, value in tensors_of("hubert").items()}
    half = encoders.load(write_folder(tmp_path / "half", "hubert", tensors))
    wide = {name: value.astype(np.float32) for name, value in tensors.items()}
    full = encoders.load(write_folder(tmp_path / "full", "hubert", wide))
    jax.tree.map(np.testing.assert_array_equal, half.params, full.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {np.dtype("float32")}
    assert half.digest != full.digest


@pytest.mark.parametrize(
    "names",
    [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")],
)
def test_weight_norm_by_old_and_new_names(names, tmp_path):
    plain = encoders.load(write_folder(tmp_path / "plain", "wav2vec2"))
    tensors = tensors_of("wav2vec2")
    weight = tensors.pop("encoder.pos_conv_embed.conv.weight")
    length = np.sqrt((weight.astype(np.float64) ** 2).sum((0, 1), keepdims=True)).astype(np.float32)
    values = (length, weight * np.arange(1, 7, dtype=np.float32))
    tensors |= {f"encoder.pos_conv_embed.conv.{n}": v for n, v in zip(names, values, strict=True)}
    normed = encoders.load(write_folder(tmp_path / "norm", "wav2vec2", tensors))
    np.testing.assert_allclose(
        normed.params["positions"]["conv"]["kernel"],
        plain.params["positions"]["conv"]["kernel"],
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize(
    ("length", "zeros", "message"),
    [
        ((1, 1, 5), False, "do not fit together"),
        ((1, 1, 1, 1), False, "do not fit together"),
        ((), False, "do not fit together"),
        ((1, 1, 6), True, "weight_v has a direction of length 0"),
    ],
)
def test_weight_norm_that_has_no_value(length, zeros, message, tmp_path):
    tensors = tensors_of("wav2vec2")
    name = "encoder.pos_conv_embed.conv.weight"
    direction = tensors.pop(name)
    assert direction.shape[2] == 6
    direction[..., 0] *= not zeros
    tensors |= {f"{name}_g": np.ones(length, np.float32), f"{name}_v": direction}
    assert message in rejection(write_folder(tmp_path, "wav2vec2", tensors))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    folder = write_folder(tmp_path, "wavlm")
    tensors = tensors_of("wavlm")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    name = "encoder.layer_norm.bias"
    save_file({name: tensors[name] + 1}, folder / "b.safetensors")
    weight_map = dict.fromkeys(tensors, "a.safetensors") | {name: "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert f"b.safetensors: tensor {name} is also in a.safetensors" in rejection(folder)


def test_the_digest_covers_every_value(tmp_path):
    tensors = tensors_of("wav2vec2")
    plain = encoders.load(write_folder(tmp_path / "a", "wav2vec2", tensors))
    tensors["encoder.layers.1.final_layer_norm.bias"][3] += 1e-6
    assert encoders.load(write_folder(tmp_path / "b", "wav2vec2", tensors)).digest != plain.digest


def test_missing_surplus_and_misshapen_tensors(tmp_path):
    def reject(change) -> str:
        tensors = tensors_of("wav2vec2")
        change(tensors)
        return rejection(write_folder(tmp_path, "wav2vec2", tensors, prefix="wav2vec2."))

    assert "missing tensors: wav2vec2.encoder.layer_norm.bias" in reject(
        lambda t: t.pop("encoder.layer_norm.bias")
    )
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    message = reject(lambda t: t.update({name: np.zeros((16, 23), np.float32)}))
    assert f"{name} has shape [16, 23], but config.json implies [16, 24]" in message
    message = reject(lambda t: t.update({"encoder.layers.2.layer_norm.bias": np.zeros(16, np.float32)}))
    assert "config.json does not imply: wav2vec2.encoder.layers.2.layer_norm.bias" in message
    message = reject(lambda t: t.clear() or t.update(a=np.zeros(1)))
    assert "1 tensors are not those of this encoder family" in message
    message = reject(lambda t: t.update({"encoder.layer_norm.bias": np.zeros(16, np.int32)}))
    assert "encoder.layer_norm.bias has type I32 (supported: F32, F16, BF16)" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value, tmp_path):
    tensors = tensors_of("whisper")
    tensors["conv2.bias"][0] = value
    assert "conv2.bias has NaN or infinite values" in rejection(write_folder(tmp_path, "whisper", tensors))


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_weights(size, tmp_path):
    path = write_folder(tmp_path, "whisper") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "model.safetensors: truncated or not a safetensors file" in rejection(tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "bert"}, "model_type='bert' is not one of data2vec-audio, hubert, wav2vec2, wavlm"),
        ({"model_type": None}, "field 'model_type' is missing"),
        ({"hidden_size": "16"}, "hidden_size='16' is not a positive integer"),
        ({"num_attention_heads": 3}, "num_attention_heads=3 does not divide hidden_size=16"),
        ({"hidden_act": "gelu_10"}, "hidden_act='gelu_10' is not one of gelu"),
        ({"conv_stride": [5, 2]}, "conv_dim, conv_kernel and conv_stride have different lengths"),
        ({"num_conv_pos_embedding_groups": 5}, "num_conv_pos_embedding_groups=5 does not divide hidden_size"),
        (
            {"adapter_attn_dim": 16},
            "adapter_attn_dim=16: the adapters of MMS, one for each language, are not",
        ),
        ({"num_hidden_layers": 3}, "missing tensors: encoder.layers.2."),
        ({"num_hidden_layers": 1}, "config.json does not imply: encoder.layers.1."),
    ],
)
def test_configs_that_cannot_be_used(change, expected, tmp_path):
    assert expected in rejection(write_folder(tmp_path, "wav2vec2", **change))


def test_configs_that_exhaust_memory_or_stack(tmp_path):
    folder = write_folder(tmp_path, "wav2vec2", hidden_size=2**40)
    assert "config.json implies [1099511627776" in rejection(folder)
    folder = write_folder(tmp_path / "deep", "wav2vec2", num_hidden_layers=2**20)
    assert "num_hidden_layers=1048576 is not a positive integer of at most 1000" in rejection(folder)
    (folder / "config.json").write_text("[" * 100_000)
    assert "config.json: not valid JSON" in rejection(folder)


@pytest.mark.parametrize(("buckets", "distance"), [(3, 12), (8, 2), (8, 1)])
def test_buckets_without_a_logarithmic_part_are_refused(buckets, distance, tmp_path):
    folder = write_folder(tmp_path, "wavlm", num_buckets=buckets, max_bucket_distance=distance)
    assert f"num_buckets={buckets} must be at least 4, and max_bucket_distance={distance}" in rejection(
        folder
    )


def test_folders_without_their_files(tmp_path):
    assert "has no config.json" in rejection(tmp_path)
    folder = write_folder(tmp_path / "a", "hubert")
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json: cannot be read (No such file" in rejection(folder)
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    assert "sampling_rate=8000 is not supported (only 16000 is)" in rejection(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "model.safetensors").unlink()
    assert "no weights (model.safetensors)" in rejection(folder)
    (folder / "pytorch_model.bin").touch()
    assert f"convert them: python -m jaxser.encoders.convert {folder}" in rejection(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: not valid JSON" in rejection(folder)


def test_the_extractor_may_be_within_a_processor(tmp_path):
    folder = write_folder(tmp_path, "wav2vec2")
    assert encoders.load(folder).module.normalise
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text('{"feature_extractor": {"do_normalize": false}}')
    assert not encoders.load(folder).module.normalise


def test_hub_names_are_not_downloaded():
    message = rejection("microsoft/wavlm-base-plus")
    assert "hf download microsoft/wavlm-base-plus --local-dir wavlm-base-plus" in message


@pytest.mark.parametrize("options", [{"padding": "none"}, {"dtype": "float16"}])
def test_unknown_options(options, tmp_path):
    with pytest.raises(UsageError, match="is not one of"):
        encoders.load(tmp_path, **options)


def test_convert_reports_errors_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert", str(write_folder(tmp_path, "wavlm"))])
    assert main() == 2
    assert (
        capsys.readouterr().err
        == f"convert: {tmp_path}/model.safetensors: exists already; nothing to convert\n"
    )
    (tmp_path / "model.safetensors").unlink()
    assert main() == 1
    assert capsys.readouterr().err == f"convert: {tmp_path}: no pytorch_model.bin\n"


def test_the_families_of_the_tests_are_all_families():
    assert {name.removesuffix("-large") for name in FOLDERS} == set(FAMILIES)
