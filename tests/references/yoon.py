"""MDRE and AMH as published by Yoon et al., in float64 numpy on padded batches, with the variables of their source.

Written from github.com/david-yoon/multimodal-speech-emotion at 44d05d5 (model/SE_model_audio.py, SE_model_text.py and
SE_model_multi.py) and github.com/david-yoon/attentive-modality-hopping-for-SER at fed3ece (util/layers.py,
util/model_luong_attention.py and model/model_AMH.py). Each is called with `[batch, step, feature]` inputs and the
number of valid steps. MHA has no source: it follows the description by Lee et al. 2020, one utterance at a time.
"""

import numpy as np

from references import layers as reference

FLOAT_MAX = float(np.finfo(np.float32).max)


def gru_cell(inputs, state, variables):
    """`tf.nn.rnn_cell.GRUCell`: both gates from inputs and state, the candidate from inputs and reset state."""
    gates = np.concatenate([inputs, state], axis=1) @ variables["gates/kernel"] + variables["gates/bias"]
    r, u = np.split(reference.sigmoid(gates), 2, axis=1)
    candidate = np.concatenate([inputs, r * state], axis=1) @ variables["candidate/kernel"]
    c = np.tanh(candidate + variables["candidate/bias"])
    return u * state + (1 - u) * c


def add_gru(inputs, lengths, variables):
    """`tf.nn.dynamic_rnn`: outputs, which are zero beyond the length, and the state at the last valid step."""
    size = len(variables["candidate/bias"])
    state, outputs = np.zeros((len(inputs), size)), []
    for t in range(inputs.shape[1]):
        new = gru_cell(inputs[:, t], state, variables)
        is_valid = (t < lengths)[:, None]
        outputs.append(np.where(is_valid, new, 0))
        state = np.where(is_valid, new, state)
    return np.stack(outputs, axis=1), state


def luong_attention(target, condition, lengths):
    """Scores of padded steps are lowered by the largest float; returns the weighted sum."""
    dot = np.einsum("bth,bh->bt", target, condition)
    mask = np.arange(target.shape[1]) < lengths[:, None]
    scores = np.where(mask, dot, -FLOAT_MAX)
    norm_dot = np.exp(scores - scores.max(1, keepdims=True))
    norm_dot /= norm_dot.sum(1, keepdims=True)
    return (target * norm_dot[..., None]).sum(1)


def mdre(inputs, lengths, variables, prosody=None):
    """`batch_pred` of `SingleEncoderModelMulti`; video, which the source lacks, is encoded like the others."""
    predictions = []
    for m, sequence in inputs.items():
        _, final_encoder = add_gru(sequence, lengths[m], variables[f"{m}_GRU"])
        if m == "audio" and prosody is not None:
            final_encoder = np.concatenate([final_encoder, prosody], axis=1)
        own = variables[f"{m}_output_layer"]
        predictions.append(final_encoder @ own["similarity_matrix"] + own["output_bias"])
    own = variables["multi_output_layer"]
    return np.concatenate(predictions, axis=1) @ own["similarity_matrix"] + own["output_bias"]


def amh(inputs, lengths, variables, hop, prosody=None):
    """`batch_pred` of `ModelAMH`: attention layers of types 1 (onto video), 2 (audio) and 3 (text) in turn."""
    outputs, final_encoder = {}, {}
    for m in ("audio", "text", "video"):
        outputs[m], final_encoder[m] = add_gru(inputs[m], lengths[m], variables[f"{m}_GRU"])
    types = {1: ("audio", "text", "video"), 2: ("text", "video", "audio"), 3: ("audio", "video", "text")}
    for number in range(1, hop + 1):
        first, second, target = types[(number - 1) % 3 + 1]
        own = variables[f"attention_layer_hop{number}"]
        asking = np.concatenate([final_encoder[first], final_encoder[second]], axis=1)
        query_prj = asking @ own["attn_projection_helper"] + own["attn_bias"]
        final_encoder[target] = luong_attention(outputs[target], query_prj, lengths[target])
    concatenated = [final_encoder[m] for m in ("audio", "text", "video")]
    concatenated += [] if prosody is None else [prosody]
    own = variables["multi_output_layer"]
    return np.concatenate(concatenated, axis=1) @ own["similarity_matrix"] + own["output_bias"]


def mha(sequences, params, hops):
    """Logits of one utterance after one to three hops, each written out."""
    a, t = sequences
    states, last = {}, {}
    for m, x in sequences.items():
        own = params[f"{m}_encoder"]
        forward, backward = (
            reference.lstm(
                x if d == 0 else x[::-1],
                own["input_kernel"][d],
                own["kernel"][d],
                own["input_bias"][d] + own["bias"][d],
            )
            for d in (0, 1)
        )
        states[m] = np.concatenate([forward, backward[::-1]], axis=1)
        last[m] = np.concatenate([forward[-1], backward[-1]])

    def attended(query, h):
        return reference.softmax(h @ query) @ h

    first = attended(last[a], states[t])
    final = [last[a], first]
    if hops > 1:
        second = attended(first, states[a])
        final = [second, first]
    if hops > 2:
        final = [second, attended(second, states[t])]
    return np.concatenate(final) @ params["classifier"]["kernel"] + params["classifier"]["bias"]
