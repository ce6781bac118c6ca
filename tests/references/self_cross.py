"""Self and Cross in loops of float64 numpy, written from the paper."""

import numpy as np

from references.layers import gru, softmax


def time_mixing(x, params):
    """Eq. 1 with a kernel of one feature: each output step is a sum over all input steps [T, D]."""
    kernel, bias = params["kernel"], params["bias"]
    out = np.zeros((kernel.shape[1], x.shape[1]))
    for t in range(kernel.shape[1]):
        out[t] = bias[t] + sum(kernel[k, t] * x[k] for k in range(len(x)))
    return out


def bigru(x, params):
    """Eq. 2: concatenated forward and backward states of each step, [T, 2 H]."""
    forward, backward = (
        [params[n][d] for n in ("input_kernel", "kernel", "input_bias", "bias")] for d in (0, 1)
    )
    return np.concatenate([gru(x, *forward), gru(x[::-1], *backward)[::-1]], axis=1)


def attended(target, source, params, heads):
    """Eqs. 3-6, one head and step at a time, then the temporal average of the projected heads."""
    q, k, v = (
        x @ params[name]["kernel"] + params[name]["bias"]
        for x, name in ((target, "query"), (source, "key"), (source, "value"))
    )
    size = q.shape[1] // heads
    steps = []
    for t in range(len(q)):
        found = np.zeros(q.shape[1])
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            weights = softmax(np.array([q[t, part] @ k[s, part] / np.sqrt(size) for s in range(len(k))]))
            found[part] = sum(w * v[s, part] for s, w in enumerate(weights))
        steps.append(found @ params["out"]["kernel"] + params["out"]["bias"])
    return np.mean(steps, axis=0)


def self_cross(inputs, params, net):
    """Log-probabilities of one utterance; `inputs` by modality, padded as the network reads them."""
    encoded = {}
    for m, x in inputs.items():
        x = x if m == "text" else time_mixing(x, params[f"{m}_conv"])
        encoded[m] = bigru(x, params[f"{m}_encoder"])
    features = []
    for kind in net.attention:
        vectors = []
        for target in inputs:
            for source in inputs:
                if (kind == "self") == (source == target):
                    name = f"self_{target}" if kind == "self" else f"{source}_to_{target}"
                    vectors.append(attended(encoded[target], encoded[source], params[name], net.num_heads))
        if net.statistics and len(vectors) > 1:
            mean = sum(vectors) / len(vectors)
            deviation = np.sqrt(sum((v - mean) ** 2 for v in vectors) / (len(vectors) - 1))
            vectors = [deviation, mean] if net.as_published else [mean, deviation]
        features += vectors
    hidden = np.concatenate(features) @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    hidden = np.maximum(hidden, 0) if net.relu_in_classifier else hidden
    return np.log(softmax(hidden @ params["classifier"]["kernel"] + params["classifier"]["bias"]))  # eq. 7
