"""Answers of a language model on disk: each is appended as it arrives, so that an interruption loses none."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What the model said to one prompt."""

    key: str  # hash of model, options and prompt
    text: str
    tokens_in: int
    tokens_out: int
    seconds: float  # from sending the prompt to having the whole answer
    eval_seconds: float  # of these, spent writing the answer, by the server's own clock
    done: bool = True  # False: the server gave up on the answer, for example when one token repeats
    too_long: bool = False  # the prompt did not fit into the context, `text` is empty


class Journal:
    """A file with one JSON line an answer. Two processes may append to it: each line is one write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Answer]:
        """All answers by key. Lines that an interruption cut short are counted on stdout and left out."""
        answers, broken = {}, 0
        for line in self.path.read_bytes().split(b"\n") if self.path.is_file() else []:
            if not line:
                continue
            try:
                answer = Answer(**json.loads(line))
            except (ValueError, TypeError):
                broken += 1
                continue
            answers[answer.key] = answer
        if broken:
            print(f"{self.path}: {broken} answers were cut short by an interruption and are asked again")
        return answers

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("ab")
        if self.file.tell():  # ends a line that was cut short, so that the next answer starts its own
            self.file.write(b"\n")
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def append(self, answer: Answer) -> None:
        """Write one answer to disk at once."""
        self.file.write(json.dumps(asdict(answer), ensure_ascii=False).encode() + b"\n")
        self.file.flush()
