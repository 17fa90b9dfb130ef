"""What a model card needs: cost, accuracy per class, the confusion matrix and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx


def cost(model: Path) -> tuple[int, int]:
    """Multiply-accumulates for one picture, and parameters, of a float ONNX model."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(model)).graph
    weights = {i.name: list(i.dims) for i in graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*graph.value_info, *graph.input, *graph.output]
    }
    macs = 0
    for n in graph.node:
        if n.op_type == "Conv":
            # Each output value: one multiplication for each weight of its channel.
            macs += int(np.prod(shapes[n.output[0]]) * np.prod(weights[n.input[1]][1:]))
        elif n.op_type == "Gemm":
            macs += int(np.prod(weights[n.input[1]]))
    return macs, sum(int(np.prod(dims)) for dims in weights.values())


def confusion(truth: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """[truth, said] counts."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth, said), 1)
    return matrix


def confusion_picture(matrix: np.ndarray, names: list[str], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    figure, axes = pyplot.subplots(figsize=(0.55 * len(names) + 1.6, 0.5 * len(names) + 1.2), dpi=90)
    # The square root lets small confusions be seen beside the diagonal.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            if matrix[i, j]:
                text = f"{100 * share[i, j]:.1f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if share[i, j] > 0.4 else "black")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("said (% of the row)")
    axes.set_ylabel("truth")
    figure.tight_layout()
    figure.savefig(out)
    pyplot.close(figure)


def class_table(matrix: np.ndarray, names: list[str]) -> str:
    """Recall, precision and what each class is most often taken for, as Markdown."""
    lines = ["| class | pictures | found (recall) | right when said (precision) | most often taken for |", "|---|---|---|---|---|"]
    for i, name in enumerate(names):
        total, said = matrix[i].sum(), matrix[:, i].sum()
        wrong = matrix[i].copy()
        wrong[i] = 0
        taken = f"{names[wrong.argmax()]} ({wrong.max()})" if wrong.any() else "–"
        lines.append(
            f"| {name} | {total} | {100 * matrix[i, i] / max(1, total):.1f} % | {100 * matrix[i, i] / max(1, said):.1f} % | {taken} |"
        )
    return "\n".join(lines)
