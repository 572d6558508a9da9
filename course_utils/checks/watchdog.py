"""The time limit of a check, in a kernel on Linux, macOS and Windows."""

import ctypes
import os
import signal
import sys
import threading
import time


class TimeLimit(BaseException):
    """Raised inside code that runs for too long; not an Exception, so that ``except Exception`` lets it through."""


DEBUGGERS = {
    "bdb",
    "pdb",
    "ipdb",
    "debugpy",
    "pydevd",
    "_pydevd_bundle",
    "_pydevd_frame_eval",
    "pydevd_frame_evaluator",
}


def of_debugger(module):
    """Whether a module, by its name, belongs to a debugger."""
    return module.split(".")[0] in DEBUGGERS or module.startswith("IPython.core.debugger")


class Watchdog:
    """Stops the thread that called ``start`` when it has computed for ``seconds``, or taken 2.5 times that in all.

    The time to import modules does not count, nor that in which a debugger waits; while an answer is being traced, by a
    debugger or by a function that it set itself, there is no limit. A second thread keeps the time. It sends SIGINT to the main thread, and
    that ends a ``sleep`` as well as a loop; on guard, SIGINT raises TimeLimit. Code that catches it (a bare ``except:``
    in an endless loop) gets it again, at last inside its ``except``, where only a second one around it could catch it. A real interrupt remains a KeyboardInterrupt, and sets
    ``interrupted``. (Another thread than the main one gets Python's asynchronous exception.) What cannot be stopped
    is a single call into C that takes for ever. The second thread is gone when ``stop`` returns.
    """

    def __init__(self, seconds):
        self.seconds, self.fired, self.interrupted, self.done = seconds, 0, False, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def start(self):
        self.target, self.tracing = threading.get_ident(), sys.gettrace()
        self.in_main = threading.current_thread() is threading.main_thread()
        if self.in_main:
            self.previous = signal.signal(signal.SIGINT, self._interrupt)
        self.thread.start()

    def stop(self):
        if not self.done.is_set() and self.thread.ident is not None:
            self.done.set()
            self.thread.join()
            sys.settrace(self.tracing)
            if self.in_main:
                signal.signal(signal.SIGINT, self.previous or signal.default_int_handler)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.target), None)

    def _watch(self):
        clock = computing = 0.0
        before = time.monotonic(), time.process_time()
        while not self.done.wait(0.05):
            now = time.monotonic(), time.process_time()
            if not self._waiting():
                clock, computing = clock + now[0] - before[0], computing + now[1] - before[1]
            before = now
            if (clock >= self.seconds and computing >= self.seconds) or clock >= 2.5 * self.seconds:
                self._send()
                self.done.wait(0.5)  # and once more if the code caught it

    def _waiting(self):
        """Whether the target imports a module or stands in a debugger."""
        frame = sys._current_frames().get(self.target)
        while frame is not None:
            importing = frame.f_code.co_filename.startswith("<frozen importlib")
            if importing or of_debugger(frame.f_globals.get("__name__") or ""):
                return True
            frame = frame.f_back
        return False

    def _traced(self):
        """Whether the present thread is being debugged, or traced by another function than at the start."""
        trace = sys.gettrace()
        module = getattr(trace, "__module__", None) or type(trace).__module__
        return trace is not None and (of_debugger(module) or (trace != self.tracing and module != __name__))

    def _send(self):
        self.fired += 1
        if not self.in_main:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.target), ctypes.py_object(TimeLimit))
        elif hasattr(signal, "pthread_kill"):
            signal.pthread_kill(self.target, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    def _interrupt(self, number, frame):
        if self.fired and self._traced():
            self.fired = 0
            return
        if self.fired and not self.done.is_set() and frame.f_code is not Watchdog.stop.__code__:
            if self.fired > 2:  # caught twice already
                self._insist(frame)
            raise TimeLimit
        if not self.fired and callable(self.previous):
            self.interrupted = True
            self.previous(number, frame)

    def _insist(self, frame):
        """From now on, raise TimeLimit once more in each ``except`` that has caught it."""

        def trace(frame, event, argument):
            if event == "line" and isinstance(sys.exc_info()[1], TimeLimit):
                raise TimeLimit
            return None if event == "call" else trace  # only the frames below, nothing that they call

        sys.settrace(trace)
        while frame is not None and not frame.f_code.co_filename.startswith(os.path.dirname(__file__)):
            frame.f_trace, frame = trace, frame.f_back
