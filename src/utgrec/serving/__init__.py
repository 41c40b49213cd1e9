"""Live catalogues and recommendations over HTTP: generations, changes, engine, server.

Nothing is imported here, so that commands start without torch. The ways in are
`generations.GenerationStore`, `changes.CatalogEditor`, `engine.Engine` and `app.create_app`.
"""
