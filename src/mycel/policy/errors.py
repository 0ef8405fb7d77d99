"""What is wrong with a policy, and where in its object."""

from __future__ import annotations


class PolicyInvalid(Exception):
    """An object cannot be a policy; `path` is the field, as `spec.ingress[0].toPorts[0].ports[0].port`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class ManifestInvalid(PolicyInvalid):
    """An object of a set of manifests is not usable: which one, and where in it."""

    def __init__(self, index: int, name: str, cause: PolicyInvalid) -> None:
        super().__init__(cause.path, cause.problem)
        self.index = index
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: {super().__str__()}"
