"""Prompts to hosts: several in flight on each, faults of a prompt and faults of a host told apart.

| fault | policy |
| --- | --- |
| 429, 500, 502, 504, an answer cut off or not JSON, a request that hangs | the prompt is asked again, TRIES times |
| no connection, 503 (queue full) | the host rests, ever longer; its prompts go to the others |
| no host has answered anything for `patience` seconds | the stage fails, keeping the journal |
| any other status (400, 404…) | the stage fails at once |
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import httpx
import ollama
from tqdm import tqdm

from stages.errors import InputError

TRIES = 6
LONGEST_REST = 60.0  # seconds

BUSY = 503
PASSING = {429, 500, 502, 504, -1}  # -1: an error inside a 200 answer
UNREACHABLE = (ConnectionError, httpx.ConnectTimeout, httpx.PoolTimeout)
# what is read of an answer that is cut off, empty or not the protocol's: ValueError covers JSON's and pydantic's errors
GARBLED = (httpx.TransportError, TimeoutError, ValueError, TypeError)

T = TypeVar("T")
P = TypeVar("P")


class PromptFault(Exception):
    """This prompt did not get through; it may the next time."""


class HostFault(Exception):
    """This host takes no prompts at the moment."""


@dataclass
class Host:
    """A server, and how many times in a row it refused."""

    url: str
    client: ollama.AsyncClient
    refusals: int = 0

    async def call(self, request: Awaitable[T], timeout: float) -> T:
        """The answer to a request. Raises PromptFault, HostFault, or InputError for what no repetition mends."""
        try:
            async with asyncio.timeout(timeout):
                answer = await request
        except UNREACHABLE as error:
            if _lost(error):
                raise PromptFault(f"the connection was lost ({error})") from error
            raise HostFault(f"does not answer ({error!r})") from error
        except ollama.ResponseError as error:
            if error.status_code == BUSY:
                raise HostFault("is busy (503)") from error
            if error.status_code in PASSING:
                raise PromptFault(f"{error.status_code} {error.error:.200}") from error
            raise InputError(f"{self.url} refused a prompt ({error.status_code}): {error.error:.300}") from error
        except GARBLED as error:
            raise PromptFault(" ".join(f"{error!r}".split())[:200]) from error
        self.refusals = 0
        return answer


def _lost(error: Exception) -> bool:
    """Whether the connection was made and then lost: httpx-aiohttp calls that a ConnectTimeout as well."""
    cause = error.__cause__
    lost = isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    return lost and not isinstance(cause, aiohttp.ClientConnectorError)


async def dispatch(
    prompts: list[P],
    hosts: list[Host],
    ask: Callable[[Host, P], Awaitable[None]],
    concurrency: int,
    patience: float,
    first_rest: float,
) -> None:
    """`ask` each prompt once, `concurrency` at a time on every host, whichever is free.

    first_rest: seconds before the first repetition; each further one waits twice as long, with jitter. Raises
    InputError as the table above says.
    """
    queue: asyncio.Queue[tuple[P, int]] = asyncio.Queue()
    for prompt in prompts:
        queue.put_nowait((prompt, 1))
    last_answer = time.monotonic()

    async def rest(times: int) -> None:
        await asyncio.sleep(min(first_rest * 2 ** min(times - 1, 20), LONGEST_REST) * random.uniform(0.5, 1.5))

    async def work(host: Host) -> None:
        nonlocal last_answer
        while True:
            prompt, attempt = await queue.get()
            try:
                await ask(host, prompt)
                last_answer = time.monotonic()
            except PromptFault as fault:
                if attempt == TRIES:
                    raise InputError(
                        f"{host.url} failed one prompt {TRIES} times ({fault}): mend it and run the same command again"
                    ) from fault
                queue.put_nowait((prompt, attempt + 1))
                await rest(attempt)
            except HostFault as fault:
                queue.put_nowait((prompt, attempt))
                if time.monotonic() - last_answer > patience:
                    raise InputError(
                        f"no host has answered for {patience:.0f} s, {host.url} {fault}: mend it and run the same "
                        "command again; every answer so far is kept"
                    ) from fault
                host.refusals += 1
                if host.refusals == 1:
                    tqdm.write(f"{host.url} {fault}: waiting for it")
                await rest(host.refusals)
            finally:
                queue.task_done()

    try:
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work(host)) for host in hosts * concurrency]
            await queue.join()
            for worker in workers:
                worker.cancel()
    except* InputError as errors:
        raise errors.exceptions[0] from None
