"""Distribute prompts over hosts: several in flight on each, with retries.

| fault (see hosts.py) | policy |
| --- | --- |
| of a prompt | the prompt is asked again, TRIES times in all |
| of a host | the host rests, each time longer; other hosts take its prompts |
| of every host for `patience` seconds | InputError; the journal keeps what was answered |
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tqdm import tqdm

from stages.errors import InputError
from stages.judge.hosts import Host, HostFault, PromptFault

TRIES = 6
LONGEST_REST = 60.0  # seconds

P = TypeVar("P")


async def dispatch(
    prompts: list[P],
    hosts: list[Host],
    ask: Callable[[Host, P], Awaitable[None]],
    *,
    concurrency: int,
    patience: float,
    first_rest: float,
) -> None:
    """Call `ask` for each prompt, `concurrency` at a time on every host, whichever is free.

    patience, first_rest: seconds; the rest doubles with each repetition, with jitter. Any other exception of `ask`
    cancels all requests in flight. Raises InputError as the table above says, and what `ask` raises.
    """
    queue: asyncio.Queue[tuple[P, int]] = asyncio.Queue()
    for prompt in prompts:
        queue.put_nowait((prompt, 1))
    last_answer = time.monotonic()

    def put_back(prompt: P, attempt: int) -> None:
        queue.put_nowait((prompt, attempt))
        queue.task_done()  # before the rest: nobody waits for a resting host once all prompts are answered

    async def rest(times: int) -> None:
        await asyncio.sleep(min(first_rest * 2 ** min(times - 1, 20), LONGEST_REST) * random.uniform(0.5, 1.5))

    async def work(host: Host) -> None:
        nonlocal last_answer
        refusals = 0  # in a row
        while True:
            prompt, attempt = await queue.get()
            try:
                await ask(host, prompt)
            except PromptFault as fault:
                if attempt == TRIES:
                    raise InputError(
                        f"{host.url} failed one prompt {TRIES} times ({fault}): mend it and run the same command again"
                    ) from fault
                put_back(prompt, attempt + 1)
                await rest(attempt)
            except HostFault as fault:
                if time.monotonic() - last_answer > patience:
                    raise InputError(
                        f"no host has answered for {patience:.0f} s, {host.url} {fault}: mend it and run the same "
                        "command again; every answer so far is kept"
                    ) from fault
                put_back(prompt, attempt)
                if host.available:
                    tqdm.write(f"{host.url} {fault}: waiting for it")
                host.available = False
                refusals += 1
                await rest(refusals)
            else:
                host.available, refusals = True, 0
                last_answer = time.monotonic()
                queue.task_done()

    try:
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work(host)) for host in hosts * concurrency]
            await queue.join()
            for worker in workers:
                worker.cancel()
    except* InputError as errors:
        raise errors.exceptions[0] from None
