"""Pictures that items name by web address: fetched, verified, made uniform, put into the domain.

`fetch.fetch_images` does it. Nothing is imported here: a decoding process loads `decode` alone.
"""
