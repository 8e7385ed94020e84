"""How much of a multiprocessor a kernel's resources let it fill."""

from typing import NamedTuple

from bench.ledger.machine_code import MachineCode


class Limits(NamedTuple):
    """One multiprocessor's (AMD: compute unit's) limits.

    Attributes:
        warp: threads per warp.
        warps: the most that are resident.
        blocks: the most that are resident.
        registers: of 32 bits, per lane of all warps together: shared by the resident warps.
        granule: registers per thread are given out in multiples of this.
        shared: bytes.
        reserved: bytes of it that every block costs besides its own.
        shared_granule: bytes are given out in multiples of this.
    """

    warp: int
    warps: int
    blocks: int
    registers: int
    granule: int
    shared: int
    reserved: int
    shared_granule: int


# CUDA's programming guide, "Compute capabilities", and AMD's CDNA3 instruction set architecture:
# four SIMDs of eight waves, each with 512 registers per lane; 16 barriers per compute unit.
LIMITS = {
    "sm_80": Limits(32, 64, 32, 65536 // 32, 8, 164 * 1024, 1024, 128),
    "sm_90": Limits(32, 64, 32, 65536 // 32, 8, 228 * 1024, 1024, 128),
    "sm_100": Limits(32, 64, 32, 65536 // 32, 8, 228 * 1024, 1024, 128),
    "gfx942": Limits(64, 32, 16, 4 * 512, 8, 64 * 1024, 0, 512),
}


def _rounded_up(number: int, granule: int) -> int:
    return -(-number // granule) * granule


def occupancy(code: MachineCode, target: str) -> float:
    """Resident warps over the most that there can be."""
    limits = LIMITS[target]
    warps = -(-code.threads // limits.warp)
    by_registers = limits.registers // _rounded_up(max(code.registers, 1), limits.granule)
    # Registers belong to one of four schedulers, and so do warps.
    by_registers = by_registers // 4 * 4
    shared = _rounded_up(code.shared + limits.reserved, limits.shared_granule)
    blocks = min(
        limits.blocks,
        limits.warps // warps,
        by_registers // warps,
        limits.shared // shared if shared else limits.blocks,
    )
    return blocks * warps / limits.warps
