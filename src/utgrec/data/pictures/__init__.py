"""Pictures that items name by web address: fetched, verified, made uniform, put into the domain."""

from utgrec.data.pictures.fetch import fetch_images
from utgrec.data.pictures.options import ImageOptions

__all__ = ["ImageOptions", "fetch_images"]
