"""Any OpenAI-compatible chat endpoint (vLLM, llama.cpp, Ollama, SGLang ...) as a backend."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ipaddress
import json
import os
import queue
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from esi_fast.cqa.requests import Answer, Request, spoken

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "ESI_FAST_API_KEY"
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# No later request can fare better: the address, the key or the model is wrong.
_FATAL = frozenset({301, 302, 303, 307, 308, 401, 403, 404})
_MAX_BYTES = 1 << 20  # of one answer
_MAX_TOKENS = 400  # of one answer
_LONGEST_WAIT = 60.0  # s, between two attempts


class EndpointError(ValueError):
    """The endpoint cannot be used at all; the message says why and what to do."""


class ChatBackend:
    """Describes by chat completions, several at a time, every answer with its own request.

    Args:
        base_url: up to and including ``/v1``. Loopback only, unless ``allow_remote``.
        model: as the endpoint names it.
        concurrency: requests at a time.
        timeout: seconds for one attempt.
        retries: further attempts after a passing failure (429, 5xx, a lost connection, a timeout,
            an answer that is no chat completion), with growing random pauses, or as long as the
            endpoint asks for by ``Retry-After``.
        max_answer_tokens: of one answer; reasoning models think first. What is cut off there is no
            answer.
        allow_remote: let prompts leave this machine.
        first_pause: seconds before the first further attempt, at most.

    The key, if one is needed, is read from the environment (``ESI_FAST_API_KEY``) and never
    written anywhere. Proxies are not used for loopback; redirects are not followed.

    Raises:
        ValueError: an argument is out of range, the URL is not loopback, or it carries a password.
    """

    name = "openai"

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        max_answer_tokens: int = _MAX_TOKENS,
        allow_remote: bool = False,
        first_pause: float = 0.5,
    ) -> None:
        if not model.strip():
            raise ValueError("model is empty; name one that the endpoint serves")
        if concurrency < 1 or retries < 0 or not 0 < timeout < float("inf"):
            raise ValueError(
                f"concurrency {concurrency}, timeout {timeout} and retries {retries}: give at "
                "least 1, more than 0 and at least 0"
            )
        if max_answer_tokens < 1:
            raise ValueError(f"max_answer_tokens is {max_answer_tokens}; give 1 or more")
        self._url = base_url.rstrip("/")
        self._is_local = check_url(self._url, allow_remote=allow_remote)
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(f"{KEY_VARIABLE} holds characters that no key has; set it anew")
        if self._key and not self._is_local and urlsplit(self._url).scheme != "https":
            raise ValueError(f"{self._url}: {KEY_VARIABLE} is set, and is sent over https only")
        self.model = model
        self._concurrency, self._timeout, self._retries = concurrency, timeout, retries
        self._first_pause, self._max_answer_tokens = first_pause, max_answer_tokens
        self._has_answered = False

    def parameters(self) -> dict[str, object]:
        """Sampling: greedy, so that a request has one answer.

        A whole answer does not depend on how long it might have been: what was remembered under
        another limit is remembered under this one.
        """
        return {"temperature": 0, "seed": 0, "max_tokens": _MAX_TOKENS}

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent for a request."""
        sampling = self.parameters() | {"max_tokens": self._max_answer_tokens}
        return {"model": self.model, "messages": request.messages(), **sampling}

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """The answer to each request as it comes, with the request's index.

        The requests run in a thread of their own, so that this works where an event loop runs
        already (a notebook); closing the iterator cancels what is under way.

        Raises:
            EndpointError: the endpoint cannot be reached, or refuses key, model or address.
            ModuleNotFoundError: httpx is not installed.
        """
        import httpx

        done: queue.SimpleQueue[tuple[int, Answer] | BaseException] = queue.SimpleQueue()
        loop = _Loop()
        task = loop.create_task(self._ask_all(httpx, requests, done.put))

        def run() -> None:
            try:
                loop.run_until_complete(task)
            except (Exception, asyncio.CancelledError) as error:
                done.put(error)
            finally:
                loop.run_until_complete(loop.end_connections())
                loop.close()

        thread = threading.Thread(target=run, name="chat", daemon=True)
        thread.start()
        try:
            for _ in requests:
                came = done.get()
                if isinstance(came, BaseException):
                    raise came
                yield came
        finally:
            if thread.is_alive():
                with contextlib.suppress(RuntimeError):  # it has just ended
                    loop.call_soon_threadsafe(task.cancel)
            thread.join()

    async def _ask_all(
        self,
        httpx: ModuleType,
        requests: Sequence[Request],
        done: Callable[[tuple[int, Answer]], object],
    ) -> None:
        waiting = iter(enumerate(requests))  # shared: each worker takes the next
        limits = httpx.Limits(max_connections=self._concurrency)
        # A proxy would carry what is meant for this machine away from it.
        async with httpx.AsyncClient(
            timeout=None, limits=limits, trust_env=not self._is_local
        ) as web:

            async def work() -> None:
                for index, request in waiting:
                    done((index, await self._ask(web, request)))

            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(self._concurrency, len(requests))):
                        workers.create_task(work())
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None

    async def _ask(self, web: httpx.AsyncClient, request: Request) -> Answer:
        body = json.dumps(self.body(request)).encode()
        for attempt in range(self._retries + 1):
            outcome = await self._attempt(web, body)
            self._has_answered |= not outcome.is_unreachable
            if outcome.text is not None:
                return Answer(outcome.text)
            if outcome.is_unreachable and (not self._has_answered or attempt == self._retries):
                raise EndpointError(f"{self._url}: {outcome.problem}; is the server running there?")
            if not outcome.is_passing or attempt == self._retries:
                break
            longest = min(self._first_pause * 2**attempt, _LONGEST_WAIT)
            pause = max(random.uniform(longest / 2, longest), outcome.wait)
            await asyncio.sleep(min(pause, _LONGEST_WAIT))
        return Answer("", outcome.problem)

    async def _attempt(self, web: httpx.AsyncClient, body: bytes) -> _Outcome:
        import httpx

        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        address = f"{self._url}/chat/completions"
        content = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout),
                web.stream("POST", address, content=body, headers=headers) as response,
            ):
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        return _Outcome(problem="answer of more than 1 MiB")
        except TimeoutError:
            return _Outcome(problem=f"timeout after {self._timeout:g} s")
        except httpx.ConnectError as error:
            return _Outcome(problem=f"no connection ({error})", is_unreachable=True)
        except httpx.HTTPError as error:
            return _Outcome(problem=f"lost connection ({type(error).__name__})")
        status = response.status_code
        if status in _FATAL:
            raise EndpointError(f"{self._url} answers HTTP {status}: {_reason(status, self.model)}")
        if status != 200:
            wait = _retry_after(response.headers.get("Retry-After", ""))
            return _Outcome(problem=f"HTTP {status}", is_passing=status in _PASSING, wait=wait)
        text, is_cut = text_of_completion(bytes(content))
        if is_cut:  # the same request is cut again
            most = self._max_answer_tokens
            problem = f"cut off within {most} tokens; raise --max-answer-tokens"
            return _Outcome(problem=problem, is_passing=False)
        return _Outcome(text=text, problem="" if text else "no chat completion")


class _Loop(asyncio.SelectorEventLoop):
    """A loop that knows its connections: who is cancelled while one is made may lose it open."""

    def __init__(self) -> None:
        super().__init__()
        self._made = weakref.WeakSet[asyncio.Transport]()

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        """As asyncio does."""
        made = await super().create_connection(*args, **options)
        self._made.add(made[0])
        return made

    async def end_connections(self) -> None:
        """Lets go of every connection that is still there."""
        await self.shutdown_asyncgens()
        for connection in list(self._made):
            connection.abort()
        for _ in range(3):  # what is closed is let go of in the loop's next rounds
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of one attempt: the text, or the problem and whether (and when) another may fare better."""

    text: str | None = None
    problem: str = ""
    is_passing: bool = True
    is_unreachable: bool = False
    wait: float = 0.0


def _reason(status: int, model: str) -> str:
    if status in (401, 403):
        return f"set {KEY_VARIABLE} to a key that it accepts"
    if status == 404:
        return f"no chat endpoint there, or no model {model!r}; --base-url ends in /v1"
    return "redirects are not followed; give the final address"


def _retry_after(header: str) -> float:
    """Seconds that ``Retry-After`` asks for, as a number or a date; 0 where it asks for none."""
    if re.fullmatch(r"\d{1,9}(?:\.\d+)?", header.strip()):
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def text_of_completion(content: bytes | str) -> tuple[str | None, bool]:
    """What the message of a chat completion says, and whether it was cut off for its length.

    None where it is no completion, says nothing, or was cut off.
    """
    try:
        choice = json.loads(content)["choices"][0]
        text, is_cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None, False
    return (spoken(text) or None if isinstance(text, str) and not is_cut else None), is_cut


def check_url(url: str, *, allow_remote: bool) -> bool:
    """Whether a URL is on this machine.

    Raises:
        ValueError: it is no plain http(s) URL, carries a password, or is remote without leave.
    """
    # What readers of URLs take in different ways is not taken at all.
    if not url.isascii() or re.search(r"[^!-~]|[\\^`{|}\"<>]", url):
        raise ValueError("the base URL holds a character that no address has")
    if "@" in url or "?" in url or "#" in url:  # not shown: it may be a password
        raise ValueError(
            f"the base URL carries a user, a password or a query; use {KEY_VARIABLE} instead"
        )
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"base URL {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"base URL {url!r} is no http:// or https:// address")
    is_local = host in ("localhost", "::1") or _is_loopback_v4(host)
    if not is_local and not allow_remote:
        raise ValueError(
            f"base URL {url!r} is not on this machine: statements and passages would be sent to "
            f"{host}; --allow-remote permits it"
        )
    return is_local


def _is_loopback_v4(host: str) -> bool:
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False
