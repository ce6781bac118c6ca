"""A check that saved parameters are those of the network that is going to read them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxser.data.normalisation import is_standardised
from jaxser.inference.networks import ReplicaParameters, TrainedNetworks, misfit
from jaxser.types import FieldError, InputError

Shapes = dict[str, tuple[int, ...]]


def check_fit(networks: TrainedNetworks) -> None:
    """Check that replicas have the arrays that their network reads, in its shapes.

    Flax compares the parameters that a network asks for; it does not see those that are too many, and JAX stretches
    statistics of one feature over all of them.

    Raises:
        InputError: if they do not.
    """
    replica = networks.replica_shapes()
    found = {**_shapes("normalisation", replica.normalisation), **_shapes("hyper", replica.hyper)}
    read = {f"hyper/{name}" for name in networks.model.hyper}
    found = {name: shape for name, shape in found.items() if not name.startswith("hyper/") or name in read}
    _compare(networks, {**_statistics(networks), **dict.fromkeys(read, ())}, found)
    variables = _variables(networks, replica)
    for kind, own in (("params", replica.params), ("batch_stats", replica.batch_stats)):
        _compare(networks, _shapes(kind, variables.get(kind, {})), _shapes(kind, own))


def _statistics(networks: TrainedNetworks) -> Shapes:
    """Return the shapes of the statistics of the training parts."""
    if networks.normalise not in ("train", "train_neutral"):
        return {}
    return {
        f"normalisation/{name}/{field}": (int(spec.shape[-1] or 0),)
        for name, spec in networks.arrays.items()
        if is_standardised(name, np.dtype(spec.dtype))
        for field in ("mean", "std")
    }


def _variables(networks: TrainedNetworks, replica: ReplicaParameters) -> Any:
    """Return the shapes of the parameters of the network, and of its running statistics."""

    def init(key, replica, arrays, lengths, encoder):
        batch = networks.batch(arrays, lengths, replica.normalisation, encoder)
        return networks.model.init({"params": key, "dropout": key}, batch, replica.hyper, train=False)

    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        return jax.eval_shape(init, key, replica, *networks.input_shapes(), networks.encoder)
    except FieldError as error:
        raise InputError(f"{networks.folder}: its network cannot be built ({error})") from None
    except (
        TypeError,
        ValueError,
        ArithmeticError,
    ) as error:  # sizes that no network has, from a damaged file
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{networks.folder}: its network cannot be built with its fields ({reason})"
        ) from None


def _shapes(kind: str, tree: PyTree) -> Shapes:
    leaves = jax.tree.leaves_with_path(tree)
    return {f"{kind}/{jax.tree_util.keystr(path, simple=True, separator='/')}": x.shape for path, x in leaves}


def _compare(networks: TrainedNetworks, wanted: Shapes, found: Shapes) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            shapes = [str(list(of[name])) if name in of else "none" for of in (wanted, found)]
            raise misfit(networks.folder, "{2}: needs {0}, found {1}".format(*shapes, name))
