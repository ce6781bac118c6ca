"""The encoders in float64 numpy, one recording at a time, from tensors by their Hugging Face names."""

import numpy as np
from scipy.special import erf


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def layer_norm(x, scale=1.0, bias=0.0):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


def convolution(x, weight, bias=0.0, stride=1, before=0, after=0, groups=1):
    """PyTorch's Conv1d: x [T, in], weight [out, in / groups, kernel]."""
    x = np.pad(x, ((before, after), (0, 0)))
    out, width, kernel = weight.shape
    frames = (len(x) - kernel) // stride + 1
    y = np.zeros((frames, out))
    for t in range(frames):
        window = x[t * stride : t * stride + kernel]  # [kernel, in]
        for o in range(out):
            group = o // (out // groups)
            y[t, o] = (window[:, group * width : (group + 1) * width].T * weight[o]).sum()
    return y + bias


class Reference:
    """An encoder of the wav2vec 2.0 family or Whisper.

    Attributes:
        family: the model type.
        tensors: by name, without a prefix.
        heads: attention heads.
        pre_norm: the order of normalisation.
    """

    def __init__(self, family, tensors, *, heads, pre_norm=False, buckets=0, max_distance=0):
        self.family, self.heads, self.pre_norm = family, heads, pre_norm
        self.tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
        self.buckets, self.max_distance = buckets, max_distance

    def linear(self, name, x):
        y = x @ self.tensors[f"{name}.weight"].T
        return y + self.tensors.get(f"{name}.bias", 0)

    def norm(self, name, x):
        return layer_norm(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def conv(self, name, x, **options):
        return convolution(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias", 0), **options)

    def hidden_states(self, x):
        """All hidden states of a waveform, or of a log-mel spectrum [frames, bands]."""
        x = self.stem(x) if self.family == "whisper" else self.positioned(self.projected(x))
        states = [x]
        prefix = "layers" if self.family == "whisper" else "encoder.layers"
        count = len(
            {name for name in self.tensors if name.startswith(prefix) and "final_layer_norm.w" in name}
        )
        for layer in range(count):
            states.append(self.layer(f"{prefix}.{layer}", states[-1]))
        if self.pre_norm:
            last = "layer_norm" if self.family == "whisper" else "encoder.layer_norm"
            states[-1] = self.norm(last, states[-1])
        return states

    def stem(self, mel):
        x = gelu(self.conv("conv1", mel, before=1, after=1))
        x = gelu(self.conv("conv2", x, before=1, after=1, stride=2))
        return x + self.tensors["embed_positions.weight"][: len(x)]

    def projected(self, wave):
        x = ((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))[:, None]
        for layer, stride in enumerate((5, 2, 2, 2, 2, 2, 2)):
            name = f"feature_extractor.conv_layers.{layer}"
            x = self.conv(f"{name}.conv", x, stride=stride)
            if f"{name}.layer_norm.weight" in self.tensors:
                over_time = "feature_extractor.conv_layers.1.layer_norm.weight" not in self.tensors
                scale, bias = (self.tensors[f"{name}.layer_norm.{part}"] for part in ("weight", "bias"))
                x = layer_norm(x.T).T * scale + bias if over_time else layer_norm(x, scale, bias)
            x = gelu(x)
        return self.linear("feature_projection.projection", self.norm("feature_projection.layer_norm", x))

    def positioned(self, x):
        positions, layer = x, 0
        name = "encoder.pos_conv_embed"
        if self.family == "data2vec-audio":
            while f"{name}.layers.{layer}.conv.weight" in self.tensors:
                positions = gelu(layer_norm(self.position_conv(f"{name}.layers.{layer}.conv", positions)))
                layer += 1
        else:
            positions = gelu(self.position_conv(f"{name}.conv", x))
        return x + positions if self.pre_norm else self.norm("encoder.layer_norm", x + positions)

    def position_conv(self, name, x):
        kernel = self.tensors[f"{name}.weight"].shape[2]
        groups = x.shape[1] // self.tensors[f"{name}.weight"].shape[1]
        return self.conv(name, x, before=kernel // 2, after=(kernel - 1) // 2, groups=groups)

    def layer(self, name, x):
        is_whisper = self.family == "whisper"
        norm_1 = f"{name}.self_attn_layer_norm" if is_whisper else f"{name}.layer_norm"
        norm_2 = f"{name}.final_layer_norm"
        if self.pre_norm:
            x = x + self.attention(name, self.norm(norm_1, x))
            return x + self.feed_forward(name, self.norm(norm_2, x))
        x = self.norm(norm_1, x + self.attention(name, x))
        return self.norm(norm_2, x + self.feed_forward(name, x))

    def feed_forward(self, name, x):
        first, second = ("fc1", "fc2")
        if self.family != "whisper":
            first, second = "feed_forward.intermediate_dense", "feed_forward.output_dense"
        return self.linear(f"{name}.{second}", gelu(self.linear(f"{name}.{first}", x)))

    def attention(self, name, x):
        inner = f"{name}.self_attn" if self.family == "whisper" else f"{name}.attention"
        q, k, v = (self.linear(f"{inner}.{part}_proj", x) for part in "qkv")
        size = x.shape[1] // self.heads
        y = np.zeros_like(x)
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / np.sqrt(size)
            if self.family == "wavlm":
                scores += self.gated_bias(inner, x[:, part], head)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            y[:, part] = weights / weights.sum(1, keepdims=True) @ v[:, part]
        return self.linear(f"{inner}.out_proj", y)

    def gated_bias(self, name, x, head):
        """Chen et al. 2022, section III-A; the stored projections give 1 - g_update."""
        gates = self.linear(f"{name}.gru_rel_pos_linear", x).reshape(-1, 2, 4).sum(2)
        update, reset = 1 - 1 / (1 + np.exp(-gates[:, 0])), 1 / (1 + np.exp(-gates[:, 1]))
        scale = self.tensors[f"{name}.gru_rel_pos_const"].ravel()[head]
        table = self.tensors["encoder.layers.0.attention.rel_attn_embed.weight"][:, head]
        bias = np.zeros((len(x), len(x)))
        for i in range(len(x)):
            for j in range(len(x)):
                d = table[self.bucket(j - i)]
                bias[i, j] = d + update[i] * d + (1 - update[i]) * scale * reset[i] * d
        return bias

    def bucket(self, distance):
        half = self.buckets // 2
        exact, size = half // 2, abs(distance)
        if size >= exact:
            growth = np.log(size / exact) / np.log(self.max_distance / exact)
            size = min(exact + int(growth * (half - exact)), half - 1)
        return size + (half if distance > 0 else 0)


def log_mel(wave, bands, filters):
    """Radford et al. 2023, section 2.2, in float64; `filters` are [bins, bands]."""
    padded = np.pad(wave.astype(np.float64), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [padded[160 * t : 160 * t + 400] * window for t in range(len(wave) // 160)]
    decades = np.log10(np.maximum(np.abs(np.fft.rfft(frames)) ** 2 @ filters, 1e-10))
    return (np.maximum(decades, decades.max() - 8) + 4) / 4
