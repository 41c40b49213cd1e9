"""Amazon Reviews 2023, raw or as the official 5-core, to domain folders.

`presets` the categories and the paper's counts · `files` what a category needs and where it is ·
`reviews` lines to events · `metadata` lines to items · `prepare` all of it · `check` counts
against the paper's.
"""

__all__: list[str] = []
