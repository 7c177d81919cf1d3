"""Functions that run in a forked process, which ends by itself if it hangs."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable


def exit_code_of_child(function: Callable[[], int], seconds: int = 10) -> int:
    """Run a function in a forked process.

    Args:
        function: returns the exit code.
        seconds: time after which the kernel ends the process by SIGALRM, whatever lock it waits for.

    Returns:
        The exit code, 255 after an exception, or minus the number of the signal that has ended the process.
    """
    child = os.fork()
    if child == 0:
        code = 255
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            code = function()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
