"""The main job: a small sky survey whose Butler repository lives in a dCache, with every output checked.

The modules build on one another in this order: ``geometry`` (camera, sky, skymap), ``simulation`` (frames
with known truth), ``frames`` (real frames), ``instrument``, ``formatters`` and ``tasks`` (what ``pipetask``
imports), ``repository`` (create, ingest), ``pipeline`` (run ``pipetask``), ``storage`` (stored files, seen
without the Butler), ``audit`` (are they as recorded), ``checks`` (do they agree with the truth), ``report``
(the table) and ``run`` (the phases).
"""
