"""``multiprocessing.managers``: the same names, with queues that outlive their users.

A registered function that returns a ``queue.Queue`` makes a durable queue; users'
own classes live in the manager's process. Clients of the standard library can
connect to these managers, and these clients to the standard library's.
"""

from multiprocessing.managers import (  # type: ignore[attr-defined]
    RemoteError,
    State,
    Token,
    all_methods,
    convert_to_error,
    dispatch,
    listener_client,
    public_methods,
)

from multihost.managers.hosting import Server
from multihost.managers.manager import (
    Array,
    BaseManager,
    Manager,
    Namespace,
    SharedMemoryManager,
    SyncManager,
    Value,
)
from multihost.managers.proxies import (
    AcquirerProxy,
    ArrayProxy,
    AutoProxy,
    BarrierProxy,
    BaseProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    MakeProxyType,
    NamespaceProxy,
    PoolProxy,
    ValueProxy,
)

__all__ = [
    "AcquirerProxy",
    "Array",
    "ArrayProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseManager",
    "BaseProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "MakeProxyType",
    "Manager",
    "Namespace",
    "NamespaceProxy",
    "PoolProxy",
    "RemoteError",
    "Server",
    "SharedMemoryManager",
    "State",
    "SyncManager",
    "Token",
    "Value",
    "ValueProxy",
    "all_methods",
    "convert_to_error",
    "dispatch",
    "listener_client",
    "public_methods",
]
