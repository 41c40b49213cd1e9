"""What holds for all tests, however they are started."""

import os

# One thread for each process: two test processes with all threads each take ten times as long.
# Set before anything imports torch; whoever measures speed sets it to more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that asks a hub fails here, and not only on somebody's train.
os.environ["HF_HUB_OFFLINE"] = "1"
