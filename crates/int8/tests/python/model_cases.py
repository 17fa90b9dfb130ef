"""Each quantized operator of a real model as a case of its own, on the inputs that onnxruntime gave it there.

python model_cases.py MODEL OUT: a case is what lies between integer tensors: dequantization, operators, quantization.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cases import session, write

INTEGER = {np.dtype("u1"): TensorProto.UINT8, np.dtype("i1"): TensorProto.INT8}


def main() -> None:
    path, out = map(Path, sys.argv[1:3])
    model = onnx.load(path)
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    producers = {o: n for n in graph.node for o in n.output}
    values = intermediate_values(model)
    integers = {n for n, v in values.items() if v.dtype in INTEGER}
    written = 0
    for node in graph.node:
        output = node.output[0]
        if output not in integers or node.op_type == "QuantizeLinear" and node.input[0] not in producers:
            continue
        inputs, nodes, used = cut(output, producers, constants, integers)
        floats = [i for i in inputs if values[i].dtype not in INTEGER]
        if floats or not inputs:
            continue
        for opset_io in (inputs, [output]):
            assert all(values[i].size for i in opset_io)
        info = lambda n: helper.make_tensor_value_info(n, INTEGER[values[n].dtype], values[n].shape)
        case = helper.make_model(
            helper.make_graph(nodes, "case", [info(i) for i in inputs], [info(output)], [constants[c] for c in used]),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
        )
        write(out, f"{written:03}-{nodes[-2].op_type if len(nodes) > 1 else nodes[-1].op_type}", case, {i: values[i] for i in inputs}, 1.0)
        written += 1


def cut(output, producers, constants, integers):
    """Back from an integer tensor to the integer tensors before it."""
    inputs, nodes, used, todo, seen = [], [], [], [output], set()
    order = {id(n): i for i, n in enumerate(dict.fromkeys(map(id, producers.values())))}
    while todo:
        name = todo.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        if name in constants:
            used.append(name)
        elif name not in producers or (name in integers and name != output):
            inputs.append(name)
        else:
            node = producers[name]
            nodes.append(node)
            todo.extend(node.input)
    nodes.sort(key=lambda n: order.get(id(n), 0))
    return inputs, topological(nodes), used


def topological(nodes):
    done, result = set(), []
    made = {o for n in nodes for o in n.output}
    while len(result) < len(nodes):
        for n in nodes:
            if n not in result and all(i not in made or i in done for i in n.input):
                result.append(n)
                done.update(n.output)
    return result


def intermediate_values(model):
    """Every tensor of one run on noise like a normalized picture."""
    names = {o.name for o in model.graph.output}
    with_all = onnx.ModelProto()
    with_all.CopyFrom(model)
    for node in model.graph.node:
        for o in node.output:
            if o and o not in names:
                with_all.graph.output.append(helper.make_empty_tensor_value_info(o))
    run = session(with_all)
    rng = np.random.default_rng(1)
    feeds = {}
    for i in run.get_inputs():
        shape = [d if isinstance(d, int) else 1 for d in i.shape]
        # Smooth, so that deeper layers see what they were made for.
        coarse = rng.normal(size=[4, 4])
        side = max(shape)
        smooth = np.kron(coarse, np.ones([side // 4 + 1] * 2))
        if i.type == "tensor(float)":
            value = rng.normal(size=shape) * 0.3
            value += smooth[: shape[2], : shape[3]]
            feeds[i.name] = (value * (60 if shape[2] == 416 else 1) + (110 if shape[2] == 416 else 0)).astype(np.float32)
        else:
            value = smooth[: shape[1], : shape[2], None] * 40 + rng.normal(size=shape) * 12
            value += 128 if i.type == "tensor(uint8)" else 0
            kind = np.uint8 if i.type == "tensor(uint8)" else np.int8
            feeds[i.name] = np.clip(value, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
    outputs = [o.name for o in run.get_outputs()]
    return dict(zip(outputs, run.run(outputs, feeds))) | feeds


if __name__ == "__main__":
    main()
