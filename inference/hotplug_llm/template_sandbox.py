"""A Jinja environment for templates that nobody has read.

Chat templates come with model files, from anywhere, and are programs. Rendered without care they
have run code on the reader's machine (CVE-2024-34359, CVE-2026-5760). Jinja's immutable sandbox
keeps templates from Python's internals and from changing what they are given. It does not bound
what they cost: `{{ "a" * 10**10 }}` fills the memory. So everything here is charged to a budget,
before it is done where the result may be larger than what it is made of:

- each turn of a loop and each call of a macro or block, with the text in its body;
- each call, filter, test, comparison, arithmetic operation, slice and joining of text, with the
  size of its operands and of its result;
- each value that is printed.

What is left costs time in proportion to the template's length, which is limited. Charging is by
amount, not by the clock, so that a template that renders once does so on every machine.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["Budget", "ChatEnvironment", "spending"]

_STEP = 8  # units; a step in Python takes about as long as copying some characters
_MAX_INTEGER_BITS = 4096
_MAX_INDENT = 16


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The filters and tests of Jinja that chat templates use, by what they look at: an element or a
# length; a list but not what is in it; everything down to the last text. Absent are those that
# reach into objects (attr) or make much out of little (center, format, wordwrap, batch ...); a few
# of these are defined below.
_GLANCES = _names("abs count d default first last length")
_WALKS = _names("items list map reject rejectattr reverse select selectattr")
_DEEP_FILTERS = _names(
    "capitalize dictsort float int lower max min sort string title unique upper wordcount"
)
_TESTS = _names(
    "boolean callable defined divisibleby even false float integer iterable mapping none number "
    "odd sameas sequence string true undefined"
)
_DEEP_TESTS = _names(
    "!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lower lt ne upper"
)

# Methods of values, for the same reasons.
_METHODS: dict[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower "
        "isnumeric isspace isupper join lower lstrip partition removeprefix removesuffix replace "
        "rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title "
        "upper"
    ),
    list: _names("count index"),
    tuple: _names("count index"),
    dict: _names("get items keys values"),
}
_SEARCHES = _names("lstrip rfind rindex rpartition rsplit rstrip strip")
_PLAIN_CONVERSION = re.compile(r"%[sdi%]")


class Budget:
    """Units of work that a rendering may still do; a unit is about a character copied."""

    def __init__(self, units: int) -> None:
        self.units = units

    def charge(self, units: int = _STEP) -> None:
        """Take units away.

        Raises:
            SecurityError: there are not that many left.
        """
        self.units -= units
        if self.units < 0:
            raise SecurityError("it asks for more work than a chat template may")

    def charge_lengths(self, *values: object) -> None:
        """Charge for the lengths of values, but not for what is in lists."""
        self.charge()
        for value in values:
            if isinstance(value, str | bytes):
                self.charge(len(value))
            elif isinstance(value, list | tuple | Mapping | range):
                self.charge(_STEP * len(value))

    def charge_depths(self, *values: object) -> None:
        """Charge for all that values contain, as often as it would be printed.

        The walk itself is within the budget: lists that hold the same list many times over, level
        upon level, are short to write and would take forever to print or to compare.
        """
        self.charge()
        waiting: list[object] = list(values)
        while waiting:
            value = waiting.pop()
            self.charge_lengths(value)
            waiting += _parts(value)


def _parts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | ItemsView | KeysView | ValuesView):
        return list(value)
    if isinstance(value, Namespace):
        # Jinja keeps the attributes from attribute access, not from printing.
        return [object.__getattribute__(value, "_Namespace__attrs")]
    return []


_budget: ContextVar[Budget] = ContextVar("_budget")


@contextlib.contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Within it, compiling and rendering are charged to `budget`."""
    token = _budget.set(budget)
    try:
        yield
    finally:
        _budget.reset(token)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates into code that pays for what it does.

    Whitespace is treated as by the program most templates were written for: a block on a line of
    its own leaves no trace. `break`, `continue` and `generation` are there. Compiling and rendering
    need a `spending` block around them.
    """

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        # Unoptimised: the optimiser would compute constants while compiling.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            autoescape=False,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
            finalize=_charge_printed,
        )
        self.filters = {
            **{name: self.filters[name] for name in _GLANCES},
            **{name: _charged(self.filters[name], Budget.charge_lengths) for name in _WALKS},
            **{name: _charged(self.filters[name], Budget.charge_depths) for name in _DEEP_FILTERS},
            "tojson": _tojson,
            "join": _join,
            "replace": _replace,
            "indent": _indent,
            "trim": _trim,
            "safe": _charged(str, Budget.charge_depths),  # nothing is escaped
        }
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {
            **{name: tests[name] for name in _TESTS},
            **{name: _charged(tests[name], Budget.charge_depths) for name in _DEEP_TESTS},
        }
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}

    # What follows is called by compiled templates; `_Charging` put some of the calls there.

    def charge_turn(self, units: int) -> bool:
        """Charge for a turn of a loop or the body of a macro. Always true."""
        _budget.get().charge(_STEP + units)
        return True

    def charge_value(self, value: Any) -> Any:
        """Charge for a value that is compared, copied or used as a key, and pass it on."""
        _budget.get().charge_depths(value)
        return value

    def concatenate(self, *values: Any) -> str:
        """Join values as text: the operator `~`."""
        _budget.get().charge_depths(*values)
        return "".join(map(str, values))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        owner = getattr(obj, "__self__", None)
        if owner is self:
            return obj(*args)
        _charge_call(obj, owner, args)
        result = super().call(context, obj, *args, **kwargs)
        _budget.get().charge_lengths(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: D102
        budget = _budget.get()
        budget.charge_lengths(left, right)
        if operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            _check_conversions(left)
            budget.charge_depths(right)
        result = super().call_binop(context, operator, left, right)
        budget.charge_lengths(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:  # noqa: D102
        if super().wrap_str_format(value) is not None:
            # A width in the pattern makes any amount of text: "{:9999999999}".
            raise SecurityError("it calls str.format, which chat templates may not")
        return None

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template: nodes.Template = _Charging().visit(super()._parse(source, name, filename))
        template.set_environment(self)
        return template


class _GenerationTag(Extension):
    """`{% generation %}` marks what training counts; for rendering it means nothing."""

    tags = {"generation"}  # noqa: RUF012  # as the base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Charging(NodeTransformer):
    """Rewrites a parsed template so that everything that costs is charged.

    Loops, macros and blocks are charged at the start of their body; operators that Jinja compiles
    to Python's own are sent through the environment.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.test is not None:
            # Turns that the condition rejects never reach the body.
            node.test = nodes.And(_call(node, "charge_turn", nodes.Const(0)), node.test)
        return self._charge_body(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._charge_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._charge_body(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        return self._charge_body(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call(node, "concatenate", *node.nodes)

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _charged_value(node.expr)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _charged_value(node.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _charged_value(node.key)  # hashing goes into tuples
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _charged_value(node)
        node.arg = _charged_value(node.arg)
        return node

    def _charge_body(
        self, node: nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block
    ) -> nodes.Node:
        price = nodes.Const(_text_length(node.body))
        self.generic_visit(node)
        statement = nodes.ExprStmt(_call(node, "charge_turn", price))
        node.body.insert(0, statement.set_lineno(node.lineno))
        return node


def _text_length(body: Sequence[nodes.Node]) -> int:
    """Characters of literal text in a body, which compiled templates copy without a call."""
    within = (found for node in body for found in node.find_all(nodes.TemplateData))
    return sum(len(text.data) for text in within)


def _call(place: nodes.Node, method: str, *arguments: nodes.Expr) -> nodes.Call:
    """A call of a method of the environment, which templates have no way to spell."""
    function = nodes.EnvironmentAttribute(method)
    call = nodes.Call(function, list(arguments), [], None, None)
    call.set_lineno(place.lineno)
    return call


def _charged_value(expression: nodes.Expr) -> nodes.Expr:
    constant = isinstance(expression, nodes.Const)
    return expression if constant else _call(expression, "charge_value", expression)


@pass_context  # keeps Jinja from computing what is printed while compiling
def _charge_printed(_context: Context, value: Any) -> Any:
    _budget.get().charge_depths(value)
    return value


def _charged(function: Callable[..., Any], charge: Callable[..., None]) -> Callable[..., Any]:
    """A filter or test that charges for what goes in, and for the length of what comes out."""

    @functools.wraps(function)  # also copies the mark that asks for the context as first argument
    def charged(*args: Any, **kwargs: Any) -> Any:
        values = (value for value in args if not isinstance(value, Context))
        charge(_budget.get(), *values, *kwargs.values())
        result = function(*args, **kwargs)
        _budget.get().charge_lengths(result)
        return result

    return charged


def _charge_call(function: object, owner: object, args: Sequence[Any]) -> None:
    """Charge for a call: passing values costs nothing, what built-in methods do with them does."""
    budget = _budget.get()
    if isinstance(function, Macro | LoopContext):
        budget.charge()
        return
    name = getattr(function, "__name__", "")
    for kind in (str, list, tuple, dict, int, float, bytes):
        if isinstance(owner, kind) and name not in _METHODS.get(kind, ()):
            raise SecurityError(f"it calls {kind.__name__}.{name}, which chat templates may not")
    budget.charge_depths(*args)
    if isinstance(owner, str):
        budget.charge_lengths(owner)
        _charge_text_method(owner, name, args)
    elif name in ("count", "index"):
        budget.charge_depths(owner)
    else:
        budget.charge_lengths(owner)


def _charge_text_method(text: str, name: str, args: Sequence[Any]) -> None:
    if name == "join" and args:
        _charge_joined(text, args[0])
    elif name == "replace" and len(args) > 1:
        _charge_replaced(text, args[0], args[1])
    elif name in _SEARCHES and args and isinstance(args[0], str):
        _charge_search(text, args[0])


def _charge_search(text: str, wanted: str) -> None:
    """Python looks for each of the set's characters, or backwards, in quadratic time."""
    _budget.get().charge(len(text) * len(wanted) // _STEP)


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, str | list | tuple | bytes) and isinstance(right, int):
        _budget.get().charge(_STEP * len(left) * max(0, right))
    elif isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * max(0, right))


def _check_bits(bits: int) -> None:
    if bits > _MAX_INTEGER_BITS:
        raise SecurityError("it computes an integer of thousands of digits")


def _check_conversions(pattern: str) -> None:
    """Only conversions without a width: `"%9999999999d" % 1` would fill the memory."""
    if "%" in _PLAIN_CONVERSION.sub("", pattern):
        raise SecurityError("it formats text with more than %s and %d")


def _charge_joined(separator: str, parts: Any) -> None:
    if isinstance(parts, Sequence):
        _budget.get().charge(len(separator) * len(parts))


def _charge_replaced(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _budget.get().charge(text.count(old) * len(new))


def _join(value: Any, d: str = "", attribute: str | int | None = None) -> str:
    """The filter `join`, with the names of Jinja's own."""
    parts = list(value)
    if attribute is not None:
        parts = [part[attribute] for part in parts]
    separator = str(d)
    _budget.get().charge_depths(parts, separator)
    _charge_joined(separator, parts)
    return separator.join(map(str, parts))


def _replace(s: Any, old: str, new: str, count: int | None = None) -> str:
    """The filter `replace`, with the names of Jinja's own."""
    _budget.get().charge_depths(s, old, new)
    text, old, new = str(s), str(old), str(new)
    _charge_replaced(text, old, new)
    return text.replace(old, new, -1 if count is None else count)


def _trim(value: Any, chars: str | None = None) -> str:
    """The filter `trim`, with the names of Jinja's own."""
    _budget.get().charge_depths(value, chars)
    _charge_search(str(value), chars or "")
    return str(value).strip(chars)


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """The filter `indent`: all lines but the first, and but empty ones, move to the right."""
    _budget.get().charge_depths(s, width)
    margin = width if isinstance(width, str) else " " * min(width, _MAX_INDENT)
    lines = f"{s}\n".splitlines()
    _budget.get().charge(len(lines) * (_STEP + len(margin)))
    moved = [margin + line if line or blank else line for line in lines]
    return "\n".join(moved if first else lines[:1] + moved[1:])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`: plain JSON, where Jinja's own would escape it for HTML."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        indent=None if indent is None else max(0, min(indent, _MAX_INDENT)),
        separators=separators,
        sort_keys=sort_keys,
    )
    return "".join(_charged_chunks(encoder.iterencode(value)))


def _charged_chunks(chunks: Iterator[str]) -> Iterator[str]:
    budget = _budget.get()
    for chunk in chunks:
        budget.charge(_STEP + len(chunk))
        yield chunk
