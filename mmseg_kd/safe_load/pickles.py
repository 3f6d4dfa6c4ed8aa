"""A reader of pickles that knows data and nothing else.

Python's own reader, and torch's, import what a pickle names. This one looks a name up in a table of its caller; what is
not there is refused, and nothing of a file ever decides which code runs.
"""
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pickle import UnpicklingError
from typing import BinaryIO

__all__ = ['Builder', 'Refused', 'read_pickle']

_CONSTANTS = {'NONE': lambda: None, 'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False, 'EMPTY_LIST': list,
              'EMPTY_DICT': dict, 'EMPTY_TUPLE': tuple, 'EMPTY_SET': set}
_VALUES = {'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
           'SHORT_BINSTRING', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'SHORT_BINBYTES', 'BINBYTES',
           'BINBYTES8', 'BYTEARRAY8'}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_MARK = object()


class Refused(UnpicklingError):
    """A pickle wants something that is not data."""


class Builder:
    """What a name of a pickle stands for: a function of ours.

    Args:
        call: Makes the object from the arguments that the file gives; it must check them.
        build: Gives the object, or one that takes its place, the state that the file gives; None: it takes none.
    """

    __slots__ = ('build', 'call')

    def __init__(self, call: Callable, build: Callable | None = None):
        self.call = call
        self.build = build


def read_pickle(file: BinaryIO, find: Callable[[str], object], storage: Callable[[object], object],
                build: Callable[[object, object], object]) -> object:
    """Read one pickle from where a file stands, and leave the file behind it.

    Args:
        file: Opened for reading bytes.
        find: What a name such as ``'collections.OrderedDict'`` stands for: a :class:`Builder` or plain data. It raises
            :class:`Refused` for all that is not in its table.
        storage: What a persistent id stands for.
        build: ``(object, state)`` to the object with that state.

    Raises:
        Refused: the pickle wants more than data.
        Exception: of whatever kind, for a pickle that is damaged.
    """
    stack, memo = [], {}

    def since_mark() -> list:
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise UnpicklingError('a mark is missing')
        found = stack[at + 1:]
        del stack[at:]
        return found

    def extend(kind, items: list) -> None:
        target = stack[-1]
        if type(target) is not kind:
            raise UnpicklingError(f'{type(target).__name__} where a {kind.__name__} is expected')
        target.extend(items) if kind is list else target.update(items)

    def set_items(items: list) -> None:
        target = stack[-1]
        if type(target) not in (dict, OrderedDict):
            raise UnpicklingError(f'{type(target).__name__} where a dict is expected')
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key] = value

    def called(builder, arguments):
        if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
            raise Refused(f'a call of {type(builder).__name__}')
        return builder.call(*arguments)

    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in ('GET', 'BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name == 'MARK':
            stack.append(_MARK)
        elif name in _TUPLES:
            stack[-_TUPLES[name]:] = [tuple(stack[-_TUPLES[name]:])]
        elif name == 'TUPLE':
            stack.append(tuple(since_mark()))
        elif name == 'LIST':
            stack.append(since_mark())
        elif name == 'FROZENSET':
            stack.append(frozenset(since_mark()))
        elif name == 'DICT':
            items = since_mark()
            stack.append({})
            set_items(items)
        elif name == 'APPEND':
            extend(list, [stack.pop()])
        elif name == 'APPENDS':
            extend(list, since_mark())
        elif name == 'ADDITEMS':
            extend(set, since_mark())
        elif name == 'SETITEM':
            value, key = stack.pop(), stack.pop()
            set_items([key, value])
        elif name == 'SETITEMS':
            set_items(since_mark())
        elif name == 'GLOBAL':
            stack.append(find('.'.join(argument.split(' ', 1))))
        elif name == 'STACK_GLOBAL':
            attribute, module = stack.pop(), stack.pop()
            stack.append(find(f'{module}.{attribute}'))
        elif name in ('REDUCE', 'NEWOBJ'):
            arguments, builder = stack.pop(), stack.pop()
            stack.append(called(builder, arguments))
        elif name == 'BINPERSID':
            stack.append(storage(stack.pop()))
        elif name == 'BUILD':
            state, before = stack.pop(), stack.pop()
            after = build(before, state)
            stack.append(after)
            if after is not before:
                memo.update({index: after for index, value in memo.items() if value is before})
        elif name == 'POP':
            stack.pop()
        elif name == 'POP_MARK':
            since_mark()
        elif name == 'DUP':
            stack.append(stack[-1])
        elif name == 'STOP':
            return stack.pop()
        elif name not in ('PROTO', 'FRAME'):
            raise Refused(f'the instruction {name}')
    raise UnpicklingError('the pickle has no end')
