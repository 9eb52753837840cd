"""Find assertions that may pass without checking anything: skippable, empty, or accepting two outcomes."""

import ast
import re
from collections.abc import Iterator

TWO_OUTCOMES = (
    "the assertion accepts either of two outcomes (`or`, `not … and …`, `… if … else …`, `in {…}`). Assert the one "
    "that occurs; if both are correct, give the set of outcomes a name and a reason"
)
SKIPPED = "`{}` can skip the assertion. Split the test, or move the case distinction into a function without assertions"
NOTHING = (
    "`{}` may be empty, and nothing would be asserted. Loop over a literal or a constant, also assert its length or "
    "content, or assert that the list of wrong items is empty"
)
NO_ASSERTION = (
    "`{}` has no `assert`, no `pytest.raises` or `pytest.warns`, calls no `assert_…` function, and does not wait by "
    "`wait_until` or `_eventually`"
)

CONSTANT = re.compile(r"_*[A-Z]\w*")
"""Names of constants and enumerations, which are never empty."""
AS_LONG = {"enumerate", "list", "reversed", "set", "sorted", "zip"}
"""Functions whose result has items if all of their arguments have items."""
Loop = ast.For | ast.AsyncFor | ast.While
Jump = ast.Continue | ast.Break | ast.Return
WAITING = {"wait_until", "_eventually"}
"""Functions that fail unless a condition becomes true in time."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
Finding = tuple[int, str]


def findings_in(source: str) -> list[Finding]:
    """Return the line and the fault of every assertion of a module that may pass without checking anything."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]
    return sorted(finding for function in functions for finding in _FunctionCheck(function).findings())


class _FunctionCheck:
    """One function, without its nested functions."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.is_test = function.name.lstrip("_").startswith(("test_", "assert_"))
        self.parents: dict[ast.AST, ast.AST] = {}
        self.nodes = list(self._walk(function))
        self.asserts = [node for node in self.nodes if isinstance(node, ast.Assert)]
        calls = [node for node in self.nodes if isinstance(node, ast.Call) and _is_asserting(node)]
        self.assertions: list[ast.Assert | ast.Call] = [*self.asserts, *calls]
        self.jumps = [(node, self._ended_by(node)) for node in self.nodes if isinstance(node, Jump)]

    def _walk(self, node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, Function):
                self.parents[child] = node
                yield child
                yield from self._walk(child)

    def _ended_by(self, jump: Jump) -> ast.AST | None:
        """Return the loop or test whose remainder a jump skips; None if the jump leaves another function."""
        if isinstance(jump, ast.Return):
            return self.function if self.is_test else None
        return next(parent for parent, _ in self._around(jump) if isinstance(parent, Loop))

    def findings(self) -> Iterator[Finding]:
        waits = any(isinstance(node, ast.Call) and _name_of(node.func) in WAITING for node in self.nodes)
        if self.is_test and not self.assertions and not waits:
            yield self.function.lineno, NO_ASSERTION.format(self.function.name)
        for node in self.asserts:
            if _has_two_outcomes(node.test):
                yield node.lineno, TWO_OUTCOMES
            yield from self._empty(node, _quantified_over(node.test))
        for assertion in self.assertions:
            around = list(self._around(assertion))
            blocks = {self.function, *(parent for parent, _ in around)}
            skipping = [keyword for parent, child in around if (keyword := _skips(parent, child))]
            skipping += [
                type(jump).__name__.lower()
                for jump, block in self.jumps
                if jump.lineno < assertion.lineno and block in blocks
            ]
            yield from ((assertion.lineno, SKIPPED.format(keyword)) for keyword in skipping)
            yield from self._empty(assertion, [iterated for pair in around for iterated in _looped_over(*pair)])

    def _empty(self, assertion: ast.Assert | ast.Call, iterables: list[ast.expr]) -> Iterator[Finding]:
        for iterable in iterables:
            if not self._has_items(iterable):
                yield assertion.lineno, NOTHING.format(ast.unparse(iterable))

    def _around(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """Yield the ancestors of a node from the inside out, each with its child on the path to the node."""
        while (parent := self.parents[node]) is not self.function:
            yield parent, node
            node = parent

    def _has_items(self, iterable: ast.expr) -> bool:
        """Return whether an expression has items, by its form or because an ``assert`` of the function ensures it."""
        match iterable:
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items) | ast.Dict(values=items):
                shown = any(not isinstance(item, ast.Starred) for item in items)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                shown = all(not each.ifs and self._has_items(each.iter) for each in iterable.generators)
            case ast.Call(func=ast.Name(id="range" | "len"), args=bounds):
                shown = all(_is_constant(bound) or self._has_items(bound) for bound in bounds)
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in AS_LONG:
                shown = all(map(self._has_items, arguments))
            case ast.Call(func=ast.Attribute(value=owner, attr="items" | "keys" | "values")):
                shown = self._has_items(owner)
            case ast.Call(func=ast.Attribute(attr="split"), args=[_]):
                shown = True
            case ast.Name(id=name) if not CONSTANT.fullmatch(name):
                shown = any(map(self._has_items, self._values_of(name)))
            case _:
                shown = _is_constant(iterable)
        return shown or any(
            _fails_without(iterable, node.test) for node in self.asserts if not self._repeats(iterable, node)
        )

    def _repeats(self, iterable: ast.expr, node: ast.AST) -> bool:
        """Return whether a node is in a loop over an expression."""
        loops = (iterated for pair in self._around(node) for iterated in _looped_over(*pair))
        return any(part is iterable for loop in loops for part in ast.walk(loop))

    def _values_of(self, name: str) -> list[ast.expr]:
        """Return the initial value of a variable if it is only appended to afterwards."""
        targets = [node for node in self.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        assigned = [self.parents[node] for node in targets if node.id == name]
        is_kept = all(isinstance(node, ast.AugAssign) for node in assigned[1:])
        return [node.value for node in assigned[:1] if isinstance(node, ast.Assign) and is_kept]


def _name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_asserting(call: ast.Call) -> bool:
    name = _name_of(call.func)
    return name in {"raises", "warns"} or name.lstrip("_").startswith("assert_")


def _is_constant(node: ast.AST) -> bool:
    """Return whether an expression consists of literals, named constants and their attributes."""
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name | ast.Call)]
    return all(CONSTANT.fullmatch(_name_of(name)) for name in names)


def _has_two_outcomes(test: ast.expr, *, negated: bool = False) -> bool:
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _has_two_outcomes(operand, negated=not negated)
        case ast.BoolOp(op=op, values=values):
            is_or = isinstance(op, ast.And if negated else ast.Or)
            return is_or or any(_has_two_outcomes(value, negated=negated) for value in values)
        case ast.Compare(ops=[ast.In()], comparators=[ast.Set() | ast.Tuple() | ast.List() as outcomes]):
            return len(outcomes.elts) > 1
    return isinstance(test, ast.IfExp)


def _quantified_over(test: ast.expr) -> list[ast.expr]:
    """Return the arguments of ``all(…)`` and ``not any(…)``, which are true for an empty sequence."""
    match test:
        case ast.BoolOp(values=values):
            return [each for value in values for each in _quantified_over(value)]
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call(func=ast.Name(id="any"), args=[argument])):
            return [argument]
        case ast.Call(func=ast.Name(id="all"), args=[argument]):
            return [argument]
    return []


def _skips(parent: ast.AST, child: ast.AST) -> str:
    """Return the keyword of a statement that may skip its body; the empty string for all others."""
    match parent:
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            always = child is test or ast.unparse(test) == "True"
            return "" if always else type(parent).__name__.lower()
        case ast.Try(body=body, handlers=[_, *_]) if child in body:
            return "try"
        case ast.ExceptHandler():
            return "except"
        case ast.match_case():
            return "case"
        case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body) if child in body:
            names = [_name_of(item.context_expr.func) for item in items if isinstance(item.context_expr, ast.Call)]
            return next((name for name in names if name in {"raises", "suppress"}), "")
    return ""


def _looped_over(parent: ast.AST, child: ast.AST) -> list[ast.expr]:
    """Return the iterable of a loop if the child is part of the loop's body."""
    if isinstance(parent, ast.For | ast.AsyncFor) and child is not parent.iter:
        return [parent.iter]
    return [parent] if isinstance(parent, Comprehension) else []


def _fails_without(iterable: ast.expr, test: ast.expr) -> bool:
    """Return whether an assertion compares an iterable in a way that fails if it is empty."""
    wanted = ast.unparse(iterable)

    def is_in(*nodes: ast.expr) -> bool:
        parts = (part for node in nodes for part in ast.walk(node) if type(part) is type(iterable))
        return any(ast.unparse(part) == wanted for part in parts)

    match test:
        case ast.BoolOp(op=ast.And(), values=values):
            return any(_fails_without(iterable, value) for value in values)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for before, op, after in zip([left, *comparators], ops, comparators, strict=False):
                match op:
                    case ast.Eq() if is_in(before, after):
                        return True
                    case ast.Gt() | ast.GtE() if is_in(before):
                        return True
                    case ast.Lt() | ast.LtE() | ast.In() if is_in(after):
                        return True
    return ast.unparse(test) == wanted
