"""Free memory as Linux tells it, of containers and of nodes."""

import pytest

from mora_peft.recipes.free_memory import available_memory, node_memory


def written(folder, files: dict[str, str]):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("limit, used, of_what", [
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
])  # fmt: skip
def test_a_containers_limit_counts(limit, used, of_what, tmp_path):
    files = {limit: "1000\n", used: "300\n", of_what: "anon 200\ninactive_file 60\nactive_file 40\n"}
    assert available_memory(written(tmp_path, files)) == 800, "files that were read are dropped for programs"
    assert available_memory(written(tmp_path, {limit: "100\n"})) == 0
    assert available_memory(written(tmp_path, {limit: "max\n"})) == pytest.approx(
        available_memory(tmp_path / "none"), rel=0.2
    )


def test_the_node_with_the_least_decides(tmp_path):
    def node(total: int, free: int, files: int) -> str:
        sizes = {"MemTotal": total, "MemFree": free, "Active(file)": files, "Inactive(file)": 0, "SReclaimable": 1}
        return "".join(f"Node 0 {name}: {size} kB\n" for name, size in sizes.items())

    nodes = {"node0/meminfo": node(100, 50, 10), "node1/meminfo": node(100, 20, 3), "node2/meminfo": node(0, 0, 0)}
    assert node_memory(written(tmp_path, nodes)) == 24 * 1024
    assert node_memory(tmp_path / "none") > 1024**2
