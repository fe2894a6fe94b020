"""Linear heads solved jointly over folds and penalties.

Imports no other folder of `heads`.
"""
