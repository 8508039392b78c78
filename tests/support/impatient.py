"""`canary-mw`, which takes three seconds of silence on a watch for a connection that is gone, not ninety."""

from canary_mw.cli.main import main
from canary_mw.kubernetes import watch

watch._BOOKMARK_SILENCE = 3.0

if __name__ == "__main__":
    main()
