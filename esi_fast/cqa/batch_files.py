"""Requests as a file in OpenAI's batch format, and its results: for ``vllm run-batch`` and others.

A file of requests is written instead of asking; its results go into the answer file, from which
the next run takes them as if it had asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from esi_fast.cqa.answers import AnswerFile
from esi_fast.cqa.chat import ChatBackend, text_of_completion
from esi_fast.cqa.requests import Answer, Request
from esi_fast.cqa.whole_file import whole_file

NOT_ASKED = "not in the answer file"
_NO_STATUS = "failed without a status"  # what else may stand there is not repeated


class BatchBackend:
    """Asks nobody: collects what would be asked of a chat endpoint.

    Attributes:
        collected: requests that had no answer yet.
    """

    name = ChatBackend.name

    def __init__(self, chat: ChatBackend) -> None:
        self._chat = chat
        self.model = chat.model
        self.collected: list[Request] = []

    def parameters(self) -> dict[str, object]:
        """The chat backend's, so that both have the same keys."""
        return self._chat.parameters()

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """No answer to any."""
        self.collected += requests
        for index in range(len(requests)):
            yield index, Answer("", NOT_ASKED)

    def export(self, path: Path) -> None:
        """Writes the collected requests, one JSON line each; the file appears whole."""
        with whole_file(path) as file:
            for key, request in {one.key(self): one for one in self.collected}.items():
                line = {
                    "custom_id": key,
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": self._chat.body(request),
                }
                file.write(json.dumps(line) + "\n")


def import_results(path: Path, answers: AnswerFile, wanted: Collection[str]) -> Counter[str]:
    """Takes the results of a batch into the answer file, each by its own id, in any order.

    Args:
        path: JSON lines with ``custom_id`` and ``response``.
        answers: where they go.
        wanted: keys of the requests that have no answer yet.

    Returns:
        Lines by what became of them: imported, already known, or why they are of no use.

    Raises:
        ValueError: a line is no result of a batch (those before it are kept), or no line is of use.
    """
    became: Counter[str] = Counter(imported=0)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                key, response = row["custom_id"], row.get("response") or {}
                body, status = response.get("body"), response.get("status_code", 200)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                key = None
            if not isinstance(key, str):
                raise ValueError(f"{path}, line {number}: no result of a batch; delete that line")
            text, is_cut = text_of_completion(json.dumps(body))
            if answers.get(key) is not None:
                became["already known"] += 1
            elif key not in wanted:
                became["of requests that this run does not make"] += 1
            elif row.get("error"):
                became["failed with an error"] += 1
            elif status != 200:
                became[f"failed with status {status}" if type(status) is int else _NO_STATUS] += 1
            elif is_cut:
                became["cut off for their length; export anew with more --max-answer-tokens"] += 1
            elif text is None:
                became["without a text"] += 1
            else:
                answers.add(key, text)
                became["imported"] += 1
    if not became["imported"] + became["already known"]:
        why = ", ".join(f"{count} {what}" for what, count in became.items() if count)
        lines = f"{became.total()} lines{': ' if why else ''}{why}"
        raise ValueError(f"{path} holds no usable answer: {lines}")
    return became
