"""The equations in loops of float64 numpy, written from the papers rather than from the modules."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    """Of Keras in TensorFlow 1."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def softmax(scores):
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()


def lstm(x, input_kernel, kernel, bias):
    """One sequence [T, D], forward in time; gates i, f, g, o; returns h [T, H]."""
    size = kernel.shape[0]
    h, c, outputs = np.zeros(size), np.zeros(size), []
    for x_t in x:
        z = np.array([x_t @ input_kernel[:, j] + h @ kernel[:, j] + bias[j] for j in range(4 * size)])
        i, f, g, o = (
            sigmoid(z[:size]),
            sigmoid(z[size : 2 * size]),
            np.tanh(z[2 * size : 3 * size]),
            sigmoid(z[3 * size :]),
        )
        c = f * c + i * g
        h = o * np.tanh(c)
        outputs.append(h)
    return np.array(outputs).reshape(-1, size)


def gru(x, input_kernel, kernel, input_bias, bias):
    """One sequence [T, D], forward in time; gates r, z, n, reset after the product; returns h [T, H]."""
    size = kernel.shape[0]
    h, outputs = np.zeros(size), []
    for x_t in x:
        from_x, from_h = x_t @ input_kernel + input_bias, h @ kernel + bias
        r = sigmoid(from_x[:size] + from_h[:size])
        z = sigmoid(from_x[size : 2 * size] + from_h[size : 2 * size])
        n = np.tanh(from_x[2 * size :] + r * from_h[2 * size :])
        h = (1 - z) * n + z * h
        outputs.append(h)
    return np.array(outputs).reshape(-1, size)


def gru_tf1(x, input_kernel, kernel, bias, gate=sigmoid):
    """One sequence, forward in time, as tf.nn.rnn_cell.GRUCell: gates r, u, candidate c from x and r * h."""
    size = kernel.shape[0]
    h, outputs = np.zeros(size), []
    for x_t in x:
        z = [x_t @ input_kernel[:, j] + h @ kernel[:, j] + bias[j] for j in range(2 * size)]
        r, u = np.split(gate(np.array(z)), 2)
        z = [x_t @ input_kernel[:, j] + (r * h) @ kernel[:, j] + bias[j] for j in range(2 * size, 3 * size)]
        h = u * h + (1 - u) * np.tanh(z)
        outputs.append(h)
    return np.array(outputs).reshape(-1, size)


def bilstm(x, params):
    """Forward and backward outputs [T, 2, H] of one sequence under `Recurrent`'s parameters."""
    one = [
        (params["input_kernel"][d], params["kernel"][d], params["input_bias"][d] + params["bias"][d])
        for d in range(2)
    ]
    return np.stack([lstm(x, *one[0]), lstm(x[::-1], *one[1])[::-1]], axis=1)


def conv(x, kernel, bias, size):
    """Zero-padded convolution over time of one sequence [T, D]; kernel [size * D, F], window positions outermost."""
    steps, features = x.shape
    before = (size - 1) // 2
    out = []
    for t in range(steps):
        total = bias.copy()
        for s in range(size):
            at = t - before + s
            if 0 <= at < steps:
                total = total + x[at] @ kernel[s * features : (s + 1) * features]
        out.append(total)
    return np.array(out)


def max_pool(x, size):
    """Windows of `size` steps, dropping an incomplete last one."""
    return np.array([x[t * size : (t + 1) * size].max(0) for t in range(len(x) // size)]).reshape(
        -1, x.shape[1]
    )


def layer_norm(x, params):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * params["scale"] + params["bias"]


def attention(query, memory, params, heads):
    """Scaled dot-product attention, one head and query position at a time (eqs. 9, 10, 15 of Sun 2021)."""
    q, k, v = (
        x @ params[name]["kernel"] for x, name in ((query, "query"), (memory, "key"), (memory, "value"))
    )
    size = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(q)):
            weights = softmax(np.array([q[t, part] @ k[s, part] / np.sqrt(size) for s in range(len(k))]))
            out[t, part] = sum(w * v[s, part] for s, w in enumerate(weights))
    return out @ params["out"]["kernel"]


def positions(length, size):
    """Vaswani et al. 2017, section 3.5."""
    out = np.zeros((length, size))
    for t in range(length):
        for i in range(size):
            angle = t / 10000 ** (2 * (i // 2) / size)
            out[t, i] = np.sin(angle) if i % 2 == 0 else np.cos(angle)
    return out


def feed_forward(x, params):
    hidden = np.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def mcsan_module(kind, encoded, params, layers, heads):
    """Sections 2.3 and 2.4 of Sun 2021; the cross update is simultaneous."""
    now = {m: h + positions(*h.shape) for m, h in encoded.items()}
    for n in range(layers):
        before = dict(now)
        for m in now:
            source = m if kind == "self" else next(other for other in before if other != m)
            delta = attention(before[m], before[source], params[f"{m}_attention_{n}"], heads)
            h = layer_norm(before[m] + delta, params[f"{m}_attention_norm_{n}"])
            now[m] = layer_norm(h + feed_forward(h, params[f"{m}_feed_forward_{n}"]), params[f"{m}_norm_{n}"])
    return now


def mcsan(audio, vectors, params, chains, layers=1, heads=8, kernel_size=3, pool_size=3):
    """Log-probabilities of one utterance: audio [T, 40], word vectors [L, 300] (None for a missing modality)."""
    encoded = {}
    if audio is not None:
        encoder, x = params["AudioEncoder_0"], audio
        for block in ("Conv1D_0", "Conv1D_1"):
            dense = encoder[block]["Dense_0"]
            x = max_pool(conv(x, dense["kernel"], dense["bias"], kernel_size), pool_size)  # eq. 1
        encoded["audio"] = bilstm(x, encoder["bilstm"]).mean(1)  # eqs. 2, 3
    if vectors is not None:
        encoded["text"] = bilstm(vectors, params["text_encoder"]).mean(1)  # eqs. 4, 5
    pooled = []
    for chain in chains:
        now = encoded
        for kind in chain:
            now = mcsan_module(kind, now, params[f"{kind}_attention"], layers, heads)
        pooled += [now[m].max(0) for m in encoded]
    hidden = np.concatenate(pooled)  # eq. 18
    hidden = np.maximum(hidden @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    logits = hidden @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    return np.log(softmax(logits))  # eq. 19
