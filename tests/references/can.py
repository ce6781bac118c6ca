"""CAN in float64 numpy, written from the paper, one word, head and step at a time."""

import numpy as np

from references.layers import bilstm, softmax


def states(x, params):
    """Eqs. 1-3 of one sequence [T, D]: [forward; backward]."""
    return bilstm(x, params["Recurrent_0"]).reshape(len(x), -1)


def seen(x, head, heads, form):
    """The part of a state that a head sees."""
    size = len(x) // heads
    return x if form == "full" else x[head * size : (head + 1) * size]


def attention_weights(x, query, form):
    """Eqs. 4, 5 for each head: [K, T], unscaled."""
    heads = len(query)
    return np.array(
        [softmax(np.array([query[k] @ seen(h, k, heads, form) for h in x])) for k in range(heads)]
    )


def context(weights, x, form):
    """Eqs. 6-9: the concatenated sums of the heads."""
    heads = len(weights)
    return np.concatenate(
        [sum(weights[k, i] * seen(h, k, heads, form) for i, h in enumerate(x)) for k in range(heads)]
    )


def predict(c, params):
    """Eqs. 10-12."""
    return softmax(c @ params["kernel"] + params["bias"])


def can(segments, vectors, params, alpha, form="slice", crossed=True, align=True):
    """One utterance from the frames of each of its words [S, 40] and its word vectors [L, 300].

    Returns the predictions of eqs. 10-12 by name, the final one of eq. 15, and the weights of both modalities.
    """
    encoder = params["AudioEncoder_0"]
    pooled = np.array([states(frames, encoder["within_words"]).mean(0) for frames in segments])
    audio = states(pooled, encoder["over_words"])
    text = states(vectors, params["text_encoder"])
    attention = params["CrossAttention_0"]
    alpha_t = attention_weights(text, attention["text_attention"]["query"], form)
    alpha_a = attention_weights(audio, attention["audio_attention"]["query"], form)
    c_tt, c_ta = context(alpha_t, text, form), context(alpha_t, audio, form)
    c_aa, c_at = context(alpha_a, audio, form), context(alpha_a, text, form)
    fused = [c_tt, c_ta, c_aa, c_at] if crossed else [c_tt, c_aa]
    y = {"fused": predict(np.concatenate(fused), params["fused"])}
    final = y["fused"]
    if align:
        y |= {"text": predict(c_tt, params["text"]), "audio": predict(c_aa, params["audio"])}
        final = y["fused"] * y["text"] ** alpha * y["audio"] ** alpha  # eq. 15
    return y, final / final.sum(), {"text": alpha_t, "audio": alpha_a}


def can_loss(y, label, alpha):
    """Eqs. 13, 14 of one utterance."""
    align = -np.log(y["text"][label]) - np.log(y["audio"][label]) if "text" in y else 0
    return -np.log(y["fused"][label]) + alpha * align


def unimodal(x, params, name):
    """TextModel and AudioModel: probabilities and the weights of one sequence [T, D]."""
    encoder = params[f"{name}_encoder"]
    h = states(x, encoder["blstm"])
    weights = attention_weights(h, encoder["attention"]["query"], "full")
    return predict(context(weights, h, "full"), params["classifier"]), weights
