"""Four networks in PyTorch without masks, as users write them, and jaxser's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Params = Mapping[str, Any]


def fill(parameter: torch.Tensor, value: Any) -> None:
    """Copy an array into a parameter of the same size."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(value)).reshape(parameter.shape))


def fill_linear(layer: nn.Linear, params: Params) -> None:
    fill(layer.weight, np.asarray(params["kernel"]).T)
    if layer.bias is not None:
        fill(layer.bias, params["bias"])


def fill_rnn(layer: nn.RNNBase, params: Params) -> None:
    for d in range(2 if layer.bidirectional else 1):
        suffix = "_l0" + ("_reverse" if d else "")
        fill(getattr(layer, f"weight_ih{suffix}"), np.asarray(params["input_kernel"])[d].T)
        fill(getattr(layer, f"weight_hh{suffix}"), np.asarray(params["kernel"])[d].T)
        fill(getattr(layer, f"bias_ih{suffix}"), params["input_bias"][d])
        fill(getattr(layer, f"bias_hh{suffix}"), params["bias"][d])


def blstm(inputs: int, hidden: int) -> nn.LSTM:
    return nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)


class MCSAN(nn.Module):
    """Sun et al. 2021."""

    def __init__(self, features: int, table: torch.Tensor, num_classes: int, rate: float, d: int = 128):
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv1d(n, d, 3, padding=1) for n in (features, d)])
        self.embedding = nn.Embedding.from_pretrained(table, freeze=True)
        self.audio, self.text = blstm(d, d), blstm(table.shape[1], d)
        self.modules_of = nn.ModuleDict(
            {
                f"{kind}_{m}": TransformerLayer(d, 8, 512, rate)
                for kind in ("cross", "self")
                for m in ("audio", "text")
            }
        )
        self.hidden, self.classifier = nn.Linear(4 * d, 128), nn.Linear(128, num_classes)
        self.rate = rate

    def forward(self, audio: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        x = audio.transpose(1, 2)
        for convolution in self.convolutions:
            x = F.max_pool1d(convolution(x), 3)
        encoded = {
            "audio": self.audio(x.transpose(1, 2))[0].unflatten(2, (2, -1)).mean(2),
            "text": self.text(self.embedding(words))[0].unflatten(2, (2, -1)).mean(2),
        }
        pooled = []
        for kind, source in (
            ("cross", {"audio": "text", "text": "audio"}),
            ("self", {"audio": "audio", "text": "text"}),
        ):
            placed = {m: F.dropout(h + positions(h), self.rate, self.training) for m, h in encoded.items()}
            pooled += [
                self.modules_of[f"{kind}_{m}"](placed[m], placed[source[m]]).amax(1)
                for m in ("audio", "text")
            ]
        hidden = F.relu(self.hidden(torch.cat(pooled, 1)))
        return F.log_softmax(self.classifier(hidden), 1)

    def fill(self, params: Params) -> None:
        encoder = params["AudioEncoder_0"]
        for n, convolution in enumerate(self.convolutions):
            dense = encoder[f"Conv1D_{n}"]["Dense_0"]
            kernel = np.asarray(dense["kernel"]).reshape(3, -1, convolution.out_channels)
            fill(convolution.weight, kernel.transpose(2, 1, 0))
            fill(convolution.bias, dense["bias"])
        fill_rnn(self.audio, encoder["bilstm"])
        fill_rnn(self.text, params["text_encoder"])
        for name, layer in self.modules_of.items():
            kind, m = name.split("_")
            layer.fill(params[f"{kind}_attention"], m)
        fill_linear(self.hidden, params["hidden"])
        fill_linear(self.classifier, params["classifier"])


class TransformerLayer(nn.Module):
    """Attention and a feed-forward layer, each with a residual connection and normalisation."""

    def __init__(self, d: int, heads: int, inner: int, rate: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(d, heads, bias=False, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(d, eps=1e-6) for _ in range(2)])
        self.inner, self.outer, self.rate = nn.Linear(d, inner), nn.Linear(inner, d), rate

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        attended = self.attention(x, source, source, need_weights=False)[0]
        x = self.norms[0](x + F.dropout(attended, self.rate, self.training))
        forward = self.outer(F.relu(self.inner(x)))
        return self.norms[1](x + F.dropout(forward, self.rate, self.training))

    def fill(self, params: Params, m: str) -> None:
        attention = params[f"{m}_attention_0"]
        stacked = np.concatenate(
            [np.asarray(attention[name]["kernel"]).T for name in ("query", "key", "value")]
        )
        fill(self.attention.in_proj_weight, stacked)
        fill(self.attention.out_proj.weight, np.asarray(attention["out"]["kernel"]).T)
        for norm, name in zip(self.norms, (f"{m}_attention_norm_0", f"{m}_norm_0"), strict=True):
            fill(norm.weight, params[name]["scale"])
            fill(norm.bias, params[name]["bias"])
        fill_linear(self.inner, params[f"{m}_feed_forward_0"]["Dense_0"])
        fill_linear(self.outer, params[f"{m}_feed_forward_0"]["Dense_1"])


def positions(x: torch.Tensor) -> torch.Tensor:
    """Return the positional encoding of Vaswani et al. 2017, section 3.5."""
    angle = torch.arange(x.shape[1], device=x.device)[:, None] / 10000 ** (
        torch.arange(0, x.shape[2], 2, device=x.device) / x.shape[2]
    )
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class CAN(nn.Module):
    """Lee et al. 2020, with every word padded to the longest."""

    def __init__(self, features: int, table: torch.Tensor, num_classes: int, rate: float, hidden: int = 128):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.text, self.within = blstm(table.shape[1], hidden), blstm(features, hidden)
        self.over = blstm(2 * hidden, hidden)
        self.queries = nn.ParameterDict(
            {m: nn.Parameter(torch.zeros(4, hidden // 2)) for m in ("text", "audio")}
        )
        self.heads = nn.ModuleDict(
            {"fused": nn.Linear(8 * hidden, num_classes)}
            | {m: nn.Linear(2 * hidden, num_classes) for m in ("text", "audio")}
        )
        self.rate, self.alpha = rate, 0.1

    def forward(self, segments: torch.Tensor, words: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits; `segments` is [B, L, S, D]."""
        drop = lambda x: F.dropout(x, self.rate, self.training)  # noqa: E731
        within = drop(self.within(segments.flatten(0, 1))[0]).mean(1).unflatten(0, segments.shape[:2])
        states = {"text": drop(self.text(self.embedding(words))[0]), "audio": drop(self.over(within)[0])}
        weights = {}
        for m, x in states.items():
            scores = torch.einsum("btkd,kd->bkt", x.unflatten(2, (4, -1)), self.queries[m])
            weights[m] = scores.softmax(-1)
        contexts = {}
        for by in ("text", "audio"):
            for of in states:
                alpha = weights[by] if by == of else weights[by].detach()
                gathered = torch.einsum("bkt,btkd->bkd", alpha, states[of].unflatten(2, (4, -1)))
                contexts[by, of] = gathered.flatten(1)
        order = [("text", "text"), ("text", "audio"), ("audio", "audio"), ("audio", "text")]
        logits = {"fused": self.heads["fused"](torch.cat([contexts[key] for key in order], 1))}
        return logits | {m: self.heads[m](contexts[m, m]) for m in states}

    def fill(self, params: Params) -> None:
        fill(self.embedding.weight, params["WordEmbedding_0"]["table"])
        fill_rnn(self.text, params["text_encoder"]["Recurrent_0"])
        encoder = params["AudioEncoder_0"]
        fill_rnn(self.within, encoder["within_words"]["Recurrent_0"])
        fill_rnn(self.over, encoder["over_words"]["Recurrent_0"])
        for m, query in self.queries.items():
            fill(query, params["CrossAttention_0"][f"{m}_attention"]["query"])
        for name, head in self.heads.items():
            fill_linear(head, params[name])


class LSTMAttention(nn.Module):
    """Ramet et al. 2018."""

    def __init__(self, features: int, num_classes: int, rate: float, dense: int = 256, hidden: int = 128):
        super().__init__()
        self.dense = nn.ModuleList([nn.Linear(n, dense) for n in (features, dense, dense)])
        self.main, self.attention = blstm(dense, hidden), blstm(2 * hidden, hidden)
        self.score = nn.Linear(2 * hidden, 1, bias=False)
        self.classifier, self.rate = nn.Linear(2 * hidden, num_classes), rate

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        x = audio + 0.4**0.5 * torch.randn_like(audio) if self.training else audio
        for layer in self.dense:
            x = F.dropout(F.relu(layer(x)), self.rate, self.training)
        h = F.dropout(self.main(x)[0], self.rate, self.training)
        weights = torch.sigmoid(self.score(self.attention(h)[0]))
        return F.log_softmax(self.classifier((weights * h).sum(1)), 1)

    def fill(self, params: Params) -> None:
        for n, layer in enumerate(self.dense):
            fill_linear(layer, params[f"dense_{n}"])
        fill_rnn(self.main, params["bilstm"])
        fill_rnn(self.attention, params["attention_bilstm"])
        fill_linear(self.score, params["score"])
        fill_linear(self.classifier, params["classifier"])


class SelfAttention(nn.Module):
    """Rajan et al. 2022: Self on text and audio."""

    def __init__(
        self, features: int, table: torch.Tensor, num_classes: int, rate: float, frames: int, steps: int
    ):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(table, freeze=True)
        self.convolution = nn.Conv1d(frames, steps, 1)
        self.gru = nn.ModuleDict(
            {
                "text": nn.GRU(table.shape[1], 60, batch_first=True, bidirectional=True),
                "audio": nn.GRU(features, 60, batch_first=True, bidirectional=True),
            }
        )
        self.attention = nn.ModuleDict(
            {m: nn.MultiheadAttention(120, 6, dropout=rate, batch_first=True) for m in ("text", "audio")}
        )
        self.hidden, self.classifier = nn.Linear(240, 60), nn.Linear(60, num_classes)

    def forward(self, audio: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        inputs = {
            "text": F.dropout(self.embedding(words), 0.25, self.training),
            "audio": self.convolution(audio),
        }
        vectors = []
        for m, x in inputs.items():
            h = self.gru[m](x)[0]
            vectors.append(self.attention[m](h, h, h)[0].mean(1))
        std, mean = torch.std_mean(torch.stack(vectors, 1), 1)
        return F.log_softmax(self.classifier(self.hidden(torch.cat([std, mean], 1))), 1)

    def fill(self, params: Params) -> None:
        dense = params["audio_conv"]
        fill(self.convolution.weight, np.asarray(dense["kernel"]).T[:, :, None])
        fill(self.convolution.bias, dense["bias"])
        for m, attention in self.attention.items():
            fill_rnn(self.gru[m], params[f"{m}_encoder"])
            own = params[f"self_{m}"]
            for kind, shape in (("kernel", attention.in_proj_weight), ("bias", attention.in_proj_bias)):
                stacked = [np.asarray(own[name][kind]).T for name in ("query", "key", "value")]
                fill(shape, np.concatenate(stacked))
            fill_linear(attention.out_proj, own["out"])
        fill_linear(self.hidden, params["hidden"])
        fill_linear(self.classifier, params["classifier"])
