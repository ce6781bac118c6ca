"""Ramet et al. 2018 in loops of float64 numpy, one utterance without padding."""

import numpy as np

from references.layers import bilstm, sigmoid, softmax


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


def outputs(x, params):
    """The outputs of a BiLSTM, with concatenated directions."""
    both = bilstm(x, params)
    return np.concatenate([both[:, 0], both[:, 1]], axis=1)


def lstm_attention(audio, params, pooling, pool_from="main", normalise_weights=False):
    """Log-probabilities and attention weights of audio [T, D]."""
    x = audio
    for n in range(3):
        x = np.maximum(dense(x, params[f"dense_{n}"]), 0)
    h = outputs(x, params["bilstm"])
    if pooling == "yang":
        read = np.tanh(dense(h, params["attention_dense"]))
    elif pooling == "lstm_attention":
        read = outputs(h, params["attention_bilstm"])  # eqs. 5-9
    else:
        read = h
    if pooling == "mean":
        weights = np.full(len(h), 1 / len(h))
    else:
        scores = np.array([params["score"]["kernel"][:, 0] @ h_t for h_t in read])  # eq. 1
        weights = sigmoid(scores) if pooling == "lstm_attention" else softmax(scores)  # eqs. 3, 4
    if normalise_weights:
        weights = weights / weights.sum()
    values = h if pool_from == "main" else read
    pooled = sum(weight * value for weight, value in zip(weights, values, strict=True))  # eq. 2
    return np.log(softmax(dense(pooled, params["classifier"]))), weights
