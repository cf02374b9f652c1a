"""Rules of the validity verdict that need more than a line: one module a rule, each with its
figures and the sentences of why a run may not be believed ([] where it may).
"""
