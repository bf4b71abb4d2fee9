"""One HTTP server that answers prompts, and what each of its failures means.

| failure | exception | meaning |
| --- | --- | --- |
| 408, 5xx, a reply cut off or not JSON, a request that hangs | PromptFault | ask this prompt again |
| 400 that names the context | PromptTooLong | ask a shorter prompt |
| no connection, 429 (too many requests), 503 and 529 (queue full) | HostFault | leave this host alone for a while |
| any other status (400, 401, 404…) | InputError | stop |
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel

from stages.errors import InputError

CONNECT_SECONDS = 5.0
BUSY = {429, 503, 529}  # too many requests, queue full
REQUEST_TIMEOUT = 408
UNREACHABLE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# what reading a reply raises that is cut off, empty or not the protocol's; pydantic's and JSON's errors are ValueErrors
GARBLED = (httpx.TransportError, ValueError)

R = TypeVar("R", bound=BaseModel)


class PromptFault(Exception):
    """This prompt did not get through; it may the next time."""


class PromptTooLong(Exception):
    """The prompt and its answer do not fit into the model's context."""


class HostFault(Exception):
    """This host takes no prompts at the moment."""


@dataclass
class Host:
    """A server, and whether it took the last prompt."""

    url: str
    client: httpx.AsyncClient
    available: bool = True

    async def get(self, path: str, reply: type[R]) -> R:
        """A reply to GET, without retries. Raises httpx.HTTPError or ValueError."""
        response = await self.client.get(path, timeout=10)
        return reply.model_validate_json(response.raise_for_status().content)

    async def post(self, path: str, body: dict[str, Any], timeout: float, reply: type[R]) -> R:
        """The reply to one prompt within `timeout` seconds. Raises what the table above says."""
        try:
            async with asyncio.timeout(timeout):
                response = await self.client.post(path, json=body)
            if response.is_error:
                raise self._failure(response)
            return reply.model_validate_json(response.content)
        except UNREACHABLE as error:
            if _was_connected(error):
                raise PromptFault(f"the connection was lost ({error})") from error
            raise HostFault(f"does not answer ({error!r})") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise PromptFault(f"no whole answer within {timeout:g} s, the timeout in params.yaml") from error
        except GARBLED as error:
            raise PromptFault(" ".join(f"{error!r}".split())[:200]) from error

    def _failure(self, response: httpx.Response) -> Exception:
        message = error_message(response)
        if response.status_code in BUSY:
            return HostFault(f"is busy ({response.status_code}: {message:.200})")
        if response.is_server_error or response.status_code == REQUEST_TIMEOUT:
            return PromptFault(f"{response.status_code} {message:.200}")
        if response.status_code == 400 and "context" in message:
            return PromptTooLong(message)
        return InputError(f"{self.url} refused a prompt ({response.status_code}): {message:.300}")


def error_message(response: httpx.Response) -> str:
    """The words of an error reply: `{"error": "…"}` of Ollama, `{"error": {"message": "…"}}` of OpenAI, or its text."""
    try:
        error = json.loads(response.content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return " ".join(response.text.split())


def _was_connected(error: Exception) -> bool:
    """Whether the connection was made and then lost: httpx-aiohttp calls that a ConnectTimeout as well."""
    cause = error.__cause__
    lost = isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    return lost and not isinstance(cause, aiohttp.ClientConnectorError)


@asynccontextmanager
async def connect(
    urls: tuple[str, ...], *, concurrency: int, timeout: float, headers: dict[str, str], environment_proxy: bool
) -> AsyncIterator[list[Host]]:
    """Clients for `concurrency` requests at a time to each of the servers, closed after the block."""
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    hosts = [
        Host(
            url,
            httpx.AsyncClient(
                base_url=url,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
                # aiohttp takes half the time a request of httpx's own transport
                transport=AiohttpTransport(limits=limits, trust_env=environment_proxy),
                trust_env=environment_proxy,
            ),
        )
        for url in urls
    ]
    try:
        yield hosts
    finally:
        for host in hosts:
            await host.client.aclose()
