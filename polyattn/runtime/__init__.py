"""Stage 5, runtime: plans at work inside modules.

Input: a specification and the tensors of a call. Output: the values of its outputs, by the plan for the shapes at hand.
What holds afterwards: a plan is made once for each shape, and strides are those that torch reads rightly.
"""
