"""From labels to identities: which labels count, which number stands for a set of them.

Pure: allocation is a decision over the identities that exist (`numbering.choose`); creating the object is the
agent's work, collecting unused ones the operator's.
"""
