"""What asking.py needs of a server of language models: one class for each HTTP protocol implements ChatServer."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from stages.judge.hosts import Host


@dataclass(frozen=True)
class Model:
    """What the servers say of the model."""

    name: str  # as the server knows it
    digest: str  # equal digests give equal answers; the journal is named for it
    context: int | None  # tokens that it can read; None = unknown
    can_think: bool  # whether it may be told to think before it answers, and not to
    server: str  # name and version, for the log


@dataclass(frozen=True)
class Request:
    """One prompt as it is sent."""

    model: str
    text: str
    schema: dict[str, Any] | None  # JSON schema of the answer; None = free text
    num_ctx: int  # tokens of prompt and answer
    num_predict: int  # tokens of the answer
    think: bool


@dataclass(frozen=True)
class Reply:
    """One answer as it came back."""

    text: str
    tokens_in: int
    tokens_out: int
    eval_seconds: float  # spent writing the answer; 0 = unknown
    done: bool  # False: the server gave up


class ChatServer(Protocol):
    """One or several servers with the same model, and the settings of a run."""

    section: ClassVar[str]  # of params.yaml, for messages
    sizes_context: ClassVar[bool]  # whether requests set the size of the context

    @property
    def model(self) -> str: ...
    @property
    def concurrency(self) -> int: ...  # prompts in flight on each host
    @property
    def timeout(self) -> float: ...  # seconds
    @property
    def num_ctx(self) -> int: ...  # tokens of prompt and answer at most
    @property
    def seed(self) -> int: ...
    @property
    def language(self) -> str: ...
    @property
    def answer_format(self) -> str: ...
    @property
    def think(self) -> str: ...  # auto, never, always
    @property
    def retry_seconds(self) -> float: ...  # the first rest after a fault

    def connect(self) -> AbstractAsyncContextManager[list[Host]]:
        """A client for each server, closed after the block."""
        ...

    async def inspect(self, hosts: list[Host]) -> Model:
        """Check servers and model. Raises InputError that says what to start, to install or to set."""
        ...

    async def loaded_context(self, host: Host, model: Model) -> int | None:
        """Tokens of context with which the host holds the model in memory; None if it does not or cannot say."""
        ...

    async def send(self, host: Host, request: Request) -> Reply:
        """Ask one prompt. Raises what Host.post raises."""
        ...
