"""Stage 5, runtime: plans inside modules.

Input: a specification and the tensors of a call. Output: the values of its outputs, by the plan for their shapes.
Guarantees: each shape is planned once, and strides are those that torch reads correctly.
"""
