"""MDRE, MHA, AMH (Yoon et al.) and learned alignment (Xu et al.) for one utterance, one step at a time, in float64."""

import numpy as np

from references import layers as reference

ORDER = ("audio", "text", "video")


def directions(x, params, cell):
    """The outputs of each direction, [T, H], in the order of time."""
    outputs = []
    for d in range(len(params["kernel"])):
        own = x if d == 0 else x[::-1]
        kernels = params["input_kernel"][d], params["kernel"][d]
        biases = params["input_bias"][d], params["bias"][d]
        if cell == "gru":
            h = reference.gru(own, *kernels, *biases)
        else:
            h = {"lstm": reference.lstm, "gru_tf1": reference.gru_tf1}[cell](own, *kernels, sum(biases))
        outputs.append(h if d == 0 else h[::-1])
    return outputs


def encode(sequences, params, cell):
    """States [T, F] and the last state [F] of each modality; a backward direction ends at the first step."""
    states, last = {}, {}
    for m, x in sequences.items():
        outputs = directions(x, params[f"{m}_encoder"], cell)
        states[m] = np.concatenate(outputs, axis=1)
        last[m] = np.concatenate([outputs[0][-1], *(h[0] for h in outputs[1:])])
    return states, last


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


def gather(query, states):
    """Luong attention by dot products."""
    weights = reference.softmax(np.array([query @ h for h in states]))
    return sum(w * h for w, h in zip(weights, states, strict=True))


def mdre(sequences, params, prosody=None, cell="gru_tf1"):
    """Logits; `sequences` by modality, in the model's order."""
    _, last = encode(sequences, params, cell)
    if prosody is not None:
        last["audio"] = np.concatenate([last["audio"], prosody])
    halves = [dense(last[m], params[f"{m}_projection"]) for m in sequences]
    return dense(np.concatenate(halves), params["classifier"])


def mha(sequences, params, hops, cell="lstm"):
    """Logits after one to three hops, each written out."""
    a, t = sequences
    states, last = encode(sequences, params, cell)
    first = gather(last[a], states[t])
    final = [last[a], first]
    if hops > 1:
        second = gather(first, states[a])
        final = [second, first]
    if hops > 2:
        final = [second, gather(second, states[t])]
    return dense(np.concatenate(final), params["classifier"])


def amh(sequences, params, hops, prosody=None, cell="gru_tf1"):
    """Logits; hops onto video, audio, text, video, ..."""
    states, now = encode({m: sequences[m] for m in ORDER}, params, cell)
    for hop in range(hops):
        if hop % 3 == 0:
            target, asking = "video", ("audio", "text")
        elif hop % 3 == 1:
            target, asking = "audio", ("text", "video")
        else:
            target, asking = "text", ("audio", "video")
        query = dense(np.concatenate([now[m] for m in asking]), params[f"query_{hop + 1}"])
        now[target] = gather(query, states[target])
    extra = [] if prosody is None else [prosody]
    return dense(np.concatenate([*(now[m] for m in ORDER), *extra]), params["classifier"])


def aligned(text, speech, params, heads):
    """The aligned speech of each word, one head and word at a time."""
    q, k, v = dense(text, params["query"]), dense(speech, params["key"]), dense(speech, params["value"])
    size = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for n in range(len(q)):
            weights = reference.softmax(np.array([q[n, part] @ key[part] for key in k]) / np.sqrt(size))
            out[n, part] = sum(w * value[part] for w, value in zip(weights, v, strict=True))
    return dense(out, params["out"])


def xu(audio, vectors, params, heads, join_text, cell):
    """Logits of learned alignment: audio [T, D], word vectors [L, E]."""
    text = np.concatenate(directions(vectors, params["text_encoder"], cell), axis=1)
    speech = np.concatenate(directions(audio, params["audio_encoder"], cell), axis=1)
    read = aligned(text, speech, params["alignment"], heads)
    if join_text:
        read = np.concatenate([read, text], axis=1)
    fused = np.concatenate(directions(read, params["fusion"], cell), axis=1)
    scores = [np.tanh(dense(h, params["attention_dense"])) @ params["score"]["kernel"][:, 0] for h in fused]
    pooled = sum(w * h for w, h in zip(reference.softmax(np.array(scores)), fused, strict=True))
    return dense(pooled, params["classifier"])
