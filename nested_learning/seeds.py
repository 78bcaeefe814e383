"""Random numbers are pure functions of (seed, purpose), so that no generator state is saved or restored."""

from hashlib import blake2b


def derive_seed(seed: int, *key: str | int) -> int:
    """Derive a 63-bit seed from the run's seed and a key such as `("weights", "blocks.0.norm.scale")`.

    Equal arguments give equal seeds on every machine; any other key gives an unrelated one.
    """
    text = "\x1f".join(repr(part) for part in (seed, *key))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
