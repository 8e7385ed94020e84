"""Bytes per element that a Triton kernel moves, counted in what the compiler made of it.

Two counts must agree. In Triton's own intermediate form every access names its pointer, and a loop
stands there once: each access to a block of numbers is one read or write of every element, by
argument. In the machine code every instruction moves its width for each thread: where the compiler
has not unrolled or pipelined a loop, width times threads over the numbers of a block is the same
count again, whatever the arguments are. :func:`agrees` compares the two.
"""

import math
import re
from collections import Counter
from typing import Any

from bench.ledger.machine_code import MachineCode

_DEFINITION = re.compile(r"^\s*(%\w+)(?::\d+)? = \"?[\w.]+\"?\(?\s*(%\w+)", re.MULTILINE)
_ACCESS = re.compile(
    r"tt\.(load|store) (%\w+).*? : tensor<((?:\d+x)+)!tt\.ptr<\w*?(\d+)>>", re.MULTILINE
)


def accesses(kernel: Any, block: int) -> dict[str, Counter[str]]:
    """Bytes read and written per element of a block, by argument.

    Returns:
        ``{"load": {argument: bytes}, "store": {argument: bytes}}``, of blocks of ``block`` numbers
        alone: what has one number per row costs nothing per element.
    """
    text = kernel.asm["ttir"]
    comes_from = dict(_DEFINITION.findall(text))
    found: dict[str, Counter[str]] = {"load": Counter(), "store": Counter()}
    for kind, pointer, shape, bits in _ACCESS.findall(text):
        if math.prod(int(size) for size in shape.split("x") if size) != block:
            continue
        while not pointer.endswith("_pointer"):
            pointer = comes_from[pointer]
        found[kind][pointer.removeprefix("%").removesuffix("_pointer")] += int(bits) // 8
    return found


def agrees(counted: dict[str, Counter[str]], code: MachineCode, block: int) -> bool:
    """Whether the machine code's 16-byte accesses move just that, a loop's body counted once."""
    return all(
        code.bytes_per_thread(instructions, 128) * code.threads == sum(of_kind.values()) * block
        for instructions, of_kind in (
            (code.loads, counted["load"]),
            (code.stores, counted["store"]),
        )
    )
