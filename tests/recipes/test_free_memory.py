"""Free memory as Linux tells it, of containers and of nodes."""

from mora_peft.recipes.free_memory import available_memory, node_memory


def written(folder, files: dict[str, str]):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_containers_limit_counts(tmp_path):
    whole = available_memory(tmp_path)
    assert whole > 1000
    for number, (limit, used) in enumerate(
        (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    ):
        folder = tmp_path / str(number)
        assert available_memory(written(folder, {limit: "1000\n", used: "300\n"})) == 700
        assert available_memory(written(folder, {limit: "200\n"})) == 0
    unlimited = written(tmp_path / "unlimited", {"memory.max": "max\n", "memory.current": "300\n"})
    assert available_memory(unlimited) > 1000


def test_the_node_with_the_least_decides(tmp_path):
    def node(total: int, free: int, files: int) -> str:
        sizes = {"MemTotal": total, "MemFree": free, "Active(file)": files, "Inactive(file)": 0, "SReclaimable": 1}
        return "".join(f"Node 0 {name}: {size} kB\n" for name, size in sizes.items())

    nodes = {"node0/meminfo": node(100, 50, 10), "node1/meminfo": node(100, 20, 3), "node2/meminfo": node(0, 0, 0)}
    assert node_memory(written(tmp_path, nodes)) == 24 * 1024
    assert node_memory(tmp_path / "none") > 1024**2
