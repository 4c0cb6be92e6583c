"""A plain-torch decoder for the Llama family (Llama, Qwen2, Qwen3): the same weights, fewer and larger steps.

`transformers.generate` spends most of a small model's time between the matmuls. Here q, k and v are one matmul,
gate and up another; the KV cache is static; keys are not repeated for grouped queries; the prompt of a group is
computed once; finished rows leave the batch; sampling draws one uniform number a row (inverse CDF), not one a
vocabulary entry.

Shapes: B rows, S prompt length, T cache length, H hidden, N query heads, K key heads, G = N / K, D head size.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vertigym.policies.full_tensors import full_tensor
from vertigym.policies.lora import weight_of

# Architectures whose forward pass this module computes, by the class that transformers loads.
ARCHITECTURES = ("Qwen3ForCausalLM", "Qwen2ForCausalLM", "LlamaForCausalLM")
# RoPE kinds whose frequencies do not depend on the sequence length.
STATIC_ROPE = ("default", "linear", "llama3")


@dataclass(slots=True)
class _Layer:
    """One block's weights, fused."""

    norm_in_H: Tensor
    qkv_QH: Tensor
    qkv_bias_Q: Tensor | None
    q_norm_D: Tensor | None
    k_norm_D: Tensor | None
    out_HX: Tensor
    out_bias_H: Tensor | None
    norm_mlp_H: Tensor
    gate_up_FH: Tensor
    down_HF: Tensor


class Memory(Protocol):
    """Keys and values of the tokens before those of a forward pass."""

    def attend(self, layer: int, q_BNSD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, bias_BST: Tensor) -> Tensor:
        """Take the new tokens' keys and values over; attention output `[B, S, N * D]`."""
        ...


@dataclass(slots=True)
class Cache:
    """Keys and values `[B, K, T, D]` of every layer, filled up to `length`."""

    keys: list[Tensor]
    values: list[Tensor]
    length: int

    def attend(self, layer: int, q_BNSD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, bias_BST: Tensor) -> Tensor:
        """Append a token or more to every row."""
        keys, values, end = self.keys[layer], self.values[layer], self.length + k_BKSD.shape[2]
        keys[:, :, self.length : end] = k_BKSD
        values[:, :, self.length : end] = v_BKSD
        return _attend(q_BNSD, keys[:, :, :end], values[:, :, :end], bias_BST)

    def select(self, rows: Tensor) -> "Cache":
        """The cache of these rows (repeats allowed)."""
        return Cache([k[rows] for k in self.keys], [v[rows] for v in self.values], self.length)


def supports(model: torch.nn.Module) -> bool:
    """Whether this decoder computes what `model` computes."""
    if type(model).__name__ not in ARCHITECTURES:
        return False
    config: Any = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        rope.get("rope_type", "default") in STATIC_ROPE
        and config.hidden_act == "silu"
        and not getattr(config, "mlp_bias", False)
        and not getattr(config, "use_sliding_window", False)
    )


class Decoder:
    """Decoding weights made from a Hugging Face model; `refresh` copies them again after the model changed.

    The output head stays in float32 whatever `dtype` is: rounding logits to bfloat16 moves probability
    ratios by several percent.

    Weights that need no change are the model's own tensors, unless `copy`.
    """

    def __init__(self, model: Any, dtype: torch.dtype, *, copy: bool = False) -> None:
        assert supports(model)
        config = model.config
        self.dtype = dtype
        self.eps = float(config.rms_norm_eps)
        self.heads = int(config.num_attention_heads)
        self.key_heads = int(config.num_key_value_heads)
        self.head_size = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self._model, self._copy = model, copy
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's current weights."""
        body = self._model.model
        self.layers = [self._fuse(block) for block in body.layers]
        self.embed_VH = self._cast(weight_of(body.embed_tokens))
        self.norm_H = self._cast(body.norm.weight)
        self.head_VH = weight_of(self._model.lm_head).detach().to(torch.float32, copy=self._copy)
        rotary = body.rotary_emb
        self.frequencies = rotary.inv_freq.float()
        self.rope_scale = float(rotary.attention_scaling)

    def _cast(self, weight: Tensor) -> Tensor:
        return full_tensor(weight).detach().to(self.dtype, copy=self._copy)

    def _maybe(self, module: Any, name: str = "weight") -> Tensor | None:
        weight = getattr(module, name, None)
        return None if weight is None else self._cast(weight)

    def _fuse(self, block: Any) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biased = parts[0].bias is not None
        return _Layer(
            norm_in_H=self._cast(block.input_layernorm.weight),
            qkv_QH=self._cast(torch.cat([weight_of(part) for part in parts])),
            qkv_bias_Q=self._cast(torch.cat([full_tensor(part.bias) for part in parts])) if biased else None,
            q_norm_D=self._maybe(getattr(attention, "q_norm", None)),
            k_norm_D=self._maybe(getattr(attention, "k_norm", None)),
            out_HX=self._cast(weight_of(attention.o_proj)),
            out_bias_H=self._maybe(attention.o_proj, "bias"),
            norm_mlp_H=self._cast(block.post_attention_layernorm.weight),
            gate_up_FH=self._cast(torch.cat([weight_of(mlp.gate_proj), weight_of(mlp.up_proj)])),
            down_HF=self._cast(weight_of(mlp.down_proj)),
        )

    def new_cache(self, rows: int, length: int) -> Cache:
        """An empty cache for `length` positions."""
        shape = (rows, self.key_heads, length, self.head_size)
        keys, values = (
            [torch.empty(shape, dtype=self.dtype, device=self.embed_VH.device) for _ in self.layers]
            for _ in range(2)
        )
        return Cache(keys, values, 0)

    def forward(
        self,
        ids_BS: Tensor,
        positions_BS: Tensor,
        bias_BST: Tensor,
        memory: Memory,
        last_B: Tensor | None = None,
    ) -> Tensor:
        """Append `S` tokens a row to the memory; hidden states `[B, H]` of each row's last one, or of that at
        `last_B`.

        `bias_BST` is added to attention scores (0, or very negative); T is the memory's length afterwards.
        """
        angles_BSd = positions_BS[..., None].float() * self.frequencies
        rotation = tuple(
            torch.cat([turn, turn], -1).mul(self.rope_scale).to(self.dtype)
            for turn in (angles_BSd.cos(), angles_BSd.sin())
        )
        x_BSH = F.embedding(ids_BS, self.embed_VH)
        for number, layer in enumerate(self.layers):
            q, k, v = self._project(layer, self._norm(x_BSH, layer.norm_in_H), *rotation)
            attended = memory.attend(number, q, k, v, bias_BST)
            x_BSH = x_BSH + F.linear(attended, layer.out_HX, layer.out_bias_H)
            gate, up = F.linear(self._norm(x_BSH, layer.norm_mlp_H), layer.gate_up_FH).chunk(2, -1)
            x_BSH = x_BSH + F.linear(F.silu(gate) * up, layer.down_HF)
        x_BH = (
            x_BSH[:, -1] if last_B is None else x_BSH[torch.arange(len(last_B), device=last_B.device), last_B]
        )
        return self._norm(x_BH, self.norm_H)

    def logits(self, hidden_BH: Tensor) -> Tensor:
        """`[B, V]` in float32."""
        return F.linear(hidden_BH.float(), self.head_VH)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.eps)

    def _project(
        self, layer: _Layer, x_BSH: Tensor, cos_BSD: Tensor, sin_BSD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries `[B, N, S, D]`, rotated keys and values `[B, K, S, D]`."""
        B, S, _ = x_BSH.shape
        N, K = self.heads, self.key_heads
        qkv = F.linear(x_BSH, layer.qkv_QH, layer.qkv_bias_Q).view(B, S, N + 2 * K, self.head_size)
        q, k, v = qkv.split([N, K, K], 2)
        if layer.q_norm_D is not None and layer.k_norm_D is not None:
            q, k = self._norm(q, layer.q_norm_D), self._norm(k, layer.k_norm_D)
        q, k = _rotate(q, cos_BSD, sin_BSD), _rotate(k, cos_BSD, sin_BSD)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _attend(q_BNSD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, bias_BST: Tensor) -> Tensor:
    """Attention output `[B, S, N * D]`. One new token (S = 1) is two small matmuls with the G query heads of a
    key head as rows; a prompt goes through the fused kernel."""
    B, N, S, D = q_BNSD.shape
    K = k_BKTD.shape[1]
    if S > 1:
        mixed = F.scaled_dot_product_attention(
            q_BNSD, k_BKTD, v_BKTD, attn_mask=bias_BST[:, None], enable_gqa=K < N
        )
        return mixed.transpose(1, 2).reshape(B, S, N * D)
    scores_BKGT = torch.matmul(q_BNSD.reshape(B, K, N // K, D) * D**-0.5, k_BKTD.transpose(2, 3))
    weights = torch.softmax(scores_BKGT + bias_BST[:, :, None], -1, dtype=torch.float32)
    return torch.matmul(weights.to(v_BKTD.dtype), v_BKTD).view(B, 1, N * D)


def _rotate(x_BSND: Tensor, cos_BSD: Tensor, sin_BSD: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), the half-split form."""
    left, right = x_BSND.chunk(2, -1)
    return x_BSND * cos_BSD[:, :, None] + torch.cat([-right, left], -1) * sin_BSD[:, :, None]
