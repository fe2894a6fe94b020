"""Export of models: stack a head on its backbone, write and check the model, predict with it.

May import `classify.runs` and the rooms below it.
"""
