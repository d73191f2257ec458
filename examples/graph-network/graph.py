"""A graph network finds the communities of a graph when it is told those of a few nodes.

    python graph.py

The graph is drawn here: nodes of the same community are linked more often than others, and what each node says of
itself is mostly noise, so that a node alone does not show where it belongs.
"""

import argparse

import torch
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import stochastic_blockmodel_graph

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COMMUNITIES, NODES, FEATURES, TOLD = 4, 150, 16, 10


def graph():
    """Communities of nodes; TOLD of each are those whose community is known."""
    inside, between = 0.08, 0.005
    chances = torch.full((COMMUNITIES, COMMUNITIES), between).fill_diagonal_(inside)
    links = stochastic_blockmodel_graph([NODES] * COMMUNITIES, chances)
    community = torch.arange(COMMUNITIES).repeat_interleave(NODES)
    features = torch.randn(len(community), FEATURES)
    features[torch.arange(len(community)), community] += 1
    known = torch.zeros(len(community), dtype=torch.bool)
    for number in range(COMMUNITIES):
        known[number * NODES : number * NODES + TOLD] = True
    return Data(x=features, edge_index=links, y=community, train_mask=known, test_mask=~known)


class Network(torch.nn.Module):
    """Two rounds in which each node hears its neighbours."""

    def __init__(self, width=32):
        super().__init__()
        self.first = GCNConv(FEATURES, width)
        self.second = GCNConv(width, COMMUNITIES)

    def forward(self, data):
        heard = self.first(data.x, data.edge_index).relu()
        heard = functional.dropout(heard, 0.5, training=self.training)
        return self.second(heard, data.edge_index)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    torch.manual_seed(0)
    data, model = graph().to(DEVICE), Network().to(DEVICE)
    print(f"{data.num_nodes} nodes and {data.num_edges} links, on {DEVICE}")

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for epoch in range(1, options.epochs + 1):
        model.train()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(data)[data.train_mask], data.y[data.train_mask])
        loss.backward()
        optimizer.step()
        if epoch % 25 == 0:
            print(f"epoch {epoch}: loss {loss.item():.3f}")

    model.eval()
    with torch.no_grad():
        found = model(data).argmax(1)
    right = (found == data.y)[data.test_mask].float().mean().item()
    print(f"accuracy {right:.3f} of nodes whose community it was not told")


if __name__ == "__main__":
    main()
