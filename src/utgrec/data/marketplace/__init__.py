"""A simulated marketplace: shops that share a world of styles, with a known best recommender."""

from utgrec.data.marketplace.config import BehaviourConfig, MarketplaceConfig
from utgrec.data.marketplace.oracle import Oracle
from utgrec.data.marketplace.write import write_marketplace

__all__ = ["BehaviourConfig", "MarketplaceConfig", "Oracle", "write_marketplace"]
