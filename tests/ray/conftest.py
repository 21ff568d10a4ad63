"""A Ray cluster of two nodes of one CPU each, on this machine, for all tests that need one."""

import os

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
STORE_BYTES = 80 << 20


class TwoNodes:
    """``address``: of the cluster. ``second``: the node that a test may kill."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self.cluster.address
        self.second = None

    def complete(self):
        """Both nodes are there."""
        if self.second is None:
            self.second = self.cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            self.cluster.wait_for_nodes()

    def kill(self):
        """The second node, with all its processes, at once."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None


@pytest.fixture(scope="session")
def two_nodes():
    nodes = TwoNodes()
    yield nodes
    nodes.cluster.shutdown()


@pytest.fixture
def cluster(two_nodes):
    two_nodes.complete()
    return two_nodes
