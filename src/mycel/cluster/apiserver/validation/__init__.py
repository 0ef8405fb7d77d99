"""What Kubernetes says about values, beyond their types: names, ranges, references, what may change.

Pure rules: an object and, on an update, the one before it → problems with field paths. `VALIDATORS` finds the rule
of a kind.
"""

from mycel.cluster.apiserver.validation.rules import NAME_RULES, VALIDATORS, Validator

__all__ = ["NAME_RULES", "VALIDATORS", "Validator"]
