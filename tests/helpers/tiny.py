"""A dataset and networks that are small enough for a sweep to train in seconds."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxser.data.batch_schedule import make_buckets
from jaxser.data.folds import Protocol, make_folds
from jaxser.evaluation.targets import Classes, Target
from jaxser.layers.dropout import Dropout
from jaxser.layers.embedding import WordEmbedding
from jaxser.layers.pooling import masked_max, masked_mean
from jaxser.layers.recurrent import Recurrent
from jaxser.models.mcsan import MCSAN
from jaxser.models.network import Network
from jaxser.training.mesh import replica_mesh
from jaxser.training.optim import Adam
from jaxser.training.programs import ProgramCache
from jaxser.training.replica import ReplicaTrainer
from jaxser.training.resident import ResidentData
from jaxser.training.streaming import StreamedData
from jaxser.training.sweep import GridPoint, Sweep, grid
from jaxser.types import Batch, Dataset, Output, Ragged, Utterance

CLASSES = ("ang", "neu", "sad")
FEATURES = 6


def dataset(number=60, seed=0, sessions=3) -> Dataset:
    """Utterances of 10 to 40 frames, whose class is evident from the level of the frames and from the words."""
    rng = np.random.default_rng(seed)
    label = np.arange(number) % len(CLASSES)
    frames, words = rng.integers(10, 41, number), rng.integers(1, 6, number)
    arrays = {"audio": _frames(rng, label, frames, FEATURES), "words": _words(rng, label, words)}
    return _of(arrays, label, sessions, rng)


def everything(number=60, seed=0, sessions=5, frames=(30, 120)) -> Dataset:
    """Utterances with the arrays of all recipes, whose class is evident from each array.

    Word segments follow each other, and overlap by a tenth.
    """
    rng = np.random.default_rng(seed)
    label = np.arange(number) % len(CLASSES)
    length = rng.integers(*frames, number)
    words = rng.integers(1, 7, number)
    of_word = np.maximum(np.repeat(length // words, words) * 11 // 10, 1)
    spoken = np.add.reduceat(of_word, np.cumsum(words) - words)
    audio = _frames(rng, label, length, 40)
    noise = rng.normal(size=audio.values.shape).astype(np.float32)
    arrays = {
        "audio": audio,
        "audio_noisy": Ragged(audio.values + noise, audio.length),
        "words": _words(rng, label, words),
        "segments": _frames(rng, label, spoken, 40),
        "segment_lengths": Ragged(of_word.astype(np.int32), words.astype(np.int32)),
        "video": _frames(rng, label, np.maximum(length // 33, 1), 12),
        "prosody": _frames(rng, label, np.ones_like(length), FEATURES),
    }
    return _of(arrays, label, sessions, rng)


def _frames(rng, label, length, width) -> Ragged:
    """Noise at a level that depends on the class."""
    values = rng.normal(size=(length.sum(), width)) * 2 + np.repeat(label, length)[:, None] * 3 + 5
    return Ragged(values.astype(np.float32), length.astype(np.int32))


def _words(rng, label, length) -> Ragged:
    """Word ids, with a vocabulary of its own for each class."""
    tokens = 2 + (np.repeat(label, length) + 3 * rng.integers(0, 3, length.sum())) % 9
    return Ragged(tokens.astype(np.int32), length.astype(np.int32))


def _of(arrays, label, sessions, rng) -> Dataset:
    utterances = tuple(
        Utterance(
            id=f"utt{n:03}",
            wav=f"utt{n:03}.wav",
            label=CLASSES[label[n]],
            session=f"s{n // 3 % sessions}",
            speaker=f"s{n // 3 % sessions}{'FM'[n // 9 % 2]}",
            dialogue=f"d{n // 7}",
            transcript=f"words {n}",
        )
        for n in range(len(label))
    )
    embeddings = rng.normal(size=(12, 5)).astype(np.float32)
    embeddings[0] = 0
    return Dataset("tiny", "mcsan", "1", CLASSES, utterances, label.astype(np.int32), arrays, (), embeddings)


def model(**fields) -> MCSAN:
    return MCSAN(
        **(
            {
                "num_classes": 3,
                "hidden_size": 8,
                "num_heads": 2,
                "feed_forward_size": 12,
                "classifier_size": 10,
            }
            | fields
        )
    )


def shapes_of(net: Network, batch: Batch, hyper: dict[str, Any]) -> Any:
    """Shapes of the parameters of a network."""
    init = lambda key, batch: net.init(key, batch, hyper, train=False)  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0), batch)["params"]


def prepared(net: Network, batch: Batch, hyper: dict[str, Any]) -> tuple[Any, Any]:
    """Random parameters, biases included, and the compiled evaluation of a network."""
    rng = np.random.default_rng(1)
    shapes = shapes_of(net, batch, hyper)
    params = jax.tree.map(lambda p: jnp.array(rng.normal(size=p.shape) * 0.5, jnp.float32), shapes)
    return params, jax.jit(lambda params, batch: net.apply({"params": params}, batch, hyper, train=False))


def gradient(net: Network, hyper: dict[str, Any]) -> Callable[[Any, Batch], Any]:
    """The compiled gradient of a network's loss by its parameters, without dropout and class weights."""

    def loss(params, batch):
        output = net.apply({"params": params}, batch, hyper, train=False)
        return net.loss(output, batch, jnp.ones(net.num_classes), params, hyper)

    return jax.jit(jax.grad(loss))


def masked(batch: Batch, *names: str) -> Batch:
    """A batch without valid steps in some arrays, such as `audio`."""
    return batch._replace(
        **{f"{name}_mask": jnp.zeros_like(getattr(batch, f"{name}_mask")) for name in names}
    )


def all_finite(tree: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


class Toy(Network):
    """A network with recurrence, embedding, pooling and dropout, but no convolution, which compiles in a second."""

    @property
    def needs(self):
        return "audio", "words"

    @nn.compact
    def __call__(self, batch, hyper, *, train):
        frames = Recurrent(4, cell="gru", bidirectional=False)(batch.audio, batch.audio_mask)[:, :, 0]
        words = WordEmbedding(trainable=True)(batch)
        pooled = jnp.concatenate(
            [masked_mean(frames, batch.audio_mask), masked_max(words, batch.words_mask)], axis=1
        )
        logits = nn.Dense(self.num_classes)(Dropout()(pooled, hyper["dropout_rate"], train=train))
        return Output(jax.nn.log_softmax(logits), {"fused": logits}, {})


def sweep(
    data: Dataset,
    *,
    replicas: tuple[GridPoint, ...] | None = None,
    epochs: int = 4,
    strategy: str = "map",
    devices: int = 1,
    patience: int | None = None,
    hyper: dict[str, float] | None = None,
    net: Network | None = None,
    budget: int = 0,
    schedule: str = "constant",
    best_epochs: int = 1,
    target: Target | None = None,
) -> Sweep:
    """A sweep of a toy network over three session folds, by default with two seeds; streamed if given a budget."""
    net, target = net or Toy(3), target or Classes(data.classes)
    hyper = hyper or {"learning_rate": 3e-2, "dropout_rate": 0.1}
    buckets = make_buckets({name: data.arrays[name].length for name in net.needs}, 2, 8)
    widths = tuple(tuple(w.items()) for w in buckets.widths)
    adam = Adam(clip="global_norm", schedule=schedule)
    trainer = ReplicaTrainer(
        net, adam, widths, target, epochs, target.headline, patience, best_epochs=best_epochs
    )
    programs = _programs(devices, strategy, trainer, len(data.label), tuple(hyper), budget)
    resident = ResidentData(trainer, data, programs)
    folds = make_folds(data, Protocol("session"))
    return Sweep(
        trainer=trainer,
        dataset=data,
        folds=folds,
        original_folds=folds,
        buckets=buckets,
        replicas=replicas or grid(3, range(2), {}),
        hyper=hyper,
        source=StreamedData(trainer, data, buckets, programs, budget=budget) if budget else resident,
        programs=programs,
    )


@functools.cache
def _programs(devices: int, strategy: str, *_) -> ProgramCache:
    """The programs of all sweeps of one kind, so that tests compile each only once."""
    return ProgramCache(replica_mesh(jax.devices()[:devices], strategy), strategy)
