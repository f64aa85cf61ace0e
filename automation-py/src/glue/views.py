"""What each run has for itself in modules of the standard library: filters of warnings, random numbers, event loops,
the configuration of logging."""

import warnings


def install_warnings():
    reset = warnings.resetwarnings

    def add_filter(*item, append):
        lists = [warnings.filters]
        shared = vars(warnings)["filters"]
        if is_importing() and shared is not lists[0]:
            # A library is imported once, for all runs.
            lists.append(shared)
        for filters in lists:
            if not append:
                filters[:] = [item] + [other for other in filters if other != item]
            elif item not in filters:
                filters.append(item)
        warnings._filters_mutated()

    def run_reset():
        if not in_run():
            return reset()
        warnings.filters[:] = []
        warnings._filters_mutated()

    warnings._add_filter, warnings.resetwarnings = add_filter, run_reset


@late_part("random")
def install_random(module):
    shared = module._inst
    for name, function in list(vars(module).items()):
        if getattr(function, "__self__", None) is shared:
            setattr(module, name, RandomFunction(name, function, module.Random))


@late_part("asyncio.events")
def install_asyncio(module):
    policy = module.BaseDefaultEventLoopPolicy
    get_event_loop, set_event_loop = policy.get_event_loop, policy.set_event_loop

    def on_worker():
        return in_run() and _thread.get_ident() not in run_threads()

    def run_get_event_loop(self):
        # By hand a script is on the main thread, which is given a loop when it asks for the first time.
        local = self._local
        if local._loop is None and not local._set_called and on_worker():
            self.set_event_loop(self.new_event_loop())
        return get_event_loop(self)

    def run_set_event_loop(self, loop):
        if on_worker():
            run_state()["policy"] = self
        set_event_loop(self, loop)

    policy.get_event_loop, policy.set_event_loop = run_get_event_loop, run_set_event_loop
    write = lambda value: setattr(module, "_event_loop_policy", value)
    read = lambda: module._event_loop_policy
    label = "asyncio.set_event_loop_policy"
    record_setting(module, "set_event_loop_policy", read, write, label, "asyncio")


def end_state(state):
    """Forgets what a run has left on its worker."""
    policy = state.get("policy")
    if policy is None:
        return
    loop = policy._local._loop
    vars(policy._local).clear()
    sys.modules["asyncio.events"]._set_running_loop(None)
    if loop is not None and not loop.is_closed() and not loop.is_running():
        loop.close()


class RunHandlers:
    """`logging._handlerList`: on a run's threads the handlers that the run has made."""

    def __init__(self, shared):
        self._shared = shared

    def _list(self):
        if not in_run() or is_importing():
            return self._shared
        state = run_state()
        if "handlers" not in state:
            state["handlers"] = []
            at_exit((shut_handlers_down, (), {}))
            # The script's own functions are called before it, and may log.
            functions = exit_functions()
            functions.insert(0, functions.pop())
        return state["handlers"]

    def __iter__(self):
        return iter(self._list())

    def __len__(self):
        return len(self._list())

    def __contains__(self, item):
        return item in self._list()

    def __getitem__(self, place):
        return self._list()[place]

    def __delitem__(self, place):
        del self._list()[place]

    def append(self, item):
        self._list().append(item)

    def remove(self, item):
        self._list().remove(item)


def shut_handlers_down():
    sys.modules["logging"].shutdown(list(run_state().get("handlers", ())))


@late_part("logging")
def install_logging(module):
    add_handler = module.Logger.addHandler

    def run_add_handler(self, hdlr):
        add_handler(self, hdlr)
        if in_run() and is_importing():
            # A library is imported once, for all runs.
            shared = vars(self)["handlers"]
            if hdlr not in shared:
                shared.append(hdlr)

    module.Logger.addHandler = run_add_handler
    for name in ("level", "handlers", "filters", "propagate", "disabled", "_cache"):
        setattr(module.Logger, name, LoggerAttribute(name))
    module.Manager._disable = LoggerAttribute("_disable")
    module._handlerList = RunHandlers(module._handlerList)
    for name, kept in (("LoggerClass", "_loggerClass"), ("LogRecordFactory", "_logRecordFactory")):
        read = lambda kept=kept: getattr(module, kept)
        write = lambda value, kept=kept: setattr(module, kept, value)
        record_setting(module, f"set{name}", read, write)
    record_setting(module, "captureWarnings", lambda: module._warnings_showwarning is not None)
