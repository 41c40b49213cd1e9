"""What holds for all tests, however they are started."""

import os

from hypothesis import settings

# One thread for each process: two test processes with all threads each take ten times as long.
# Set before anything imports torch; whoever measures speed sets it to more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that asks a hub fails here, and not only on somebody's train.
os.environ["HF_HUB_OFFLINE"] = "1"

# A busy machine is no defect: how long one example takes is not judged.
settings.register_profile("utgrec", deadline=None)
settings.load_profile("utgrec")
