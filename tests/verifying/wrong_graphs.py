"""Wrong graphs: one edit in a graph that `lower` made."""

import copy

import torch

GRAM = "x[N,C]; y[a,b] = 1/3*x[a,d]*wf[d,f]*x[e,f]*x[e,h]*wg[h,b] - 2*x[a,d]*wf[d,b]"


def nodes_of(graph, *targets):
    return [n for n in graph.graph.nodes if n.target in targets]


def exchange_operands(graph):
    node = nodes_of(graph, torch.matmul)[-1]
    node.args = node.args[::-1]


def take_another_weight(graph):
    first, second = (n for n in graph.graph.nodes if n.name in ("wf", "wg"))
    node = next(iter(first.users))
    node.args = (second, *node.args[1:])


def change_a_constant(graph):
    node = next(n for n in graph.graph.nodes if "coefficient" in n.meta)
    node.args = tuple(a * 1.5 if isinstance(a, float) else a for a in node.args)
    node.kwargs = {k: v * 1.5 if k == "alpha" else v for k, v in node.kwargs.items()}


def drop_a_term(graph):
    node = nodes_of(graph, torch.add, torch.sub)[-1]
    node.replace_all_uses_with(node.args[0])
    graph.graph.erase_node(node)


def swap_permuted_axes(graph):
    node = nodes_of(graph, "permute")[0]
    *first, i, j = node.args
    node.args = (*first, j, i)


def forget_the_sign(graph):
    node = nodes_of(graph, torch.sub)[-1]
    node.target = torch.add


def double_the_batch_sum(graph):
    """Adds what the other sample has: right for a batch of one only up to a factor."""
    output = next(n for n in graph.graph.nodes if n.op == "output")
    with graph.graph.inserting_before(output):
        total = graph.graph.call_method("sum", (output.args[0], 0), {"keepdim": True})
        output.args = (graph.graph.call_function(torch.add, (output.args[0], total)),)


def mutated(graph, mutation):
    wrong = copy.deepcopy(graph)
    mutation(wrong)
    wrong.graph.lint()
    wrong.recompile()
    return wrong


def times(factor):
    def multiply(graph):
        output = next(n for n in graph.graph.nodes if n.op == "output")
        with graph.graph.inserting_before(output):
            output.args = (graph.graph.call_function(torch.mul, (output.args[0], factor)),)

    return multiply


def give_up_a_sample(graph):
    """Gives both samples the sum of their outputs."""
    output = next(n for n in graph.graph.nodes if n.op == "output")
    with graph.graph.inserting_before(output):
        total = graph.graph.call_method("sum", (output.args[0], 0), {"keepdim": True})
        output.args = (graph.graph.call_method("expand", (total, 2, -1, -1)),)


MUTATIONS = [
    exchange_operands,
    take_another_weight,
    change_a_constant,
    drop_a_term,
    swap_permuted_axes,
    double_the_batch_sum,
]
