"""Building an ONNX graph from a trained classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sentiment.model import SentimentClassifier
from sentiment.model.layers import Pooling, split_pooling
from sentiment.runtime.errors import UserError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Direction:
    """One direction of one layer; gates are i, f, g, o (LSTM) or r, z, n (GRU), as in PyTorch."""

    weight_ih: torch.Tensor  # (gates * hidden, input)
    weight_hh: torch.Tensor  # (gates * hidden, hidden)
    bias_ih: torch.Tensor  # (gates * hidden,)
    bias_hh: torch.Tensor
    h: torch.Tensor  # (hidden,) initial state
    c: torch.Tensor | None  # (hidden,) for an LSTM


@dataclass(frozen=True)
class Attention:
    """Attention over the words: softmax(tanh(W h + b) . v)."""

    weight: torch.Tensor  # (features, features) W
    bias: torch.Tensor  # (features,) b
    context: torch.Tensor  # (features,) v


@dataclass(frozen=True)
class Parts:
    """The weights and structure of a classifier."""

    embedding: torch.Tensor  # (vocabulary, embedding), after normalization if there is one
    cell: str  # LSTM, GRU or RNN_TANH
    layers: list[list[Direction]]  # one or two directions for each layer
    poolings: tuple[Pooling, ...]  # over time; their results are concatenated
    attention: Attention | None  # weights of attention pooling, if it is one of the poolings
    output_weight: torch.Tensor  # (num_classes, poolings * directions * hidden)
    output_bias: torch.Tensor  # (num_classes,)

    @property
    def has_learned_states(self) -> bool:
        """Whether any initial state is not zero."""
        directions = [direction for layer in self.layers for direction in layer]
        starts = [state for direction in directions for state in (direction.h, direction.c)]
        return any(state is not None and bool(state.any()) for state in starts)


_POOLINGS = {"last", "mean", "max", "attention"}


def extract_parts(model: SentimentClassifier) -> Parts:
    """The parts of a classifier, on the CPU in fp32; UserError if one cannot be exported."""
    weights = {key: value.detach().cpu().float() for key, value in model.state_dict().items()}
    recurrence = model.recurrence
    num_directions = 2 if recurrence.bidirectional else 1
    if recurrence.mode not in _OPERATORS or not set(model.pooling.split("+")) <= _POOLINGS:
        raise UserError(
            f"a model of cell {recurrence.mode} and pooling {model.pooling} cannot be exported"
        )
    layers = [
        [_take_direction(weights, recurrence, layer, number) for number in range(num_directions)]
        for layer in range(recurrence.num_layers)
    ]
    for name in ("initial_states.h", "initial_states.c"):
        weights.pop(name, None)
    attention = None
    poolings = split_pooling(model.pooling)
    if "attention" in poolings:
        names = ("projection.weight", "projection.bias", "context")
        attention = Attention(*[weights.pop(f"attention.{name}") for name in names])
    for name in ("embedding.weight", "embedding.shares"):
        weights.pop(name, None)
    embedding = model.embedding_table().detach().cpu().float()
    output = weights.pop("output.weight"), weights.pop("output.bias")
    if weights:  # a part that this module does not know
        raise UserError(f"the model cannot be exported: it has {', '.join(sorted(weights))}")
    return Parts(embedding, recurrence.mode, layers, poolings, attention, *output)


def _take_direction(
    weights: dict[str, torch.Tensor], recurrence: torch.nn.RNNBase, layer: int, number: int
) -> Direction:
    suffix = f"l{layer}{'_reverse' if number else ''}"
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_ih, w_hh, b_ih, b_hh = (weights.pop(f"recurrence.{name}_{suffix}") for name in names)
    index = layer * (2 if recurrence.bidirectional else 1) + number
    zero = torch.zeros(recurrence.hidden_size)
    h = weights["initial_states.h"][index] if "initial_states.h" in weights else zero
    c = weights["initial_states.c"][index] if "initial_states.c" in weights else zero
    return Direction(w_ih, w_hh, b_ih, b_hh, h, c if recurrence.mode == "LSTM" else None)


_OPSET = 17
_IR_VERSION = 8  # as old as opset 17: older readers refuse newer versions

# ONNX's operator, and PyTorch's index for each of its gates: i, o, f, c and z, r, h.
_OPERATORS = {
    "LSTM": ("LSTM", (0, 3, 1, 2)),
    "GRU": ("GRU", (1, 0, 2)),
    "RNN_TANH": ("RNN", (0,)),
}


def build_onnx(parts: Parts, metadata: dict[str, str]) -> onnx.ModelProto:
    """The model: ``tokens`` (batch, time) and ``lengths`` (batch,), both int64, to ``logits``."""
    from onnx import TensorProto, helper

    graph = _Graph()
    time_first = graph.add("Transpose", "tokens", perm=[1, 0])  # (time, batch)
    x = graph.add("Gather", graph.keep(parts.embedding, "embedding"), time_first)
    lengths = graph.add("Cast", "lengths", to=TensorProto.INT32)
    final = ""
    for layer, directions in enumerate(parts.layers):
        x, final = _add_layer(graph, parts, directions, x, lengths, f"layer{layer}")
    pooled = _add_poolings(graph, parts, x, final)  # (batch, poolings * features)
    weight = graph.keep(parts.output_weight, "output_weight")
    bias = graph.keep(parts.output_bias, "output_bias")
    graph.nodes.append(helper.make_node("Gemm", [pooled, weight, bias], ["logits"], transB=1))

    describe = helper.make_tensor_value_info
    inputs = [
        describe("tokens", TensorProto.INT64, ["batch", "time"]),
        describe("lengths", TensorProto.INT64, ["batch"]),
    ]
    outputs = [describe("logits", TensorProto.FLOAT, ["batch", len(parts.output_bias)])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "sentiment", inputs, outputs, graph.weights),
        producer_name="sentiment",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    helper.set_model_props(model, metadata)
    return model


class _Graph:
    """Collects nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns its output's name."""
        return self.add_several(operator, inputs, 1, **attributes)[0]

    def add_several(
        self, operator: str, inputs: tuple[str, ...], num_outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node; returns its outputs' names."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        outputs = [f"{name}_{number}" for number in range(num_outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, name, **attributes))
        return outputs

    def keep(self, values: torch.Tensor | np.ndarray, name: str = "") -> str:
        """Add weights or a constant; returns their name."""
        from onnx import numpy_helper

        name = name or f"constant_{len(self.weights)}"
        array = values.numpy() if isinstance(values, torch.Tensor) else values
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def integers(self, *values: int) -> str:
        """Add a constant list of integers."""
        return self.keep(np.array(values, dtype=np.int64))


def _add_layer(
    graph: _Graph, parts: Parts, directions: list[Direction], x: str, lengths: str, name: str
) -> tuple[str, str]:
    """One layer: from (time, batch, input) to (time, batch, features) and the final states."""
    operator, order = _OPERATORS[parts.cell]
    hidden = len(directions[0].h)
    inputs = [x, *_keep_weights(graph, directions, order, name), lengths]
    if parts.has_learned_states:
        batch = graph.add("Shape", "lengths")  # (1,)
        ends = graph.integers(len(directions)), graph.integers(hidden)
        shape = graph.add("Concat", ends[0], batch, ends[1], axis=0)
        inputs.append(_add_states(graph, [direction.h for direction in directions], shape))
        if parts.cell == "LSTM":
            cells = [direction.c for direction in directions if direction.c is not None]
            inputs.append(_add_states(graph, cells, shape))
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if len(directions) == 2 else "forward",
    }
    if operator == "GRU":
        attributes["linear_before_reset"] = 1  # reset gate after the product, as PyTorch
    y, final = graph.add_several(operator, tuple(inputs), 2, **attributes)
    by_batch = graph.add("Transpose", y, perm=[0, 2, 1, 3])  # (time, batch, directions, hidden)
    return graph.add("Reshape", by_batch, graph.integers(0, 0, -1)), final


def _keep_weights(
    graph: _Graph, directions: list[Direction], order: tuple[int, ...], name: str
) -> list[str]:
    """W, R and B of a layer, each (directions, ...), gates in ONNX's order."""

    def in_order(values: torch.Tensor) -> torch.Tensor:
        gates = values.chunk(len(order))
        return torch.cat([gates[index] for index in order])

    weights = {
        "input": [in_order(d.weight_ih) for d in directions],
        "state": [in_order(d.weight_hh) for d in directions],
        "bias": [torch.cat((in_order(d.bias_ih), in_order(d.bias_hh))) for d in directions],
    }
    return [graph.keep(torch.stack(values), f"{name}_{key}") for key, values in weights.items()]


def _add_states(graph: _Graph, states: list[torch.Tensor], shape: str) -> str:
    """Learned states (directions, batch, hidden), the same for all reviews."""
    return graph.add("Expand", graph.keep(torch.stack(states).unsqueeze(1)), shape)


def _add_poolings(graph: _Graph, parts: Parts, x: str, final: str) -> str:
    """From (time, batch, features) and final states to (batch, poolings * features)."""
    pooled = [_add_pooling(graph, kind, parts, x, final) for kind in parts.poolings]
    return pooled[0] if len(pooled) == 1 else graph.add("Concat", *pooled, axis=1)


def _add_pooling(graph: _Graph, kind: str, parts: Parts, x: str, final: str) -> str:
    """From (time, batch, features) and final states to (batch, features)."""
    if kind == "last":
        by_batch = graph.add("Transpose", final, perm=[1, 0, 2])  # (batch, directions, hidden)
        return graph.add("Reshape", by_batch, graph.integers(0, -1))
    inside = _add_inside(graph)
    if kind == "attention":
        assert parts.attention is not None
        weights = _add_attention(graph, parts.attention, x, inside)
        return graph.add("ReduceSum", graph.add("Mul", x, weights), graph.integers(0), keepdims=0)
    if kind == "max":
        lowest = graph.keep(np.array(-np.inf, dtype=np.float32))
        return graph.add("ReduceMax", graph.add("Where", inside, x, lowest), axes=[0], keepdims=0)
    zero = graph.keep(np.array(0, dtype=np.float32))
    words = graph.add("Where", inside, x, zero)
    total = graph.add("ReduceSum", words, graph.integers(0), keepdims=0)
    count = graph.add("CastLike", "lengths", total)
    return graph.add("Div", total, graph.add("Unsqueeze", count, graph.integers(1)))


def _add_inside(graph: _Graph) -> str:
    """(time, batch, 1): the padding mask, true inside reviews."""
    zero, one = (graph.keep(np.array(value, dtype=np.int64)) for value in (0, 1))
    time = graph.add("Gather", graph.add("Shape", "tokens"), one)
    steps = graph.add("Range", zero, time, one)
    inside = graph.add("Less", graph.add("Unsqueeze", steps, graph.integers(1)), "lengths")
    return graph.add("Unsqueeze", inside, graph.integers(2))


def _add_attention(graph: _Graph, attention: Attention, x: str, inside: str) -> str:
    """(time, batch, 1): attention weights."""
    projected = graph.add("MatMul", x, graph.keep(attention.weight.t(), "attention_weight"))
    shifted = graph.add("Add", projected, graph.keep(attention.bias, "attention_bias"))
    context = graph.keep(attention.context.unsqueeze(1), "attention_context")
    scores = graph.add("MatMul", graph.add("Tanh", shifted), context)  # (time, batch, 1)
    lowest = graph.keep(np.array(-np.inf, dtype=np.float32))
    return graph.add("Softmax", graph.add("Where", inside, scores, lowest), axis=0)
