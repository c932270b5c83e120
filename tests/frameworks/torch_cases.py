"""Networks as users of PyTorch write them: what makes each, observations for it, and what is said if it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    observe: Callable[[int], Any]  # a batch of so many observations
    refused: str = ""  # what is said
    tolerance: float = 1e-5


# Observations


def numbers(*shape):
    return lambda batch: np.random.default_rng(batch).normal(size=(batch, *shape)).astype(np.float32)


def wholes(below, *shape, dtype=np.int32):
    return lambda batch: np.random.default_rng(batch).integers(0, below, (batch, *shape), dtype=dtype)


VECTOR, SEQUENCE, IMAGE = numbers(4), numbers(5, 4), numbers(3, 12, 12)
FRAMES = wholes(256, 4, 84, 84, dtype=np.uint8)


def dictionary(batch):
    image = wholes(256, 3, 12, 12, dtype=np.uint8)(batch)
    return {"image": image, "vector": VECTOR(batch), "which": wholes(7)(batch)}


# Modules


class Forward(nn.Module):
    """A module with these layers, buffers and attributes, and forward(self, x)."""

    def __init__(self, forward, **attributes):
        super().__init__()
        self.function = forward
        for name, value in attributes.items():
            if type(value) is torch.Tensor:
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.function(self, x)


def dense(inputs=4, outputs=2):
    return nn.Linear(inputs, outputs)


def between(*layers, inputs=4, width=8, outputs=2):
    """Layers between two dense ones."""
    return nn.Sequential(nn.Linear(inputs, width), *layers, nn.Linear(width, outputs))


class Nature(nn.Module):
    def __init__(self, outputs=6):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, outputs),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x / 255.0)


class Residual(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(3)
        )

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class Attention(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed, self.out = nn.Linear(4, 16), nn.Linear(16, 2)
        self.attention = nn.MultiheadAttention(16, 4, dropout, batch_first=True)

    def forward(self, x):
        x = self.embed(x)
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.out((x + y).mean(1))


class MaskedAttention(Attention):
    def forward(self, x):
        x = self.embed(x)
        y, weights = self.attention(x, x, x, attn_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1]))
        return self.out(y[:, -1]) + weights.sum((1, 2))[:, None]


class Transformer(nn.Module):
    def __init__(self, dropout=0.0, outputs=2):
        super().__init__()
        self.embed, self.out = nn.Linear(4, 16), nn.Linear(16, outputs)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.position = nn.Parameter(torch.randn(5, 16) * 0.1)

    def forward(self, x):
        return self.out(self.encoder(self.embed(x) + self.position)[:, -1])


class Recurrent(nn.Module):
    def __init__(self, kind, **settings):
        super().__init__()
        self.rnn = kind(4, 8, batch_first=True, **settings)
        self.out = nn.Linear(16 if settings.get("bidirectional") else 8, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.GRUCell(4, 8), nn.LSTMCell(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        h, state = x.new_zeros(x.shape[0], 8), None
        for t in range(x.shape[1]):
            h = self.a(x[:, t], h)
            state = self.b(h, state)
        return self.out(state[0])


class Dueling(nn.Module):
    def __init__(self):
        super().__init__()
        self.torso = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.value, self.advantage = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x):
        x = self.torso(x)
        advantage = self.advantage(x)
        return self.value(x) + advantage - advantage.mean(dim=1, keepdim=True)


class Parts(nn.Module):
    """Of a dictionary: an image, a vector and a choice."""

    def __init__(self):
        super().__init__()
        self.conv, self.flat, self.embed = nn.Conv2d(3, 4, 3), nn.Linear(4, 8), nn.Embedding(7, 5)
        self.out = nn.Linear(4 * 100 + 8 + 5, 2)

    def forward(self, observation):
        image = torch.relu(self.conv(observation["image"].float() / 255)).flatten(1)
        vector = self.flat(observation["vector"]).tanh()
        return self.out(torch.cat([image, vector, self.embed(observation["which"])], 1))


def tied():
    module = Forward(lambda self, x: self.b(torch.tanh(self.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    module.b.weight = module.a.weight
    return module


def frozen():
    module = between(nn.ReLU())
    module[0].weight.requires_grad_(False)
    return module


def with_statistics():
    module = between(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
    for _ in range(5):
        module(torch.randn(32, 4) * 3)
    return module.eval()


# Functions


def hooked():
    module = dense()
    module.weight.register_hook(lambda gradient: gradient * 0)
    return module


def remembering(self, x):
    self.last = self.a(x) + 0.5 * self.last
    return self.last


class Through(torch.autograd.Function):
    """A sign whose gradient is that of its argument."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def in_place(self, x):
    x = self.a(x)
    x += 1
    x[:, 0] = 0.5
    x[:, 1:3].mul_(2)
    x = F.relu_(x)
    y = torch.zeros_like(x)
    y[:, ::2] = x[:, ::2]
    z = x.clone()
    z[z > 1.5] = 0.25
    return torch.cat([x, y, z, torch.zeros(x.shape[0], 6).fill_(2.0) * x], 1)


def many(self, x):
    x = self.a(x)
    a, b = x.chunk(2, 1)
    squared = torch.einsum("bi,bj->bij", a, b).flatten(1)
    mixed = torch.stack([a, b], 1).transpose(1, 2).reshape(x.shape[0], -1)
    chosen = torch.where(a > 0, a, -b).clamp(-1, 1)
    one = x.std(1, keepdim=True) + x.norm(dim=1, keepdim=True) + torch.logsumexp(x, 1, keepdim=True)
    two = x.max(1, keepdim=True).values + x.amin(1, keepdim=True) + x.sum(1, keepdim=True) + x.prod(1, keepdim=True)
    padded = F.pad(x, (1, 2)).cumsum(1)
    best = x.gather(1, x.argmax(1, keepdim=True)) + F.normalize(x, dim=1)
    ordered = x.roll(1, 1)[:, :2] + x.flip(1)[:, :2] + x.sort(1).values[:, :2] + x.topk(2, 1).values + x[:, [2, 0]]
    alike = F.cosine_similarity(a, b, dim=1).unsqueeze(1) + (x**2).mean(1, True) + torch.exp(-x.abs()).mean(1, True)
    rest = torch.outer(torch.arange(3.0), torch.ones(2)).sum() * torch.sin(x) + x.masked_fill(x > 1, 0.0)
    return torch.cat([squared, mixed, chosen, one, two, padded, best, ordered, alike, rest + x.var(1, keepdim=True)], 1)


def elementwise(self, x):
    x = self.a(x)
    unit, above, whole = torch.tanh(x) * 0.9, x.abs() + 1.1, (x * 10).int()
    y = x.flip(1)
    of_any = [
        torch.abs, torch.atan, torch.ceil, torch.cos, torch.cosh, torch.erf, torch.expm1, torch.floor, torch.neg,
        torch.asinh, torch.round, torch.sign, torch.sin, torch.sinh, torch.tan, torch.trunc, torch.sigmoid, torch.exp2,
        F.elu, F.hardtanh, F.relu, F.gelu, F.leaky_relu, torch.frac, F.softplus,
        lambda x: torch.round(x, decimals=1), lambda x: 2**x, lambda x: x**2, lambda x: x**3.0, lambda x: x**-1.0,
        lambda x: torch.rsub(x, y, alpha=2), lambda x: torch.sub(x, y, alpha=0.5), lambda x: torch.add(x, y, alpha=3),
        lambda x: torch.atan2(x, y), lambda x: torch.fmod(x, 0.7), lambda x: torch.remainder(x, 0.7),
        lambda x: torch.maximum(x, y), lambda x: torch.minimum(x, y), lambda x: torch.lerp(x, y, 0.3),
        lambda x: torch.div(x, y, rounding_mode="floor"), lambda x: torch.div(x, y, rounding_mode="trunc"),
        lambda x: torch.nan_to_num(x / 0), lambda x: x.clamp(min=0.1), lambda x: x.clamp(max=0.1),
        lambda x: x.isinf() + x.isnan() + (x == y) + (x != y) * 2.0 + (x < y) + (x <= y) + (x > y) + (x >= y),
        lambda x: (x > 0).logical_and(y > 0) + (x > 0).logical_xor(y > 0) * 2.0 + (x > 0).logical_or(y > 0),
    ]  # fmt: skip
    of_above = [torch.acosh, torch.log, torch.log10, torch.log1p, torch.log2, torch.reciprocal, torch.rsqrt, torch.sqrt]
    of_above += [lambda x: x**0.5, lambda x: torch.pow(x, y)]
    of_unit = [torch.acos, torch.asin, torch.atanh]
    of_whole = [
        lambda n: n // 3, lambda n: n % 3, lambda n: torch.div(n, 3, rounding_mode="trunc"), lambda n: n / 3,
        lambda n: (n & 6) + (n | 9) + (n ^ 5) + ~n, lambda n: n.logical_not(), lambda n: torch.fmod(n, 3), torch.sqrt,
    ]  # fmt: skip
    made = [f(x) for f in of_any] + [f(above) for f in of_above] + [f(unit) for f in of_unit]
    return torch.cat(made + [f(whole if f is not torch.sqrt else whole.abs()).float() for f in of_whole], 1)


def reduced(self, x):
    x = self.a(x).reshape(x.shape[0], 2, 3)
    made = [x.sum(), x.mean((1, 2)), x.prod(1), x.amax((1, 2)), x.max(2).values, x.min(1).values, x.max(), x.min()]
    made += [x.argmax(2) + x.argmin(2), x.max(2).indices, x.sort(2).values, x.sort(2, descending=True).indices]
    made += [x.topk(2, largest=False).values, x.cumsum(2), (x > 0).any(2), (x > 0).all(), (x > 0).sum(1), x.var()]
    made += [torch.linalg.vector_norm(x, p, 2) for p in (0, 1, 2, 3, float("inf"), -float("inf"))]
    made += [torch.linalg.vector_norm(x * 0, 2, 2), x.var((1, 2), correction=0), torch.log_softmax(x, 2)]
    made += [
        x.abs().byte().sum(2),
        (x.abs() * 50).byte().cumsum(1),
        torch.logsumexp(x, (1, 2)),
        torch.std_mean(x, 1)[0],
    ]
    made = [part.float() if part.dim() == 0 else part.float().reshape(x.shape[0], -1).sum(1, True) for part in made]
    return sum(made) + x[:, 0, :2]


def placed(self, x):
    x = self.a(x).reshape(x.shape[0], 2, 3)
    where = torch.tensor([[2, 0]]).expand(x.shape[0], 2)[:, :, None]
    made = [
        x.permute(2, 0, 1).transpose(0, 1),
        x.unsqueeze(1).squeeze(1),
        x[:, :1].expand(-1, 4, -1),
        x.repeat(1, 2, 1),
    ]
    made += [x.split([1, 2], 2)[1], x.unbind(2)[1], x.flip((1, 2)), x.select(1, -1), x[:, :, 1:], x[..., ::2], x[:, -1]]
    made += [
        x.gather(2, where),
        x.scatter(2, where, 5.0),
        x.scatter(2, where, x[..., :1] * 2),
        x.scatter_add(2, where, x[..., :1]),
    ]
    made += [x.index_select(2, torch.tensor([2, 0])), x[:, [0, 1, 1], [2, 0, 0]], x.diagonal(dim1=1, dim2=2)]
    made += [F.pad(x, (1, -1, 0, 2), value=3.0), F.pad(x, (1, 1), mode="reflect"), F.pad(x, (2, 1), mode="replicate")]
    made += [x.tril() + x.triu(1), x.select_scatter(x[:, 0] * 2, 1, 1), x.slice_scatter(x[:, :, :1], 2, 1, 2)]
    made += [x.index_put((torch.arange(x.shape[0]), torch.tensor(0)), torch.tensor(1.0), accumulate=True)]
    made += [
        torch.full_like(x, 2.0),
        torch.full((2,), x.shape[1]) * x[:, :, 0],
        x.new_ones(()) * x,
        x.ravel().view_as(x),
    ]
    made += [x.movedim(1, 2), x.swapaxes(1, 2), x.rot90(2, (1, 2)), x.unfold(2, 2, 1)]
    made += [torch.empty_like(x).copy_(x), torch.empty(x.shape).copy_(x[:, :1]), x.numel() / x.shape[0] * x]
    return torch.cat([part.flatten(1) for part in made], 1)


def controlled(self, x):
    if self.deep and x.shape[-1] == 4:
        x = self.a(x)
    for _ in range(3):
        x = x + torch.tanh(self.b(x))
    return self.c(x)


def without_gradient(self, x):
    with torch.no_grad():
        y = self.a(x)
    return self.b(x) + y.detach()


@torch.no_grad()
def all_without_gradient(self, x):
    return torch.relu(self.a(x)) * 2


def conditional(self, x):
    return torch.cond(x.sum() > 0, lambda x: self.a(x), lambda x: -self.a(x), (x,))


def noisy(self, x):
    return F.linear(x, self.a.weight + torch.randn_like(self.a.weight) * 0.1, self.a.bias)


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=False), nn.ELU(), nn.SELU(), nn.CELU(0.7), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
    nn.Mish(), nn.Softplus(), nn.Softplus(2.0, 5.0), nn.Softsign(), nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid(),
    nn.Hardtanh(), nn.Hardsigmoid(), nn.Hardswish(), nn.LeakyReLU(), nn.PReLU(6), nn.ReLU6(), nn.Tanhshrink(),
    nn.Softshrink(), nn.Hardshrink(), nn.Threshold(0.1, 20), nn.Softmax(1), nn.LogSoftmax(1), nn.Softmin(1), nn.GLU(1),
    nn.Identity(), nn.LayerNorm(6), nn.RMSNorm(6),
]  # fmt: skip


def convolutions():
    return nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3, padding="same", dilation=2), nn.MaxPool2d(2), nn.GroupNorm(4, 8), nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.AvgPool2d(3, 2, 1), nn.ConvTranspose2d(8, 4, 3, 2, 1, 1, groups=2),
        nn.InstanceNorm2d(4, affine=True), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2),
    )  # fmt: skip


def resampled(self, x):
    made = [
        F.interpolate(x, scale_factor=1.5),
        F.interpolate(x, size=(7, 5)),
        F.interpolate(x[:, :, 0], scale_factor=2),
    ]
    made += [
        F.interpolate(x, size=(9, 20), mode="bilinear"),
        F.interpolate(x, (5, 6), mode="bilinear", antialias=False),
    ]
    made += [F.interpolate(x, scale_factor=1.7, mode="bilinear"), F.interpolate(x, (5, 30), mode="bicubic")]
    made += [F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)]
    return self.a(torch.cat([part.flatten(1) for part in made], 1))


def pooled(self, x):
    volume, row = x.reshape(x.shape[0], 1, 3, 12, 12), x[:, :, 0]
    made = [F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, (2, 3)), F.max_pool3d(volume, 2, 1), F.max_pool1d(row, 3)]
    made += [F.avg_pool2d(x, 3, 2, 1, True, False), F.avg_pool2d(x, 2, divisor_override=3), F.avg_pool3d(volume, 2, 1)]
    made += [F.avg_pool1d(row, 5, 2, 1, True), F.adaptive_avg_pool1d(row, 5), F.adaptive_avg_pool3d(volume, (2, 5, 3))]
    made += [F.adaptive_max_pool1d(row, 5), F.adaptive_max_pool3d(volume, (2, 5, 3)), F.lp_pool2d(x.abs() + 1, 2, 3)]
    return self.a(torch.cat([part.flatten(1) for part in made], 1))


def volumes():
    convolve = [nn.Conv3d(1, 2, 2, 2), nn.BatchNorm3d(2), nn.ConvTranspose3d(2, 1, 2, 2), nn.Flatten()]
    return nn.Sequential(nn.Unflatten(1, (1, 3)), *convolve, nn.LazyLinear(2)).eval()


SAME = "Acting and learning must see one function"
CASES = {
    "dense": Case(lambda: nn.Sequential(dense(4, 64), nn.Tanh(), dense(64, 64), nn.Tanh(), dense(64)), VECTOR),
    "Nature CNN on bytes": Case(Nature, FRAMES),
    "LayerNorm GELU SiLU Softmax": Case(
        lambda: between(nn.LayerNorm(16), nn.GELU(), dense(16, 16), nn.SiLU(), nn.Softmax(-1), width=16), VECTOR
    ),
    "GroupNorm on vectors": Case(lambda: between(nn.GroupNorm(4, 16), nn.ReLU(), width=16), VECTOR),
    "residual": Case(Residual, VECTOR),
    "dueling": Case(Dueling, VECTOR),
    "Embedding": Case(lambda: nn.Sequential(nn.Embedding(7, 8), nn.ReLU(), dense(8)), wholes(7)),
    "Embedding padding_idx": Case(
        lambda: nn.Sequential(nn.Embedding(7, 8, padding_idx=0), nn.ReLU(), dense(8)), wholes(7)
    ),
    "one_hot": Case(lambda: Forward(lambda self, x: self.a(F.one_hot(x, 7).float()), a=dense(7)), wholes(7)),
    "MultiheadAttention": Case(Attention, SEQUENCE),
    "MultiheadAttention mask, weights": Case(MaskedAttention, SEQUENCE),
    "MultiheadAttention dropout": Case(lambda: Attention(0.1), SEQUENCE, r"random numbers: attention \(Multihead"),
    "TransformerEncoder": Case(Transformer, SEQUENCE),
    "TransformerEncoder dropout": Case(lambda: Transformer(0.1), SEQUENCE, "draws random numbers: encoder.layers.0"),
    "TransformerEncoder eval": Case(lambda: Transformer(0.1).eval(), SEQUENCE),
    "GRU": Case(lambda: Recurrent(nn.GRU), SEQUENCE),
    "LSTM": Case(lambda: Recurrent(nn.LSTM), SEQUENCE),
    "RNN relu": Case(lambda: Recurrent(nn.RNN, nonlinearity="relu"), SEQUENCE),
    "LSTM layers bidirectional": Case(lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), SEQUENCE),
    "LSTM dropout": Case(lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.1), SEQUENCE, r"numbers: rnn \(LSTM\)"),
    "GRU eval": Case(lambda: Recurrent(nn.GRU).eval(), SEQUENCE),
    "LSTM eval": Case(lambda: Recurrent(nn.LSTM).eval(), SEQUENCE),
    "GRUCell LSTMCell": Case(Cells, SEQUENCE),
    "dictionary": Case(Parts, dictionary),
    "activations": Case(
        lambda: Forward(
            lambda self, x: torch.cat([f(self.a(x)) for f in self.f], 1), a=dense(4, 6), f=nn.ModuleList(ACTIVATIONS)
        ),
        VECTOR,
    ),
    "convolutions, pools": Case(convolutions, IMAGE),
    "Conv1d MaxPool1d": Case(
        lambda: nn.Sequential(nn.Conv1d(5, 8, 2), nn.MaxPool1d(2), nn.Flatten(), dense(8)), SEQUENCE
    ),
    "ConvTranspose1d": Case(
        lambda: nn.Sequential(nn.ConvTranspose1d(5, 3, 2, 2), nn.Flatten(), nn.LazyLinear(2)), SEQUENCE
    ),
    "volumes": Case(volumes, IMAGE),
    "reflecting convolutions": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"),
            nn.Flatten(),
            nn.LazyLinear(2),
        ),
        IMAGE,
    ),
    "MaxPool pad, ceil, AvgPool ceil": Case(
        lambda: nn.Sequential(
            nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Flatten(), nn.LazyLinear(2)
        ),
        IMAGE,
    ),
    "pools": Case(lambda: Forward(pooled, a=nn.LazyLinear(2)), IMAGE),
    "AdaptiveAvgPool uneven": Case(lambda: nn.Sequential(nn.AdaptiveAvgPool2d(5), nn.Flatten(), dense(75)), IMAGE),
    "AdaptiveMaxPool": Case(lambda: nn.Sequential(nn.AdaptiveMaxPool2d(4), nn.Flatten(), dense(48)), IMAGE),
    "Upsample PixelShuffle": Case(
        lambda: nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), nn.Flatten(), dense(2 * 44 * 44)
        ),
        IMAGE,
    ),
    "Upsample bilinear": Case(
        lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Flatten(), dense(3 * 24 * 24)), IMAGE
    ),
    "resampling": Case(lambda: Forward(resampled, a=nn.LazyLinear(2)), IMAGE),
    "channels last": Case(
        lambda: Forward(
            lambda self, x: self.a(x.permute(0, 3, 1, 2).float() / 255),
            a=nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), dense(400)),
        ),
        wholes(256, 12, 12, 3, dtype=np.uint8),
    ),
    "tied weights": Case(tied, VECTOR),
    "frozen weight": Case(frozen, VECTOR),
    "buffer": Case(
        lambda: Forward(
            lambda self, x: self.a(torch.cat([torch.sin(x @ self.waves), torch.cos(x @ self.waves)], 1)),
            waves=torch.randn(4, 8),
            a=dense(16),
        ),
        VECTOR,
    ),
    "weight_norm": Case(lambda: nn.Sequential(parametrizations.weight_norm(dense(4, 8)), nn.ReLU(), dense(8)), VECTOR),
    "spectral_norm": Case(
        lambda: nn.Sequential(parametrizations.spectral_norm(dense(4, 8)), dense(8)),
        VECTOR,
        r"it changes while training: 0.parametrizations.weight.0 \(_SpectralNorm\)",
    ),
    "spectral_norm eval": Case(
        lambda: nn.Sequential(parametrizations.spectral_norm(dense(4, 8)), dense(8)).eval(), VECTOR
    ),
    "orthogonal parametrization": Case(
        lambda: nn.Sequential(parametrizations.orthogonal(dense(4, 8)), dense(8)),
        VECTOR,
        "does not know the operator .* of 0.parametrizations.weight.0",
    ),
    "in place": Case(lambda: Forward(in_place, a=dense(4, 6)), VECTOR),
    "many functions": Case(lambda: Forward(many, a=dense(4, 6)), VECTOR),
    "elementwise": Case(lambda: Forward(elementwise, a=dense(4, 6)), VECTOR, tolerance=1e-4),
    "reductions": Case(lambda: Forward(reduced, a=dense(4, 6)), VECTOR),
    "shapes and places": Case(lambda: Forward(placed, a=dense(4, 6)), VECTOR),
    "Python's control flow": Case(
        lambda: Forward(controlled, deep=True, a=dense(4, 8), b=dense(8, 8), c=dense(8)), VECTOR
    ),
    "control flow on values": Case(
        lambda: Forward(lambda self, x: self.a(x) if x.sum() > 0 else -self.a(x), a=dense()),
        VECTOR,
        "decides by the values of an observation.* torch.where",
    ),
    "torch.cond": Case(lambda: Forward(conditional, a=dense()), VECTOR, "does not know the operator cond of Forward"),
    "mask": Case(lambda: Forward(lambda self, x: self.a(x)[x > 0][:, None], a=dense(4, 4)), VECTOR, "torch.where"),
    "no_grad inside": Case(lambda: Forward(without_gradient, a=dense(), b=dense()), VECTOR),
    "no_grad everywhere": Case(lambda: Forward(all_without_gradient, a=dense()), VECTOR, "no gradient reaches"),
    "all frozen": Case(lambda: dense().requires_grad_(False), VECTOR, "no gradient reaches its parameters"),
    "Dropout": Case(lambda: between(nn.Dropout(0.2)), VECTOR, rf"it draws random numbers: 1 \(Dropout\). {SAME}"),
    "Dropout p=0": Case(lambda: between(nn.Dropout(0.0)), VECTOR),
    "Dropout eval": Case(lambda: between(nn.Dropout(0.2)).eval(), VECTOR),
    "RReLU": Case(lambda: between(nn.RReLU()), VECTOR, r"it draws random numbers: 1 \(RReLU\)"),
    "BatchNorm": Case(
        lambda: between(nn.BatchNorm1d(8)),
        VECTOR,
        rf"it sees the whole batch and changes while training: 1 \(BatchNorm1d\). {SAME}",
    ),
    "BatchNorm eval": Case(with_statistics, VECTOR),
    "BatchNorm without statistics": Case(
        lambda: between(nn.BatchNorm1d(8, track_running_stats=False)), VECTOR, "sees the whole batch"
    ),
    "InstanceNorm with statistics": Case(
        lambda: nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.Flatten(), nn.LazyLinear(2)),
        IMAGE,
        r"changes while training: 0 \(InstanceNorm2d\)",
    ),
    "noisy layer": Case(lambda: Forward(noisy, a=dense()), VECTOR, "it draws random numbers: Forward"),
    "torch.rand": Case(
        lambda: Forward(lambda self, x: self.a(x) + torch.rand(1), a=dense()), VECTOR, "draws random numbers: Forward"
    ),
    "float64": Case(lambda: between(nn.Tanh()).double(), VECTOR),
    "float64 inside": Case(lambda: Forward(lambda self, x: self.a(x.double()), a=dense().double()), VECTOR),
    "bfloat16 inside": Case(
        lambda: Forward(lambda self, x: self.a(x.bfloat16()).float(), a=dense().bfloat16()), VECTOR, tolerance=0.02
    ),
    "Lazy": Case(lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), dense(8)), VECTOR),
    "Bilinear": Case(lambda: Forward(lambda self, x: self.a(x, x), a=nn.Bilinear(4, 4, 2)), VECTOR),
    "one of two outputs": Case(lambda: Forward(lambda self, x: (self.a(x), self.a(x))[0], a=dense()), VECTOR),
    "two outputs": Case(lambda: Forward(lambda self, x: (self.a(x), self.a(x)), a=dense()), VECTOR, "it makes a tuple"),
    "torch.compile": Case(lambda: torch.compile(between(nn.ReLU()), backend="eager"), VECTOR),
    "torch.jit": Case(lambda: torch.jit.script(between(nn.ReLU())), VECTOR, "ScriptModule. Give the module"),
    "detach": Case(lambda: Forward(lambda self, x: self.b(x) + self.a(x).detach(), a=dense(), b=dense()), VECTOR),
    "no_grad, in place": Case(
        lambda: Forward(lambda self, x: self.b(x).mul_(2) + all_without_gradient(self, x), a=dense(), b=dense()), VECTOR
    ),
    "Embedding max_norm": Case(lambda: nn.Embedding(7, 2, max_norm=1.0), wholes(7), "Embedding changes in place what"),
    "detached, in place": Case(
        lambda: Forward(lambda self, x: (y := self.a(x), y.detach()[:, 0].mul_(2), y)[2], a=dense()),
        VECTOR,
        "changes in place what was detached",
    ),
    "a gradient of its own": Case(
        lambda: Forward(lambda self, x: Through.apply(self.a(x)), a=dense()),
        VECTOR,
        "Through has a gradient of its own",
    ),
    "a sign passed through": Case(
        lambda: Forward(lambda self, x: (y := self.a(x)) + (y.sign() - y).detach(), a=dense()), VECTOR
    ),
    "memory": Case(lambda: Forward(remembering, a=dense(), last=0), VECTOR, "it remembers: a second call"),
    "x.data": Case(
        lambda: Forward(lambda self, x: self.b(x) + self.a(x).data, a=dense(), b=dense()), VECTOR, "cannot be trained"
    ),
    "squeeze": Case(lambda: Forward(lambda self, x: self.a(x.unsqueeze(1)).squeeze(1), a=dense()), VECTOR),
    "fixed batch": Case(
        lambda: Forward(lambda self, x: self.a(x).view(3, -1), a=dense()), VECTOR, "it fixes the size of the batch"
    ),
    "a constant of NumPy's": Case(
        lambda: Forward(lambda self, x: self.a(x) * torch.from_numpy(np.ones(2, np.float32)), a=dense()), VECTOR
    ),
    "NumPy inside": Case(
        lambda: Forward(lambda self, x: self.a(x) + float(x.detach().numpy().mean()), a=dense()),
        VECTOR,
        "cannot be trained here",
    ),
}
