"""ILT and CAT in loops of float64 numpy, one utterance at a time, without padding."""

import numpy as np

from references import layers as reference


def conv2d(x, kernel):
    """Zero-padded convolution of one input [T, F, C] with a square kernel of odd size [K, K, C, D]."""
    steps, bands, _ = x.shape
    size = len(kernel)
    out = np.zeros((steps, bands, kernel.shape[-1]))
    for t in range(steps):
        for f in range(bands):
            for i in range(size):
                for j in range(size):
                    at = t - size // 2 + i, f - size // 2 + j
                    if 0 <= at[0] < steps and 0 <= at[1] < bands:
                        out[t, f] += x[at] @ kernel[i, j]
    return out


def normalised(x, params, mean, variance):
    return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]


def average_pool(x, time, band):
    """Means over windows [time, band], dropping incomplete last ones."""
    steps, bands, channels = x.shape
    out = np.zeros((steps // time, bands // band, channels))
    for t in range(steps // time):
        for f in range(bands // band):
            out[t, f] = x[t * time : (t + 1) * time, f * band : (f + 1) * band].mean((0, 1))
    return out


def cnn(x, params, stats, blocks):
    """Eq. 5, in evaluation."""
    x = x[:, :, None]
    for n, (_, time, band) in enumerate(blocks):
        x = conv2d(x, params[f"Conv2D_{n}"]["kernel"])
        own = stats[f"BatchNorm_{n}"]
        x = normalised(x, params[f"BatchNorm_{n}"], own["mean"], own["variance"])
        x = average_pool(np.maximum(x, 0), time, band)
    flat = x.reshape(len(x), x.shape[1] * x.shape[2])
    return flat @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]


def bilstm(x, params):
    """Eqs. 6-8."""
    return reference.bilstm(x, params).reshape(len(x), -1)


def transformer(query, memory, params, layers, heads, positions):
    """Eqs. 1-4 and the mean over time; `memory` None is self-attention."""

    def prepared(x):
        return x + reference.positions(*x.shape) if positions else x

    x = prepared(query)
    source = None if memory is None else prepared(memory)
    for n in range(layers):
        gathered = reference.attention(x, x if source is None else source, params[f"attention_{n}"], heads)
        h = reference.layer_norm(x + gathered, params[f"attention_norm_{n}"])
        x = reference.layer_norm(
            h + reference.feed_forward(h, params[f"feed_forward_{n}"]), params[f"norm_{n}"]
        )
    return x.mean(0)


def classified(pooled, params):
    return np.log(reference.softmax(pooled @ params["classifier"]["kernel"] + params["classifier"]["bias"]))


def ilt(x, params, stats, net):
    """Fig. 1: log-probabilities, beta and the shares of eqs. 13-16 (None if undefined)."""
    c = cnn(x, params["cnn"], stats["cnn"], net.blocks)
    if net.lstm == "before":
        c = bilstm(c, params["bilstm"])
    transformed = transformer(
        c, None, params["transformer"], net.num_layers, net.num_heads, net.positions
    )  # eq. 11
    if net.lstm != "parallel":
        return classified(transformed, params), None, None
    h = bilstm(c, params["bilstm"])
    w = params["lstm_attention"]["kernel"][:, 0]
    beta = np.array([np.exp(w @ h_t) for h_t in h]) / sum(np.exp(w @ h_t) for h_t in h)  # eq. 9
    recurrent = sum(b * h_t for b, h_t in zip(beta, h, strict=True))  # eq. 10
    if net.fusion == "concatenation":
        return classified(np.concatenate([recurrent, transformed]), params), beta, None  # eq. 12
    if net.fusion == "plus":
        shares = np.array([net.alpha, 1 - net.alpha])  # eq. 13
    else:
        a, b = params["fusion_weights"]
        shares = np.array([np.exp(a), np.exp(b)]) / (np.exp(a) + np.exp(b))  # eqs. 15, 16
    return classified(shares[0] * recurrent + shares[1] * transformed, params), beta, shares  # eq. 14


def cat(x, params, stats, net):
    """Fig. 2: log-probabilities."""
    streams = {}
    if "cnn" in params:
        streams["cnn"] = cnn(x, params["cnn"], stats["cnn"], net.blocks)
    if "front" in params:
        dense = params["front"]["Dense_0"]
        full = reference.conv(x, dense["kernel"], dense["bias"], net.front_kernel_size)
        streams["lstm"] = bilstm(full[:: net.front_stride], params["bilstm"])
    if not net.directions:
        return classified(streams["cnn"].mean(0) + streams["lstm"].mean(0), params)
    total = 0
    for direction in net.directions:
        query, memory = direction.split("_to_")
        total = total + transformer(
            streams[query],
            None if query == memory else streams[memory],
            params[direction],
            net.num_layers,
            net.num_heads,
            net.positions,
        )
    return classified(total, params)
