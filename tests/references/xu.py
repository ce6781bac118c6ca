"""Learned alignment (Xu et al. 2019) in float64 numpy: the published network, and that of Lee et al. 2020.

`align_class_model` is written from github.com/Delta-ML/delta at 31dfebc (delta/models/multimodal_cls_model.py, with the
layers of delta/layers/recurrent.py, sub_tf.py and attention.py, and Keras of TensorFlow 1), on padded batches and with
the variables of that source.
"""

import numpy as np

from references import layers as reference


def keras_gru(inputs, kernel, recurrent_kernel, bias):
    """`tf.compat.v1.keras.layers.GRU` with `return_sequences`: gates z, r, h, reset before the product."""
    size = recurrent_kernel.shape[0]
    z_, r_, h_ = (slice(n * size, (n + 1) * size) for n in range(3))
    state, outputs = np.zeros((len(inputs), size)), []
    for t in range(inputs.shape[1]):
        x = inputs[:, t] @ kernel + bias
        z = reference.hard_sigmoid(x[:, z_] + state @ recurrent_kernel[:, z_])
        r = reference.hard_sigmoid(x[:, r_] + state @ recurrent_kernel[:, r_])
        candidate = np.tanh(x[:, h_] + (r * state) @ recurrent_kernel[:, h_])
        state = z * state + (1 - z) * candidate
        outputs.append(state)
    return np.stack(outputs, axis=1)


def bidirectional(inputs, weights):
    """`tf.keras.layers.Bidirectional`; no mask is passed on to it."""
    forward = keras_gru(inputs, *weights["forward"])
    backward = keras_gru(inputs[:, ::-1], *weights["backward"])[:, ::-1]
    return np.concatenate([forward, backward], axis=2)


def dense(x, weights):
    return x @ weights["kernel"] + weights["bias"]


def multi_head_attention(query, key, value, weights, num_heads):
    def heads(x):
        return x.reshape(*x.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)

    q, k, v = (heads(dense(x, weights[name])) for x, name in ((query, "wq"), (key, "wk"), (value, "wv")))
    logits = q @ k.transpose(0, 1, 3, 2) / np.sqrt(k.shape[-1])
    attention = np.exp(logits - logits.max(-1, keepdims=True))
    attention /= attention.sum(-1, keepdims=True)
    gathered = (attention @ v).transpose(0, 2, 1, 3).reshape(query.shape)
    return dense(gathered, weights["dense"])


def han_attention(inputs, mask, weights):
    """`HanAttention`, whose weights are those of the words alone."""
    similarity = np.tanh(inputs @ weights["W"] + weights["b"]) @ weights["att_context_v"]
    exponentials = np.exp(similarity) * mask
    return ((exponentials / exponentials.sum(1, keepdims=True))[..., None] * inputs).sum(1)


def align_class_model(speech, texts, weights, num_heads):
    """`scores` of `AlignClassModel` in evaluation.

    Args:
        speech: [batch, frame, feature], zero-padded.
        texts: [batch, word] ids; 0 is padding.
        weights: the variables of the model.
        num_heads: heads of the alignment.
    """
    speech = np.maximum(dense(speech, weights["speech_dense"]), 0)
    text_enc = bidirectional(weights["embedding"][texts], weights["text_encoder"])
    speech_enc = bidirectional(speech, weights["speech_encoder"])
    attn_outs = multi_head_attention(text_enc, speech_enc, speech_enc, weights["align_attention"], num_heads)
    sen_encoder = bidirectional(np.concatenate([attn_outs, text_enc], axis=2), weights["align_encoder"])
    align_enc = han_attention(sen_encoder, texts > 0, weights["align_attention_pooling"])
    return dense(align_enc, weights["final_dense"])


def lee_xu(audio, vectors, params, num_heads):
    """Logits of one utterance without padding, as Lee et al. 2020 train it: BLSTMs, one step and head at a time."""

    def blstm(x, own):
        both = reference.bilstm(x, own)
        return np.concatenate([both[:, 0], both[:, 1]], axis=1)

    text, speech = blstm(vectors, params["text_encoder"]), blstm(audio, params["audio_encoder"])
    own = params["alignment"]
    q, k, v = dense(text, own["query"]), dense(speech, own["key"]), dense(speech, own["value"])
    size = q.shape[1] // num_heads
    aligned = np.zeros_like(q)
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        for n in range(len(q)):
            weights = reference.softmax(np.array([q[n, part] @ key[part] for key in k]) / np.sqrt(size))
            aligned[n, part] = sum(w * value[part] for w, value in zip(weights, v, strict=True))
    aligned = dense(aligned, own["out"])
    fused = blstm(np.concatenate([aligned, text], axis=1), params["fusion"])
    scores = [np.tanh(dense(h, params["attention_dense"])) @ params["score"]["kernel"][:, 0] for h in fused]
    pooled = sum(w * h for w, h in zip(reference.softmax(np.array(scores)), fused, strict=True))
    return dense(pooled, params["classifier"])
