"""Building an ONNX graph from a trained classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sentiment.model import SentimentClassifier
from sentiment.model.layers import AttentionPooling, split_pooling

if TYPE_CHECKING:
    import onnx


_OPSET = 17
_IR_VERSION = 8  # as old as opset 17: older readers refuse newer versions

# ONNX's operator, and PyTorch's index for each of its gates: i, o, f, c and z, r, h.
_OPERATORS = {
    "LSTM": ("LSTM", (0, 3, 1, 2)),
    "GRU": ("GRU", (1, 0, 2)),
    "RNN_TANH": ("RNN", (0,)),
}


def build_onnx(model: SentimentClassifier, metadata: dict[str, str]) -> onnx.ModelProto:
    """The model: ``tokens`` (batch, time) and ``lengths`` (batch,), both int64, to ``logits``."""
    from onnx import TensorProto, helper

    graph = _Graph()
    time_first = graph.add("Transpose", "tokens", perm=[1, 0])  # (time, batch)
    x = graph.add("Gather", graph.keep(model.embedding_table(), "embedding"), time_first)
    lengths = graph.add("Cast", "lengths", to=TensorProto.INT32)
    final = ""
    for layer in range(model.recurrence.num_layers):
        x, final = _add_layer(graph, model, layer, x, lengths)
    kinds = split_pooling(model.pooling)
    pooled = [_add_pooling(graph, kind, model.attention, x, final) for kind in kinds]
    features = graph.add("Concat", *pooled, axis=1)  # (batch, poolings * features)
    weight = graph.keep(model.output.weight, "output_weight")
    bias = graph.keep(model.output.bias, "output_bias")
    graph.nodes.append(helper.make_node("Gemm", [features, weight, bias], ["logits"], transB=1))

    describe = helper.make_tensor_value_info
    inputs = [
        describe("tokens", TensorProto.INT64, ["batch", "time"]),
        describe("lengths", TensorProto.INT64, ["batch"]),
    ]
    outputs = [describe("logits", TensorProto.FLOAT, ["batch", model.output.out_features])]
    result = helper.make_model(
        helper.make_graph(graph.nodes, "sentiment", inputs, outputs, graph.weights),
        producer_name="sentiment",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    helper.set_model_props(result, metadata)
    return result


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

    def keep(self, values: torch.Tensor, name: str = "") -> str:
        """Add weights or a constant; returns their name."""
        from onnx import numpy_helper

        name = name or f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.detach().numpy(), name))
        return name

    def integers(self, *values: int) -> str:
        """Add a constant list of integers."""
        return self.keep(torch.tensor(values))


def _add_layer(
    graph: _Graph, model: SentimentClassifier, layer: int, x: str, lengths: str
) -> tuple[str, str]:
    """One layer: from (time, batch, input) to (time, batch, features) and the final states."""
    recurrence, name = model.recurrence, f"layer{layer}"
    directions, hidden = recurrence.directions, recurrence.hidden_size
    operator, order = _OPERATORS[recurrence.mode]

    def in_order(values: torch.Tensor) -> torch.Tensor:
        gates = values.split(hidden)
        return torch.cat([gates[index] for index in order])

    weights = [in_order(weight) for weight in recurrence.layer_weights(layer)]
    biases = [torch.cat(pair) for pair in zip(weights[2::4], weights[3::4], strict=True)]
    inputs = [x]
    for key, values in (("input", weights[::4]), ("state", weights[1::4]), ("bias", biases)):
        inputs.append(graph.keep(torch.stack(values), f"{name}_{key}"))  # (directions, ...)
    inputs.append(lengths)
    if model.initial_states is not None:
        ends = graph.integers(directions), graph.integers(hidden)
        shape = graph.add("Concat", ends[0], graph.add("Shape", "lengths"), ends[1], axis=0)
        rows = slice(layer * directions, (layer + 1) * directions)
        for states in model.initial_states.parameters():  # h and, for an LSTM, c
            inputs.append(graph.add("Expand", graph.keep(states[rows].unsqueeze(1)), shape))
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if recurrence.bidirectional else "forward",
    }
    if operator == "GRU":
        attributes["linear_before_reset"] = 1  # reset gate after the product, as PyTorch
    y, final = graph.add_several(operator, tuple(inputs), 2, **attributes)
    by_batch = graph.add("Transpose", y, perm=[0, 2, 1, 3])  # (time, batch, directions, hidden)
    return graph.add("Reshape", by_batch, graph.integers(0, 0, -1)), final


def _add_pooling(
    graph: _Graph, kind: str, attention: AttentionPooling | None, x: str, final: str
) -> str:
    """From (time, batch, features) and final states to (batch, features)."""
    if kind == "last":
        by_batch = graph.add("Transpose", final, perm=[1, 0, 2])  # (batch, directions, hidden)
        return graph.add("Reshape", by_batch, graph.integers(0, -1))
    inside = _add_inside(graph)
    if kind == "attention":
        assert attention is not None
        weights = _add_attention(graph, attention, x, inside)
        return graph.add("ReduceSum", graph.add("Mul", x, weights), graph.integers(0), keepdims=0)
    if kind == "max":
        lowest = graph.keep(torch.tensor(float("-inf")))
        return graph.add("ReduceMax", graph.add("Where", inside, x, lowest), axes=[0], keepdims=0)
    words = graph.add("Where", inside, x, graph.keep(torch.tensor(0.0)))
    total = graph.add("ReduceSum", words, graph.integers(0), keepdims=0)
    count = graph.add("CastLike", "lengths", total)
    return graph.add("Div", total, graph.add("Unsqueeze", count, graph.integers(1)))


def _add_inside(graph: _Graph) -> str:
    """(time, batch, 1): the padding mask, true inside reviews."""
    zero, one = (graph.keep(torch.tensor(value)) for value in (0, 1))
    time = graph.add("Gather", graph.add("Shape", "tokens"), one)
    steps = graph.add("Range", zero, time, one)
    inside = graph.add("Less", graph.add("Unsqueeze", steps, graph.integers(1)), "lengths")
    return graph.add("Unsqueeze", inside, graph.integers(2))


def _add_attention(graph: _Graph, attention: AttentionPooling, x: str, inside: str) -> str:
    """(time, batch, 1): attention weights."""
    weight = graph.keep(attention.projection.weight.t(), "attention_weight")
    bias = graph.keep(attention.projection.bias, "attention_bias")
    shifted = graph.add("Add", graph.add("MatMul", x, weight), bias)
    context = graph.keep(attention.context.unsqueeze(1), "attention_context")
    scores = graph.add("MatMul", graph.add("Tanh", shifted), context)  # (time, batch, 1)
    lowest = graph.keep(torch.tensor(float("-inf")))
    return graph.add("Softmax", graph.add("Where", inside, scores, lowest), axis=0)
