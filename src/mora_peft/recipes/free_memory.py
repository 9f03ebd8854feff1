"""Memory that programs can still have: of the machine, of the container around them, of one node of processors."""

from pathlib import Path

#: Where Linux tells a container's limit, what it uses of it, and for what: control groups, version 2 and version 1.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
#: What can be had by dropping files that were read, in a group's statistics and in a node's, and what is free there.
_FILES = ("inactive_file", "active_file")
_OF_A_NODE = ("MemFree:", "Active(file):", "Inactive(file):", "SReclaimable:")


def available_memory(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that programs can still have, on this machine and within the limit of the container that they run in."""
    import psutil

    found = [psutil.virtual_memory().available]
    for limit, used, of_what in _GROUPS:
        try:
            free = int((groups / limit).read_text()) - int((groups / used).read_text())
            parts = dict(line.split() for line in (groups / of_what).read_text().splitlines())
        except (OSError, ValueError):  # no such file, or no limit: "max"
            continue
        found.append(free + sum(int(parts.get(name, 0)) for name in _FILES))
    return max(min(found), 0)


def node_memory(nodes: Path = Path("/sys/devices/system/node")) -> int:
    """Bytes that can be had on the node with the least, where memory belongs to nodes (NUMA); else `available_memory`.

    A program whose threads keep to one node should not plan with more.
    """
    found = []
    for file in nodes.glob("node*/meminfo"):
        words = [line.split() for line in file.read_text(encoding="ascii").splitlines()]  # Node 0 MemFree: 1 kB
        sizes = {word[2]: int(word[3]) * 1024 for word in words if len(word) > 3}
        if sizes.get("MemTotal:"):  # some nodes have processors only
            found.append(sum(sizes.get(name, 0) for name in _OF_A_NODE))
    return min([available_memory(), *found])
